"""Weights of positives: every engine trains the weighted sum of losses, against float64; L2 does not see them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from fastrec import models, optim
from fastrec.batches.adapters import BatchDataset
from fastrec.batches.stream import Stream
from fastrec.engines.capabilities import Wish, choose
from fastrec.engines.fused.engine import FusedEngine
from fastrec.engines.fused.many_engine import ManyEngine
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.errors import ConfigError, DataError
from fastrec.models import losses
from fastrec.models.parts import loss as parts
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor
from tests.helpers.many_reference import Reference
from tests.helpers.training import N_ITEMS, N_USERS, make_model, positives

LR, L2 = 0.01, 0.3
PLACES = ["torch", "autograd", "deterministic", "lock_free"]


def weights_of(n: int) -> np.ndarray:
    """Zeros, fractions and some above 1."""
    return np.random.default_rng(8).choice(np.float32([0.0, 0.25, 1.0, 3.5]), n)


def stream(weights: Any = "drawn", n_negatives: int = 4) -> Stream:
    indptr, items = positives()
    weights = weights_of(items.size) if isinstance(weights, str) else weights
    sampler = NegativeSampler(indptr, items, n_items=N_ITEMS, n_negatives=n_negatives, seed=1)
    return Stream(indptr, items, sampler, seed=1, weights=weights)


def engine_at(place: str, net: Any, source: Stream, **options: Any) -> Any:
    options = {"optimizer": "sgd", "lr": lambda _: LR, "l2": L2, "batch_size": 16, **options}
    if place in ("deterministic", "lock_free"):
        return FusedEngine(net, source, mode=place, threads=1, **options)
    if place == "autograd":
        options["compile"] = False
        net = SubMF(N_USERS, N_ITEMS, net.dim, seed=2, init_std=0.1)
    return TorchEngine(net, source, **options)


class SubMF(models.model_class("mf")):  # type: ignore[misc]
    """No kernels serve a class that is not registered."""


def terms_of(logits: torch.Tensor, loss: str) -> torch.Tensor:
    """Summed loss of each row, written out."""
    if loss == "bce":
        return F.softplus(-logits[:, 0]) + F.softplus(logits[:, 1:]).sum(1)
    return F.softplus(logits[:, 1:] - logits[:, :1]).sum(1)


def expected(net: Any, source: Stream, loss: str, batch_size: int) -> tuple[dict[str, np.ndarray], float]:
    """Weights after one epoch of SGD on w * loss + L2 in float64, and the mean loss; weights looked up by pair."""
    net = net.double()
    pairs = zip(source.users_of.tolist(), source.items_of.tolist())
    by_pair = dict(zip(pairs, np.float64(source.weights).tolist()))
    total, columns = 0.0, 1 + source.n_negatives
    for start in range(0, source.n_positives, batch_size):
        batch = source.read(0, start, min(start + batch_size, source.n_positives))
        users, items = torch.from_numpy(batch.users).long(), torch.from_numpy(batch.items).long()
        w = torch.tensor([by_pair[u, i] for u, i in zip(users.tolist(), items[:, 0].tolist())], dtype=torch.float64)
        value = (terms_of(net(users, items), loss) * w).sum()
        total += float(value.detach())
        rows = [net.user_factors[users], net.user_bias[users].unsqueeze(1), net.bias.expand(len(users), 1)]
        shrunk = sum(part.square().sum() for part in rows)
        shrunk = shrunk + (net.item_factors[items].square().sum() + net.item_bias[items].square().sum()) / columns
        net.zero_grad()
        (value + L2 / 2 * shrunk).backward()
        with torch.no_grad():
            for name, p in net.named_parameters():
                if loss == "bce" or name not in ("bias", "user_bias"):
                    p -= LR * p.grad
    return {k: v.numpy() for k, v in net.state_dict().items()}, total / (
        source.n_positives * (columns - (loss == "bpr"))
    )


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_an_epoch_is_that_of_the_weighted_sum_in_float64(place: str, loss: str) -> None:
    batch_size = 1 if place == "lock_free" else 16
    source = stream()
    engine = engine_at(place, make_model("mf", 20), source, loss=loss, batch_size=batch_size)
    if place in ("torch", "autograd"):
        assert engine.backend.name == {"torch": "cpu-kernels"}.get(place, place)
    done = engine.advance(Cursor(0, 0), 10**9)
    engine.close()
    found, mean = expected(make_model("mf", 20), source, loss, batch_size)
    near = (2e-3, 1e-4) if place == "lock_free" else (2e-4, 2e-6)  # there an item drawn twice is updated twice
    for name, value in found.items():
        weight = engine.model.state_dict()[name].numpy()
        np.testing.assert_allclose(weight, value, rtol=near[0], atol=near[1], err_msg=name)
    assert done.loss_sum / done.n_samples == pytest.approx(mean, rel=1e-5)


PATHS = [
    ("mlp", "bce", "adam", {}),
    ("neumf", "bpr", "adagrad", {}),
    ("gmf", "inbatch-softmax", "adam", {}),
    ("mf", "softmax", "adam", {}),
    ("mf", "gbce", "adam", {}),
    ("gmf", "bce", "adam", {"accumulate": 3}),
    ("gmf", "bce", "adam", {"negatives": 2}),
    ("gmf", "bce", "sgd", {"place": "deterministic"}),
    ("gmf", "bce", "row-adagrad", {"place": "lock_free"}),
    ("mf", "bpr", "lazy-adam", {"place": "deterministic"}),
    ("mf", "bce", "row-adagrad", {"place": "lock_free"}),
]


@pytest.mark.parametrize(("model", "loss", "optimizer", "options"), PATHS)
def test_weights_of_one_change_nothing_and_others_do(
    model: str, loss: str, optimizer: str, options: dict[str, Any]
) -> None:
    after = {}
    for name in (None, "ones", "drawn"):
        source = stream(np.ones(positives()[1].size, np.float32) if name == "ones" else name)
        chosen = {"loss": loss, "optimizer": optimizer, "l2": 0.01, **options}
        engine = engine_at(chosen.pop("place", "torch"), make_model(model), source, **chosen)
        engine.advance(Cursor(0, 0), 10**9)
        engine.close()
        after[name] = {k: v.numpy().copy() for k, v in engine.model.state_dict().items()}
    for key, value in after[None].items():
        np.testing.assert_allclose(after["ones"][key], value, rtol=1e-4, atol=1e-6, err_msg=key)
    assert any(np.abs(after["drawn"][k] - v).max() > 1e-4 for k, v in after[None].items())


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_deterministic_weights_are_the_same_for_any_threads(threads: int) -> None:
    found = []
    for n in (1, threads):
        engine = FusedEngine(make_model("mf", 20), stream(), batch_size=32, lr=lambda _: LR, threads=n, optimizer="sgd")
        engine.advance(Cursor(0, 0), 10**9)
        found.append(engine.model.user_factors.detach().numpy().tobytes())
    assert found[0] == found[1]


@pytest.mark.parametrize("mode", ["deterministic", "lock_free"])
@pytest.mark.parametrize(
    ("name", "similarity"), [("ccl", "cosine"), ("softmax", "dot"), ("bce", "dot"), ("gbce", "dot")]
)
def test_the_pass_for_many_negatives_weighs_rows(mode: str, name: str, similarity: str) -> None:
    from fastrec.models.cosine_mf import CosineMF

    source = stream(n_negatives=40)
    net = make_model("mf", 20, init_std=0.3) if similarity == "dot" else CosineMF(N_USERS, N_ITEMS, 20, seed=4)
    values = {"temperature": 0.2, "margin": 0.1, "negative_weight": 8.0}
    options = {k: v for k, v in values.items() if k in losses.get(name).options}
    apart = mode == "deterministic"
    terms = losses.get(name).terms(1, 41)
    lr = LR / (16 * terms) if apart else LR  # lr of SGD is of a positive's summed loss
    engine = ManyEngine(
        net, source, batch_size=16, lr=lambda _: lr, loss=name, loss_options=options, mode=mode, optimizer="sgd",
        threads=1, l2=0.01 if similarity == "dot" else 0.0,
    )  # fmt: skip
    reference = Reference(engine)
    batch, weights = source.read(0, 0, 16), source.weights_of(0, 0, 16)
    order = np.lexsort((batch.items[:, 0], batch.users))
    step = reference.step if mode == "deterministic" else reference.sequential
    value = step(batch.users[order], batch.items[order], LR, weights[order])
    done = engine.advance(Cursor(0, 0), 1)
    value = value if mode == "deterministic" else value / (16 * terms)
    assert done.loss_sum / done.n_samples == pytest.approx(value, rel=2e-5)
    for key, expected_value in reference.w.items():
        np.testing.assert_allclose(engine.named[key], expected_value, rtol=1e-4, atol=2e-5, err_msg=key)


def test_a_stream_looks_weights_up_in_the_order_of_visit() -> None:
    source = stream()
    batch = source.read(3, 5, 40)
    by_pair = dict(zip(zip(source.users_of.tolist(), source.items_of.tolist()), source.weights.tolist()))
    assert source.weights_of(3, 5, 40).tolist() == [
        by_pair[u, i] for u, i in zip(batch.users.tolist(), batch.items[:, 0].tolist())
    ]
    assert stream(None).weights_of(0, 0, 3).tolist() == [1.0] * 3
    with pytest.raises(ConfigError, match="the stream has weights, which these batches do not carry"):
        BatchDataset(source, 8)


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        (np.zeros(positives()[1].size, np.float32), "every weight of a training positive is 0"),
        (np.full(positives()[1].size, -1.0), "at least 0"),
        (np.ones(3), "must be"),
        (np.full(positives()[1].size, np.nan), "finite"),
    ],
)
def test_weights_that_train_nothing_are_refused(weights: np.ndarray, says: str) -> None:
    with pytest.raises(DataError, match=says):
        stream(weights)


def test_the_capability_table_says_what_takes_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    for engine, device, optimizer in (("fused", "cuda", "sgd"),):
        with pytest.raises(ConfigError, match=r"^weight_col: engine = fused on cuda.* takes no weights"):
            choose(Wish("mf", optimizer=optimizer, engine=engine, device=device, weighted=True))
    assert choose(Wish("mf", device="cuda", weighted=True)).name == "autograd"
    for optimizer in optim.names():
        assert choose(Wish("mf", optimizer=optimizer, weighted=True)).devices[0] == "cpu"
    plain = dataclasses.replace(losses.get("bce"), name="mean-only", rows=None, row=None)
    monkeypatch.setitem(parts._REGISTRY._values, "mean-only", plain)
    with pytest.raises(ConfigError, match=r"'mean-only': .* takes 'bce' or 'bpr' or 'gbce' or 'inbatch-softmax'"):
        choose(Wish("mf", loss="mean-only", engine="torch", weighted=True))
