"""The kernels of sampling. Arrays and scalars in, ``out`` filled; no allocation per row, nothing raised or printed.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import numpy as np

from fastrec.jit import inline, njit
from fastrec.sampling.philox import MAX_ATTEMPTS, philox4x32

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)
_16 = np.uint64(16)
_2_32 = np.uint64(1 << 32)


@inline
def contains(items, lo, hi, item):  # type: ignore[no-untyped-def]
    """Whether the ascending ``items[lo:hi]`` hold ``item``. Cost: log2(degree) probes."""
    while lo < hi:
        mid = (lo + hi) >> 1
        value = items[mid]
        if value == item:
            return True
        if value < item:
            lo = mid + 1
        else:
            hi = mid
    return False


@inline
def rank_select(items, lo, hi, rank):  # type: ignore[no-untyped-def]
    """The ``rank``-th (from 0) id that ``items[lo:hi]`` do not hold: binary search on ``items[lo + k] - k``."""
    a, b = 0, hi - lo
    while a < b:
        mid = (a + b) >> 1
        if items[lo + mid] - mid > rank:
            b = mid
        else:
            a = mid + 1
    return rank + a


@inline
def _word(words, slot):  # type: ignore[no-untyped-def]
    lane = slot & 3
    if lane == 0:
        return words[0]
    if lane == 1:
        return words[1]
    if lane == 2:
        return words[2]
    return words[3]


@inline
def mulhi64(a, b):  # type: ignore[no-untyped-def]
    """High and low 64 bits of a * b for b < 2^32."""
    low = (a & _LOW) * b
    high = (a >> _32) * b + (low >> _32)
    return high >> _32, ((high & _LOW) << _32) | (low & _LOW)


@inline
def exact_finish(items, lo, hi, n_items, position, epoch, seed, tag, slot):  # type: ignore[no-untyped-def]
    """Uniform over the legal items: attempts 8 and 9 give 64 bits; a Lemire miss takes the next two attempts."""
    legal = np.uint64(n_items - (hi - lo))
    block = np.uint64(slot >> 2) << _16
    attempt = np.uint64(MAX_ATTEMPTS)
    c0, c1 = np.uint64(position) & _LOW, np.uint64(position) >> _32
    threshold = (np.uint64(0) - legal) % legal
    while True:
        high = _word(philox4x32(c0, c1, epoch, block | attempt, seed, tag), slot)
        low = _word(philox4x32(c0, c1, epoch, block | (attempt + np.uint64(1)), seed, tag), slot)
        rank, fraction = mulhi64((high << _32) | low, legal)
        if fraction >= threshold:
            return rank_select(items, lo, hi, np.int64(rank))
        attempt += np.uint64(2)


@njit
def sample_uniform(indptr, items, n_items, users, positions, start, epoch, seed, tag, out, lo, hi):  # type: ignore[no-untyped-def]
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (rejections, exact finishes).

    Empty ``positions``: the position is start + row.
    """
    n = np.uint64(n_items)
    threshold = (_2_32 - n) % n
    rejections = 0
    finishes = 0
    n_slots = out.shape[1]
    for row in range(lo, hi):
        user = users[row]
        a, b = indptr[user], indptr[user + 1]
        position = positions[row] if positions.shape[0] else start + row
        c0, c1 = np.uint64(position) & _LOW, np.uint64(position) >> _32
        if b - a >= n_items:
            for slot in range(n_slots):
                out[row, slot] = -1
            continue
        for first in range(0, n_slots, 4):
            last = min(first + 4, n_slots)
            pending = (1 << (last - first)) - 1
            for attempt in range(MAX_ATTEMPTS):
                words = philox4x32(c0, c1, epoch, (np.uint64(first >> 2) << _16) | np.uint64(attempt), seed, tag)
                for slot in range(first, last):
                    if pending >> (slot - first) & 1:
                        m = _word(words, slot) * n
                        item = np.int64(m >> _32)
                        if (m & _LOW) < threshold or contains(items, a, b, item):
                            rejections += 1
                        else:
                            out[row, slot] = item
                            pending &= ~(1 << (slot - first))
                if pending == 0:
                    break
            for slot in range(first, last):
                if pending >> (slot - first) & 1:
                    out[row, slot] = exact_finish(items, a, b, n_items, position, epoch, seed, tag, slot)
                    finishes += 1
    return rejections, finishes
