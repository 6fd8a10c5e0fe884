"""Time-aware negatives: exact, addressed, and blind to everything that came later."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.batches.stream import Stream
from fastrec.errors import ConfigError, DataError
from fastrec.sampling import ExistingSampler, identity
from tests.helpers import oracle

VECTORS = json.loads((Path(__file__).resolve().parents[2] / "docs" / "stream-vectors.json").read_text())
U, M = 30, 25


def world(seed: int = 1, n_users: int = U, n_items: int = M) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """CSR and times; some items never, user 0 nearly every item, ties in time."""
    rng = np.random.default_rng(seed)
    rows = [
        np.sort(rng.choice(n_items - 2, n_items - 4 if u == 0 else int(rng.integers(0, 9)), False))
        for u in range(n_users)
    ]
    indptr = np.concatenate(([0], np.cumsum([r.size for r in rows])))
    items = np.concatenate(rows).astype(np.int32)
    times = rng.integers(0, 12, items.size)
    times[:5] = -3  # user 0 is the first: nothing else exists then
    return indptr, items, times


def first_times(items: np.ndarray, times: np.ndarray, n_items: int = M) -> list[int | None]:
    return [int(times[items == i].min()) if (items == i).any() else None for i in range(n_items)]


def positives(indptr: np.ndarray, items: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    users = np.repeat(np.arange(indptr.size - 1, dtype=np.int32), np.diff(indptr))
    return users, identity(users, items)


@pytest.mark.parametrize("budget", [0, 2**20])
@pytest.mark.parametrize("n", [1, 6])
def test_the_oracle_draws_the_same(budget: int, n: int) -> None:
    indptr, items, times = world()
    held = np.arange(U + 1), np.full(U, 22, np.int32)  # each user's one held-out item
    for exclude in ((), (held,)):
        sampler = ExistingSampler(
            indptr, items, times, n_items=M, n_negatives=n, seed=9, exclude=exclude, memory_budget=budget
        )
        users, positions = positives(indptr, items)
        drawn = sampler.sample(users, epoch=3, positions=positions)
        first = first_times(items, times)
        for e in range(items.size):
            row = set(items[indptr[users[e]] : indptr[users[e] + 1]].tolist()) | ({22} if exclude else set())
            wanted = oracle.existing(row, first, times[e], n, seed=9, epoch=3, position=int(positions[e]))
            assert drawn[e].tolist() == wanted, e
    assert any(not sampler._legal[e] for e in range(items.size)), "some positive has no legal item"
    assert set(sampler.served) == set(np.flatnonzero(drawn[:, 0] >= 0))


def test_the_vectors_of_the_page() -> None:
    for case in VECTORS["existing"]:
        address = {
            "seed": case["seed"],
            "epoch": case["epoch"],
            "position": oracle.identity(case["user"], case["item"]),
        }
        assert oracle.existing(case["row"], case["first_times"], case["time"], 6, **address) == case["negatives"]
    assert VECTORS["existing"][-1]["negatives"] == [-1] * 6


def test_every_legal_item_is_drawn_alike() -> None:
    indptr, items, times = (
        np.array([0, 20, 38]),
        np.r_[np.arange(20), np.arange(2, 20)].astype(np.int32),
        np.r_[np.arange(20), np.full(18, 9)],
    )
    times[20:] = np.where(np.arange(18) == 17, 15, 9)  # item 19 at time 15 of user 1, who has all but 0 and 1
    sampler = ExistingSampler(indptr, items, times, n_items=21, n_negatives=64, seed=1)
    drawn = np.concatenate([sampler.sample([1], epoch=e, positions=identity([1], [19]))[0] for e in range(300)])
    counts = np.bincount(drawn, minlength=21)
    assert counts[:2].sum() == drawn.size, "what exists, less the user's row: 0 and 1"
    assert abs(counts[0] - drawn.size / 2) < 5 * np.sqrt(drawn.size / 4)


def test_a_time_counts_for_itself_and_nothing_later_counts() -> None:
    indptr, items, times = world()
    users, positions = positives(indptr, items)
    sampler = ExistingSampler(indptr, items, times, n_items=M, n_negatives=4, seed=5)
    drawn = sampler.sample(users, epoch=0, positions=positions)
    first = np.array([99 if t is None else t for t in first_times(items, times)])
    served = drawn[:, 0] >= 0
    assert (first[drawn[served]] <= times[served][:, None]).all()
    assert (first[drawn[served]] == times[served][:, None]).any(), "own time included"
    # later interactions of other users, with new items and a larger catalogue
    more = [
        np.r_[items[indptr[u] : indptr[u + 1]], [M + 1 + u]] if u > 5 else items[indptr[u] : indptr[u + 1]]
        for u in range(U)
    ]
    late = [
        np.r_[times[indptr[u] : indptr[u + 1]], [50]] if u > 5 else times[indptr[u] : indptr[u + 1]] for u in range(U)
    ]
    grown = ExistingSampler(
        np.concatenate(([0], np.cumsum([r.size for r in more]))), np.concatenate(more).astype(np.int32),
        np.concatenate(late), n_items=M + U + 2, n_negatives=4, seed=5,
    )  # fmt: skip
    assert np.array_equal(grown.sample(users, epoch=0, positions=positions), drawn)


def test_threads_cuts_and_columns_change_nothing() -> None:
    indptr, items, times = world()
    users, positions = positives(indptr, items)
    sampler = ExistingSampler(indptr, items, times, n_items=M, n_negatives=6, seed=5)
    whole = sampler.sample(users, epoch=1, positions=positions, threads=2)
    out = np.empty((7, 6), np.int32)
    assert sampler.sample(users[3:10], epoch=1, positions=positions[3:10], out=out) is out
    assert np.array_equal(out, whole[3:10])
    narrow = ExistingSampler(indptr, items, times, n_items=M, n_negatives=2, seed=5)
    assert np.array_equal(narrow.sample(users, epoch=1, positions=positions), whole[:, :2])
    assert not np.array_equal(sampler.sample(users, epoch=2, positions=positions), whole)


def test_the_stream_leaves_out_what_has_no_legal_item() -> None:
    indptr, items, times = world()
    sampler = ExistingSampler(indptr, items, times, n_items=M, n_negatives=3, seed=5)
    stream = Stream(indptr, items, sampler, seed=2)
    left_out = int((sampler._legal == 0).sum())
    assert stream.n_left_out == left_out > 0
    batch = stream.read(0, 0, stream.n_positives)
    assert (batch.items >= 0).all()
    chosen = Stream(indptr, items, sampler, seed=2, only=np.arange(10, 40))
    assert chosen.n_positives + chosen.n_left_out == 30
    assert set(np.sort(chosen.eligible)) == set(range(10, 40)) & set(sampler.served)
    alone = ExistingSampler([0, 2], [0, 1], [5, 5], n_items=2)
    with pytest.raises(DataError, match="no other item had appeared by its time"):
        Stream(np.array([0, 2]), np.array([0, 1], np.int32), alone, seed=0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"times": [1, 2]}, r"times are int64\[2\]; must be integers, one for each of 3 positives"),
        ({"times": [1.0, 2.0, 3.0]}, "times are float64"),
        ({"n_negatives": 0}, "n_negatives=0"),
        ({"seed": -1}, "seed=-1"),
        ({"memory_budget": -1}, "memory_budget=-1"),
        ({"exclude": [(np.array([0, 1, 1, 1]), np.array([2]))]}, "exclude"),
    ],
)
def test_faults_of_construction(options: dict[str, Any], says: str) -> None:
    times = options.pop("times", [1, 2, 3])
    with pytest.raises((ConfigError, DataError), match=says):
        ExistingSampler([0, 2, 3], [0, 2, 1], times, n_items=4, **options)


def test_faults_of_a_call() -> None:
    sampler = ExistingSampler([0, 2, 3], [0, 2, 1], [1, 2, 3], n_items=4)
    with pytest.raises(DataError, match=r"users\[1\] = 2: must be in \[0, n_users=2\)"):
        sampler.sample([1, 2], epoch=0, positions=identity([1, 2], [1, 1]))
    with pytest.raises(DataError, match=r"positions\[0\] = 1: is not the identity .* of a training positive of user 0"):
        sampler.sample([0], epoch=0, positions=[1])
    with pytest.raises(DataError, match=r"positions\[1\] .* of user 1"):
        sampler.sample([0, 1], epoch=0, positions=identity([0, 0], [2, 2]))
    with pytest.raises(ConfigError, match="epoch=-1"):
        sampler.sample([0], epoch=-1, positions=identity([0], [2]))
    assert sampler.describe()["distribution"] == "existing"
    assert "ExistingSampler(2 users x 4 items, 3 positives" in repr(sampler)
