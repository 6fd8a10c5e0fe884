"""The fast uniform kernel: full blocks of candidates drawn and probed in vector steps, failures packed and redrawn.

Arrays and scalars in, ``out`` filled; nothing allocated per row, raised or printed.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastrec.jit import inline, njit
from fastrec.sampling.csr import filter_row
from fastrec.sampling.philox import MAX_ATTEMPTS, mulhi64, philox4x32
from fastrec.sampling.simd import (
    KEEP,
    LANES,
    bitmap_ahead,
    bitmap_step,
    bounded_step,
    filter_ahead,
    filter_step,
    keep_step,
    philox_step,
)

BLOCK = 512
"""Rows per block: its scratch (about 80 KB) stays in the second-level cache."""

AHEAD = 128
"""Entries between asking for a word and reading it, where positions come in any order: 8 KB of lines on their way."""

_SHIFT = BLOCK.bit_length() - 1
_ROW = BLOCK - 1
_32 = np.uint64(32)
_16 = np.uint64(16)
_8 = np.uint64(8)
_1 = np.uint64(1)
_2 = np.uint64(2)
_LOW = np.uint64(0xFFFFFFFF)
_BYTE = np.uint64(255)
_2_32 = np.uint64(1 << 32)
_ALL = np.uint64((1 << LANES) - 1)

OK, BAD_USER, BAD_POSITION = 0, 1, 2
"""How a kernel ended; a row at fault stops its range before anything of that block is read through it."""


class Address(NamedTuple):
    """The parts of a draw's address that all rows of a call share, as uint64."""

    epoch: np.uint64
    seed: np.uint64
    tag: np.uint64


@inline
def finish_word(position, epoch, word3, seed, tag, lane):  # type: ignore[no-untyped-def]
    """64 bits for one slot: its word of the attempt in ``word3`` above its word of the next attempt."""
    c0, c1 = np.uint64(position) & _LOW, np.uint64(position) >> _32
    h = philox4x32(c0, c1, epoch, word3, seed, tag)
    l = philox4x32(c0, c1, epoch, word3 + _1, seed, tag)  # noqa: E741
    high = h[0] if lane == 0 else (h[1] if lane == 1 else (h[2] if lane == 2 else h[3]))
    low = l[0] if lane == 0 else (l[1] if lane == 1 else (l[2] if lane == 2 else l[3]))
    return high << _32 | low


@inline
def entry_words(k, m, word3, address, pending, pos, e_pos, words, e_word):  # type: ignore[no-untyped-def]
    """e_word[j] = the word of the j-th pending entry: its lane of its row's block at the attempt in ``word3``."""
    if k >= m:  # cheaper for every row once than for every entry
        for g in range(0, m, LANES):
            philox_step(pos, g, address.epoch, word3, address.seed, address.tag, words, g, BLOCK)
        for j in range(k):
            e_word[j] = words[np.int64(pending[j])]
    else:
        for j in range(k):
            e_pos[j] = pos[np.int64(pending[j]) & _ROW]
        for g in range(0, k, LANES):
            philox_step(e_pos, g, address.epoch, word3, address.seed, address.tag, words, g, BLOCK)
        for j in range(k):
            e_word[j] = words[np.int64(pending[j]) & ~_ROW | j]


@inline
def load_block(users, positions, start, n_users, at, m, user, pos):  # type: ignore[no-untyped-def]
    """Copy users and positions of rows [at, at + m) into scratch; returns the fault found, or OK."""
    fault = False
    for i in range(m):
        u = users[at + i]  # read once: another thread may write there
        user[i] = u
        fault |= np.uint32(u) >= np.uint32(n_users)
    if fault:
        return BAD_USER
    if positions.shape[0]:
        for i in range(m):
            pos[i] = np.uint64(positions[at + i])
            fault |= positions[at + i] < 0
    else:
        for i in range(m):
            pos[i] = np.uint64(start + at + i)
    return BAD_POSITION if fault else OK


# The first attempt, which every entry pays for: full groups of 16 rows, and no branch on what is drawn. Lemire's
# misses and the probe's hits are or-ed into one mask, and a table packs its bits, at any rate of rejection.
@inline
def first_attempt(  # type: ignore[no-untyped-def]
    lanes, m, ahead, word3, n, threshold, address, bits, filter_words, pos, base, size, words, drawn, missed, pending
):
    """Draw and probe every entry of the block; returns how many are pending.

    With ``ahead`` rows between asking for a bitmap's word and reading it: positions in any order miss the cache.
    """
    by_bitmap, by_filter = bits.shape[0] > 0, filter_words.shape[0] > 0
    k = 0
    for g in range(0, m, LANES):
        philox_step(pos, g, address.epoch, word3, address.seed, address.tag, words, g, BLOCK)
    for lane in range(lanes):
        for g in range(0, m + ahead, LANES):
            e = lane * BLOCK + g
            if g < m:
                missed[g // LANES] = bounded_step(words, e, n, threshold, drawn, e)
                if ahead and by_bitmap:
                    bitmap_ahead(bits, base, g, drawn, e)
                elif ahead and by_filter:
                    filter_ahead(filter_words, base, size, g, drawn, e)
            if g < ahead:
                continue
            bad, e = missed[(g - ahead) // LANES], e - ahead
            if by_bitmap:
                bad |= bitmap_step(bits, base, g - ahead, drawn, e)
            else:
                bad |= filter_step(filter_words, base, size, g - ahead, drawn, e) if by_filter else _ALL
            k = keep_step(KEEP, bad & _BYTE, e, pending, k)
            k = keep_step(KEEP, bad >> _8, e + 8, pending, k)
    return k


@inline
def drop_idle(k, m, any_full, pending, user, indptr, n_items):  # type: ignore[no-untyped-def]
    """Drop pending entries past the last row, and those of full users, who have nothing to draw; returns how many stay.

    Cost: one look per entry, and only for a last block or where full users exist.
    """
    kept = 0
    for j in range(k):
        i = np.int64(pending[j]) & _ROW
        pending[kept] = pending[j]
        kept += i < m and not (any_full and indptr[user[i] + 1] - indptr[user[i]] >= n_items)
    return kept


@inline
def mark_open(k, pending, wanted):  # type: ignore[no-untyped-def]
    """wanted = a bit per pending entry."""
    wanted[:] = 0
    for j in range(k):
        e = np.int64(pending[j])
        wanted[e // LANES] |= _1 << np.uint64(e % LANES)


# Later attempts, where most entries are still open (nearly full users). Packing the open ones costs a gather and a
# scatter per entry; above one half it is cheaper to draw full groups again and to keep what open entries can use.
@inline
def redraw_all(lanes, m, word3, n, threshold, address, bits, pos, base, words, wanted, fresh, drawn, pending):  # type: ignore[no-untyped-def]
    """Redraw every entry and keep what the open ones (bits of ``wanted``) can use; returns how many stay open."""
    for g in range(0, m, LANES):
        philox_step(pos, g, address.epoch, word3, address.seed, address.tag, words, g, BLOCK)
    k = 0
    for lane in range(lanes):
        for g in range(0, m, LANES):
            e = lane * BLOCK + g
            bad = bounded_step(words, e, n, threshold, fresh, e)
            bad |= bitmap_step(bits, base, g, fresh, e)
            bad &= wanted[e // LANES]
            good = bad ^ wanted[e // LANES]
            wanted[e // LANES] = bad
            k = keep_step(KEEP, bad & _BYTE, e, pending, k)
            k = keep_step(KEEP, bad >> _8, e + 8, pending, k)
            while good:
                if good & _1:
                    drawn[e] = fresh[e]
                good >>= _1
                e += 1
    return k


# Later attempts, the common case: few entries are open. They are packed, so that 16 of any rows fill a vector; the
# price is one gather per entry of its row's values.
@inline
def redraw_packed(k, n, threshold, bits, filter_words, e_word, e_drawn, e_base, e_size, words, drawn, pending):  # type: ignore[no-untyped-def]
    """Redraw the k pending entries and keep in ``pending`` those that fail again; returns how many."""
    by_bitmap, by_filter = bits.shape[0] > 0, filter_words.shape[0] > 0
    kept = 0
    for g in range(0, k, LANES):
        bad = bounded_step(e_word, g, n, threshold, e_drawn, g)
        if by_bitmap:
            bad |= bitmap_step(bits, e_base, g, e_drawn, g)
        else:
            bad |= filter_step(filter_words, e_base, e_size, g, e_drawn, g) if by_filter else _ALL
        for j in range(g, min(g + LANES, k)):
            e = np.int64(pending[j])
            drawn[e], words[e] = e_drawn[j], e_word[j]
            pending[kept] = e
            kept += np.int64(bad & _1)
            bad >>= _1
    return kept


# Without a bitmap: what the filter lets pass (all, without one) is searched in the row, about 50 ns each. No branch on
# what is found, so that the loads of several searches overlap.
@inline
def still_held(k, pending, user, drawn, words, indptr, items, n, threshold):  # type: ignore[no-untyped-def]
    """Of the k pending entries leave those that missed or are positives by binary search; returns how many.

    No call for each search: Numba counts the references of an array that is passed, by atomic additions.
    """
    kept = 0
    for j in range(k):
        e = np.int64(pending[j])
        u, item = user[e & _ROW], np.int32(drawn[e])
        at, left = indptr[u], indptr[u + 1] - indptr[u]
        while left > 1:
            half = left >> 1
            at += half if items[at + half] <= item else 0
            left -= half
        missed = np.uint64(words[e]) * n & _LOW < threshold
        pending[kept] = e
        kept += missed or (left == 1 and items[at] == item)
    return kept


# After MAX_ATTEMPTS: exact by rank, two more Philox calls and a search each. Rare but for nearly full users.
@inline
def finish(k, pending, user, pos, high, low, indptr, items, n_items, word3, address, drawn):  # type: ignore[no-untyped-def]
    """Draw the k pending entries by rank among the legal items, from the words high[j] and low[j] of ``word3``."""
    for j in range(k):
        e = np.int64(pending[j])
        i = e & _ROW
        row, left = indptr[user[i]], indptr[user[i] + 1] - indptr[user[i]]
        legal = np.uint64(n_items - left)
        bits64 = np.uint64(high[j]) << _32 | np.uint64(low[j])
        retry = word3
        while True:
            rank, rest = mulhi64(bits64, legal)
            if rest >= legal or rest >= (np.uint64(0) - legal) % legal:  # the division is rarely needed
                break
            retry += _2
            bits64 = finish_word(pos[i], address.epoch, retry, address.seed, address.tag, e >> _SHIFT)
        wanted, at = np.int64(rank), row
        while left > 1:  # ``rank_select`` with as many steps for every search of a row and no branch: searches overlap
            half = left >> 1
            at += half if items[at + half - 1] - (at + half - 1 - row) <= wanted else 0
            left -= half
        if left == 1 and items[at] - (at - row) <= wanted:
            at += 1
        drawn[e] = wanted + at - row


# The transposition from lanes to rows. Four slots are written out: a row's 16 bytes in one go.
@inline
def write_block(at, m, slot, lanes, drawn, flat, n_slots):  # type: ignore[no-untyped-def]
    """Copy the block's entries to columns [slot, slot + lanes) of rows [at, at + m)."""
    if n_slots == 4:
        for i in range(m):
            to = (at + i) * 4
            flat[to] = drawn[i]
            flat[to + 1] = drawn[BLOCK + i]
            flat[to + 2] = drawn[2 * BLOCK + i]
            flat[to + 3] = drawn[3 * BLOCK + i]
    else:
        for lane in range(lanes):
            for i in range(m):
                flat[(at + i) * n_slots + slot + lane] = drawn[lane * BLOCK + i]


@njit
def sample_uniform(positives, users, positions, start, address, any_full, out, lo, hi):  # type: ignore[no-untyped-def]
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (status, rejections, exact finishes, rows skipped).

    ``positives`` is (indptr, items, bits, row_words, filter_words, n_items): empty ``bits`` mean membership by
    ``filter_words``, and if these are empty too by binary search only. ``address`` is the tuple of an ``Address``.
    Empty ``positions``: the position of row r is start + r.

    Cost of arguments: plain tuples, because Numba takes 0.9 us more per call to recognise a NamedTuple. Helpers take
    the arrays they use one by one, because each array passed has its references counted: with the scratch passed as
    one NamedTuple of 14 arrays the kernel took 1.3 to 1.4 times as long by bitmap, 1.04 times by filter.
    """
    indptr, items, bits, row_words, filter_words, n_items = positives
    address = Address(*address)
    n = np.uint64(n_items)
    threshold = (_2_32 - n) % n
    n_slots = out.shape[1]
    flat = out.reshape(-1)
    by_bitmap = bits.shape[0] > 0
    # Scratch. Entries past the live ones hold older, valid values: full groups may read them, and nothing uses them.
    user = np.zeros(BLOCK, np.int32)
    pos = np.zeros(BLOCK, np.uint64)
    base = np.zeros(BLOCK, np.uint32)
    size = np.zeros(BLOCK, np.uint32)
    words = np.zeros(4 * BLOCK, np.uint32)
    drawn = np.zeros(4 * BLOCK, np.uint32)
    missed = np.zeros(BLOCK // LANES, np.uint64)
    wanted = np.zeros(4 * BLOCK // LANES, np.uint64)
    pending = np.zeros(4 * BLOCK + 8, np.int16)  # entry = lane * BLOCK + row within the block
    e_word = np.zeros(4 * BLOCK, np.uint32)
    e_drawn = np.zeros(4 * BLOCK, np.uint32)
    e_pos = np.zeros(4 * BLOCK, np.uint64)
    e_base = np.zeros(4 * BLOCK, np.uint32)
    e_size = np.zeros(4 * BLOCK, np.uint32)
    status, rejections, finishes, skipped = OK, 0, 0, 0
    ahead = AHEAD if positions.shape[0] else 0
    for at in range(lo, hi, BLOCK):
        m = min(BLOCK, hi - at)
        status = load_block(users, positions, start, indptr.shape[0] - 1, at, m, user, pos)
        if status != OK:
            break
        if by_bitmap:
            for i in range(m):
                base[i] = np.uint32(user[i]) * np.uint32(row_words)
        else:
            for i in range(m):
                base[i], size[i] = filter_row(indptr[user[i]], indptr[user[i] + 1])
        for slot in range(0, n_slots, 4):
            lanes = min(4, n_slots - slot)
            word3 = np.uint64(slot >> 2) << _16
            k = 0
            for attempt in range(MAX_ATTEMPTS):
                if attempt == 0:
                    k = first_attempt(
                        lanes, m, ahead, word3, n, threshold, address, bits, filter_words, pos, base, size, words,
                        drawn, missed, pending,
                    )  # fmt: skip
                    if m % LANES or any_full:
                        k = drop_idle(k, m, any_full, pending, user, indptr, n_items)
                elif by_bitmap and 2 * k > lanes * m:
                    if attempt == 1:
                        mark_open(k, pending, wanted)
                    k = redraw_all(
                        lanes, m, word3, n, threshold, address, bits, pos, base, words, wanted, e_drawn, drawn, pending
                    )
                else:
                    for j in range(k):
                        i = np.int64(pending[j]) & _ROW
                        e_base[j] = base[i]
                        if not by_bitmap:
                            e_size[j] = size[i]
                    entry_words(k, m, word3, address, pending, pos, e_pos, words, e_word)
                    k = redraw_packed(
                        k, n, threshold, bits, filter_words, e_word, e_drawn, e_base, e_size, words, drawn, pending
                    )
                if not by_bitmap:
                    k = still_held(k, pending, user, drawn, words, indptr, items, n, threshold)
                rejections += k
                if k == 0:
                    break
                word3 += _1
            finishes += k
            if k:
                entry_words(k, m, word3, address, pending, pos, e_pos, words, e_word)
                entry_words(k, m, word3 + _1, address, pending, pos, e_pos, words, e_drawn)
                finish(k, pending, user, pos, e_word, e_drawn, indptr, items, n_items, word3, address, drawn)
            write_block(at, m, slot, lanes, drawn, flat, n_slots)
        if any_full:
            for i in range(m):
                if indptr[user[i] + 1] - indptr[user[i]] >= n_items:
                    out[at + i] = -1
                    skipped += 1
    return status, rejections, finishes, skipped
