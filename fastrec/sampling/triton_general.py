"""The general kernel's twin in Triton: weighted items, distinct slots, or both; equal to ``general.py`` byte for byte.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def words_of(position, epoch, word3, seed, tag):  # type: ignore[no-untyped-def]
    """The four words of one block and attempt, each uint32 widened to uint64."""
    zero = position * 0
    c2, c3 = (epoch + zero).to(tl.uint32), (word3 + zero).to(tl.uint32)
    k0, k1 = (seed + zero).to(tl.uint32), (tag + zero).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox_impl(position.to(tl.uint32), (position >> 32).to(tl.uint32), c2, c3, k0, k1)
    return w0.to(tl.uint64), w1.to(tl.uint64), w2.to(tl.uint64), w3.to(tl.uint64)


@triton.jit
def holds(items, bits, row_words, user, first, degree, item, live, BITMAP: tl.constexpr, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """Whether each row holds its item: one bitmap probe, or a branchless lower bound in the CSR."""
    if BITMAP:
        word = tl.load(bits + user * row_words + (item >> 5), mask=live, other=0)
        return ((word >> (item & 31).to(tl.int32)) & 1) != 0
    where, left = first, degree
    for _ in range(STEPS):
        half = left >> 1
        value = tl.load(items + where + half - 1, mask=live & (half > 0), other=0).to(tl.int64)
        where = tl.where((value < item) & (half > 0), where + half, where)
        left = left - half
    value = tl.load(items + where, mask=live & (degree > 0), other=-1).to(tl.int64)
    return value == item


@triton.jit
def _pick(words, lane):  # type: ignore[no-untyped-def]
    """The word of a lane that is known at run time only."""
    w0, w1, w2, w3 = words
    return tl.where(lane == 0, w0, tl.where(lane == 1, w1, tl.where(lane == 2, w2, w3)))


@triton.jit
def _high(a, b):  # type: ignore[no-untyped-def]
    """The upper 64 bits of the product of two uint64."""
    a0, a1 = a & 0xFFFFFFFF, a >> 32
    b0, b1 = b & 0xFFFFFFFF, b >> 32
    middle = a1 * b0 + ((a0 * b0) >> 32)
    other = a0 * b1 + (middle & 0xFFFFFFFF)
    return a1 * b1 + (middle >> 32) + (other >> 32)


@triton.jit
def _units(sums, at, live):  # type: ignore[no-untyped-def]
    """uint64 prefix sums, which are int64 in memory."""
    return tl.load(sums + at, mask=live, other=0).to(tl.uint64)


@triton.jit
def _of_rank(items, first, degree, rank, live, STEPS: tl.constexpr):  # type: ignore[no-untyped-def]
    """The legal item of each rank, from 0."""
    where, left = first, degree
    for _ in range(STEPS + 1):
        half = left >> 1
        mid = where + half
        value = tl.load(items + mid, mask=live & (left > 0), other=0).to(tl.int64) - (mid - first)
        below = (left > 0) & (value <= rank)
        where = tl.where(below, mid + 1, where)
        left = tl.where(below, left - half - 1, half)
    return rank + where - first


@triton.jit
def _of_unit(  # type: ignore[no-untyped-def]
    items, of_items, of_rows, first, degree, unit, n_items, live, STEPS: tl.constexpr, ITEM_STEPS: tl.constexpr
):
    """The legal item that holds each unit of weight, from 0: a search of the row, then one of all items."""
    before = _units(of_rows, first, live)
    where, left = first, degree
    for _ in range(STEPS + 1):
        half = left >> 1
        mid = where + half
        some = live & (left > 0)
        item = tl.load(items + mid, mask=some, other=0).to(tl.int64)
        below = (left > 0) & (_units(of_items, item, some) - (_units(of_rows, mid, some) - before) <= unit)
        where = tl.where(below, mid + 1, where)
        left = tl.where(below, left - half - 1, half)
    unit += _units(of_rows, where, live) - before
    lo, hi = first * 0, first * 0 + n_items
    for _ in range(ITEM_STEPS):  # of_items[lo] <= unit < of_items[hi]
        mid = (lo + hi) >> 1
        open_ = live & (hi - lo > 1)
        below = _units(of_items, mid, open_) <= unit
        lo = tl.where(open_ & below, mid, lo)
        hi = tl.where(open_ & (below == 0), mid, hi)
    return lo


@triton.jit
def _taken_among(out, at, slot, item, of_items, live, WEIGHTED: tl.constexpr):  # type: ignore[no-untyped-def]
    """uint64: how many of the slots before hold ``item`` or less; their units where weighted."""
    total = (at * 0).to(tl.uint64)
    s = 0
    while s < slot:
        taken = tl.load(out + at + s, mask=live, other=0).to(tl.int64)
        size = total * 0 + 1
        if WEIGHTED:
            size = _units(of_items, taken + 1, live) - _units(of_items, taken, live)
        total += tl.where(taken <= item, size, 0)
        s += 1
    return total


@triton.jit
def general_kernel(  # type: ignore[no-untyped-def]
    indptr, items, bits, users, positions, epoch_at, out, cut, alias, of_items, of_rows, unfit,
    n_rows, n_slots, stride, n_items, row_words, seed, tag,
    WEIGHTED: tl.constexpr, DISTINCT: tl.constexpr, BITMAP: tl.constexpr, ATTEMPTS: tl.constexpr,
    STEPS: tl.constexpr, ITEM_STEPS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """out[r * stride + s]: all negatives of SIZE rows, slot after slot, since a distinct slot reads those before it."""
    row = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    zero = row * 0
    inside = row < n_rows
    n_items, seed, tag = n_items + zero, seed + zero, tag + zero
    epoch = tl.load(epoch_at) + zero
    user = tl.load(users + row, mask=inside, other=0).to(tl.int64)
    position = tl.load(positions + row, mask=inside, other=0)
    live = inside & (tl.load(unfit + user, mask=inside, other=1) == 0)
    first = tl.load(indptr + user, mask=inside, other=0)
    degree = tl.load(indptr + user + 1, mask=inside, other=0) - first
    n, at = n_items.to(tl.uint64), row * stride
    threshold = (4294967296 - n_items) % n_items
    every = n - degree.to(tl.uint64)
    if WEIGHTED:
        held = _units(of_rows, first + degree, live) - _units(of_rows, first, live)
        every = _units(of_items, n_items, live) - held
    slot = 0
    while slot < n_slots:
        lane = slot & 3
        block = (slot >> 2) << 16
        if WEIGHTED:
            lane = 2 * (slot & 1)
            block = (slot >> 1) << 16
        drawn, pending = zero - 1, live
        attempt = 0
        while (attempt < ATTEMPTS) & (tl.sum(pending.to(tl.int32)) > 0):
            words = words_of(position, epoch, block | attempt, seed, tag)
            product = _pick(words, lane) * n
            item = (product >> 32).to(tl.int64)
            bad = (product & 0xFFFFFFFF).to(tl.int64) < threshold
            if WEIGHTED:
                own = _pick(words, lane + 1).to(tl.int64) < tl.load(cut + item, mask=pending, other=0)
                item = tl.where(own, item, tl.load(alias + item, mask=pending, other=0).to(tl.int64))
            bad = bad | holds(items, bits, row_words, user, first, degree, item, pending, BITMAP, STEPS)
            if DISTINCT:
                s = 0
                while s < slot:
                    bad = bad | (tl.load(out + at + s, mask=pending, other=-1).to(tl.int64) == item)
                    s += 1
            drawn = tl.where(pending & (bad == 0), item, drawn)
            pending = pending & bad
            attempt += 1
        attempt = ATTEMPTS
        legal = every
        if DISTINCT:
            legal -= _taken_among(out, at, slot, n_items, of_items, pending, WEIGHTED)
        legal = tl.where(pending, legal, 1)
        rank = legal * 0
        waiting = pending
        while tl.sum(waiting.to(tl.int32)) > 0:
            words = words_of(position, epoch, block | attempt, seed, tag)
            if WEIGHTED:  # a slot's two words are the 64 bits
                low = _pick(words, lane + 1)
                attempt += 1
            else:
                low = _pick(words_of(position, epoch, block | (attempt + 1), seed, tag), lane)
                attempt += 2
            bits64 = (_pick(words, lane) << 32) | low
            missed = bits64 * legal < (0 - legal) % legal
            rank = tl.where(waiting & (missed == 0), _high(bits64, legal), rank)
            waiting = waiting & missed
        # Earlier slots are legal items too: step over those at or below the find until none is new.
        over, item = rank * 0, zero
        turn, turns = 0, 1
        if DISTINCT:
            turns = slot + 1
        turns = tl.where(tl.sum(pending.to(tl.int32)) > 0, turns, 0)
        while turn < turns:  # each turn but the last finds one more
            if WEIGHTED:
                item = _of_unit(
                    items, of_items, of_rows, first, degree, rank + over, n_items, pending, STEPS, ITEM_STEPS
                )
            else:
                item = _of_rank(items, first, degree, (rank + over).to(tl.int64), pending, STEPS)
            if DISTINCT:
                over = _taken_among(out, at, slot, item, of_items, pending, WEIGHTED)
            turn += 1
        drawn = tl.where(pending, item, drawn)
        tl.store(out + at + slot, drawn.to(tl.int32), mask=inside)
        if DISTINCT:
            tl.debug_barrier()  # the slots after this one read it
        slot += 1
