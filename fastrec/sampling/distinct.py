"""The kernel of distinct negatives: slot s also rejects what the slots before it hold, so columns still nest."""

from __future__ import annotations

import numpy as np

from fastrec.jit import inline, njit
from fastrec.sampling.kernels import _word, contains, mulhi64, rank_select
from fastrec.sampling.philox import MAX_ATTEMPTS, philox4x32

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_16 = np.uint64(16)
_2_32 = np.uint64(1 << 32)


@inline
def _taken(row, slot, item):  # type: ignore[no-untyped-def]
    for k in range(slot):  # noqa: SIM110 - Numba compiles no generator inside any()
        if row[k] == item:
            return True
    return False


@inline
def _lower_bound(items, lo, hi, item):  # type: ignore[no-untyped-def]
    while lo < hi:
        mid = (lo + hi) >> 1
        if items[mid] < item:
            lo = mid + 1
        else:
            hi = mid
    return lo


@inline
def _finish(items, lo, hi, n_items, c0, c1, epoch, seed, tag, row, slot, ranks):  # type: ignore[no-untyped-def]
    """Uniform over the legal items that slots before this one do not hold, from 64 bits (attempts 8, 9, ...)."""
    left = np.uint64(n_items - (hi - lo) - slot)
    for k in range(slot):  # the earlier slots as ranks among the legal items, ascending
        rank = row[k] - (_lower_bound(items, lo, hi, row[k]) - lo)
        j = k
        while j > 0 and ranks[j - 1] > rank:
            ranks[j] = ranks[j - 1]
            j -= 1
        ranks[j] = rank
    block = np.uint64(slot >> 2) << _16
    attempt = np.uint64(MAX_ATTEMPTS)
    threshold = (np.uint64(0) - left) % left
    while True:
        high = _word(philox4x32(c0, c1, epoch, block | attempt, seed, tag), slot)
        low = _word(philox4x32(c0, c1, epoch, block | (attempt + np.uint64(1)), seed, tag), slot)
        drawn, fraction = mulhi64((high << _32) | low, left)
        if fraction >= threshold:
            break
        attempt += np.uint64(2)
    rank = np.int64(drawn)
    for k in range(slot):
        if ranks[k] > rank:
            break
        rank += 1
    return rank_select(items, lo, hi, rank)


@njit
def sample_distinct(indptr, items, n_items, users, positions, start, epoch, seed, tag, out, ranks, lo, hi):  # type: ignore[no-untyped-def]
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (rejections, exact finishes).

    Rows with fewer legal items than N are filled with -1. ``ranks`` int64[N] is scratch of this call.
    """
    n = np.uint64(n_items)
    threshold = (_2_32 - n) % n
    rejections = 0
    finishes = 0
    for r in range(lo, hi):
        user = users[r]
        a, b = indptr[user], indptr[user + 1]
        row = out[r]
        if n_items - (b - a) < row.shape[0]:
            row[:] = -1
            continue
        position = positions[r] if positions.shape[0] else start + r
        c0, c1 = np.uint64(position) & _LOW, np.uint64(position) >> _32
        for slot in range(row.shape[0]):
            found = False
            for attempt in range(MAX_ATTEMPTS):
                words = philox4x32(c0, c1, epoch, (np.uint64(slot >> 2) << _16) | np.uint64(attempt), seed, tag)
                m = _word(words, slot) * n
                item = np.int64(m >> _32)
                if (m & _LOW) >= threshold and not contains(items, a, b, item) and not _taken(row, slot, item):
                    row[slot] = item
                    found = True
                    break
                rejections += 1
            if not found:
                row[slot] = _finish(items, a, b, n_items, c0, c1, epoch, seed, tag, row, slot, ranks)
                finishes += 1
    return rejections, finishes
