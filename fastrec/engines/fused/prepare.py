"""Batches for the fused kernels: the same positives and negatives as the stream's, sorted by user.

Which positives a batch holds and what is drawn for them come from addresses only, so any number of batches can be
prepared ahead and at once. Sorting by index into the CSR sorts by user, then by item: a user's samples follow one
another, and users, positives and the sampler's rows are all read in order.

B batch rows, N negatives, S = B * (1+N) samples.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.jit import njit
from fastrec.sampling.identity import packed

SAMPLE_BITS = 32
"""A sorted key is item << 32 | sample, and a sample is row * (1+N) + column."""


@njit
def look_up(positions, users_of, items_of, users, positives, runs, lo, hi):  # type: ignore[no-untyped-def]
    """User, positive and run (number of the user within the batch) of sorted CSR indices, which become identities."""
    run = -1
    for k in range(lo, hi):
        p = positions[k]
        users[k] = users_of[p]
        positives[k] = items_of[p]
        positions[k] = packed(users[k], positives[k])
        if k == lo or users[k] != users[k - 1]:
            run += 1
        runs[k] = run


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


@njit
def sorted_item_keys(positives, negatives, places, keys):  # type: ignore[no-untyped-def]
    """The same, sorted by counting: two passes over the samples and one over places int32[I + 1], which is scratch."""
    places[:] = 0
    for row in range(positives.shape[0]):
        places[positives[row] + 1] += 1
        for j in range(negatives.shape[1]):
            places[negatives[row, j] + 1] += 1
    for i in range(1, places.shape[0]):
        places[i] += places[i - 1]
    at = 0
    for row in range(positives.shape[0]):
        i = positives[row]
        keys[places[i]] = np.int64(i) << SAMPLE_BITS | at
        places[i] += 1
        at += 1
        for j in range(negatives.shape[1]):
            i = negatives[row, j]
            keys[places[i]] = np.int64(i) << SAMPLE_BITS | at
            places[i] += 1
            at += 1


class Batch(NamedTuple):
    """One prepared batch: views of a block, to be read until the block is filled again."""

    users: NDArray[np.int32]
    """int32[B], ascending."""
    positives: NDArray[np.int32]
    """int32[B]."""
    runs: NDArray[np.int32]
    """int32[B]: how many users come before the row's."""
    negatives: NDArray[np.int32]
    """int32[B, N]."""
    keys: NDArray[np.int64]
    """int64[S], ascending: the samples by item, then by row; or empty."""
    weights: NDArray[np.float32]
    """float32[B]: of each row's loss; or empty."""


class Block:
    """Memory for several prepared batches of up to ``rows`` positives.

    Parameters
    ----------
    batches : int
    rows : int
    n_negatives : int
    n_items : int
        I, where the samples are to be sorted by item as well (``keys``); 0: they are not.
    weighted : bool
        Whether positives have weights.
    """

    def __init__(self, batches: int, rows: int, n_negatives: int, *, n_items: int, weighted: bool = False) -> None:
        n_samples = rows * (1 + n_negatives)
        self._positions = np.empty((batches, rows), np.int64)
        self.users = np.empty((batches, rows), np.int32)
        self.positives = np.empty((batches, rows), np.int32)
        self.runs = np.empty((batches, rows), np.int32)
        self.negatives = np.empty((batches, rows, n_negatives), np.int32)
        self.weights = np.empty((batches, rows if weighted else 0), np.float32)
        self.keys = np.empty((batches, n_samples if n_items else 0), np.int64)
        # counting passes over all items, so it pays where samples are as many; np.sort takes thrice as long there
        self._places = np.empty((batches, n_items + 1 if n_items <= n_samples else 0), np.int32)

    def fill(self, k: int, stream: Any, epoch: int, start: int, stop: int) -> None:
        """Hold, as batch ``k``, the positives visited from ``start`` to ``stop`` of an epoch."""
        n = stop - start
        positions, batch = self._positions[k, :n], self.batch(k, n)
        stream.order.positions(epoch, start, stop, positions)
        if stream.eligible.size:
            positions[:] = stream.eligible[positions]
        positions.sort()
        if batch.weights.size:
            batch.weights[:] = stream.weights[positions]
        look_up(positions, stream.users_of, stream.items_of, batch.users, batch.positives, batch.runs, 0, n)
        stream.sampler.sample(batch.users, epoch=epoch, positions=positions, out=batch.negatives)
        if self._places.shape[1] and batch.keys.size:
            sorted_item_keys(batch.positives, batch.negatives, self._places[k], batch.keys)
        elif batch.keys.size:
            item_keys(batch.positives, batch.negatives, batch.keys)
            batch.keys.sort()

    def batch(self, k: int, n: int) -> Batch:
        """Batch ``k``, of ``n`` rows."""
        n_keys = n * (1 + self.negatives.shape[2])
        return Batch(
            self.users[k, :n], self.positives[k, :n], self.runs[k, :n], self.negatives[k, :n], self.keys[k, :n_keys],
            self.weights[k, :n],
        )  # fmt: skip
