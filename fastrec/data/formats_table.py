"""Any CSV, TSV or Parquet table with named columns; MovieLens csv is one of them."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.formats import Columns, Log, is_integer, is_number, suffix_of
from fastrec.data.formats_movielens import movies_csv
from fastrec.data.text import fault_of, lines_of, open_text, read_delimited
from fastrec.errors import DataError

SPELLINGS = {
    "user": ["user", "user_id", "userid", "uid", "reviewerid", "customer_id", "customerid", "visitorid", "session_id"],
    "item": [
        "item",
        "item_id",
        "itemid",
        "iid",
        "movie_id",
        "movieid",
        "product_id",
        "productid",
        "asin",
        "parent_asin",
        "business_id",
        "book_id",
        "track_id",
        "song_id",
        "article_id",
    ],
    "rating": ["rating", "rating_score", "score", "stars", "overall"],
    "time": ["timestamp", "time", "ts", "unixreviewtime", "unix_timestamp", "datetime", "date"],
}
"""Column names that are recognised, whatever their case, underscores apart (``User-ID`` is ``user_id``)."""


def _plain(name: str) -> str:
    """``userId``, ``user_id:token`` (RecBole) and ``User-ID`` all read as one spelling."""
    return name.split(":")[0].strip().strip('"').lower().replace("-", "_")


def choose(path: Path, header: list[str], columns: Columns) -> dict[str, str]:
    """Which column is the user, the item and, where there are such, the rating and the time.

    Raises
    ------
    DataError
        If a named column is not there, or user or item cannot be recognised.
    """
    chosen = {}
    for what, spellings in SPELLINGS.items():
        asked = getattr(columns, what)
        if asked is not None and asked not in header:
            raise DataError(f"{path}: no column {asked!r} (--{what}-col); the columns are {', '.join(header)}")
        plain = {_plain(name): name for name in reversed(header)}
        found = asked or next((plain[s] for s in spellings if s in plain), None)
        if found is None and what in ("user", "item"):
            raise DataError(
                f"{path}: no {what} column recognised among {', '.join(header)}; name it with --{what}-col "
                f"(from Python: {what}_col=). A table needs names in its first line"
            )
        if found is not None:
            chosen[what] = found
    if len(set(chosen.values())) < len(chosen):
        raise DataError(
            f"{path}: one column was chosen for two uses: {chosen}; name them all with --user-col and so on"
        )
    return chosen


def read_table(path: Path, columns: Columns) -> Log:
    """Read a table; ids are integers where all of them are, else text.

    Raises
    ------
    DataError
        Naming the file and line (row, for Parquet) at fault.
    """
    if suffix_of(path) == ".parquet":
        frame, lazy = _read_parquet(path, columns)
    else:
        frame, lazy = _read_text(path, columns)
    frame, notes = settle_time(path, frame)
    movies = movies_csv(path.parent) if path.name.startswith("ratings.") else None
    if movies is not None and movies["item"].dtype != frame["item"].dtype:
        movies = None
    kind = "MovieLens csv" if movies is not None else "table with named columns"
    return Log(frame, Catalog(movies=movies, ratings=with_datetime(lazy)), kind, notes)


def _read_parquet(path: Path, columns: Columns) -> tuple[pl.DataFrame, pl.LazyFrame]:
    try:
        lazy = pl.scan_parquet(path, glob=False)
        schema = lazy.collect_schema()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({str(error).splitlines()[0]}); make it again") from None
    chosen = choose(path, list(schema), columns)
    casts = []
    for what, name in chosen.items():
        dtype = schema[name]
        out = {"time": "timestamp"}.get(what, what)
        if what in ("user", "item"):
            if dtype.is_integer():
                casts.append(pl.col(name).cast(pl.Int64).alias(out))
            elif dtype in (pl.String, pl.Categorical, pl.Enum):
                casts.append(pl.col(name).cast(pl.String).alias(out))
            else:
                raise DataError(f"{path}: {what} column {name!r} is {dtype}; ids are integers or text, never floats")
        elif what == "rating":
            if not dtype.is_numeric():
                raise DataError(f"{path}: rating column {name!r} is {dtype}; ratings are numbers")
            casts.append(pl.col(name).cast(pl.Float32).alias(out))
        else:
            casts.append(pl.col(name).alias(out))
    lazy = lazy.select(casts)
    try:
        frame = lazy.collect()
    except pl.exceptions.PolarsError as error:
        raise DataError(f"{path}: {str(error).splitlines()[0]}; ids must fit 64 bits with sign") from None
    if not frame.height:
        raise DataError(f"{path}: the table has no rows")
    for what, name in zip(frame.columns, chosen.values()):
        bad = frame[what].is_null()
        if frame[what].dtype.is_float():
            bad = bad | ~frame[what].is_finite().fill_null(False)
        if bad.any():
            raise DataError(f"{path}, row {bad.arg_max()}: {name} is missing or no number. Mend or remove the row")
    return frame, lazy


def _read_text(path: Path, columns: Columns) -> tuple[pl.DataFrame, pl.LazyFrame]:
    first = next((line for _, line in lines_of(path)), "")
    separator = max(",\t;|", key=first.count)
    header = [name.strip().strip('"') for name in first.lstrip("\ufeff").split(separator)]
    if len(set(header)) < len(header):
        raise DataError(f"{path}: two columns are called {max(header, key=header.count)!r}; rename one")
    chosen = choose(path, header, columns)
    out = {name: {"time": "timestamp"}.get(what, what) for what, name in chosen.items()}
    sample = next((row for n, row in rows_of(path, separator) if n > 1), [])
    example = dict(zip(header, sample))
    types: dict[str, type[pl.DataType]] = dict.fromkeys(header, pl.String)
    for what, name in chosen.items():
        text = example.get(name, "")
        if what == "rating":
            types[name] = pl.Float32
        elif is_integer(text):
            types[name] = pl.Int64
        elif what == "time" and is_number(text):
            types[name] = pl.Float64
    try:
        frame = _scan(path, separator, types, list(out))
    except DataError:
        as_text = types | {chosen["user"]: pl.String, chosen["item"]: pl.String}
        if as_text == types:
            raise
        types = as_text
        frame = _scan(path, separator, types, list(out))
        for what in ("user", "item"):  # only the column that holds other than integers becomes text
            numbers = frame[chosen[what]].cast(pl.Int64, strict=False)
            if not numbers.null_count() and (numbers.cast(pl.String) == frame[chosen[what]]).all():
                types[chosen[what]] = pl.Int64
                frame = frame.with_columns(numbers)
    lazy = pl.scan_csv(path, separator=separator, schema=types, glob=False).select(list(out)).rename(out)
    return frame.rename(out), lazy


def rows_of(path: Path, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line number, fields) of a text table, quotes understood; a quoted line end counts as a line."""
    with open_text(path) as f:
        reader = csv.reader(f, delimiter=separator, strict=True)
        try:
            for row in reader:
                yield reader.line_num, row
        except csv.Error as error:
            raise DataError(f"{path}, line {reader.line_num}: {error}. Mend the quotes") from None


def _scan(path: Path, separator: str, types: dict[str, type[pl.DataType]], keep: list[str]) -> pl.DataFrame:
    with open_text(path) as f:
        quoted = any('"' in block for block in iter(lambda: f.read(1 << 20), ""))
    if not quoted:
        return read_delimited(path, separator, types, header=True, keep=keep)
    names = list(types)
    for number, row in rows_of(path, separator):  # the price of quotes: every row goes through Python once
        if number > 1 and row and len(row) != len(names):
            raise DataError(
                f"{path}, line {number}: {len(row)} fields, but the first line names {len(names)}. "
                "Mend or remove the line"
            )
        for name, text in zip(names, row):
            fault = fault_of(types[name], text) if number > 1 and name in keep else ""
            if fault:
                raise DataError(f"{path}, line {number}: {name} {text!r} {fault}. Mend or remove the line")
    frame = pl.read_csv(path, separator=separator, schema=types, columns=keep).select(keep)
    if not frame.height:
        raise DataError(f"{path}: no line of data after the names of the columns")
    return frame


def settle_time(path: Path, frame: pl.DataFrame) -> tuple[pl.DataFrame, tuple[str, ...]]:
    """Bring ``timestamp`` to whole seconds since 1970 UTC.

    Integers beyond 10^11 are taken for milli-, micro- or nanoseconds by their size; text is read as ISO dates, UTC
    where no zone is given. Where fractions of a second are lost, the rows are put in their order first, so that ties
    still go the right way; a note says so.

    Raises
    ------
    DataError
        If text in the column is no date, naming the row.
    """
    if "timestamp" not in frame.columns:
        return frame, ()
    time, notes = frame["timestamp"], []
    if time.dtype == pl.String:
        parsed = time.str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        if parsed.null_count():
            row = int(parsed.is_null().arg_max() or 0)
            raise DataError(f"{path}, line {row + 2}: time {time[row]!r} is neither a number nor an ISO date. Mend it")
        time = parsed
    if time.dtype == pl.Date:
        time = time.cast(pl.Datetime("us"))
    if time.dtype == pl.Datetime:
        fine = time.dt.epoch("us")
        unit = 1_000_000
    elif time.dtype.is_integer():
        fine = time.cast(pl.Int64)
        unit = time_unit(fine)
        if unit > 1:
            notes.append(f"times taken for {({3: 'milli', 6: 'micro', 9: 'nano'})[len(str(unit)) - 1]}seconds")
    elif time.dtype.is_float():
        fine = (time * 1e6).round().cast(pl.Int64)
        unit = 1_000_000
    else:
        raise DataError(f"{path}: the time column is {time.dtype}; it must hold numbers, dates or text")
    seconds = (fine // unit).rename("timestamp")
    frame = frame.with_columns(seconds)
    if unit > 1 and ((fine % unit) != 0).any():
        frame = frame[np.argsort(fine.to_numpy(), kind="stable")]
        notes.append("times cut to whole seconds, rows put in order of time first")
    return frame, tuple(notes)


def time_unit(values: pl.Series) -> int:
    """How many of the unit make a second: 1, 10^3, 10^6 or 10^9, by the largest value (10^11 s is the year 5138)."""
    largest = int(values.abs().max() or 0)  # type: ignore[arg-type]
    return next((10**power for power in (0, 3, 6) if largest < 10 ** (11 + power)), 10**9)
