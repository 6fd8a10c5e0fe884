"""Rows on disk in ranges of users, each of a size that fits in memory; and a CSR on disk made from them.

R rows, E interactions, U users, I items.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.data.building.log import Ids
from fastrec.data.csr_build import MAX_IDS, _core_round, _look_up, _search, csr_from_pairs
from fastrec.errors import DataError
from fastrec.files import FileArray
from fastrec.jit import available_threads, run_ranges

RANGE_ROWS = 1 << 22
"""Rows of a range of users at least; a user with more is a range by itself."""
MOST_RANGES = 512


def ranges_of(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """int64[P+1]: bounds of consecutive users with about as many rows each."""
    ends = np.cumsum(counts)
    most = max(RANGE_ROWS, -(-int(ends[-1]) // MOST_RANGES))
    bounds = [0]
    while bounds[-1] < counts.size:
        before = int(ends[bounds[-1] - 1]) if bounds[-1] else 0
        bounds.append(max(bounds[-1] + 1, int(np.searchsorted(ends, before + most, "right"))))
    return np.array(bounds, np.int64)


def encoder(ids: Ids) -> Callable[[pl.Series], NDArray[np.int32]]:
    """Contiguous ids of a piece whose every id is among ``ids``."""
    if not ids.ids.dtype.is_integer():
        kind = pl.Enum(ids.ids)
        return lambda values: values.cast(kind).to_physical().cast(pl.Int32).to_numpy()
    known, threads = ids.ids.to_numpy(), available_threads()
    low, high = int(known[0]), int(known[-1])
    dense = high - low < max(4 * known.size, 1 << 20)
    table = np.full(high - low + 1 if dense else 0, -1, np.int64)
    if dense:
        table[known - low] = np.arange(known.size)

    def encode(values: pl.Series) -> NDArray[np.int32]:
        given = values.to_numpy()
        out = np.empty(given.size, np.int32)
        if dense:
            run_ranges(lambda lo, hi: _look_up(given, low, table, out, lo, hi), given.size, threads, grain=1 << 18)
        else:
            run_ranges(lambda lo, hi: _search(given, known, out, lo, hi), given.size, threads, grain=1 << 16)
        return out

    return encode


class Spill:
    """Rows by ranges of users, each range a file of records in the order of the source.

    Parameters
    ----------
    folder : Path
    bounds : int64[P+1]
        See ``ranges_of``.
    n_rows : int
        R.
    uses : set of str
        Which of "rating", "timestamp" and "weight" are kept.
    """

    def __init__(self, folder: Path, bounds: NDArray[np.int64], n_rows: int, uses: set[str]) -> None:
        self.folder, self.bounds = folder, bounds
        optional = {"timestamp": "<i8", "rating": "<f4", "weight": "<f4"}
        row = "<i4" if n_rows <= MAX_IDS else "<i8"
        self._kept = [name for name in optional if name in uses]
        kept = [(name, optional[name]) for name in self._kept]
        self.dtype = np.dtype([("user", "<i4"), ("item", "<i4"), ("row", row), *kept])

    def path(self, k: int) -> Path:
        """The file of a range."""
        return self.folder / f"range-{k}"

    def add(self, start: int, users: NDArray[np.int32], items: NDArray[np.int32], frame: pl.DataFrame) -> None:
        """Append the rows of a piece, the first of which is row ``start`` of the source."""
        rows = np.empty(users.size, self.dtype)
        rows["user"], rows["item"], rows["row"] = users, items, np.arange(start, start + users.size)
        for name in self._kept:
            rows[name] = frame[name].to_numpy()
        own = (np.searchsorted(self.bounds, users, "right") - 1).astype(np.uint16)
        rows = rows[np.argsort(own, kind="stable")]
        ends = np.cumsum(np.bincount(own, minlength=self.bounds.size - 1))
        for k, (lo, hi) in enumerate(zip((0, *ends[:-1].tolist()), ends.tolist(), strict=True)):
            if hi > lo:
                with self.path(k).open("ab") as f:
                    rows[lo:hi].tofile(f)

    def ranges(self) -> Iterator[NDArray[Any]]:
        """The records of each range."""
        for k in range(self.bounds.size - 1):
            yield np.fromfile(self.path(k), self.dtype)


class Csr(NamedTuple):
    """A CSR whose columns are files of raw values."""

    indptr: NDArray[np.int64]
    columns: dict[str, FileArray]

    @staticmethod
    def at(folder: Path, indptr: NDArray[np.int64], names: dict[str, str]) -> Csr:
        """The columns of ``folder`` with these names and types."""
        n = int(indptr[-1])
        return Csr(indptr, {name: FileArray(folder / name, np.dtype(kind), n) for name, kind in names.items()})

    def pieces(self, rows: int = RANGE_ROWS) -> Iterator[tuple[int, int]]:
        """Ranges of users with at most ``rows`` interactions, or one user."""
        user, n = 0, self.indptr.size - 1
        while user < n:
            stop = max(user + 1, int(np.searchsorted(self.indptr, self.indptr[user] + rows, "right")) - 1)
            yield user, min(stop, n)
            user = stop

    def values(self, name: str, first: int, last: int) -> NDArray[Any]:
        """A column for the users from ``first`` to ``last``."""
        return self.columns[name].values(int(self.indptr[first]), int(self.indptr[last]))

    def item_counts(self, n_items: int) -> NDArray[np.int64]:
        """int64[I]."""
        found = np.zeros(n_items, np.int64)
        for lo, hi in self.pieces():
            found += np.bincount(self.values("items", lo, hi), minlength=n_items)
        return found


class Made(NamedTuple):
    """A CSR with what was merged and left out."""

    csr: Csr
    duplicates: int
    below: int


def merge(spill: Spill, folder: Path, n_items: int, min_rating: float | None) -> Made:
    """Sort each range into CSR order, keep the latest row of each pair, leave out pairs rated below a threshold."""
    fields = spill.dtype.names or ()
    names = {"items": "<i4", "file_order": spill.dtype["row"].str}
    names |= {"timestamps": "<i8"} if "timestamp" in fields else {}
    names |= {"weights": "<f4"} if "weight" in fields else {}
    of = {"items": "item", "file_order": "row", "timestamps": "timestamp", "weights": "weight"}
    degrees, duplicates, below = np.zeros(int(spill.bounds[-1]) + 1, np.int64), 0, 0
    files = {name: (folder / name).open("wb") for name in names}
    try:
        for k, rows in enumerate(spill.ranges()):
            lo, hi = int(spill.bounds[k]), int(spill.bounds[k + 1])
            users, items = rows["user"] - np.int32(lo), np.ascontiguousarray(rows["item"])
            times = np.ascontiguousarray(rows["timestamp"]) if "timestamp" in fields else None
            found = csr_from_pairs(users, items, hi - lo, n_items, times)
            duplicates += rows.size - found.items.size
            kept, users = found.rows, np.repeat(np.arange(lo, hi), np.diff(found.indptr))
            if min_rating is not None:
                mask = rows["rating"][kept] >= min_rating
                below += int(mask.size - np.count_nonzero(mask))
                kept, users = kept[mask], users[mask]
            degrees[lo + 1 : hi + 1] = np.bincount(users - lo, minlength=hi - lo)
            for name in names:
                rows[of[name]][kept].astype(names[name]).tofile(files[name])
    finally:
        for f in files.values():
            f.close()
    return Made(Csr.at(folder, np.cumsum(degrees), names), duplicates, below)


def core(csr: Csr, n_items: int, k: int) -> tuple[NDArray[np.bool_], int]:
    """bool[E]: the k-core, and how many interactions are outside. Memory: E bytes; the items are read once a sweep."""
    alive = np.ones(int(csr.indptr[-1]), np.bool_)
    users, items = np.diff(csr.indptr), csr.item_counts(n_items)
    while True:
        fell = 0
        for lo, hi in csr.pieces():
            a, b = int(csr.indptr[lo]), int(csr.indptr[hi])
            own = csr.values("items", lo, hi)
            fell += _core_round(csr.indptr[lo : hi + 1] - a, own, alive[a:b], users[lo:hi], items, k)
        if not fell:
            return alive, int(alive.size - np.count_nonzero(alive))


class Reindexed(NamedTuple):
    """A CSR without empty rows and columns, and which were kept."""

    csr: Csr
    users: NDArray[np.bool_]
    items: NDArray[np.bool_]


def reindex(csr: Csr, folder: Path, n_items: int, alive: NDArray[np.bool_] | None, why: str) -> Reindexed:
    """Keep the interactions of ``alive`` (all unless given), and close the gaps in the ids.

    Raises
    ------
    DataError
        If nothing is left; ``why`` names the reason.
    """
    degrees, counts = np.zeros(csr.indptr.size, np.int64), np.zeros(n_items, np.int64)
    for lo, hi in csr.pieces():
        a, b = int(csr.indptr[lo]), int(csr.indptr[hi])
        kept = slice(None) if alive is None else alive[a:b]
        users = np.repeat(np.arange(hi - lo), np.diff(csr.indptr[lo : hi + 1]))[kept]
        degrees[lo + 1 : hi + 1] = np.bincount(users, minlength=hi - lo)
        counts += np.bincount(csr.values("items", lo, hi)[kept], minlength=n_items)
    if not counts.any():
        raise DataError(f"no interaction is left with {why}; choose a weaker one")
    has_user, has_item = degrees[1:] > 0, counts > 0
    if alive is None and has_user.all() and has_item.all():
        return Reindexed(csr, has_user, has_item)
    new_item = (np.cumsum(has_item, dtype=np.int64) - 1).astype(np.int32)
    for name, column in csr.columns.items():
        with (folder / name).open("wb") as f:
            for lo, hi in csr.pieces():
                a, b = int(csr.indptr[lo]), int(csr.indptr[hi])
                values = csr.values(name, lo, hi)[slice(None) if alive is None else alive[a:b]]
                (new_item[values] if name == "items" else values).astype(column.dtype).tofile(f)
    indptr = np.concatenate(([0], np.cumsum(degrees[1:][has_user])))
    names = {name: column.dtype.str for name, column in csr.columns.items()}
    return Reindexed(Csr.at(folder, indptr, names), has_user, has_item)
