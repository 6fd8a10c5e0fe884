"""One unit of lr and l2 in every engine, mode, loss and batch; weights that a loss cannot move stay where they are."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrec import optim
from fastrec.engines.fused.engine import FusedEngine
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.engines.minibatch.steps import AutogradStep, Options
from fastrec.engines.units import SETTLED, STABLE, Units, largest_lr
from fastrec.errors import ConfigError
from fastrec.models import losses
from fastrec.sampling.order import Cursor
from tests.helpers.training import make_model, make_stream

PLACES = ["torch", "autograd", "deterministic", "lock_free"]


def make(place: str, *, n_negatives: int = 4, lr: float = 1e-3, model: Any = None, **options: Any) -> Any:
    stream, net = make_stream(n_negatives), model if model is not None else make_model("mf", 20)
    options = {"optimizer": "sgd", "batch_size": 16, "lr": lambda _: lr, **options}
    if place in ("deterministic", "lock_free"):
        return FusedEngine(net, stream, mode=place, threads=1, **options)
    engine = TorchEngine(net, stream, **options)
    if place == "autograd" and options.get("loss") != "inbatch-softmax":
        own = Units(losses.get(options.get("loss", "bce")), options["optimizer"], 1 + n_negatives)
        step = Options(options.get("loss", "bce"), options["optimizer"], own.l2(options.get("l2", 0.0)))
        engine._step = AutogradStep(net, step, lr)
    return engine


def epoch(engine: Any) -> dict[str, np.ndarray]:
    """Weights after one epoch."""
    engine.advance(Cursor(0, 0), 10**9)
    engine.close()
    return {k: v.detach().numpy().copy() for k, v in engine.model.state_dict().items()}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("loss", ["bce", "bpr", "inbatch-softmax"])
def test_an_epoch_shrinks_a_user_by_its_degree_whatever_else(place: str, loss: str) -> None:
    """(1 - lr * l2) ** degree for any N, loss, batch, engine and mode."""
    if loss == "inbatch-softmax" and place != "torch":
        pytest.skip("softmax trains by autograd only, and there by the engine's own choice")
    lr, l2 = 1e-4, 10.0  # at a larger lr the loss moves a user by as much
    for n_negatives, batch_size in ((1, 16), (4, 16), (16, 16), (4, 7), (4, 1000)):
        net = make_model("mf", 20)
        net.user_factors.data.fill_(0.01)
        net.item_factors.data.zero_()  # so that the loss hardly moves a user
        engine = make(place, n_negatives=n_negatives, lr=lr, model=net, loss=loss, l2=l2, batch_size=batch_size)
        degrees = np.diff(engine.stream.indptr)
        found = 1.0 - epoch(engine)["user_factors"].mean(1) / 0.01
        expected = 1.0 - (1.0 - lr * l2) ** degrees
        np.testing.assert_allclose(found, expected, rtol=0.03, atol=1e-6, err_msg=f"{n_negatives}, {batch_size}")


@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_an_epoch_of_sgd_is_the_same_in_every_engine_mode_and_batch(loss: str) -> None:
    """With an lr at which weights hardly change within a batch, only its unit can tell them apart."""
    start = make_model("mf", 20)
    before = {k: v.detach().numpy() for k, v in start.named_parameters()}
    moves = {}
    for place in PLACES:
        for batch_size in (4, 64):
            after = epoch(make(place, lr=1e-4, loss=loss, batch_size=batch_size))
            moves[place, batch_size] = {k: after[k] - before[k] for k in ("item_factors", "item_bias", "user_factors")}
    reference = moves["lock_free", 4]
    for at, found in moves.items():
        for name, value in reference.items():
            assert np.linalg.norm(found[name] - value) <= 0.05 * np.linalg.norm(value), (at, name)


@pytest.mark.parametrize("optimizer", optim.names())
@pytest.mark.parametrize("loss", ["bpr", "inbatch-softmax"])
def test_losses_of_differences_leave_user_and_global_biases_at_zero(loss: str, optimizer: str) -> None:
    for place in ["torch"] if loss == "inbatch-softmax" else ["torch", "autograd"]:
        after = epoch(make(place, loss=loss, optimizer=optimizer, lr=0.01))
        assert not after["user_bias"].any()
        assert not after["bias"].any()
        assert after["item_bias"].all(), "the others move"
    for place in ("deterministic", "lock_free"):
        if loss == "bpr" and optimizer in ("sgd", "row-adagrad"):
            after = epoch(make(place, loss=loss, optimizer=optimizer, lr=0.01))
            assert not after["user_bias"].any()
            assert not after["bias"].any()


@pytest.mark.parametrize("model", ["mlp", "neumf", "gmf"])
def test_bpr_leaves_the_global_bias_of_every_model_at_zero(model: str) -> None:
    assert not epoch(make("torch", model=make_model(model), loss="bpr", optimizer="adam", lr=0.01))["bias"].any()


def test_shared_weights_of_a_large_sum_settle_instead_of_overshooting() -> None:
    """The global bias moves by at most SETTLED times the mean gradient, at an lr whose sum would throw it far out."""
    for place in ("torch", "autograd", "deterministic"):
        engine = make(place, lr=0.5, batch_size=10**4)
        engine.advance(Cursor(0, 0), 1)
        bias = float(engine.model.bias.detach())
        assert bias == pytest.approx(-0.3 * SETTLED, abs=0.01), place  # mean of sigmoid - label over 1 + 4 samples
        engine.close()


def test_adamw_decays_by_weight_decay_and_refuses_l2() -> None:
    before = {k: v.detach().clone() for k, v in make_model("mf", 20).named_parameters()}
    plain = epoch(make("torch", optimizer="adamw", lr=1e-3))
    decayed = epoch(make("torch", optimizer="adamw", lr=1e-3, weight_decay=0.5))
    assert np.linalg.norm(decayed["user_factors"]) < np.linalg.norm(plain["user_factors"])
    assert before.keys() == decayed.keys()
    with pytest.raises(ConfigError, match=r"l2 = 0\.1.*adamw has no L2 term; use weight_decay"):
        make("torch", optimizer="adamw", l2=0.1)
    with pytest.raises(ConfigError, match=r"weight_decay = 0\.1: adam has none; use l2"):
        make("torch", optimizer="adam", weight_decay=0.1)


@pytest.mark.parametrize("loss", ["bce", "bpr", "inbatch-softmax"])
def test_the_largest_lr_falls_with_the_batch(loss: str) -> None:
    stream, form = make_stream(), losses.get(loss)
    found = [largest_lr(stream, rows, form) for rows in (16, 64, 10**9)]
    assert found == sorted(found, reverse=True)
    whole = np.diff(stream.indptr).max() * form.terms(1, 5)
    assert found[-1] <= STABLE / whole * 1.0001, "a step of all positives meets all those of the busiest user"
