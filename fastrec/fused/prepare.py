"""Batches for the fused kernels: the same positives and negatives as the stream's, sorted by user.

Which positives a batch holds and what is drawn for them come from addresses alone, so any number of batches can be
prepared ahead and at once. Sorting positions sorts users too, since a position is an index into the CSR: then a user's
samples follow one another, and users, positives and the sampler's rows are all read in order.

B batch rows, N negatives, S = B * (1+N) samples.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.jit import njit

SAMPLE_BITS = 32
"""A sorted key is item << 32 | sample, and a sample is row * (1+N) + column."""


@njit
def look_up(positions, users_of, items_of, users, positives, runs, lo, hi):  # type: ignore[no-untyped-def]
    """User, positive and run (number of the user within the batch) of sorted positions; returns the runs."""
    run = -1
    for k in range(lo, hi):
        p = positions[k]
        users[k] = users_of[p]
        positives[k] = items_of[p]
        if k == lo or users[k] != users[k - 1]:
            run += 1
        runs[k] = run
    return run + 1


@njit
def item_keys(positives, negatives, keys):  # type: ignore[no-untyped-def]
    """keys int64[S]: item << 32 | sample, unsorted."""
    at = 0
    for row in range(positives.shape[0]):
        keys[at] = np.int64(positives[row]) << SAMPLE_BITS | at
        at += 1
        for j in range(negatives.shape[1]):
            keys[at] = np.int64(negatives[row, j]) << SAMPLE_BITS | at
            at += 1


class Batch:
    """Memory for one prepared batch of up to ``rows`` positives.

    Parameters
    ----------
    rows : int
    n_negatives : int
    by_item : bool
        Whether the samples are sorted by item as well (``keys``).
    """

    def __init__(self, rows: int, n_negatives: int, *, by_item: bool) -> None:
        self._positions = np.empty(rows, np.int64)
        self._users = np.empty(rows, np.int32)
        self._positives = np.empty(rows, np.int32)
        self._runs = np.empty(rows, np.int32)
        self._negatives = np.empty((rows, n_negatives), np.int32)
        self._keys = np.empty(rows * (1 + n_negatives) if by_item else 0, np.int64)
        self.n = self.n_runs = 0

    def fill(self, stream: Any, epoch: int, start: int, stop: int) -> None:
        """Hold the positives visited from ``start`` to ``stop`` of an epoch."""
        n = self.n = stop - start
        positions = self._positions[:n]
        stream.order.positions(epoch, start, stop, positions)
        if stream.eligible.size:
            positions[:] = stream.eligible[positions]
        positions.sort()
        self.n_runs = look_up(
            positions, stream.users_of, stream.items_of, self._users, self._positives, self._runs, 0, n
        )
        stream.sampler.sample(self.users, epoch=epoch, positions=positions, out=self.negatives)
        if self._keys.size:
            item_keys(self.positives, self.negatives, self.keys)
            self.keys.sort()

    @property
    def users(self) -> NDArray[np.int32]:
        """int32[B], ascending."""
        return self._users[: self.n]

    @property
    def positives(self) -> NDArray[np.int32]:
        """int32[B]."""
        return self._positives[: self.n]

    @property
    def runs(self) -> NDArray[np.int32]:
        """int32[B]: how many users come before the row's."""
        return self._runs[: self.n]

    @property
    def negatives(self) -> NDArray[np.int32]:
        """int32[B, N]."""
        return self._negatives[: self.n]

    @property
    def keys(self) -> NDArray[np.int64]:
        """int64[S], ascending: the samples by item, then by row."""
        return self._keys[: self.n * (1 + self._negatives.shape[1])]
