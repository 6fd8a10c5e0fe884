"""Kernels of the splits: shared pairs, the last interaction, and the addressed draw of a fraction of each row."""

from __future__ import annotations

import numpy as np

from fastrec.jit import njit
from fastrec.sampling.philox import philox4x32


@njit
def first_shared(indptr_a, items_a, indptr_b, items_b):  # type: ignore[no-untyped-def]
    """The first row in which two CSRs share an item, or -1. One merge over both."""
    for u in range(indptr_a.shape[0] - 1):
        a, b = indptr_a[u], indptr_b[u]
        while a < indptr_a[u + 1] and b < indptr_b[u + 1]:
            if items_a[a] == items_b[b]:
                return u
            if items_a[a] < items_b[b]:
                a += 1
            else:
                b += 1
    return -1


@njit
def mark_last(indptr, times, order, parts):  # type: ignore[no-untyped-def]
    """parts[e] = TEST for the latest interaction of each row of two or more, ties to the greater order."""
    for u in range(indptr.shape[0] - 1):
        lo, hi = indptr[u], indptr[u + 1]
        if hi - lo < 2:
            continue
        last = lo
        for e in range(lo + 1, hi):
            if times[e] > times[last] or (times[e] == times[last] and order[e] > order[last]):
                last = e
        parts[last] = 2


@njit
def draw_keys(indptr, items, key, epoch, seed, tag, lo, hi):  # type: ignore[no-untyped-def]
    """key[e] = 64 bits addressed by (seed, tag, epoch, identity of e), for the interactions of users [lo, hi)."""
    for u in range(lo, hi):
        for e in range(indptr[u], indptr[u + 1]):  # low word of the identity: the item, high word: the user
            w0, w1, _, _ = philox4x32(
                np.uint64(items[e]), np.uint64(u), np.uint64(epoch), np.uint64(0), np.uint64(seed), np.uint64(tag)
            )
            key[e] = (w1 << np.uint64(32)) | w0


@njit
def mark_fraction(indptr, parts, key, fraction, part, lo, hi):  # type: ignore[no-untyped-def]
    """Per row, give ``part`` to the ceil(share * n) least keys of the n interactions in train, but never to all."""
    for u in range(lo, hi):
        n = 0
        for e in range(indptr[u], indptr[u + 1]):
            n += parts[e] == 0
        take = min(np.int64(np.ceil(fraction * n - 1e-9)), n - 1)
        if take <= 0:
            continue
        drawn = np.empty(n, np.uint64)
        m = 0
        for e in range(indptr[u], indptr[u + 1]):
            if parts[e] == 0:
                drawn[m] = key[e]
                m += 1
        greatest = np.partition(drawn, take - 1)[take - 1]
        for e in range(indptr[u], indptr[u + 1]):
            if take > 0 and parts[e] == 0 and key[e] <= greatest:
                parts[e] = part
                take -= 1
