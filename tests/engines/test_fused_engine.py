"""What the fused engine promises as a whole: same bytes for any threads, cuts and restarts; clear refusals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from fastrec import models
from fastrec.batches.stream import Stream
from fastrec.engines.fused import deterministic
from fastrec.engines.fused.engine import MODES, FusedEngine
from fastrec.engines.fused.passes import CHUNK
from fastrec.engines.fused.prepare import Block
from fastrec.engines.fused.weights import OPTIMIZERS
from fastrec.errors import CheckpointError, ConfigError
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor
from tests.helpers.training import N_ITEMS, N_USERS, make_model, make_stream


def small(mode: str = "deterministic", model: str = "mf", batch_size: int = 16, **options: Any) -> FusedEngine:
    options.setdefault("optimizer", "row-adagrad")
    stream = make_stream(options.pop("n_negatives", 4))
    return FusedEngine(
        make_model(model, 20), stream, batch_size=batch_size, lr=lambda s: 0.05 / (1 + 0.1 * s), mode=mode, **options
    )


def crowd(seed: int = 3) -> tuple[Stream, np.ndarray]:
    """3,000 positives; user 0 alone has 900, so that its run spans chunks."""
    rng = np.random.default_rng(seed)
    degrees = np.r_[900, rng.integers(0, 50, 84)]
    rows = [np.sort(rng.choice(1000, n, replace=False)) for n in degrees]
    indptr = np.r_[0, np.cumsum(degrees)].astype(np.int64)
    items = np.concatenate(rows).astype(np.int32)
    sampler = NegativeSampler(indptr, items, n_items=1000, n_negatives=4, seed=1)
    return Stream(indptr, items, sampler, seed=1), items


def engine_of(stream: Stream, model: str = "mf", n_users: int = 85, n_items: int = 1000, **options: Any) -> FusedEngine:
    net = models.build(model, n_users=n_users, n_items=n_items, dim=20, seed=4, init_std=0.1)
    options = {"batch_size": 1100, "lr": lambda _: 0.05, "optimizer": "row-adagrad", "l2": 1e-3, **options}
    return FusedEngine(net, stream, **options)


def train(engine: FusedEngine, epochs: int = 1, steps: int = 1000) -> list[float]:
    """Mean loss of each epoch."""
    means = []
    for epoch in range(epochs):
        cursor, loss, n = Cursor(epoch, 0), 0.0, 0
        while cursor.position < engine.n_positives:
            done = engine.advance(cursor, steps)
            cursor, loss, n = done.cursor, loss + done.loss_sum, n + done.n_samples
        means.append(loss / n)
    return means


def weights(engine: FusedEngine) -> dict[str, bytes]:
    return {k: v.numpy().tobytes() for k, v in engine.state()[0].items()}


@pytest.mark.parametrize("optimizer", ["sgd", "row-adagrad", "lazy-adam"])
@pytest.mark.parametrize("model", ["mf", "gmf"])
def test_any_number_of_threads_gives_the_same_bytes(model: str, optimizer: str) -> None:
    stream, _ = crowd()
    assert 900 * 1100 // stream.n_positives > CHUNK, "user 0 has more rows of a batch than a chunk holds"
    found = []
    for threads in (1, 2, 3, 7):
        engine = engine_of(stream, model, threads=threads, optimizer=optimizer)
        found.append((train(engine, 2), weights(engine)))
    assert all(f == found[0] for f in found[1:])


@pytest.mark.parametrize("present", [[0], [2], [2, 0], [1, 2, 0]])
def test_threads_that_never_come_or_come_late_are_not_waited_for(
    present: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some of a team of three, one after the other: the first does all the work, the others find none."""
    stream, _ = crowd()
    whole = engine_of(stream, threads=1)
    train(whole)
    team = engine_of(stream, threads=3)
    with monkeypatch.context() as m:
        m.setattr(deterministic, "run_ranges", lambda work, *_: [work(me, me + 1) for me in present])
        train(team)
    assert weights(team) == weights(whole)


@pytest.mark.parametrize("model", ["mf", "gmf"])
@pytest.mark.parametrize(
    ("mode", "optimizer"),
    [(mode, name) for mode in MODES for name in OPTIMIZERS if (mode, name) != ("lock_free", "lazy-adam")],
)
def test_cut_at_every_step_and_resumed_gives_the_same_bytes(mode: str, optimizer: str, model: str) -> None:
    options: dict[str, Any] = {"mode": mode, "model": model, "optimizer": optimizer, "threads": 1}
    whole = small(**options)
    train(whole, 2)
    n_steps = whole.step
    per_epoch = n_steps // 2
    for cut in range(1, n_steps):
        first = small(**options)
        cursor = Cursor(0, 0)
        for _ in range(cut):
            cursor = first.advance(cursor, 1).cursor
            if cursor.position == first.n_positives:
                cursor = Cursor(cursor.epoch + 1, 0)
        tensors, meta = first.state()
        second = small(**options)
        second.load_state({k: v.clone() for k, v in tensors.items()}, meta)
        while cursor.epoch < 2:
            cursor = second.advance(cursor, per_epoch).cursor
            if cursor.position == second.n_positives:
                cursor = Cursor(cursor.epoch + 1, 0)
        assert second.step == n_steps
        assert weights(second) == weights(whole), f"cut after step {cut}"


@pytest.mark.parametrize("mode", ["deterministic", "lock_free"])
@pytest.mark.parametrize(("model", "loss"), [("mf", "bce"), ("mf", "bpr"), ("gmf", "bce")])
def test_loss_falls_and_every_parameter_moves(model: str, loss: str, mode: str) -> None:
    engine = small(mode, model, loss=loss, l2=1e-3)
    before = {k: v.copy() for k, v in engine.weights.named.items()}
    losses = train(engine, 12)
    assert losses[-1] < 0.9 * losses[0]
    seen = np.unique(engine.stream.users_of)
    for name, old in before.items():
        moved = (engine.weights.named[name] != old).reshape(len(old), -1).any(1)
        if name == "user_bias" and loss == "bpr":
            assert not moved.any(), "BPR's pairs cancel it"
        elif name.startswith("user"):
            assert np.array_equal(np.flatnonzero(moved), seen)
        elif not (name == "bias" and loss == "bpr"):
            assert moved.all(), name


@pytest.mark.parametrize("n_items", [1000, 10**6])
def test_batches_hold_what_the_stream_holds(n_items: int) -> None:
    """Sorted by counting where items are few, by comparing where they are many."""
    stream, _ = crowd()
    expected = stream.read(3, 500, 1500)
    order = np.argsort(expected.positions)
    block = Block(2, 1200, 4, n_items=n_items)
    block.fill(1, stream, 3, 500, 1500)
    batch = block.batch(1, 1000)
    assert np.array_equal(batch.users, expected.users[order])
    assert np.array_equal(np.column_stack((batch.positives, batch.negatives)), expected.items[order])
    flat = expected.items[order].reshape(-1)
    assert np.array_equal(batch.keys >> 32, np.sort(flat))
    assert np.array_equal(flat[batch.keys & 0xFFFFFFFF], np.sort(flat))
    assert sorted((batch.keys & 0xFFFFFFFF).tolist()) == list(range(5000))
    assert np.array_equal(np.unique(batch.users)[batch.runs], batch.users)


def test_users_who_have_every_item_are_left_out() -> None:
    indptr = np.array([0, 5, 7, 12], np.int64)
    items = np.array([0, 1, 2, 3, 4, 1, 3, 0, 1, 2, 3, 4], np.int32)
    sampler = NegativeSampler(indptr, items, n_items=5, n_negatives=4, on_full="skip")
    stream = Stream(indptr, items, sampler, seed=0)
    for mode in ("deterministic", "lock_free"):
        engine = engine_of(stream, n_users=3, n_items=5, mode=mode)
        old = engine.weights.user_factors.copy()
        done = engine.advance(Cursor(0, 0), 10)
        assert (done.n_positives, done.n_samples, done.n_steps) == (2, 10, 1)
        assert np.flatnonzero((engine.weights.user_factors != old).any(1)).tolist() == [1]


def test_lock_free_on_threads_stays_close_to_one_thread() -> None:
    stream, _ = crowd()
    losses = [train(engine_of(stream, mode="lock_free", threads=t, lr=lambda _: 0.02), 8)[-1] for t in (1, 2, 4)]
    assert losses[1] == pytest.approx(losses[0], rel=0.05)
    assert losses[2] == pytest.approx(losses[0], rel=0.05)


def test_the_global_bias_settles_on_any_number_of_threads() -> None:
    """Every range sees enough samples to settle it alone: summed changes would overshoot by the number of ranges."""
    stream, _ = crowd()
    found = []
    for threads in (1, 2, 4):
        engine = engine_of(stream, mode="lock_free", optimizer="sgd", threads=threads, lr=lambda _: 0.05)
        train(engine, 6)
        found.append(float(engine.weights.bias[0]))
    assert found[1] == pytest.approx(found[0], abs=0.15)
    assert found[2] == pytest.approx(found[0], abs=0.15)


@pytest.mark.parametrize("mode", ["deterministic", "lock_free"])
@pytest.mark.parametrize("loss", ["bce", "bpr"])
def test_a_diverging_run_says_so_in_its_loss(mode: str, loss: str) -> None:
    engine = FusedEngine(make_model("mf", 20), make_stream(), batch_size=16, lr=lambda _: 1e25, mode=mode, loss=loss)
    assert not np.isfinite(train(engine, 3)[-1])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "hogwild"}, "fused_mode = 'hogwild'"),
        ({"optimizer": "adam"}, "optimizer = 'adam'"),
        (
            {"optimizer": "lazy-adam", "mode": "lock_free"},
            "fused_mode = 'lock_free': engine = fused on cpu",
        ),
        ({"loss": "inbatch-softmax"}, "loss = 'inbatch-softmax'"),
        ({"model": "gmf", "loss": "bpr"}, "loss = 'bpr'"),
        ({"model": "mlp"}, "model MLP"),
        ({"threads": 0}, "threads=0"),
    ],
)
def test_what_it_has_not_is_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        small(**options)


def test_a_foreign_checkpoint_is_refused() -> None:
    engine = small()
    tensors, meta = engine.state()
    with pytest.raises(CheckpointError, match=r"optimizer\.bias\.sum is missing"):
        engine.load_state({k: v for k, v in tensors.items() if k != "optimizer.bias.sum"}, meta)
    wrong = tensors | {"model.user_factors": tensors["model.user_factors"][:-1]}
    with pytest.raises(CheckpointError, match=rf"the model's \[{N_USERS}, 20\]"):
        engine.load_state(wrong, meta)
    assert engine.weights.item_factors.shape == (N_ITEMS, 20)
