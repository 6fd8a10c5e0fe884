"""Any CSV, TSV or Parquet table with named columns, and frames in memory; MovieLens csv is one of them."""

from __future__ import annotations

import contextlib
import csv
import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.content import content_of
from fastrec.data.csr_build import as_array
from fastrec.data.parquet_check import check_parquet
from fastrec.data.readers.movielens import movies_csv
from fastrec.data.readers.text import (
    Schema,
    fault_of,
    holds_quotes,
    lines_of,
    open_text,
    read_delimited,
    undecodable,
)
from fastrec.data.source import Columns, Source, is_integer, suffix_of
from fastrec.data.spelling import refuse_endless, refuse_nul, settle_ids
from fastrec.data.times import PER_SECOND, as_numbers, settle_time
from fastrec.errors import DataError, FastrecError, shown
from fastrec.sampling.sources import ITEM_COLUMNS, USER_COLUMNS, plain_name

SPELLINGS = {
    "user": USER_COLUMNS,
    "item": ITEM_COLUMNS,
    "rating": ("rating", "score", "stars", "overall"),
    "timestamp": ("timestamp", "time", "ts", "unixreviewtime", "unix_timestamp", "datetime", "date"),
}
"""Column names that are recognised whatever their case, with ``-`` for ``_``, and with a RecBole type (``:token``)."""

OPTIONS = {"user": "user", "item": "item", "rating": "rating", "timestamp": "time"}
"""The option that names a column: ``--time-col`` for ``timestamp``."""

TEXT = (pl.String, pl.Categorical, pl.Enum)

PLAIN = r"^(0|-?[1-9][0-9]{0,18})$"


def choose(where: str, header: list[str], columns: Columns) -> dict[str, str]:
    """Which column is the user, the item and, where there are such, the rating and the timestamp.

    Raises
    ------
    DataError
        If a named column is not there, user or item cannot be recognised, or one column would serve twice.
    """
    chosen = {}
    plain = {plain_name(name): name for name in reversed(header)}
    for use, spellings in SPELLINGS.items():
        option = OPTIONS[use]
        asked = getattr(columns, option)
        asked = asked if asked is None else str(asked)  # pandas numbers columns without names
        if asked is not None and asked not in header:
            raise DataError(f"{where}: no column {asked!r} (--{option}-col); the columns are {listed(header)}")
        found = asked or next((plain[s] for s in spellings if s in plain), None)
        if found is not None:
            chosen[use] = found
        elif use in ("user", "item"):
            raise DataError(
                f"{where}: no {use} column recognised among {listed(header)}; name it with --{option}-col "
                f"(from Python {option}_col=). The first line of a table must hold names"
            )
    if columns.time_format is not None and "timestamp" not in chosen:
        raise DataError(
            f"{where}: --time-format {columns.time_format} needs a column of times, and none is recognised among "
            f"{', '.join(header)}; name it with --time-col, or leave the format out"
        )
    for use, name in chosen.items():
        twice = [other for other in chosen if chosen[other] == name and other != use]
        if twice:
            raise DataError(
                f"{where}: column {name!r} would be both {use} and {twice[0]}; name the columns with --user-col, "
                "--item-col, --rating-col and --time-col"
            )
    return chosen


def listed(names: list[str]) -> str:
    """Names of columns for a message, the first 20, each cut to 40 characters."""
    some = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:20]]
    return ", ".join(some) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def read_table(path: Path, columns: Columns) -> Source:
    """Read a table; ids are integers where all of them are, else text.

    Raises
    ------
    DataError
        Naming the file and line (row, for Parquet) at fault.
    """
    if suffix_of(path) == ".parquet":
        with readable(str(path), "not a readable Parquet file"):
            lazy = pl.scan_parquet(path, glob=False)
            chosen = choose(str(path), list(lazy.collect_schema()), columns)
            check_parquet(path, chosen.values())
        frame, lazy, notes = settle(str(path), lazy, chosen, time_format=columns.time_format)
    else:
        raw, scan, mixed = _read_text(path, columns)
        frame, lazy, notes = settle(
            str(path), raw.lazy(), {name: name for name in raw.columns}, scan, columns.time_format
        )
        notes = mixed + notes
    movies = movies_csv(path.parent) if path.name.startswith("ratings.") else None
    kind = "table with named columns" if movies is None else "MovieLens csv"
    return Source(frame, Catalog(movies=movies, ratings=with_datetime(lazy)), kind, notes)


def read_frame(frame: Any, columns: Columns, name: str) -> Source:
    """A frame in memory: Polars, eager or lazy, or anything with named columns that NumPy can read (pandas, a dict).

    Raises
    ------
    DataError
        Naming the row at fault.
    """
    if isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        lazy = frame.lazy()
        header = list(lazy.collect_schema())
    else:
        try:
            keys = {str(column): column for column in (frame.columns if hasattr(frame, "columns") else frame)}
        except TypeError:
            raise DataError(f"{name}: {type(frame).__name__} has no named columns; pass a frame or a mapping") from None
        header = list(keys)
    chosen = choose(name, header, columns)
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        arrays = {column: _series(name, column, frame[keys[column]]) for column in chosen.values()}
        lengths = {column: series.len() for column, series in arrays.items()}
        if len(set(lengths.values())) > 1:
            raise DataError(f"{name}: the columns differ in length ({lengths}); each row needs all of them")
        lazy = pl.LazyFrame(arrays)
    settled, lazy, notes = settle(name, lazy, chosen, time_format=columns.time_format)
    return Source(settled, Catalog(ratings=with_datetime(lazy)), "frame in memory", notes)


def _series(where: str, column: str, values: Any) -> pl.Series:
    if isinstance(values, pl.Series):
        return values.alias(column)
    values = as_array(values, f"{where}: the values of column {column!r}")
    try:
        array = values if isinstance(values, (list, tuple)) else np.asarray(values)
        if isinstance(array, np.ndarray) and array.dtype.kind in "OT":
            array = array.tolist()
        return pl.Series(column, array)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{where}: column {column!r} mixes types or holds none of them ({_first_line(error)}); ids are integers of "
            "64 bits or text, times and ratings numbers"
        ) from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def settle(
    where: str,
    lazy: pl.LazyFrame,
    chosen: dict[str, str],
    again: pl.LazyFrame | None = None,
    time_format: str | None = None,
) -> tuple[pl.DataFrame, pl.LazyFrame, tuple[str, ...]]:
    """Bring chosen columns to the canonical names, order and types.

    Parameters
    ----------
    where : str
        File or name, for messages.
    lazy : polars.LazyFrame
        Holds the columns.
    chosen : dict
        Column for each of "user", "item" and perhaps "rating", "timestamp".
    again : polars.LazyFrame, optional
        A scan that gives the same columns as ``lazy``, for the lazy result, where ``lazy`` holds them in memory.
    time_format : str, optional
        See ``fastrec.data.times.settle_time``.

    Returns
    -------
    (polars.DataFrame, polars.LazyFrame, tuple of str)
        The canonical frame, the same rows lazily (in the order of the source), and notes.

    Raises
    ------
    DataError
        For ids that are floats or hold NUL, missing values, values that are not numbers, times that cannot be read.
    """
    schema = lazy.collect_schema()
    casts = {}
    for use, column in chosen.items():
        dtype = schema[column]
        kept = pl.col(column)
        if use in ("user", "item"):
            if not (dtype.is_integer() or dtype in TEXT):
                raise DataError(
                    f"{where}: {use} column {column!r} is {dtype}; ids are integers or text, never floats: cast them "
                    "where they are written"
                )
            kept = kept.cast(pl.Int64 if dtype.is_integer() else pl.String)
        elif use == "rating":
            if not dtype.is_numeric():
                raise DataError(f"{where}: rating column {column!r} is {dtype}; ratings are numbers")
            kept = kept.cast(pl.Float32)
        elif dtype.is_integer():
            kept = kept.cast(pl.Int64)
        elif dtype in TEXT:
            kept = kept.cast(pl.String)
        casts[use] = kept
    with readable(where, "cannot be read"):
        try:
            frame = lazy.select(**casts).collect()
        except pl.exceptions.InvalidOperationError:
            _refuse_large(where, lazy, chosen)
            raise
    if not frame.height:
        raise DataError(f"{where}: the table has no rows")
    for use, column in chosen.items():
        bad = frame[use].is_null()
        if frame[use].dtype.is_float():
            bad = bad | ~frame[use].is_finite().fill_null(False)
        if bad.any():
            raise DataError(f"{where}, data row {bad.arg_max()}: {column} is missing or no number. Fix or remove it")
        if use in ("user", "item") and frame[use].dtype == pl.String:
            refuse_nul(frame[use], column, lambda row: f"{where}, data row {row}")
            refuse_endless(frame[use], column, lambda row: f"{where}, data row {row}")
    frame, seconds, notes = settle_time(frame, lambda row: f"{where}, data row {row}", time_format)
    lazy = (lazy if again is None else again).select(**casts)
    return frame, lazy if seconds is None else lazy.with_columns(timestamp=seconds), notes


def _refuse_large(where: str, lazy: pl.LazyFrame, chosen: dict[str, str]) -> None:
    """Name the first integer that does not fit 64 bits with sign."""
    schema = lazy.collect_schema()
    for use, column in chosen.items():
        if use != "rating" and schema[column].is_integer():
            values = lazy.select(column).collect().to_series()
            lost = values.cast(pl.Int64, strict=False).is_null() & values.is_not_null()
            if lost.any():
                row = int(lost.arg_max() or 0)
                advice = "write these ids as text" if use != "timestamp" else "no date is that far away"
                raise DataError(
                    f"{where}, data row {row}: {column} {values[row]} does not fit 64 bits with sign; {advice}"
                )


@contextlib.contextmanager
def readable(where: str, what: str) -> Iterator[None]:
    """Turn what Polars raises into a DataError, panics of its Rust code included (they are no ``Exception``).

    Raises
    ------
    DataError
        Instead of PolarsError, PanicException and OSError.
    """
    try:
        yield
    except FastrecError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise DataError(f"{where}: {what} ({_first_line(error)[:200]}); write it again") from None
    except pl.exceptions.PanicException as error:
        raise DataError(
            f"{where}: {what}: damaged, Polars stops with {_first_line(error)[:200]!r}; write it again"
        ) from None


def _read_text(path: Path, columns: Columns) -> tuple[pl.DataFrame, pl.LazyFrame, tuple[str, ...]]:
    """The chosen columns of a text table under their canonical names, a lazy scan of the same, and notes.

    The first row suggests the types; a file that does not fit them, or that spells ids apart, is read again as text,
    and the types follow from all rows. So the order of the rows does not matter.
    """
    first = next((line for _, line in lines_of(path)), "").lstrip("\ufeff")
    separator = max(",\t;|", key=first.count)
    try:
        header = next(csv.reader([first], delimiter=separator), [])
    except csv.Error as error:
        raise DataError(
            f"{path}, line 1: {shown(first)} holds no names of columns ({error}); is this a table?"
        ) from None
    if len(set(header)) < len(header):
        raise DataError(f"{path}: two columns are called {shown(max(header, key=header.count))}; rename one")
    chosen = choose(str(path), header, columns)
    quoted = holds_quotes(path)
    second = next((line for number, line in lines_of(path) if number > 1 and line), "")
    if quoted:
        sample = dict(zip(header, next((row for number, row in rows_of(path, separator) if number > 1 and row), [])))
    else:  # not by csv, which reads no field of more than 128 KiB
        sample = dict(zip(header, second.split(separator)))
    types: dict[str, type[pl.DataType]] = dict.fromkeys(header, pl.String)
    if "rating" in chosen:
        types[chosen["rating"]] = pl.Float32
    text = dict(types)
    if not quoted:
        types |= {column: pl.Int64 for use, column in chosen.items() if is_integer(sample.get(column, ""))}
        types |= {chosen[use]: text[chosen[use]] for use in chosen if use == "rating" or _pattern(use, columns)}
    keep = list(chosen.values())
    try:
        frame = _scan(path, separator, types, keep, quoted)
    except DataError:
        if types == text:
            raise
        frame = _scan(path, separator, text, keep, quoted)
    names = {column: use for use, column in chosen.items()}
    frame = frame.select(keep).rename(names)
    notes: list[str] = []
    for use in chosen:
        if frame[use].dtype != pl.String:
            continue
        if use == "timestamp":
            if not _pattern(use, columns):
                frame = frame.with_columns(as_numbers(frame[use], lambda row: f"{path}, data row {row}"))
            continue
        settled = settle_ids(frame[use], use, lambda row: f"{path}, data row {row}", "text")
        odd = settled.filter(~settled.str.contains(PLAIN)) if settled.dtype == pl.String else settled.head(0)
        if 0 < odd.len() < settled.len():
            notes.append(
                f"{use} ids are text: {odd.len()} of {settled.len()} are no plain integers, as {shown(odd[0], 40)}"
            )
        frame = frame.with_columns(settled)
    types |= {chosen[use]: type(frame.schema[use]) for use in chosen}
    scan = pl.scan_csv(path, separator=separator, schema=types, glob=False)
    return frame, scan.select(keep).rename(names), tuple(notes)


def _pattern(use: str, columns: Columns) -> bool:
    """Whether the column holds times that a strptime pattern reads, which stay text."""
    return use == "timestamp" and columns.time_format is not None and columns.time_format not in PER_SECOND


def rows_of(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a text table, quotes understood; a row of several lines goes by its last."""
    with open_text(path) as f:
        reader = csv.reader(f, delimiter=separator, strict=True)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            hint = "Shorten it" if "limit" in str(error) else "Correct the quotes"
            raise DataError(f"{path}, line {reader.line_num}: {error}. {hint}") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: not a whole gzip file ({error}); fetch it again") from None


def _scan(path: Path, separator: str, types: Schema, keep: list[str], quoted: bool) -> pl.DataFrame:
    if not quoted:
        plain = any(dtype.is_integer() for dtype in types.values())
        return read_delimited(path, separator, types, header=True, keep=keep, plain=plain)
    names = list(types)
    rows = 0
    for k, (number, row) in enumerate(rows_of(path, separator)):  # quotes: every row goes through Python once
        if k == 0 or not row:
            continue
        rows += 1
        if len(row) != len(names):
            raise DataError(
                f"{path}, line {number}: {len(row)} fields, but the first line names {len(names)}. Mend or remove it"
            )
        for name, text in zip(names, row):
            fault = fault_of(types[name], text) if name in keep else ""
            if fault:
                raise DataError(f"{path}, line {number}: {name} {shown(text)} {fault}. Mend or remove the line")
    if not rows:
        raise DataError(f"{path}: no line of data after the names of the columns")
    try:
        frame = pl.read_csv(content_of(path), separator=separator, schema=types, glob=False).select(keep)
    except (pl.exceptions.PolarsError, OSError) as error:
        odd = undecodable(path)
        where = f", line {odd[0]}: not UTF-8, in {odd[1]}. Save the file as UTF-8" if odd else f": {_first_line(error)}"
        raise DataError(f"{path}{where}") from None
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines, which csv leaves out too
    if frame.height != rows or any(series.null_count() for series in frame):
        raise DataError(f"{path}: {rows} rows by Python's csv, {frame.height} by Polars; the quotes are ambiguous")
    return frame
