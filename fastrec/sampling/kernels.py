"""The fast uniform kernel: whole blocks of candidates drawn and probed in vector steps, failures packed and redrawn.

Arrays and scalars in, ``out`` filled; nothing allocated per row, raised or printed.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

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
"""Rows a block: its scratch (about 80 KB) stays in the second-level cache."""

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
def entry_words(k, m, pending, pos, e_pos, epoch, word3, seed, tag, words, e_word):  # type: ignore[no-untyped-def]
    """e_word[j] = the word of the j-th pending entry: its lane of its row's block at the attempt in ``word3``."""
    if k >= m:  # cheaper for every row once than for every entry
        for g in range(0, m, LANES):
            philox_step(pos, g, epoch, word3, seed, tag, words, g, BLOCK)
        for j in range(k):
            e_word[j] = words[np.int64(pending[j])]
    else:
        for j in range(k):
            e_pos[j] = pos[np.int64(pending[j]) & _ROW]
        for g in range(0, k, LANES):
            philox_step(e_pos, g, epoch, word3, seed, tag, words, g, BLOCK)
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


@inline
def redraw_all(lanes, m, words, n, threshold, bits, base, wanted, fresh, drawn, pending):  # type: ignore[no-untyped-def]
    """Draw every entry anew and keep what the open ones (bits of ``wanted``) can use; returns how many stay open."""
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


@inline
def finish(  # type: ignore[no-untyped-def]
    k, pending, user, pos, high, low, indptr, items, n_items, epoch, word3, seed, tag, drawn
):
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
            bits64 = finish_word(pos[i], epoch, retry, seed, tag, e >> _SHIFT)
        wanted, at = np.int64(rank), row
        while left > 1:  # ``rank_select`` with as many steps for every search of a row and no branch: searches overlap
            half = left >> 1
            at += half if items[at + half - 1] - (at + half - 1 - row) <= wanted else 0
            left -= half
        if left == 1 and items[at] - (at - row) <= wanted:
            at += 1
        drawn[e] = wanted + at - row


@njit
def sample_uniform(  # type: ignore[no-untyped-def]
    indptr,
    items,
    bits,
    row_words,
    filter_words,
    n_items,
    users,
    positions,
    start,
    epoch,
    seed,
    tag,
    any_full,
    out,
    lo,
    hi,
):
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (status, rejections, exact finishes, rows skipped).

    Empty ``positions``: the position of row r is start + r. Empty ``bits``: membership by ``filter_words``, if empty
    too by binary search alone.
    """
    n = np.uint64(n_items)
    threshold = (_2_32 - n) % n
    n_slots = out.shape[1]
    flat = out.reshape(-1)
    by_bitmap, by_filter = bits.shape[0] > 0, filter_words.shape[0] > 0
    # Scratch. Entries past the live ones hold older, valid values: whole groups may read them, and nothing uses them.
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
                    for g in range(0, m, LANES):
                        philox_step(pos, g, epoch, word3, seed, tag, words, g, BLOCK)
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
                    if m % LANES or any_full:  # drop what lies past the last row, and the rows of full users
                        kept = 0
                        for j in range(k):
                            i = np.int64(pending[j]) & _ROW
                            pending[kept] = pending[j]
                            kept += i < m and not (any_full and indptr[user[i] + 1] - indptr[user[i]] >= n_items)
                        k = kept
                elif by_bitmap and 2 * k > lanes * m:  # nearly full users: whole groups again cost less than packing
                    if attempt == 1:
                        wanted[:] = 0
                        for j in range(k):
                            e = np.int64(pending[j])
                            wanted[e // LANES] |= _1 << np.uint64(e % LANES)
                    for g in range(0, m, LANES):
                        philox_step(pos, g, epoch, word3, seed, tag, words, g, BLOCK)
                    k = redraw_all(lanes, m, words, n, threshold, bits, base, wanted, e_drawn, drawn, pending)
                else:
                    for j in range(k):
                        i = np.int64(pending[j]) & _ROW
                        e_base[j] = base[i]
                        if not by_bitmap:
                            e_size[j] = size[i]
                    entry_words(k, m, pending, pos, e_pos, epoch, word3, seed, tag, words, e_word)
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
                    k = kept
                if not by_bitmap:
                    k = still_held(k, pending, user, drawn, words, indptr, items, n, threshold)
                rejections += k
                if k == 0:
                    break
                word3 += _1
            finishes += k
            if k:
                entry_words(k, m, pending, pos, e_pos, epoch, word3, seed, tag, words, e_word)
                entry_words(k, m, pending, pos, e_pos, epoch, word3 + _1, seed, tag, words, e_drawn)
                finish(k, pending, user, pos, e_word, e_drawn, indptr, items, n_items, epoch, word3, seed, tag, drawn)
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
        if any_full:
            for i in range(m):
                if indptr[user[i] + 1] - indptr[user[i]] >= n_items:
                    out[at + i] = -1
                    skipped += 1
    return status, rejections, finishes, skipped
