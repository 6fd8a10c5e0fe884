"""The one check of a CSR of positives, and membership in it (bitmap, filter, binary search).

U users, I items, E interactions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int, unmasked
from fastrec.errors import DataError
from fastrec.jit import inline, njit
from fastrec.sampling.simd import SPREAD

MAX_ITEMS = 2**31 - 1
_OK, _START, _DECREASING, _RANGE, _UNSORTED = 0, 1, 2, 3, 4


@njit
def _first_fault(indptr, items, n_items):  # type: ignore[no-untyped-def]
    """Return (kind, user, index) of the first fault of a CSR, or (0, 0, 0). One pass over E."""
    if indptr[0] != 0:
        return _START, 0, 0
    for u in range(indptr.shape[0] - 1):
        lo, hi = indptr[u], indptr[u + 1]
        if hi < lo or hi > items.shape[0]:
            return _DECREASING, u, hi
        for k in range(lo, hi):
            if items[k] < 0 or items[k] >= n_items:
                return _RANGE, u, k
            if k > lo and items[k] <= items[k - 1]:
                return _UNSORTED, u, k
    return _OK, 0, 0


@njit
def fill_bitmap(indptr, items, row_words, bits, lo, hi):  # type: ignore[no-untyped-def]
    """Set bit ``item`` of row ``user`` of bits uint32[U * row_words] for every positive of users [lo, hi)."""
    for u in range(lo, hi):
        row = np.uint64(u) * np.uint64(row_words)
        for k in range(indptr[u], indptr[u + 1]):
            item = np.uint64(items[k])
            bits[row + (item >> np.uint64(5))] |= np.uint32(1) << np.uint32(item & np.uint64(31))


FILTER_POSITIVES = 2
"""Positives that share a 32-bit word of the filter: 16 bits for each, of which two are set."""

CACHED_BYTES = 2**25
"""A bitmap larger than a last-level cache misses it at nearly every probe: there the filter is faster (Gowalla)."""


@inline
def filter_row(begin, end):  # type: ignore[no-untyped-def]
    """(first word, number of words) of the filter that belong to the row [begin, end) of a CSR."""
    first = begin // FILTER_POSITIVES
    return np.uint32(first), np.uint32((end + FILTER_POSITIVES - 1) // FILTER_POSITIVES - first)


@njit
def fill_filter(indptr, items, words):  # type: ignore[no-untyped-def]
    """Set the two bits of every positive, as ``filter_step`` of ``simd.py`` looks for them."""
    for u in range(indptr.shape[0] - 1):
        first, size = filter_row(indptr[u], indptr[u + 1])
        for k in range(indptr[u], indptr[u + 1]):
            item = np.uint32(items[k])
            h = np.uint32(item * np.uint32(SPREAD))
            both = (np.uint32(1) << (item & np.uint32(31))) | (np.uint32(1) << (h >> np.uint32(8) & np.uint32(31)))
            words[np.uint64(first) + (np.uint64(h) * np.uint64(size) >> np.uint64(32))] |= both


def filter_of(
    indptr: NDArray[np.int64], items: NDArray[np.int32], memory_budget: int
) -> tuple[NDArray[np.uint32], str]:
    """A filter of the positives where it fits ``memory_budget`` bytes, and what was built: (words, text).

    What passes it (every positive, and about 2 % of other items) is searched for in the CSR row. Cost: 2 bytes a
    positive, so that a row of a hundred is in four cache lines, where a binary search reads seven.

    Source: Putze, Sanders and Singler, "Cache-, hash- and space-efficient Bloom filters", WEA 2007 (one block a key).
    """
    n_bytes = 4 * (
        items.size // FILTER_POSITIVES + 2
    )  # rows share the word they meet in; an empty last row names one more
    if n_bytes > memory_budget:
        return np.empty(0, np.uint32), f"binary search in the CSR: a filter needs {n_bytes} bytes"
    words = np.zeros(n_bytes // 4, np.uint32)
    fill_filter(indptr, items, words)
    return words, f"a filter of {n_bytes} bytes, then binary search in the CSR"


def bitmap_of(
    indptr: NDArray[np.int64], items: NDArray[np.int32], n_items: int, memory_budget: int, *, cached: bool = False
) -> tuple[NDArray[np.uint32], int, str]:
    """A bitmap of users by items where it fits ``memory_budget`` bytes: (bits, words per row, why so or why not).

    ``cached``: only where it fits a last-level cache, too.

    Rows are not padded to cache lines: on ML-1M that made nothing faster and the bitmap 10 % larger.
    """
    row_words = -(-n_items // 32)
    n_bytes = 4 * row_words * (indptr.size - 1)
    none = np.empty(0, np.uint32)
    if n_bytes > memory_budget:
        return none, row_words, f"a bitmap needs {n_bytes} bytes, memory_budget is {memory_budget}"
    if cached and n_bytes > CACHED_BYTES:
        return none, row_words, f"a bitmap of {n_bytes} bytes would miss the cache at nearly every probe"
    if n_bytes > 4 * MAX_ITEMS:
        return none, row_words, f"a bitmap of {n_bytes} bytes has words beyond the 2^31 that 32-bit indices reach"
    bits = np.zeros(row_words * (indptr.size - 1), np.uint32)
    fill_bitmap(indptr, items, row_words, bits, 0, indptr.size - 1)
    return bits, row_words, f"a bitmap of {n_bytes} bytes, within memory_budget"


def _integers(name: str, a: NDArray[Any], dtype: type, *, copy: bool) -> NDArray[Any]:
    if a.ndim != 1 or a.dtype.kind not in "iu":
        raise DataError(f"{name} must be a one-dimensional integer array, not {a.dtype}{list(a.shape)}")
    return np.array(a, dtype=dtype, order="C") if copy else np.ascontiguousarray(a, dtype=dtype)


def check_csr(
    indptr: Any, items: Any, n_items: int, *, name: str = "positives", copy: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """Check a CSR once, so that kernels need not: the first offender is named.

    Parameters
    ----------
    indptr : integer[U+1]
        Row bounds; starts at 0, never falls, ends at E.
    items : integer[E]
        Item ids in [0, n_items), strictly ascending within a row.
    n_items : int
        Number of items I, 1 to 2^31-1.
    name : str
        What the CSR is called in messages.
    copy : bool
        Copy first and check the copy: what the caller does with its arrays afterwards, or meanwhile in another thread,
        then cannot lead a kernel out of bounds.

    Returns
    -------
    (int64[U+1], int32[E])
        The same arrays where their dtypes already fit and ``copy`` is false, else copies.

    Raises
    ------
    DataError
        Naming the first user and index at fault.
    """
    n_items = as_int("n_items", n_items)
    if not 1 <= n_items <= MAX_ITEMS:
        raise DataError(f"n_items={n_items}: must be in 1 to {MAX_ITEMS} (item ids are int32)")
    indptr = _integers(f"{name}: indptr", unmasked(f"{name}: indptr", indptr), np.int64, copy=copy)
    raw = unmasked(f"{name}: items", items)
    if (
        raw.dtype.kind in "iu"
        and not np.can_cast(raw.dtype, np.int32)
        and raw.size
        and (int(raw.max()) > MAX_ITEMS or int(raw.min()) < 0)
    ):
        k = int(np.flatnonzero((raw > MAX_ITEMS) | (raw < 0))[0])
        raise DataError(f"{name}: items[{k}] = {int(raw[k])} is not in [0, n_items={n_items})")
    items = _integers(f"{name}: items", raw, np.int32, copy=copy)
    if indptr.size < 1:
        raise DataError(f"{name}: indptr is empty; it needs n_users + 1 entries, the first 0")
    kind, user, at = _first_fault(indptr, items, n_items)
    if kind == _START:
        raise DataError(f"{name}: indptr[0] = {indptr[0]}, but the first row must begin at 0")
    if kind == _DECREASING:
        raise DataError(
            f"{name}: row of user {user} runs from {indptr[user]} to {indptr[user + 1]}, "
            f"but rows may not run backwards or past the {items.size} items"
        )
    if kind == _RANGE:
        raise DataError(f"{name}: items[{at}] = {items[at]} of user {user} is not in [0, n_items={n_items})")
    if kind == _UNSORTED:
        raise DataError(
            f"{name}: items[{at}] = {items[at]} of user {user} follows {items[at - 1]}; items must ascend strictly "
            "within a row: sort each row and drop duplicates"
        )
    if indptr[-1] != items.size:
        raise DataError(f"{name}: indptr ends at {indptr[-1]} but there are {items.size} items")
    return indptr, items


@njit
def _union(indptr_a, items_a, indptr_b, items_b, indptr, items):  # type: ignore[no-untyped-def]
    """Merge two CSRs row by row, each item once; returns the number of items."""
    at = 0
    for u in range(indptr_a.shape[0] - 1):
        a, a_end = indptr_a[u], indptr_a[u + 1]
        b, b_end = indptr_b[u], indptr_b[u + 1]
        while a < a_end or b < b_end:
            from_a = b >= b_end or (a < a_end and items_a[a] <= items_b[b])
            item = items_a[a] if from_a else items_b[b]
            if a < a_end and items_a[a] == item:
                a += 1
            if b < b_end and items_b[b] == item:
                b += 1
            items[at] = item
            at += 1
        indptr[u + 1] = at
    return at


def union(
    a: tuple[NDArray[np.int64], NDArray[np.int32]], b: tuple[NDArray[np.int64], NDArray[np.int32]]
) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """The CSR of what either of two checked CSRs over the same users holds. Cost: one pass, 4 bytes per item."""
    indptr, items = np.zeros(a[0].size, np.int64), np.empty(a[1].size + b[1].size, np.int32)
    return indptr, items[: _union(*a, *b, indptr, items)]


MAX_USERS = 2**31 - 1


@njit
def _distinct(keys, indptr, items):  # type: ignore[no-untyped-def]
    """CSR of the ascending keys ``user << 32 | item``, each once; returns the number of items."""
    low = (np.int64(1) << np.int64(32)) - np.int64(1)
    n = 0
    for k in range(keys.shape[0]):
        if k == 0 or keys[k] != keys[k - 1]:
            items[n] = keys[k] & low
            indptr[(keys[k] >> np.int64(32)) + 1] += 1
            n += 1
    for u in range(1, indptr.shape[0]):
        indptr[u] += indptr[u - 1]
    return n


def csr_of_pairs(
    users: NDArray[Any], items: NDArray[Any], n_users: int
) -> tuple[NDArray[np.int64], NDArray[np.int32], int]:
    """The CSR of (user, item) pairs in any order, repeats merged: (indptr, items, number of repeats).

    Parameters
    ----------
    users, items : integer[R]
        Already checked: users in [0, n_users), items in [0, 2^31).
    n_users : int
        Rows of the result, at most 2^31-1.

    Cost: a sort of 8 bytes per pair, left out where the pairs ascend already.
    """
    keys = users.astype(np.int64) << 32
    keys |= items.astype(np.int64)
    if not bool((keys[1:] >= keys[:-1]).all()):
        keys.sort()
    indptr, merged = np.zeros(n_users + 1, np.int64), np.empty(keys.size, np.int32)
    n = _distinct(keys, indptr, merged)
    return indptr, merged[:n].copy() if n < keys.size else merged, keys.size - n
