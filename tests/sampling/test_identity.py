"""What stream version 2 promises: with n_items fixed, other users' rows change nothing for a user."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec.batches.stream import Stream
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, leave_one_out, ratio_split
from fastrec.engines.fused.prepare import Block
from fastrec.errors import DataError
from fastrec.evaluation.candidates import candidates_for
from fastrec.models import build
from fastrec.models.parts import init
from fastrec.models.parts.dropout import fill_kept
from fastrec.sampling import NegativeSampler, identity
from tests.helpers import oracle
from tests.helpers.cases import examples

Rows = list[list[int]]


def csr(rows: Rows) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0] + [len(r) for r in rows]), np.array([i for r in rows for i in r], np.int32)


@st.composite
def two_worlds(draw: Any, least: int = 1) -> tuple[int, int, Rows, Rows]:
    """(n_items, user, rows, rows of another world): the user's row is the same in both, the others are arbitrary."""
    n = draw(st.integers(6, 60))
    row = st.lists(st.integers(0, n - 1), unique=True, max_size=n - 1).map(sorted)
    own = draw(st.lists(st.integers(0, n - 1), unique=True, min_size=least, max_size=n - 3).map(sorted))
    user = draw(st.integers(0, 4))
    worlds = []
    for _ in range(2):
        before = draw(st.lists(row, min_size=user, max_size=user))
        worlds.append([*before, own, *draw(st.lists(row, max_size=6))])
    if draw(st.booleans()):  # the second world as a permutation of the first
        others = [r for u, r in enumerate(worlds[0]) if u != user]
        others = draw(st.permutations(others))
        worlds[1] = [*others[:user], own, *others[user:]]
    return n, user, worlds[0], worlds[1]


def negatives_of(user: int, rows: Rows, epoch: int, **options: Any) -> dict[int, list[int]]:
    """Of each positive of the user, in an epoch of the stream: the identity and the negatives."""
    sampler = NegativeSampler(*csr(rows), on_full="skip", **options)
    stream = Stream(*csr(rows), sampler, seed=3)
    batch = stream.read(epoch, 0, stream.n_positives)
    own = batch.users == user
    found = dict(zip(batch.positions[own].tolist(), batch.items[own].tolist()))
    block = Block(1, stream.n_positives, stream.n_negatives, n_items=0)
    block.fill(0, stream, epoch, 0, stream.n_positives)
    fused = block.batch(0, stream.n_positives)
    own = fused.users == user
    rows_of = np.column_stack((fused.positives, fused.negatives))[own].tolist()
    assert dict(zip(identity(fused.users[own], fused.positives[own]).tolist(), rows_of)) == found
    return {position: row[1:] for position, row in found.items()}


@examples(300)
@given(two_worlds(), st.sampled_from(["uniform", "weights"]), st.booleans(), st.integers(0, 2**32 - 1), st.data())
def test_other_rows_leave_the_negatives_of_a_user(worlds, distribution: str, distinct: bool, seed: int, data) -> None:
    n, user, one, two = worlds
    options: dict[str, Any] = {"n_items": n, "n_negatives": 2, "seed": seed, "distinct": distinct}
    if distribution == "weights":
        weights = data.draw(st.lists(st.floats(0.1, 9.0), min_size=n, max_size=n))
        options |= {"distribution": "weights", "weights": weights}
    epoch = data.draw(st.integers(0, 2**32 - 1))
    found = negatives_of(user, one, epoch, **options)
    assert found == negatives_of(user, two, epoch, **options)
    assert sorted(found) == [oracle.identity(user, item) for item in one[user]]
    if distribution == "uniform":
        for position, drawn in found.items():
            expected = oracle.uniform(one[user], n, 2, seed=seed, epoch=epoch, position=position, distinct=distinct)
            assert drawn == expected


@examples(150)
@given(st.integers(40, 90), st.sets(st.integers(0, 39), min_size=1, max_size=5), st.data())
def test_a_new_positive_changes_only_draws_that_hit_it(n: int, row: set[int], data) -> None:
    new = data.draw(st.integers(0, n - 1).filter(lambda i: i not in row))
    options = {"n_items": n, "n_negatives": 5, "seed": data.draw(st.integers(0, 99))}
    before = negatives_of(0, [sorted(row)], 1, **options)
    after = negatives_of(0, [sorted({*row, new})], 1, **options)
    for position, drawn in before.items():
        assert all(a == b or b == new for a, b in zip(after[position], drawn))


def interactions(rows: Rows, n_items: int, times: list[int] | None = None) -> Interactions:
    indptr, items = csr(rows)
    return Interactions(indptr, items, np.arange(len(rows)), np.arange(n_items), times)


@examples(150)
@given(two_worlds(least=3), st.integers(0, 2**32 - 1), st.integers(1, 9))
def test_other_rows_leave_the_split_of_a_user(worlds, seed: int, tenths: int) -> None:
    n, user, *both = worlds
    drawn = []
    for rows in both:
        timed = interactions(rows, n, [7 * item % 11 for row in rows for item in row])
        splits = (leave_one_out(timed, tenths / 10, seed), ratio_split(timed, tenths / 10, 0.3, seed))
        drawn.append([part.row(user).tolist() for s in splits for part in (s.train, s.validation, s.test)])
    assert drawn[0] == drawn[1]
    keys = {item: oracle.validation_key(user, item, seed=seed, draw=1) for item in both[0][user]}
    test = drawn[0][5]
    assert test == sorted(sorted(keys, key=keys.__getitem__)[: len(test)])


@examples(150)
@given(two_worlds(least=3), st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_other_rows_leave_the_candidates_of_a_user(worlds, seed: int, n: int) -> None:
    n_items, user, *both = worlds
    found = []
    for rows in both:
        parts = [interactions([r[k::3] for r in rows], n_items) for k in range(3)]
        split = Split(*parts)
        drawn = []
        for part in ("test", "validation"):
            frozen = candidates_for(split, part, n=n, seed=seed)
            own = frozen.users == user
            drawn += [(part, *pair) for pair in zip(frozen.positives[own].tolist(), frozen.items[own].tolist())]
        found.append(drawn)
    assert found[0] == found[1]
    assert found[0]
    for part, item, candidates in found[0]:
        if len(both[0][user]) + n <= n_items:
            epoch = ("test", "validation").index(part)
            address = {"seed": seed, "epoch": epoch, "position": oracle.identity(user, item)}
            row = both[0][user]
            expected = oracle.uniform(row, n_items, n, **address, tag=oracle.TAG_CANDIDATES, distinct=True)
            assert candidates == expected


shapes = st.tuples(st.integers(0, 9), st.integers(1, 13))


@examples(200)
@given(shapes, shapes, st.sampled_from(["user_factors", "x", "é"]), st.integers(0, 2**32 - 1))
def test_more_rows_and_columns_leave_initial_weights(a, b, name: str, seed: int) -> None:
    rows, columns = min(a[0], b[0]), min(a[1], b[1])
    for fill in (init.normal, init.uniform):
        one, two = (fill(name, shape, 1.0, seed)[:rows, :columns] for shape in (a, b))
        assert one.tobytes() == two.tobytes()
    exact, near = init.uniform(name, a, 1.0, seed), init.normal(name, a, 1.0, seed)
    for r in range(a[0]):
        for c in range(a[1]):
            assert exact[r, c] == np.float32(oracle.uniform_weight(name, r, c, seed=seed))
            assert near[r, c] == pytest.approx(oracle.normal_weight(name, r, c, seed=seed), rel=1e-5, abs=1e-7)
    assert np.array_equal(init.uniform(name, (a[1],), 1.0, seed), init.uniform(name, (1, a[1]), 1.0, seed)[0])


@pytest.mark.parametrize("model", ["mf", "gmf", "mlp", "neumf"])
def test_a_larger_model_starts_from_the_same_rows_and_columns(model: str) -> None:
    def layers(first: int) -> dict[str, Any]:
        return {"layers": (first, 6)} if model in ("mlp", "neumf") else {}

    small = build(model, n_users=5, n_items=7, dim=6, seed=9, **layers(12))
    for sizes in ({"n_users": 8}, {"n_items": 11}, {"dim": 10}, {"n_users": 6, "n_items": 8, "dim": 7}):
        given = {"n_users": 5, "n_items": 7, "dim": 6, **sizes}
        large = build(model, **given, seed=9, **layers(12 if given["dim"] == 6 else 16))
        tables = [*small.user_rows, *small.item_rows]
        for name in tables:
            old, new = getattr(small, name).detach(), getattr(large, name).detach()
            assert new[tuple(slice(side) for side in old.shape)].equal(old), (name, sizes)


@examples(100)
@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31 - 1), st.integers(1, 3), st.integers(1, 5), st.integers(1, 9))
def test_dropout_equals_the_oracle(user: int, item: int, layer: int, columns: int, width: int) -> None:
    position, seed, epoch = oracle.identity(user, item), 5, 2**32 - 1
    out = np.empty((1, columns, width), np.bool_)
    limit = np.uint64(round(0.3 * 2**32))
    fill_kept(np.uint64(seed), np.uint64(epoch), layer, np.array([position]), limit, out, 0, 1)
    where = {"n_columns": columns, "rate": 0.3, "seed": seed, "epoch": epoch}
    expected = [[oracle.kept(position, layer, k, w, **where) for w in range(width)] for k in range(columns)]
    assert out[0].tolist() == expected


def test_identity_is_the_user_above_the_item() -> None:
    assert identity([0, 1, 2**31 - 1], [7, 0, 2**31 - 1]).tolist() == [7, 2**32, (2**31 - 1) << 32 | (2**31 - 1)]
    assert identity(np.array([1], np.uint64), np.array([2], np.int8)).dtype == np.int64
    assert identity([], []).size == 0


@pytest.mark.parametrize(
    ("users", "items", "message"),
    [
        ([0, -1], [0, 0], r"users\[1\] = -1"),
        ([0], [2**31], r"items\[0\] = 2147483648"),
        ([2**63], [0], r"users\[0\] = 9223372036854775808"),
        ([0.0], [1], "users must be a one-dimensional integer array"),
        ([True], [1], "users must be"),
        ([[0]], [1], "users must be"),
        ([0, 1], [1], "2 users, but 1 items"),
        (np.ma.array([0, 1], mask=[0, 1]), [1, 1], "masked"),
    ],
)
def test_identity_refuses_what_is_no_pair_of_ids(users, items, message: str) -> None:
    with pytest.raises(DataError, match=message):
        identity(users, items)
