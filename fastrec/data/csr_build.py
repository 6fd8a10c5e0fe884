"""From columns of ids to a CSR: id maps, the latest of each duplicate, rating threshold, k-core. No Polars.

U users, I items, E interactions, R rows of the source.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import DataError, shown
from fastrec.jit import available_threads, njit, run_ranges

MAX_IDS = 2**31 - 1
"""Most distinct users, and most distinct items: contiguous ids are int32."""


class Grouped(NamedTuple):
    """A CSR with the row of the source that each interaction came from."""

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    rows: NDArray[Any]


@njit
def _bounds(values, out):  # type: ignore[no-untyped-def]
    """out = (least, greatest) of a non-empty array."""
    low = high = values[0]
    for v in values:
        low = min(low, v)
        high = max(high, v)
    out[0] = low
    out[1] = high


@njit
def _mark(values, low, table):  # type: ignore[no-untyped-def]
    for v in values:
        table[v - low] = 1


@njit
def _number(table):  # type: ignore[no-untyped-def]
    """Turn marks into contiguous ids in ascending order, -1 where there is none; return how many."""
    n = 0
    for k in range(table.shape[0]):
        if table[k] != 0:
            table[k] = n
            n += 1
        else:
            table[k] = -1
    return n


@njit
def _look_up(values, low, table, out, lo, hi):  # type: ignore[no-untyped-def]
    for k in range(lo, hi):
        out[k] = table[values[k] - low]


@njit
def _search(values, ids, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[k] = index of values[k] in the ascending ids, which hold it."""
    for k in range(lo, hi):
        v = values[k]
        a, b = 0, ids.shape[0] - 1
        while a < b:
            m = (a + b) >> 1
            if ids[m] < v:
                a = m + 1
            else:
                b = m
        out[k] = a


def factorize(values: Any, what: str, *, max_ids: int = MAX_IDS) -> tuple[NDArray[np.int32], NDArray[Any]]:
    """Encode ids as 0, 1, ... in ascending order of id.

    Parameters
    ----------
    values : integer[R] or str[R]
        Source ids.
    what : str
        "user" or "item", for messages.
    max_ids : int
        Most distinct ids allowed.

    Returns
    -------
    (int32[R], int64[n], str[n] or object[n] of str)
        The contiguous id of each row, and the source id of each contiguous id.

    Raises
    ------
    DataError
        If there are more than ``max_ids`` distinct ids, or they are neither integers nor strings.

    Cost
    ----
    Two passes where integer ids are about as dense as rows (8 bytes a value of the range at most), a sort of the
    ids and a binary search per row where they are scattered.
    """
    values = plain_ids(values, what)
    if values.size == 0:
        return np.empty(0, np.int32), values
    if values.dtype.kind in "UO":
        ids, codes = np.unique(values, return_inverse=True)
        _check_count(ids.size, what, max_ids)
        return codes.astype(np.int32), ids
    bounds = np.empty(2, np.int64)
    _bounds(values, bounds)
    low, high = int(bounds[0]), int(bounds[1])
    out = np.empty(values.size, np.int32)
    threads = available_threads()
    if high - low < max(4 * values.size, 1 << 20):
        table = np.zeros(high - low + 1, np.int64)
        _mark(values, low, table)
        count = _number(table)
        _check_count(count, what, max_ids)
        run_ranges(lambda lo, hi: _look_up(values, low, table, out, lo, hi), values.size, threads, grain=1 << 18)
        return out, np.flatnonzero(table >= 0) + low
    ids = np.unique(values)
    _check_count(ids.size, what, max_ids)
    run_ranges(lambda lo, hi: _search(values, ids, out, lo, hi), values.size, threads, grain=1 << 16)
    return out, ids


def plain_ids(values: Any, what: str) -> NDArray[Any]:
    """int64 or str, contiguous; anything else is refused."""
    values = as_array(values, f"{what} ids")
    if values.ndim != 1:
        raise DataError(f"{what} ids have shape {values.shape}; they must be one-dimensional, one per interaction")
    if (
        values.dtype.kind == "u"
        and values.dtype.itemsize == 8
        and values.size
        and values.max() > np.iinfo(np.int64).max
    ):
        raise DataError(f"{what} id {values.max()} does not fit 64 bits with sign; pass these ids as strings")
    if values.dtype.kind in "iu":
        return np.ascontiguousarray(values, dtype=np.int64)
    if values.dtype.kind in "OT":
        odd = next((k for k, v in enumerate(values.tolist()) if not isinstance(v, str)), None)
        if odd is not None:
            raise DataError(
                f"{what} id {shown(values[odd])} in row {odd} is not text; ids are all integers or all strings"
            )
        nul = next((k for k, v in enumerate(values.tolist()) if "\0" in v), None)
        if nul is not None:
            raise holds_nul(f"{what} id {shown(values[nul])} in row {nul}")
        return text_array(values.tolist())
    if values.dtype.kind == "U":
        nul = _inner_nul(values)
        if nul is not None:
            raise holds_nul(f"{what} id {shown(str(values[nul]))} in row {nul}")
        return np.asarray(values)
    raise DataError(f"{what} ids are {values.dtype}; they must be integers or strings, never floats")


def holds_nul(which: str) -> DataError:
    """The error for an id with a NUL: NumPy drops it at the end of text, so that two ids would be one."""
    return DataError(f"{which} holds NUL, which NumPy drops at the end of text. Remove it where the ids are written")


def _inner_nul(values: NDArray[np.str_]) -> int | None:
    """First row of str[n] with a NUL before its end; those at the end are NumPy's own filling."""
    if not values.size or not values.dtype.itemsize:
        return None
    zero = np.ascontiguousarray(values).view(np.uint32).reshape(values.size, -1) == 0
    found = (zero[:, :-1] & ~zero[:, 1:]).any(axis=1)
    return int(found.argmax()) if found.any() else None


def as_array(values: Any, what: str) -> NDArray[Any]:
    """The values as an array, text as objects: NumPy's own widens every string to the longest and drops NUL at its end.

    Raises
    ------
    DataError
        For masked rows, and what is not an array.
    """
    refuse_masked(values, what)
    if isinstance(values, (list, tuple)) and any(isinstance(v, str) for v in values):
        return _object_array(values)
    convert = getattr(values, "to_numpy", None)  # a column of Polars or pandas
    try:
        return np.asarray(values if convert is None else convert())
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{what} are not a one-dimensional array ({error}); pass one per interaction") from None


def refuse_masked(values: Any, what: str) -> None:
    """Refuse a masked array with a masked row: plain NumPy reads the value under the mask.

    Raises
    ------
    DataError
        Naming the first row that is masked.
    """
    if isinstance(values, np.ma.MaskedArray) and np.ma.getmaskarray(values).any():
        row = int(np.ma.getmaskarray(values).ravel().argmax())
        raise DataError(
            f"{what}: row {row} is masked in this masked array; leave the masked rows out, as by .compressed()"
        )


def _object_array(values: Sequence[Any]) -> NDArray[Any]:
    out = np.empty(len(values), object)
    out[:] = values
    return out


def text_array(values: Sequence[str]) -> NDArray[Any]:
    """Strings as an array: fixed width (str[n]), or objects where one long string would widen all the others.

    NumPy gives each element of fixed width 4 bytes per character of the longest. Objects are used from 1 MiB on where
    that is more than 4 times what the strings themselves take; both compare, sort and index alike.
    """
    lengths = [len(text) for text in values]
    fixed = 4 * max(lengths, default=0) * len(lengths)
    if fixed > max(1 << 20, 4 * (sum(lengths) + 64 * len(lengths))):
        return _object_array(values)
    return np.array(values, dtype=np.str_)


def _check_count(count: int, what: str, max_ids: int) -> None:
    if count > max_ids:
        raise DataError(f"{count} distinct {what} ids, but contiguous ids are int32: at most {max_ids}; leave some out")


@njit
def _count(values, ptr):  # type: ignore[no-untyped-def]
    """ptr[v+1] += 1 per value, then summed: row bounds of a counting sort."""
    for v in values:
        ptr[v + 1] += 1
    for k in range(1, ptr.shape[0]):
        ptr[k] += ptr[k - 1]


@njit
def _scatter(values, ptr, rows):  # type: ignore[no-untyped-def]
    """Stable counting sort of the rows 0, 1, ... by value."""
    for r in range(values.shape[0]):
        v = values[r]
        rows[ptr[v]] = r
        ptr[v] += 1


@njit
def _scatter_ordered(values, order, ptr, rows):  # type: ignore[no-untyped-def]
    """Stable counting sort by value of rows that already have an order."""
    for r in order:
        v = values[r]
        rows[ptr[v]] = r
        ptr[v] += 1


@njit
def _keep_latest(indptr, rows, items, times, has_times, out_indptr, out_items):  # type: ignore[no-untyped-def]
    """Per (user, item) keep the row of latest time, ties to the later row; rows are compacted in place."""
    n = 0
    for u in range(indptr.shape[0] - 1):
        out_indptr[u] = n
        last = -1
        for k in range(indptr[u], indptr[u + 1]):
            row = rows[k]
            item = items[row]
            if item == last:
                if not has_times or times[row] >= times[rows[n - 1]]:
                    rows[n - 1] = row
            else:
                rows[n] = row
                out_items[n] = item
                last = item
                n += 1
    out_indptr[indptr.shape[0] - 1] = n
    return n


def csr_from_pairs(
    users: NDArray[np.int32], items: NDArray[np.int32], n_users: int, n_items: int, times: NDArray[np.int64] | None
) -> Grouped:
    """CSR of pairs, items ascending per row, the latest row of each duplicate pair kept.

    Parameters
    ----------
    users, items : int32[R]
        Contiguous ids in the order of the source.
    n_users, n_items : int
        U and I.
    times : int64[R] or None
        Decides which duplicate is the latest; ties, and None, go to the later row.

    Returns
    -------
    Grouped
        ``rows`` int32[E] (int64 from 2^31 rows on): E = R less the duplicates.

    Cost
    ----
    Two counting sorts, O(R + U + I), with 8 bytes of scratch per row.
    """
    n = users.size
    index = np.int32 if n <= MAX_IDS else np.int64
    by_item = np.zeros(n_items + 1, np.int64)
    _count(items, by_item)
    order = np.empty(n, index)
    _scatter(items, by_item[:-1].copy(), order)
    indptr = np.zeros(n_users + 1, np.int64)
    _count(users, indptr)
    rows = np.empty(n, index)
    _scatter_ordered(users, order, indptr[:-1].copy(), rows)
    out_items = np.empty(n, np.int32)
    out_indptr = np.empty(n_users + 1, np.int64)
    has_times = times is not None
    kept = _keep_latest(
        indptr, rows, items, times if times is not None else np.empty(0, np.int64), has_times, out_indptr, out_items
    )
    return Grouped(out_indptr, out_items[:kept], rows[:kept])


@njit
def _core_round(indptr, items, alive, user_degree, item_degree, k):  # type: ignore[no-untyped-def]
    """One sweep: drop what is in a row or column of fewer than k; return how many fell."""
    fell = 0
    for u in range(indptr.shape[0] - 1):
        for e in range(indptr[u], indptr[u + 1]):
            if alive[e] and (user_degree[u] < k or item_degree[items[e]] < k):
                alive[e] = False
                user_degree[u] -= 1
                item_degree[items[e]] -= 1
                fell += 1
    return fell


def core_mask(
    indptr: NDArray[np.int64],
    items: NDArray[np.int32],
    n_items: int,
    k: int,
    *,
    keep_users: int = 0,
    keep_items: int = 0,
) -> NDArray[np.bool_]:
    """bool[E]: the k-core, the largest subset in which every user and every item left has at least ``k`` interactions.

    The first ``keep_users`` users and ``keep_items`` items stay, however few interactions they have. The core is
    unique, so the order of the sweeps does not show in it.
    """
    alive = np.ones(items.size, np.bool_)
    user_degree = np.diff(indptr)
    item_degree = np.bincount(items, minlength=n_items).astype(np.int64)
    user_degree[:keep_users] += k  # never below k, whatever falls
    item_degree[:keep_items] += k
    while _core_round(indptr, items, alive, user_degree, item_degree, k):
        pass
    return alive
