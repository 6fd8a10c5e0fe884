"""The stream is a pure function of the cursor: random access, no row lost, exact negatives."""

import numpy as np
import pytest

from fastrec.batches.stream import Stream
from fastrec.errors import DataError
from fastrec.sampling import NegativeSampler, identity
from fastrec.sampling.order import Cursor
from tests.helpers.training import N_ITEMS, make_stream, positives


@pytest.mark.parametrize("batch_size", [1, 7, 16, 1000])
def test_an_epoch_visits_every_positive_once_tail_included(batch_size: int) -> None:
    stream, (indptr, items) = make_stream(), positives()
    cursor, seen = Cursor(3, 0), []
    while cursor.position < stream.n_positives:
        batch, cursor = stream.batch(cursor, batch_size)
        assert 1 <= len(batch.users) <= batch_size
        seen.append((batch.users, batch.items, batch.positions))
    positions = np.concatenate([p for _, _, p in seen])
    owners = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
    assert np.array_equal(np.sort(positions), identity(owners, items))
    users, rows = np.concatenate([u for u, _, _ in seen]), np.concatenate([i for _, i, _ in seen])
    assert np.array_equal(positions, identity(users, rows[:, 0]))


def test_any_cut_gives_the_same_rows() -> None:
    stream = make_stream()
    whole = stream.read(2, 0, stream.n_positives)
    parts = [stream.read(2, a, min(a + 11, stream.n_positives)) for a in range(0, stream.n_positives, 11)]
    assert np.array_equal(whole.items, np.concatenate([p.items for p in parts]))
    assert np.array_equal(whole.users, np.concatenate([p.users for p in parts]))
    assert not np.array_equal(whole.items, stream.read(3, 0, stream.n_positives).items)


def test_negatives_are_never_positives() -> None:
    stream, (indptr, items) = make_stream(8), positives()
    for epoch in range(5):
        batch = stream.read(epoch, 0, stream.n_positives)
        for user, row in zip(batch.users, batch.items):
            assert not np.isin(row[1:], items[indptr[user] : indptr[user + 1]]).any()
            assert row.min() >= 0
            assert row.max() < N_ITEMS


def test_fills_the_memory_it_is_given() -> None:
    stream = make_stream()
    out = stream.read(0, 0, 16)
    view = stream.read(1, 5, 14, out)
    assert np.shares_memory(view.items, out.items)
    assert np.array_equal(view.items, stream.read(1, 5, 14).items)


def test_positives_of_users_with_every_item_are_left_out_and_counted() -> None:
    indptr, items = np.array([0, 3, 5], np.int64), np.array([0, 1, 2, 0, 2], np.int32)
    sampler = NegativeSampler(indptr, items, n_items=3, n_negatives=2, on_full="skip")
    stream = Stream(indptr, items, sampler, seed=0)
    assert (stream.n_positives, stream.n_left_out) == (2, 3)
    batch = stream.read(0, 0, 2)
    assert batch.users.tolist() == [1, 1]
    assert sorted(batch.positions.tolist()) == [1 << 32, 1 << 32 | 2]
    assert (batch.items[:, 1:] == 1).all()


def test_nothing_to_train_on_is_an_error() -> None:
    indptr, items = np.array([0, 3], np.int64), np.array([0, 1, 2], np.int32)
    sampler = NegativeSampler(indptr, items, n_items=3, on_full="skip")
    with pytest.raises(DataError, match="every item"):
        Stream(indptr, items, sampler, seed=0)


def test_ids_that_do_not_fit_in_32_bits_together() -> None:
    """13 bits of user and 20 of item: both are read back from 64 bits."""
    indptr = np.arange(5001, dtype=np.int64)
    items = (np.arange(5000) * 200 + 2**19).astype(np.int32)
    sampler = NegativeSampler(indptr, items, n_items=2**20 + 2**19, n_negatives=2, seed=1)
    batch = Stream(indptr, items, sampler, seed=3).read(0, 0, 5000)
    assert np.array_equal(batch.positions >> 32, batch.users)
    assert np.array_equal(batch.items[:, 0], items[batch.users])
    assert np.array_equal(np.sort(batch.positions), identity(np.arange(5000), items))
