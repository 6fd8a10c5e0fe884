"""A fused step is the torch engine's step and the float64 reference's, for every model, loss, optimiser and dim.

Each combination is a kernel to compile, which takes about 5 s: ``make test`` runs every pair of values.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrec.engines.fused.engine import FusedEngine
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.sampling.order import Cursor
from tests.helpers.cases import pairwise
from tests.helpers.fused_reference import Reference
from tests.helpers.training import make_model, make_stream

CASES = [("mf", "bce"), ("mf", "bpr"), ("gmf", "bce")]
H_APART: dict[str, Any] = {"output_l2": 0.03, "output_lr": 0.3}
WITH_H = [(*case, {}) for case in CASES] + [("gmf", "bce", H_APART)]
KERNELS = [0, 1, 2, 2]
"""The last two cases share their kernels."""
DIMS = [1, 20, 64]
OPTIMIZERS = [("sgd", 0.009), ("row-adagrad", 0.05), ("lazy-adam", 0.02)]


def falling(step: int, lr: float) -> float:
    return lr / (1 + 0.1 * step)


def make(mode: str, model: str = "mf", dim: int = 20, lr: float = 0.05, batch_size: int = 16, **options: Any) -> Any:
    stream = make_stream(options.pop("n_negatives", 4))
    return FusedEngine(
        make_model(model, dim), stream, batch_size=batch_size, lr=lambda s: falling(s, lr), mode=mode, **options
    )


def batch_of(engine: Any, cursor: Cursor) -> tuple[np.ndarray, np.ndarray, Cursor]:
    """The batch as the stream gives it, its rows sorted as the fused engine visits them."""
    batch, after = engine.stream.batch(cursor, engine.batch_size)
    order = np.argsort(batch.positions)
    return batch.users[order], batch.items[order], after


def weights(engine: Any) -> dict[str, np.ndarray]:
    return {k: v.numpy().copy() for k, v in engine.state()[0].items()}


@pytest.mark.parametrize(
    ("model", "loss", "apart", "optimizer", "lr", "dim"), pairwise(WITH_H, OPTIMIZERS, DIMS, kinds=KERNELS)
)
def test_deterministic_step_equals_torch_and_float64(
    model: str, loss: str, apart: dict[str, Any], optimizer: str, lr: float, dim: int
) -> None:
    options = {"loss": loss, "optimizer": optimizer, "l2": 0.01, **apart}
    engine = make("deterministic", model, dim, lr, **options)
    torch_engine = TorchEngine(
        make_model(model, dim), make_stream(), batch_size=16, lr=lambda s: falling(s, lr), **options
    )
    reference, cursor = Reference(engine), Cursor(0, 0)
    while cursor.position < engine.n_positives:
        users, items, _ = batch_of(engine, cursor)
        expected = reference.step(users, items, falling(engine.step, lr))
        done = engine.advance(cursor, 1)
        torch_done = torch_engine.advance(cursor, 1)
        assert done[2:] == torch_done[2:]
        assert done.cursor == torch_done.cursor
        assert done.loss_sum == pytest.approx(expected, rel=1e-5)
        assert done.loss_sum == pytest.approx(torch_done.loss_sum, rel=1e-5)
        cursor = done.cursor
    mine, theirs = weights(engine), weights(torch_engine)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        assert value.shape == theirs[name].shape
        if loss == "bpr" and name.split(".")[1] in ("user_bias", "bias"):
            assert not value.any() or name.endswith("step"), name
            assert not theirs[name].any() or name.endswith("step"), name
        np.testing.assert_allclose(value, theirs[name], rtol=2e-4, atol=2e-6, err_msg=name)
    for name, value in reference.w.items():
        np.testing.assert_allclose(engine.weights.named[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    ("model", "loss", "apart", "optimizer", "dim"), pairwise(WITH_H, ["sgd", "row-adagrad"], DIMS, kinds=KERNELS)
)
def test_lock_free_epoch_on_one_thread_equals_float64(
    model: str, loss: str, apart: dict[str, Any], optimizer: str, dim: int
) -> None:
    engine = make("lock_free", model, dim, loss=loss, optimizer=optimizer, l2=0.01, threads=1, **apart)
    reference, cursor = Reference(engine), Cursor(0, 0)
    while cursor.position < engine.n_positives:
        users, items, _ = batch_of(engine, cursor)
        expected = reference.sequential(users, items, falling(engine.step, 0.05))
        done = engine.advance(cursor, 1)
        assert done.loss_sum == pytest.approx(expected, rel=1e-5)
        cursor = done.cursor
    for name, value in reference.w.items():
        np.testing.assert_allclose(engine.weights.named[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("mode", ["deterministic", "lock_free"])
@pytest.mark.parametrize("loss", ["bce", "bpr"])
@pytest.mark.parametrize("n_negatives", [1, 15, 16, 40])
def test_rows_of_any_number_of_negatives(n_negatives: int, loss: str, mode: str) -> None:
    """More than 16 logits take a second vector."""
    engine = make(mode, n_negatives=n_negatives, loss=loss, l2=0.01, lr=0.01, threads=1)
    reference = Reference(engine)
    users, items, _ = batch_of(engine, Cursor(0, 0))
    step = reference.step if mode == "deterministic" else reference.sequential
    expected = step(users, items, 0.01)
    assert engine.advance(Cursor(0, 0), 1).loss_sum == pytest.approx(expected, rel=1e-5)
    for name, value in reference.w.items():
        np.testing.assert_allclose(engine.weights.named[name], value, rtol=1e-5, atol=1e-5, err_msg=name)
