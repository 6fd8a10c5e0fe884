"""The rows of one process of several: each batch is cut among them exactly, by addresses only.

B batch rows, N negatives.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fastrec.batches.stream import Batch, Stream
from fastrec.errors import ConfigError
from fastrec.sampling.order import Cursor


def cut(start: int, stop: int, rank: int, world: int) -> tuple[int, int]:
    """Rows [lo, hi) of [start, stop) that belong to a rank: in the order of ranks, sizes differ by one at most."""
    size = stop - start
    return start + size * rank // world, start + size * (rank + 1) // world


class Slices:
    """The rows of one rank, batch after batch, with positions of their own: what a ``Feed`` reads as a stream.

    Parameters
    ----------
    stream : Stream
    batch_size : int
        Positives a batch, over all ranks.
    rank, world : int

    Attributes
    ----------
    batch_size : int
        Rows of this rank in a complete batch.
    n_positives : int
        Rows of this rank in an epoch.

    Raises
    ------
    ConfigError
        If a batch has fewer positives than there are ranks.

    Notes
    -----
    Guarantee: the rows of all ranks, batch by batch in the order of ranks, are those of ``Stream.read``, byte for byte:
    none twice, none left out, the tail of an epoch included.
    """

    def __init__(self, stream: Stream, batch_size: int, *, rank: int, world: int) -> None:
        if batch_size < world:
            raise ConfigError(
                f"batch_size = {batch_size}: fewer positives than the {world} processes that divide them; give {world} "
                "or more"
            )
        self.stream, self.rank, self.world = stream, rank, world
        self.n_negatives, self._batch = stream.n_negatives, batch_size
        self._full, tail = divmod(stream.n_positives, batch_size)
        self.batch_size = self._rows(batch_size)
        self.n_positives = self._full * self.batch_size + self._rows(tail)

    def _rows(self, size: int) -> int:
        lo, hi = cut(0, size, self.rank, self.world)
        return hi - lo

    def rows(self, position: int) -> int:
        """How many rows of the batch that begins at a position of the stream belong to this rank."""
        return self._rows(min(self._batch, self.stream.n_positives - position))

    def local(self, cursor: Cursor) -> Cursor:
        """The own position of a batch that begins at a cursor of the stream."""
        return Cursor(cursor.epoch, cursor.position // self._batch * self.batch_size)

    def ranges(self, start: int, stop: int) -> Iterator[tuple[int, int]]:
        """The ranges of the stream's positions that own positions [start, stop) are, one for each batch."""
        while start < stop:
            k = min(start // self.batch_size, self._full)
            first = k * self._batch
            lo, hi = cut(first, min(first + self._batch, self.stream.n_positives), self.rank, self.world)
            skipped = start - k * self.batch_size
            n = min(stop - start, hi - lo - skipped)
            yield lo + skipped, lo + skipped + n
            start += n

    def read(self, epoch: int, start: int, stop: int, out: Batch | None = None, *, threads: int = 1) -> Batch:
        """Own rows [start, stop) of an epoch; as ``Stream.read``, ``0 <= start <= stop <= n_positives``."""
        if not 0 <= start <= stop <= self.n_positives:
            raise ConfigError(f"rows {start} to {stop}: outside the {self.n_positives} of rank {self.rank}")
        n = stop - start
        if out is None:
            out = Batch(np.empty(n, np.int32), np.empty((n, 1 + self.n_negatives), np.int32), np.empty(n, np.int64))
        done = 0
        for lo, hi in self.ranges(start, stop):
            rows = slice(done, done + hi - lo)
            part = Batch(out.users[rows], out.items[rows], out.positions[rows])
            self.stream.read(epoch, lo, hi, part, threads=threads)
            done += hi - lo
        return Batch(out.users[:n], out.items[:n], out.positions[:n])
