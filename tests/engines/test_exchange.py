"""Several ranks train as one process does, with rows or with tables exchanged; what they cannot train is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastrec.engines.capabilities import Wish, choose
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.engines.minibatch.exchange import by_rows
from fastrec.engines.processes import ONE
from fastrec.errors import ConfigError
from fastrec.models.mf import MF
from fastrec.sampling.order import Cursor
from tests.helpers.training import N_ITEMS, N_USERS, make_model, make_stream, positives
from tests.helpers.world import in_world


class Plain(MF):
    """Without kernels: by autograd."""


LOSS = 1e-5
"""Relative tolerance of the loss: float32 sums of another order."""
WEIGHT = 2e-5
"""Absolute tolerance of weights after an epoch or two, at lr .01."""


def engine_of(model: str, batch_size: int, processes: Any = ONE, **options: Any) -> TorchEngine:
    made = Plain(N_USERS, N_ITEMS, 4, seed=2, init_std=0.1) if model == "plain" else make_model(model)
    options.setdefault("lr", lambda step: 0.01 / (1 + 0.1 * step))
    stream = make_stream(weights=weights() if options.pop("weighted", False) else None)
    return TorchEngine(made, stream, batch_size=batch_size, processes=processes, **options)


def epochs(engine: TorchEngine, n: int) -> list[float]:
    """The loss of every step of so many epochs."""
    losses = []
    for epoch in range(n):
        cursor = Cursor(epoch, 0)
        while cursor.position < engine.n_positives:
            done = engine.advance(cursor, 1)
            cursor = done.cursor
            losses.append(done.loss_sum / done.n_samples)
    return losses


def weights() -> np.ndarray:
    """Of the positives of ``make_stream``: zeros, fractions and some above 1."""
    indptr, _ = positives()
    return np.random.default_rng(8).choice(np.float32([0.0, 0.25, 1.0, 3.5]), int(indptr[-1]))


CASES: list[tuple[str, int, dict[str, Any]]] = [
    ("gmf", 16, {"l2": 0.01, "output_l2": 0.02}),
    ("gmf", 4, {"accumulate": 3, "optimizer": "adagrad"}),
    ("mf", 4, {"loss": "bpr", "optimizer": "sgd", "l2": 0.01, "lr": lambda _: 0.1}),
    ("neumf", 7, {"l2": 0.01, "optimizer": "lazy-adam"}),
    ("plain", 4, {"l2": 0.01, "output_l2": 0.0}),
    ("gmf", 7, {"weighted": True, "optimizer": "sgd", "lr": lambda _: 0.1}),
    ("neumf", 16, {"weighted": True}),
    ("plain", 7, {"weighted": True, "loss": "bpr"}),
    ("plain", 1000, {"optimizer": "row-adagrad", "negatives": 2}),
]


@pytest.mark.parametrize(("model", "batch_size", "options"), CASES)
def test_ranks_lose_what_one_process_loses(model: str, batch_size: int, options: dict[str, Any]) -> None:
    engine = engine_of(model, batch_size, **options)
    expected, single = epochs(engine, 2), engine.state()[0]
    engine.close()

    def work(processes: Any) -> Any:
        engine = engine_of(model, batch_size, processes, **options)
        losses, tensors = epochs(engine, 2), engine.state()[0]
        engine.close()
        return losses, tensors, set(processes.calls), engine.describe()

    for world in (2, 4):
        results = in_world(world, work)
        losses, tensors, calls, about = results[0]
        assert losses == pytest.approx(expected, rel=LOSS)
        assert about["processes"] == world
        assert ("gather" in calls) == (not about["gradients"].startswith("none"))
        for name, value in single.items():
            torch.testing.assert_close(tensors[name].to(value.dtype), value, rtol=1e-3, atol=WEIGHT)
        for other, their, _, _ in results[1:]:
            assert other == losses, "every rank knows the loss of the entire batch"
            assert all(torch.equal(their[k], v) for k, v in tensors.items()), "replicas are equal to the byte"


def test_a_run_goes_on_with_another_number_of_ranks() -> None:
    """2 -> 1 -> 4 ranks, each from the state of the one before, in the middle of an epoch too."""
    engine = engine_of("gmf", 16)
    expected = epochs(engine, 2)
    engine.close()
    losses: list[float] = []
    state: Any = None
    cursor = Cursor(0, 0)
    for world, steps in ((2, 3), (1, 2), (4, 100)):

        def work(processes: Any, state: Any = state, cursor: Cursor = cursor, steps: int = steps) -> Any:
            engine = engine_of("gmf", 16, processes if processes.world > 1 else ONE)
            if state is not None:
                engine.load_state(*state)
            found = []
            while steps and cursor.epoch < 2:
                done = engine.advance(cursor, 1)
                found.append(done.loss_sum / done.n_samples)
                cursor = done.cursor if done.cursor.position < engine.n_positives else Cursor(cursor.epoch + 1, 0)
                steps -= 1
            engine.close()
            return found, ({k: v.clone() for k, v in engine.state()[0].items()}, engine.state()[1]), cursor

        found, state, cursor = in_world(world, work)[0]
        losses += found
    assert cursor == Cursor(2, 0)
    assert losses == pytest.approx(expected, rel=LOSS)


def test_rows_are_sent_only_where_that_is_less() -> None:
    assert by_rows(2, 700 * 5, 3706, 64)
    assert not by_rows(2, 800 * 5, 3706, 64)
    assert by_rows(8, 970_000 * 2, 10_000_000, 64)
    assert not by_rows(4, 600, 1000, 1)
    assert by_rows(2, 30, 100, 1)


@pytest.mark.parametrize(
    ("wish", "match"),
    [
        ({"engine": "fused", "model": "mf", "optimizer": "sgd"}, "processes = 2: engine = fused .*takes 1; use engine"),
        (
            {"model": "mf", "loss": "inbatch-softmax"},
            "loss = 'inbatch-softmax': engine = torch on cpu in 2 processes takes 'bce'",
        ),
    ],
)
def test_what_several_processes_do_not_train_is_refused(wish: dict[str, Any], match: str) -> None:
    with pytest.raises(ConfigError, match=match):
        choose(Wish(processes=2, **wish))


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_auto_takes_an_engine_that_several_processes_train(device: str) -> None:
    wish = Wish(model="mf", optimizer="sgd", device=device)
    assert choose(wish).engine == "fused"
    assert choose(wish._replace(processes=2)).name == {"cpu": "cpu-kernels", "cuda": "autograd"}[device]
