"""The general kernel: weighted items, distinct slots, or both. One row at a time, by the same address.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import numpy as np

from fastrec.jit import inline, njit
from fastrec.sampling.kernels import BAD_POSITION, BAD_USER, OK
from fastrec.sampling.philox import MAX_ATTEMPTS, mulhi64, philox4x32

_LOW = np.uint64(0xFFFFFFFF)
_32, _16, _1, _2 = np.uint64(32), np.uint64(16), np.uint64(1), np.uint64(2)


@inline
def pick(words, lane):  # type: ignore[no-untyped-def]
    """Word ``lane`` of the four of a Philox call."""
    return words[0] if lane == 0 else (words[1] if lane == 1 else (words[2] if lane == 2 else words[3]))


@inline
def contains(items, lo, hi, item):  # type: ignore[no-untyped-def]
    """Whether the ascending ``items[lo:hi]`` hold ``item``. Cost: log2(degree) probes."""
    end = hi
    while lo < hi:
        mid = (lo + hi) >> 1
        if items[mid] < item:
            lo = mid + 1
        else:
            hi = mid
    return hi < end and items[hi] == item


@inline
def rank_select(items, lo, hi, rank):  # type: ignore[no-untyped-def]
    """The ``rank``-th (from 0) id that ``items[lo:hi]`` do not hold: binary search on ``items[lo + k] - k``."""
    first, left = lo, hi - lo
    while left > 0:
        half = left >> 1
        mid = first + half
        below = items[mid] - (mid - lo) <= rank
        first = mid + 1 if below else first
        left = left - half - 1 if below else half
    return rank + (first - lo)


@inline
def weight_select(of_items, of_rows, items, lo, hi, unit):  # type: ignore[no-untyped-def]
    """The item that holds the ``unit``-th (from 0) unit of weight outside ``items[lo:hi]``: two binary searches."""
    a, b = lo, hi
    while a < b:
        mid = (a + b) >> 1
        if of_items[items[mid]] - (of_rows[mid] - of_rows[lo]) <= unit:
            a = mid + 1
        else:
            b = mid
    unit += of_rows[a] - of_rows[lo]
    c, d = np.int64(0), np.int64(of_items.shape[0] - 1)
    while d - c > 1:  # of_items[c] <= unit < of_items[d]
        mid = (c + d) >> 1
        if of_items[mid] <= unit:
            c = mid
        else:
            d = mid
    return c


@njit
def sample_general(  # type: ignore[no-untyped-def]
    indptr,
    items,
    bits,
    row_words,
    n_items,
    cut,
    alias,
    of_items,
    of_rows,
    unfit,
    users,
    positions,
    start,
    epoch,
    seed,
    tag,
    distinct,
    out,
    lo,
    hi,
):
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (status, rejections, exact finishes, rows skipped).

    Empty ``bits``: membership by binary search. Empty ``cut``: uniform. ``unfit`` uint8[U] marks users without enough
    legal items, whose rows become -1. Empty ``positions``: the position of row r is start + r.

    A uniform slot s reads word s % 4 of block s // 4; a weighted one words 2 (s % 2) and the next of block s // 2.
    """
    weighted = cut.shape[0] > 0
    n = np.uint64(n_items)
    threshold = ((_1 << _32) - n) % n
    rejections, finishes, skipped = 0, 0, 0
    n_users = indptr.shape[0] - 1
    for row in range(lo, hi):
        user = users[row]
        if user < 0 or user >= n_users:
            return BAD_USER, rejections, finishes, skipped
        position = positions[row] if positions.shape[0] else start + row
        if position < 0:
            return BAD_POSITION, rejections, finishes, skipped
        if unfit[user]:
            for slot in range(out.shape[1]):
                out[row, slot] = -1
            skipped += 1
            continue
        a, b = indptr[user], indptr[user + 1]
        c0, c1 = np.uint64(position) & _LOW, np.uint64(position) >> _32
        opening = (c0, c0, c0, c0)
        for slot in range(out.shape[1]):
            block = np.uint64(slot >> 1 if weighted else slot >> 2) << _16
            lane = 2 * (slot & 1) if weighted else slot & 3
            item = np.int64(-1)
            for attempt in range(MAX_ATTEMPTS):
                if attempt == 0 and lane == 0:  # one call serves the first attempts of a complete block
                    opening = philox4x32(c0, c1, epoch, block, seed, tag)
                words = opening
                if attempt > 0:
                    words = philox4x32(c0, c1, epoch, block | np.uint64(attempt), seed, tag)
                m = pick(words, lane) * n
                candidate = np.int64(m >> _32)
                good = (m & _LOW) >= threshold
                if weighted and pick(words, lane + 1) >= np.uint64(cut[candidate]):
                    candidate = np.int64(alias[candidate])
                if bits.shape[0]:
                    word = bits[np.uint64(user) * np.uint64(row_words) + np.uint64(candidate >> 5)]
                    good = good and (word >> np.uint32(candidate & 31)) & np.uint32(1) == 0
                else:
                    good = good and not contains(items, a, b, candidate)
                if distinct:
                    for s in range(slot):
                        good = good and out[row, s] != candidate
                if good:
                    item = candidate
                    break
                rejections += 1
            if item < 0:
                finishes += 1
                legal = of_items[n_items] - (of_rows[b] - of_rows[a]) if weighted else np.uint64(n_items - (b - a))
                if distinct:
                    for s in range(slot):
                        taken = out[row, s]
                        legal -= of_items[taken + 1] - of_items[taken] if weighted else _1
                word3 = block | np.uint64(MAX_ATTEMPTS)
                while True:
                    words = philox4x32(c0, c1, epoch, word3, seed, tag)
                    if weighted:  # a slot's two words are the 64 bits
                        draw = pick(words, lane) << _32 | pick(words, lane + 1)
                        word3 += _1
                    else:
                        low = philox4x32(c0, c1, epoch, word3 + _1, seed, tag)
                        draw = pick(words, lane) << _32 | pick(low, lane)
                        word3 += _2
                    rank, rest = mulhi64(draw, legal)
                    if rest >= (np.uint64(0) - legal) % legal:
                        break
                # Earlier slots are legal items too: step over those at or below the find until none is new.
                over, seen = np.uint64(0), np.uint64(1)
                while over != seen:
                    seen = over
                    if weighted:
                        item = weight_select(of_items, of_rows, items, a, b, rank + over)
                    else:
                        item = rank_select(items, a, b, np.int64(rank + over))
                    over = np.uint64(0)
                    if distinct:
                        for s in range(slot):
                            taken = out[row, s]
                            if taken <= item:
                                over += of_items[taken + 1] - of_items[taken] if weighted else _1
            out[row, slot] = item
    return OK, rejections, finishes, skipped
