"""Slices: the rows of several ranks are those of one process, none twice, none left out."""

from __future__ import annotations

import numpy as np
import pytest

from fastrec.batches.feed import Feed
from fastrec.batches.slices import Slices, cut
from fastrec.batches.stream import Batch
from fastrec.errors import ConfigError
from fastrec.sampling.order import Cursor
from tests.helpers.training import make_stream

STREAM = make_stream()


@pytest.mark.parametrize("world", [1, 2, 3, 4])
@pytest.mark.parametrize("batch_size", [4, 7, 16, 1000])
def test_the_union_over_ranks_is_the_epoch_of_one_process(world: int, batch_size: int) -> None:
    n = STREAM.n_positives
    slices = [Slices(STREAM, batch_size, rank=r, world=world) for r in range(world)]
    assert sum(s.n_positives for s in slices) == n
    for epoch in (0, 3):
        whole = STREAM.read(epoch, 0, n)
        parts: list[Batch] = []
        for start in range(0, n, batch_size):
            sizes = [s.rows(start) for s in slices]
            assert max(sizes) - min(sizes) <= 1
            for s, size in zip(slices, sizes):
                own = s.local(Cursor(epoch, start)).position
                parts.append(s.read(epoch, own, own + size))
        for k in range(3):
            assert np.array_equal(np.concatenate([p[k] for p in parts]), whole[k])


@pytest.mark.parametrize("world", [2, 3])
def test_a_feed_of_slices_starts_at_any_batch_and_goes_on_into_the_next_epoch(world: int) -> None:
    n, size = STREAM.n_positives, 16
    for rank in range(world):
        slices = Slices(STREAM, size, rank=rank, world=world)
        feed = Feed(slices, batch_size=slices.batch_size, block=8)
        begin = 2 * size
        for epoch, start in [(0, s) for s in range(begin, n, size)] + [(1, s) for s in range(0, n, size)]:
            if not slices.rows(start):
                continue
            batch, _ = feed.next(slices.local(Cursor(epoch, start)))
            lo, hi = cut(start, min(start + size, n), rank, world)
            expected = STREAM.read(epoch, lo, hi)
            assert np.array_equal(batch.items.numpy(), expected.items)
            assert np.array_equal(batch.positions.numpy(), expected.positions)
        feed.close()


def test_a_read_across_batches_is_its_reads_one_after_the_other() -> None:
    slices = Slices(STREAM, 16, rank=1, world=3)
    everything = slices.read(2, 0, slices.n_positives)
    for a, b in ((0, 3), (3, 17), (17, slices.n_positives)):
        assert np.array_equal(slices.read(2, a, b).items, everything.items[a:b])
    with pytest.raises(ConfigError, match=f"outside the {slices.n_positives} of rank 1"):
        slices.read(0, 0, slices.n_positives + 1)


def test_a_batch_of_fewer_positives_than_ranks_is_refused() -> None:
    with pytest.raises(ConfigError, match="batch_size = 3: fewer positives than the 4 processes"):
        Slices(STREAM, 3, rank=0, world=4)
