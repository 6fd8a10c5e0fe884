"""The fast uniform kernel: whole blocks of candidates drawn and probed in vector steps, failures packed and redrawn.

Arrays and scalars in, ``out`` filled; nothing allocated per row, raised or printed.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import numpy as np

from fastrec.jit import inline, njit
from fastrec.sampling.philox import MAX_ATTEMPTS, mulhi64, philox4x32
from fastrec.sampling.simd import KEEP, LANES, bitmap_step, bounded_step, keep_step, philox_step, search_step

BLOCK = 512
"""Rows a block: its scratch (about 70 KB) stays in the second-level cache."""

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

OK, BAD_USER, BAD_POSITION = 0, 1, 2
"""How a kernel ended; a row at fault stops its range before anything of that block is read through it."""


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
def _groups(n):  # type: ignore[no-untyped-def]
    return (n + LANES - 1) // LANES


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
        user[i] = users[at + i]
        fault |= np.uint32(users[at + i]) >= np.uint32(n_users)
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


@njit
def sample_uniform(  # type: ignore[no-untyped-def]
    indptr, items, bits, row_words, n_items, users, positions, start, epoch, seed, tag, any_full, out, lo, hi
):
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (status, rejections, exact finishes, rows skipped).

    Empty ``positions``: the position of row r is start + r. Empty ``bits``: membership by binary search in the CSR.
    """
    n = np.uint64(n_items)
    threshold = (_2_32 - n) % n
    n_slots = out.shape[1]
    flat = out.reshape(-1)
    by_bitmap = bits.shape[0] > 0
    # Scratch. Entries past the live ones hold older, valid values: whole groups may read them, and nothing uses them.
    user = np.zeros(BLOCK, np.int32)
    pos = np.zeros(BLOCK, np.uint64)
    base = np.zeros(BLOCK, np.uint32)
    first = np.zeros(BLOCK, np.int64)
    degree = np.zeros(BLOCK, np.int64)
    words = np.zeros(4 * BLOCK, np.uint32)
    drawn = np.zeros(4 * BLOCK, np.uint32)
    pending = np.zeros(4 * BLOCK + 8, np.int16)  # entry = lane * BLOCK + row within the block
    e_word = np.zeros(4 * BLOCK, np.uint32)
    e_drawn = np.zeros(4 * BLOCK, np.uint32)
    e_pos = np.zeros(4 * BLOCK, np.uint64)
    e_base = np.zeros(4 * BLOCK, np.uint32)
    e_first = np.zeros(4 * BLOCK, np.int64)
    e_degree = np.zeros(4 * BLOCK, np.int64)
    status, rejections, finishes, skipped = OK, 0, 0, 0
    for at in range(lo, hi, BLOCK):
        m = min(BLOCK, hi - at)
        status = load_block(users, positions, start, indptr.shape[0] - 1, at, m, user, pos)
        if status != OK:
            break
        steps = 0
        if by_bitmap:
            for i in range(m):
                base[i] = np.uint32(user[i]) * np.uint32(row_words)
        if not by_bitmap or any_full:
            widest = np.int64(0)
            for i in range(m):
                first[i] = indptr[user[i]]
                degree[i] = indptr[user[i] + 1] - first[i]
                widest = max(widest, degree[i])
            while (np.int64(1) << steps) < widest:
                steps += 1
        for slot in range(0, n_slots, 4):
            lanes = min(4, n_slots - slot)
            word3 = np.uint64(slot >> 2) << _16
            k = 0
            for g in range(0, m, LANES):
                philox_step(pos, g, epoch, word3, seed, tag, words, g, BLOCK)
            for lane in range(lanes):
                for g in range(0, m, LANES):
                    e = lane * BLOCK + g
                    bad = bounded_step(words, e, n, threshold, drawn, e)
                    if by_bitmap:
                        bad |= bitmap_step(bits, base, g, drawn, e)
                    else:
                        bad |= search_step(items, first, degree, g, steps, drawn, e)
                    k = keep_step(KEEP, bad & _BYTE, e, pending, k)
                    k = keep_step(KEEP, bad >> _8, e + 8, pending, k)
            if m % LANES or any_full:  # drop what lies past the last row, and the rows of full users
                kept = 0
                for j in range(k):
                    i = np.int64(pending[j]) & _ROW
                    pending[kept] = pending[j]
                    kept += i < m and not (any_full and degree[i] >= n_items)
                k = kept
            rejections += k
            for _ in range(1, MAX_ATTEMPTS):
                if k == 0:
                    break
                word3 += _1
                for j in range(k):
                    i = np.int64(pending[j]) & _ROW
                    if by_bitmap:
                        e_base[j] = base[i]
                    else:
                        e_first[j] = first[i]
                        e_degree[j] = degree[i]
                entry_words(k, m, pending, pos, e_pos, epoch, word3, seed, tag, words, e_word)
                kept = 0
                for g in range(0, k, LANES):
                    bad = bounded_step(e_word, g, n, threshold, e_drawn, g)
                    if by_bitmap:
                        bad |= bitmap_step(bits, e_base, g, e_drawn, g)
                    else:
                        bad |= search_step(items, e_first, e_degree, g, steps, e_drawn, g)
                    for j in range(g, min(g + LANES, k)):
                        e = np.int64(pending[j])
                        drawn[e] = e_drawn[j]
                        pending[kept] = e
                        kept += np.int64(bad & _1)
                        bad >>= _1
                k = kept
                rejections += k
            finishes += k
            if k:
                entry_words(k, m, pending, pos, e_pos, epoch, word3 + _1, seed, tag, words, e_word)
                entry_words(k, m, pending, pos, e_pos, epoch, word3 + _2, seed, tag, words, e_drawn)
            for j in range(k):
                e = np.int64(pending[j])
                i = e & _ROW
                a, b = indptr[user[i]], indptr[user[i] + 1]
                legal = np.uint64(n_items - (b - a))
                retry = word3 + _1
                bits64 = np.uint64(e_word[j]) << _32 | np.uint64(e_drawn[j])
                while True:
                    rank, rest = mulhi64(bits64, legal)
                    if rest >= legal or rest >= (np.uint64(0) - legal) % legal:  # the division is rarely needed
                        break
                    retry += _2
                    bits64 = finish_word(pos[i], epoch, retry, seed, tag, e >> _SHIFT)
                drawn[e] = rank_select(items, a, b, np.int64(rank))
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
                if degree[i] >= n_items:
                    out[at + i] = -1
                    skipped += 1
    return status, rejections, finishes, skipped
