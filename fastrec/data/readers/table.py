"""Any CSV, TSV or Parquet table with named columns, and frames in memory; MovieLens csv is one of them."""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.content import content_of
from fastrec.data.csr_build import as_array
from fastrec.data.readers.movielens import movies_csv
from fastrec.data.readers.text import (
    Schema,
    fault_of,
    holds_quotes,
    lines_of,
    open_text,
    read_delimited,
    shown,
    undecodable,
)
from fastrec.data.source import Columns, Log, is_integer, is_number, suffix_of
from fastrec.errors import DataError
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


def read_table(path: Path, columns: Columns) -> Log:
    """Read a table; ids are integers where all of them are, else text.

    Raises
    ------
    DataError
        Naming the file and line (row, for Parquet) at fault.
    """
    if suffix_of(path) == ".parquet":
        try:
            lazy = pl.scan_parquet(path, glob=False)
            header = list(lazy.collect_schema())
        except (pl.exceptions.PolarsError, OSError) as error:
            raise DataError(f"{path}: not a readable Parquet file ({_first_line(error)}); make it again") from None
        frame, lazy, notes = settle(str(path), lazy, choose(str(path), header, columns))
    else:
        raw, scan = _read_text(path, columns)
        frame, lazy, notes = settle(str(path), raw.lazy(), {name: name for name in raw.columns}, scan)
    movies = movies_csv(path.parent) if path.name.startswith("ratings.") else None
    kind = "table with named columns" if movies is None else "MovieLens csv"
    return Log(frame, Catalog(movies=movies, ratings=with_datetime(lazy)), kind, notes)


def read_frame(frame: Any, columns: Columns, name: str) -> Log:
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
        header = [str(column) for column in (frame.columns if hasattr(frame, "columns") else frame)]
    chosen = choose(name, header, columns)
    if not isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        lazy = pl.LazyFrame({column: _series(name, column, frame[column]) for column in chosen.values()})
    settled, lazy, notes = settle(name, lazy, chosen)
    return Log(settled, Catalog(ratings=with_datetime(lazy)), "frame in memory", notes)


def _series(where: str, column: str, values: Any) -> pl.Series:
    array = as_array(values, f"{where}: the values of column {column!r}")
    try:
        return pl.Series(column, array.tolist() if array.dtype.kind == "O" else array)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{where}: column {column!r} mixes types ({_first_line(error)}); make it one type") from None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def settle(
    where: str, lazy: pl.LazyFrame, chosen: dict[str, str], again: pl.LazyFrame | None = None
) -> tuple[pl.DataFrame, pl.LazyFrame, tuple[str, ...]]:
    """Bring chosen columns to the canonical names and types.

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

    Returns
    -------
    (polars.DataFrame, polars.LazyFrame, tuple of str)
        The canonical frame, the same rows lazily (in the order of the source), and notes.

    Raises
    ------
    DataError
        For ids that are floats, missing values, numbers that are none, times that cannot be read.
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
        casts[use] = kept
    try:
        frame = lazy.select(**casts).collect()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{where}: {_first_line(error)}; integer ids must fit 64 bits with sign") from None
    if not frame.height:
        raise DataError(f"{where}: the table has no rows")
    for use, column in chosen.items():
        bad = frame[use].is_null()
        if frame[use].dtype.is_float():
            bad = bad | ~frame[use].is_finite().fill_null(False)
        if bad.any():
            raise DataError(f"{where}, data row {bad.arg_max()}: {column} is missing or no number. Mend or remove it")
    frame, seconds, notes = settle_time(where, frame)
    lazy = (lazy if again is None else again).select(**casts)
    return frame, lazy if seconds is None else lazy.with_columns(timestamp=seconds), notes


def settle_time(where: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, pl.Expr | None, tuple[str, ...]]:
    """Bring ``timestamp`` to whole seconds since 1970 UTC; also the expression that does so.

    Integers of 10^11 and more are taken for milli-, micro- or nanoseconds by their size; text is read as ISO dates, UTC
    where no zone is given. Where fractions of a second are cut, the rows are put in order of time first, so that ties
    still fall the right way; a note says so.

    Raises
    ------
    DataError
        If text in the column is no date, naming the row.
    """
    if "timestamp" not in frame.columns:
        return frame, None, ()
    time, notes = pl.col("timestamp"), []
    dtype = frame.schema["timestamp"]
    per_second = 1
    if dtype == pl.String:
        time = time.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        parsed = frame.select(time).to_series()
        if parsed.null_count():
            row = int(parsed.is_null().arg_max() or 0)
            raise DataError(
                f"{where}, data row {row}: time {shown(frame['timestamp'][row])} is neither a number nor an ISO date. "
                "Mend or remove it"
            )
    elif dtype == pl.Date:
        time = time.cast(pl.Datetime("us"))
    elif dtype.is_float():
        far = frame["timestamp"].abs() > 9.2e12  # in microseconds, 64 bits end there
        if far.any():
            row = int(far.arg_max() or 0)
            raise DataError(
                f"{where}, data row {row}: time {frame['timestamp'][row]!r} is beyond 64 bits in microseconds. "
                "Correct it"
            )
        time = (time * 1e6).round()
    elif not dtype.is_integer() and dtype != pl.Datetime:
        raise DataError(f"{where}: the time column is {dtype}; it must hold numbers, dates or text")
    if dtype.is_integer():
        per_second = time_unit(frame["timestamp"])
        if per_second > 1:
            notes.append(f"times taken for {TIME_UNITS[per_second]}, by their size")
    else:
        per_second = 1_000_000
        time = time if dtype.is_float() else time.dt.epoch("us")
    fine = frame.select(time.cast(pl.Int64)).to_series()
    seconds = time.cast(pl.Int64) // per_second
    frame = frame.with_columns(timestamp=fine // per_second)
    if per_second > 1 and ((fine % per_second) != 0).any():
        frame = frame[np.argsort(fine.to_numpy(), kind="stable")]
        notes.append("times cut to whole seconds, after their order was taken")
    return frame, seconds, tuple(notes)


TIME_UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}


def time_unit(values: pl.Series) -> int:
    """How many of the unit make a second: 1, 10^3, 10^6 or 10^9, by the largest value (10^11 s is the year 5138)."""
    largest = max(abs(int(v)) for v in (values.max(), values.min()))  # type: ignore[arg-type]
    return next((10**power for power in (0, 3, 6) if largest < 10 ** (11 + power)), 10**9)


def _read_text(path: Path, columns: Columns) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """The chosen columns of a text table under their canonical names, and a lazy scan of the same."""
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
    second = next((line for number, line in lines_of(path) if number > 1 and line), "")
    if '"' in second:
        sample = dict(zip(header, next((row for number, row in rows_of(path, separator) if number > 1 and row), [])))
    else:  # not by csv, which reads no field of more than 128 KiB
        sample = dict(zip(header, second.split(separator)))
    types: dict[str, type[pl.DataType]] = dict.fromkeys(header, pl.String)
    for use, column in chosen.items():
        text = sample.get(column, "")
        if use == "rating":
            types[column] = pl.Float32
        elif is_integer(text):
            types[column] = pl.Int64
        elif use == "timestamp" and is_number(text):
            types[column] = pl.Float64
        elif use != "timestamp" and re.fullmatch(r"\d+\.0*", text):
            raise DataError(
                f"{path}: {use} id {shown(text)} is a decimal number; ids are integers or text: write them "
                "without the point"
            )
    keep = list(chosen.values())
    try:
        frame = _scan(path, separator, types, keep)
    except DataError:
        ids = (chosen["user"], chosen["item"])
        if all(types[column] == pl.String for column in ids):
            raise
        types |= dict.fromkeys(ids, pl.String)
        frame = _scan(path, separator, types, keep)
        for column in ids:  # only a column that holds other than integers becomes text
            numbers = frame[column].cast(pl.Int64, strict=False)
            if not numbers.null_count() and (numbers.cast(pl.String) == frame[column]).all():
                types[column] = pl.Int64
                frame = frame.with_columns(numbers)
    names = {column: use for use, column in chosen.items()}
    scan = pl.scan_csv(path, separator=separator, schema=types, glob=False)
    return frame.rename(names), scan.select(keep).rename(names)


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


def _scan(path: Path, separator: str, types: Schema, keep: list[str]) -> pl.DataFrame:
    if not holds_quotes(path):
        return read_delimited(path, separator, types, header=True, keep=keep)
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
