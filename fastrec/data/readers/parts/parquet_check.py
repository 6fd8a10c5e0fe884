"""Check the sizes in a Parquet file before Polars reads it: a false one makes it allocate without bound and abort.

Polars panics on most damage, which can be caught; but a page that claims a negative count of values ends the process.
The metadata and page headers are Thrift structs in the compact protocol, read here as far as their sizes.
"""

from __future__ import annotations

import mmap
from collections.abc import Collection
from pathlib import Path
from typing import Any, TypeAlias

from fastrec.errors import DataError

Struct: TypeAlias = dict[int, Any]

_TRUE, _FALSE, _BYTE, _I16, _I32, _I64, _DOUBLE, _BINARY, _LIST, _SET, _MAP, _STRUCT = range(1, 13)
_MAX_DEPTH = 32


class _Damaged(Exception):
    """What a size contradicts."""


class _Reader:
    """Thrift compact values from ``raw[at:end]``; every length is checked against what is left."""

    def __init__(self, raw: mmap.mmap, at: int, end: int) -> None:
        self.raw, self.at, self.end = raw, at, end

    def _take(self, n: int) -> bytes:
        if n < 0 or n > self.end - self.at:
            raise _Damaged(f"a field of {n} bytes where {self.end - self.at} are left")
        self.at += n
        return self.raw[self.at - n : self.at]

    def _varint(self) -> int:
        value = 0
        for shift in range(0, 70, 7):
            byte = self._take(1)[0]
            value |= (byte & 127) << shift
            if byte < 128:
                return value
        raise _Damaged("a number of more than 64 bits")

    def _integer(self) -> int:
        value = self._varint()
        return (value >> 1) ^ -(value & 1)

    def _value(self, kind: int, depth: int) -> Any:
        if kind in (_TRUE, _FALSE):
            return kind == _TRUE
        if kind == _BYTE:
            return self._take(1)[0]
        if kind in (_I16, _I32, _I64):
            return self._integer()
        if kind == _DOUBLE:
            return self._take(8)
        if kind == _BINARY:
            return self._take(self._varint())
        if kind in (_LIST, _SET):
            head = self._take(1)[0]
            size = head >> 4 if head >> 4 < 15 else self._varint()
            return self._many(size, (head & 15,), depth)
        if kind == _MAP:
            size = self._varint()
            kinds = self._take(1)[0] if size else 0
            return self._many(size, (kinds >> 4, kinds & 15), depth)
        if kind == _STRUCT:
            return self.struct(depth + 1)
        raise _Damaged(f"a field of unknown type {kind}")

    def _many(self, size: int, kinds: tuple[int, ...], depth: int) -> list[Any]:
        if size > self.end - self.at:
            raise _Damaged(f"a list of {size} elements in {self.end - self.at} bytes")
        # a bool among others takes a byte of its own, unlike a bool field
        kinds = tuple(_BYTE if kind in (_TRUE, _FALSE) else kind for kind in kinds)
        return [self._value(kind, depth) for _ in range(size) for kind in kinds]

    def struct(self, depth: int = 0) -> Struct:
        if depth > _MAX_DEPTH:
            raise _Damaged(f"structs nested more than {_MAX_DEPTH} deep")
        fields: Struct = {}
        number = 0
        while head := self._take(1)[0]:
            number = number + (head >> 4) if head >> 4 else self._integer()
            fields[number] = self._value(head & 15, depth)
        return fields


def check_parquet(path: Path, columns: Collection[str]) -> None:
    """Check every size and count that belongs to flat columns of a Parquet file.

    Raises
    ------
    DataError
        Naming the first that is negative, or does not fit the file or its row group.

    Cost
    ----
    About 50 us per page and column chunk, a page being about 1 MB.
    """
    with path.open("rb") as f:
        if path.stat().st_size < 12:
            raise DataError(f"{path}: not a readable Parquet file (too short); write it again")
        with mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as raw:
            if raw[-4:] != b"PAR1":
                return  # Polars names it
            try:
                _check(raw, [name.encode() for name in columns])
            except _Damaged as damage:
                raise DataError(f"{path}: damaged Parquet file ({damage}); write it again") from None


def _check(raw: mmap.mmap, columns: list[bytes]) -> None:
    end = len(raw) - 8
    start = end - int.from_bytes(raw[-8:-4], "little")
    if start < 4:
        raise _Damaged("its metadata are longer than the file")
    file = _Reader(raw, start, end).struct()
    groups = _structs(file.get(4, []))
    rows = [_count(group.get(3), "rows of a row group") for group in groups]
    if _count(file.get(3), "rows") != sum(rows):
        raise _Damaged(f"{file.get(3)} rows, but {sum(rows)} in its row groups")
    for group, n_rows in zip(groups, rows):
        for chunk in _structs(group.get(1, [])):
            meta = chunk.get(3)
            if not isinstance(meta, dict) or 1 in chunk:
                continue
            path = meta.get(3)
            if isinstance(path, list) and len(path) == 1 and path[0] in columns:
                _check_chunk(raw, start, meta, n_rows)
        if hasattr(mmap, "MADV_DONTNEED"):
            raw.madvise(mmap.MADV_DONTNEED)  # else every page that was looked at counts as memory of the process


def _check_chunk(raw: mmap.mmap, end: int, meta: Struct, n_rows: int) -> None:
    """The pages of a flat column's chunk hold one value per row of the row group, and are inside the file."""
    if _count(meta.get(5), "values") != n_rows:
        raise _Damaged(f"a column of {meta[5]} values in a row group of {n_rows} rows")
    at = _count(meta.get(9), "page offset")
    if 11 in meta:
        at = min(at, _count(meta[11], "page offset")) or at
    stop = at + _count(meta.get(7), "compressed bytes")
    if stop > end:
        raise _Damaged(f"a column that ends at byte {stop}, but the pages end at {end}")
    stop = min(stop + 100, end)  # writers before 2017 leave the dictionary's header out of the size (PARQUET-816)
    values = 0
    while values < n_rows:
        reader = _Reader(raw, at, stop)
        page = reader.struct()
        _count(page.get(2), "uncompressed bytes")
        at = reader.at + _count(page.get(3), "compressed bytes")
        if at > stop:
            raise _Damaged(f"a page that ends at byte {at}, but its column ends at {stop}")
        for kind in (5, 7, 8):  # data page, dictionary page, data page of version 2
            header = page.get(kind)
            if isinstance(header, dict):
                held = _count(header.get(1), "values of a page")
                values += held if kind != 7 else 0
                for other in (2, 3, 5, 6) if kind == 8 else ():
                    _count(header.get(other, 0), "values of a page")
                if kind == 7 and held > page[2]:
                    raise _Damaged(f"a dictionary of {held} values in {page[2]} bytes")
    if values != n_rows:
        raise _Damaged(f"pages of {values} values in a row group of {n_rows} rows")


def _structs(values: Any) -> list[Struct]:
    if not isinstance(values, list) or not all(isinstance(value, dict) for value in values):
        raise _Damaged("metadata of an unknown form")
    return values


def _count(value: Any, what: str) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise _Damaged(f"{value!r} {what}")
    return value
