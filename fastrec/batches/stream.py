"""Cursor -> batch, a pure function: which positives are visited, and their negatives, come from addresses only.

B batch rows, N negatives, E interactions.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int, memory
from fastrec.errors import ConfigError, DataError
from fastrec.jit import njit
from fastrec.sampling.csr import check_csr
from fastrec.sampling.identity import packed
from fastrec.sampling.order import Cursor, Order


class Batch(NamedTuple):
    """One batch on the host."""

    users: NDArray[np.int32]
    """int32[B]"""
    items: NDArray[np.int32]
    """int32[B, 1+N]; column 0 the positive"""
    positions: NDArray[np.int64]
    """int64[B]: identity of each positive, ``user << 32 | item``: its address"""


@njit
def _look_up(order, eligible, pairs, bits, positions, users, items, lo, hi):  # type: ignore[no-untyped-def]
    """Rows [lo, hi): identity, user and positive of each place in the order."""
    low = (np.uint64(1) << np.uint64(bits)) - np.uint64(1)
    for k in range(lo, hi):
        p = eligible[order[k]] if eligible.shape[0] else order[k]
        pair = np.uint64(pairs[p])
        users[k] = pair >> np.uint64(bits)
        items[k, 0] = pair & low
        positions[k] = packed(pair >> np.uint64(bits), pair & low)


@njit
def _pack(indptr, items, bits, pairs, lo, hi):  # type: ignore[no-untyped-def]
    """pairs[p] = user << bits | item of the positives of users [lo, hi)."""
    for u in range(lo, hi):
        for p in range(indptr[u], indptr[u + 1]):
            pairs[p] = np.uint64(u) << np.uint64(bits) | np.uint64(items[p])


@njit
def _put_negatives(negatives, items, lo, hi):  # type: ignore[no-untyped-def]
    for k in range(lo, hi):
        for s in range(negatives.shape[1]):
            items[k, 1 + s] = negatives[k, s]


def _check_out(out: Batch, n: int, width: int) -> None:
    """Refuse memory that the kernels would write past, or write one array of through another."""
    arrays: tuple[Any, ...] = tuple(out)
    wanted = ((np.int32, (n,)), (np.int32, (n, width)), (np.int64, (n,)))
    for name, array, (dtype, shape) in zip(Batch._fields, arrays, wanted):
        fits = isinstance(array, np.ndarray) and array.dtype == dtype and array.flags.writeable
        if not fits or array.shape[1:] != shape[1:] or array.shape[:1] < shape[:1]:
            raise ConfigError(
                f"out.{name} must be writeable {np.dtype(dtype)}{list(shape)}, or with more rows; it is "
                f"{getattr(array, 'dtype', type(array).__name__)}{list(getattr(array, 'shape', ()))}"
            )
    for a, b in ((0, 1), (0, 2), (1, 2)):
        if np.may_share_memory(out[a], out[b]) and np.shares_memory(out[a], out[b]):
            raise ConfigError(
                f"out.{Batch._fields[a]} and out.{Batch._fields[b]} share memory; pass arrays of their own"
            )


class Stream:
    """The batches of every epoch, with random access.

    Parameters
    ----------
    indptr : int64[U+1]
    items : int32[E]
        The CSR of training positives.
    sampler : NegativeSampler or ExistingSampler
        Built over the same users; ``n_negatives`` columns of a batch come from it.
    seed : int
        Of the order of visit, 0 to 2^32-1.
    weights : float32[E], optional
        What the loss of each positive and its negatives is multiplied by: finite and at least 0.
    only : int64[n], optional
        CSR indices, ascending, of the positives that are visited; all of them unless given. Negatives avoid every
        positive in either case.

    Raises
    ------
    DataError
        If no positive has a negative, or every weight is 0.

    Notes
    -----
    Guarantee: ``read(epoch, a, c)`` is ``read(epoch, a, b)`` followed by ``read(epoch, b, c)``, byte for byte.
    Positives without a legal negative are left out of the order; ``n_left_out`` counts them (of ``only``).
    Cost: 8 bytes per interaction, or 4 where user and item fit in 32 bits: they are read at random, and side by side
    take one miss of the cache where two arrays take two.
    """

    def __init__(
        self,
        indptr: NDArray[np.int64],
        items: NDArray[np.int32],
        sampler: Any,
        *,
        seed: int,
        weights: NDArray[np.float32] | None = None,
        only: NDArray[np.int64] | None = None,
    ) -> None:
        indptr, items = check_csr(indptr, items, sampler.n_items, copy=True)
        if indptr.size - 1 != sampler.n_users:
            raise DataError(f"{indptr.size - 1} users of positives, but the sampler has {sampler.n_users}: must agree")
        self.indptr = indptr
        self.sampler = sampler
        self.n_negatives = int(sampler.n_negatives)
        self.eligible = self._find_eligible(indptr)
        wanted = items.size
        if only is not None:
            self.eligible, wanted = self._chosen(only, items.size), only.size
        self.n_positives = self.eligible.size or items.size
        self.n_left_out = wanted - self.n_positives
        if self.n_positives == 0:
            raise DataError("no training positive has a negative: every user has every item, or there are none at all")
        self.weights = None if weights is None else self._checked(weights, items.size)
        self.order = Order(self.n_positives, seed)
        self._bits = int(items.max()).bit_length()
        fits = (indptr.size - 1).bit_length() + self._bits <= 32
        self._pairs: NDArray[Any] = np.empty(items.size, np.uint32 if fits else np.uint64)
        _pack(indptr, items, self._bits, self._pairs, 0, indptr.size - 1)

    @cached_property
    def users_of(self) -> NDArray[np.int32]:
        """int32[E]: the user of each positive, in CSR order."""
        return np.repeat(np.arange(self.indptr.size - 1, dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def items_of(self) -> NDArray[np.int32]:
        """int32[E]: the item of each positive, in CSR order."""
        items: NDArray[np.int32] = (self._pairs & self._pairs.dtype.type((1 << self._bits) - 1)).astype(np.int32)
        return items

    def _find_eligible(self, indptr: NDArray[np.int64]) -> NDArray[np.int64]:
        """CSR indices of the positives that the sampler can serve; empty when that is all of them."""
        if hasattr(self.sampler, "served"):  # by positive, not by user
            served = self.sampler.served
            if not served.size:
                raise DataError("no training positive has a negative: no other item had appeared by its time")
            return np.empty(0, np.int64) if served.size == self.sampler.prefixes.size else served
        users = np.flatnonzero(np.diff(indptr)).astype(np.int32)
        probe = self.sampler.sample(users, epoch=0, start=0)
        if not (probe[:, 0] < 0).any():
            return np.empty(0, np.int64)
        fit = np.zeros(indptr.size - 1, np.bool_)
        fit[users] = probe[:, 0] >= 0
        eligible = np.flatnonzero(fit[self.users_of])
        if not eligible.size:
            raise DataError("every user with a training positive has every item, so there is no negative to train on")
        return eligible

    def _checked(self, weights: NDArray[np.float32], size: int) -> NDArray[np.float32]:
        found = np.ascontiguousarray(weights, np.float32)
        if found.shape != (size,) or not (np.isfinite(found) & (found >= 0)).all():
            raise DataError(f"weights are {found.dtype}{list(found.shape)}: must be {size} finite numbers, at least 0")
        if not found[self.eligible if self.eligible.size else slice(None)].any():
            raise DataError("every weight of a training positive is 0, so there is nothing to learn from")
        return found

    def weights_of(self, epoch: int, start: int, stop: int) -> NDArray[np.float32]:
        """float32[stop - start]: weights of the positives visited from ``start`` to ``stop``; ones where none are."""
        if self.weights is None:
            return np.ones(stop - start, np.float32)
        at = self.order.positions(epoch, start, stop)
        return self.weights[self.eligible[at] if self.eligible.size else at]

    def _chosen(self, only: NDArray[np.int64], n: int) -> NDArray[np.int64]:
        """Those of ``only`` that the sampler can serve; an array even where that is every positive."""
        if only.ndim != 1 or not only.size or only[0] < 0 or only[-1] >= n or (only[1:] <= only[:-1]).any():
            raise DataError(f"only: must be ascending indices into the {n} positives, at least one")
        kept = np.intersect1d(only, self.eligible, assume_unique=True) if self.eligible.size else only.astype(np.int64)
        if not kept.size:
            raise DataError("none of the chosen positives has a negative: their users have every item")
        return kept

    def read(self, epoch: int, start: int, stop: int, out: Batch | None = None, *, threads: int = 1) -> Batch:
        """The rows visited from ``start`` to ``stop`` (exclusive) of an epoch.

        Parameters
        ----------
        epoch, start, stop : int
            ``0 <= start <= stop <= n_positives``.
        out : Batch, optional
            Memory to fill, at least as many rows; pinned memory as well.
        threads : int
            Threads of the sampler for this call.

        Raises
        ------
        ConfigError
            A range outside the epoch, or an ``out`` of another shape or dtype, or whose arrays overlap.
        """
        start, stop = as_int("start", start), as_int("stop", stop)
        order = self.order.positions(epoch, start, stop)
        n = stop - start
        if out is None:
            out = Batch(np.empty(n, np.int32), np.empty((n, 1 + self.n_negatives), np.int32), np.empty(n, np.int64))
        else:
            out = Batch(*(memory(f"out.{name}", array) for name, array in zip(Batch._fields, out)))
            _check_out(out, n, 1 + self.n_negatives)
        batch = Batch(out.users[:n], out.items[:n], out.positions[:n])
        _look_up(order, self.eligible, self._pairs, self._bits, batch.positions, batch.users, batch.items, 0, n)
        negatives = self.sampler.sample(batch.users, epoch=epoch, positions=batch.positions, threads=threads)
        _put_negatives(negatives, batch.items, 0, n)
        return batch

    def batch(self, cursor: Cursor, batch_size: int) -> tuple[Batch, Cursor]:
        """One batch from ``cursor`` and the cursor after it; the tail of an epoch is shorter, never dropped."""
        stop = min(cursor.position + batch_size, self.n_positives)
        return self.read(cursor.epoch, cursor.position, stop), Cursor(cursor.epoch, stop)
