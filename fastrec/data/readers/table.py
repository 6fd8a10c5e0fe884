"""Text tables with named columns: CSV, TSV and RecBole's .inter, quoted or not."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path

import polars as pl

from fastrec.data.content import content_of
from fastrec.data.readers.base import Probe, Reader, register, suffixes
from fastrec.data.readers.parts.columns import Table, first_line, literal, plan, settled, time_like
from fastrec.data.readers.parts.text import (
    Schema,
    fault_of,
    holds_quotes,
    lines_of,
    open_text,
    read_delimited,
    undecodable,
)
from fastrec.data.source import Columns, Source, is_integer
from fastrec.data.spelling import settle_ids
from fastrec.data.times import PER_SECOND, as_numbers
from fastrec.errors import DataError, shown

PLAIN = r"^(0|-?[1-9][0-9]{0,18})$"


def sniff(probe: Probe) -> bool:
    """Whether the suffix says so, or no suffix says otherwise and the first line has separators."""
    known = TEXT_TABLE.suffixes
    return probe.suffix in known or (probe.suffix not in suffixes() and any(mark in probe.first for mark in ",\t;|"))


def read(path: Path, columns: Columns) -> Source:
    """Read a text table; ids are integers where all of them are, else text.

    Raises
    ------
    DataError
        Naming the file and line at fault.
    """
    return settled(str(path), scan(path, columns), columns)


def scan(path: Path, columns: Columns, extra: Mapping[str, str] | None = None) -> Table:
    """The columns of a text table that are needed, in memory.

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
        raise DataError(f"{path}: two columns are called {shown(Counter(header).most_common(1)[0][0])}; rename one")
    outside = {name: text for name, text in (extra or {}).items() if name not in header}
    every, needed, rest = plan(str(path), [*header, *outside], columns)
    chosen = {use: column for use, column in every.items() if column in header}
    if chosen.get("weight") == chosen.get("rating"):
        chosen.pop("weight", None)  # one column, read once
    quoted = holds_quotes(path)
    second = next((line for number, line in lines_of(path) if number > 1 and line), "")
    if quoted:
        sample = dict(zip(header, next((row for number, row in rows_of(path, separator) if number > 1 and row), [])))
    else:  # not by csv, which reads no field of more than 128 KiB
        sample = dict(zip(header, second.split(separator)))
    types: dict[str, type[pl.DataType]] = dict.fromkeys(header, pl.String)
    real = [use for use in ("rating", "weight") if use in chosen]
    types |= dict.fromkeys((chosen[use] for use in real), pl.Float32)
    text = dict(types)
    if not quoted:
        types |= {column: pl.Int64 for use, column in chosen.items() if is_integer(sample.get(column, ""))}
        types |= {chosen[use]: text[chosen[use]] for use in chosen if use in real or _pattern(use, columns)}
    keep = list(chosen.values())
    if not keep:
        raise DataError(f"{path}: every column is in the path; a table needs a column of its own")
    try:
        frame = _scan(path, separator, types, keep, quoted)
    except DataError:
        if types == text:
            raise
        frame = _scan(path, separator, text, keep, quoted)
    frame = frame.select(keep).rename({column: use for use, column in chosen.items()})
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
                f"{use} ids are text: {odd.len()} of {settled.len()} are not plain integers, as {shown(odd[0], 40)}"
            )
        frame = frame.with_columns(settled)
    types |= {chosen[use]: type(frame.schema[use]) for use in chosen}
    frame = frame.rename(chosen)
    unused = {name: time_like(sample.get(name, "")) for name in rest}
    asked = [name for name in needed if name in header and name not in keep]
    again = None
    if asked:
        frame = frame.hstack(_untyped(path, separator, header, asked, keep, quoted, frame.height))
    elif not outside:
        again = pl.scan_csv(path, separator=separator, schema=types, glob=False).select(keep)
    lazy = frame.lazy().with_columns(**{name: literal(text) for name, text in outside.items()})
    return Table(lazy, every, unused, needed, again, tuple(notes))


def _untyped(
    path: Path, separator: str, header: list[str], asked: list[str], keep: list[str], quoted: bool, height: int
) -> list[pl.Series]:
    """Columns that only ``where`` reads: numbers where all of them are, else text, null where empty."""
    schema = dict.fromkeys(header, pl.String)
    quote = '"' if quoted else None
    frame = pl.read_csv(content_of(path), separator=separator, schema=schema, quote_char=quote, glob=False)
    frame = frame.filter(~pl.all_horizontal(pl.col(keep).is_null())).select(asked)
    if frame.height != height:
        raise DataError(f"{path}: {height} rows of ids, but {frame.height} of {asked[0]}; remove its blank lines")
    made = []
    for series in frame:
        for dtype in (pl.Int64, pl.Float64):
            numbers = series.cast(dtype, strict=False)
            if numbers.null_count() == series.null_count() < height:
                series = numbers
                break
        made.append(series)
    return made


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
            hint = "Correct the quotes"
            if "limit" in str(error):
                hint = "Shorten it, or write the table as Parquet, which has no such limit"
            raise DataError(f"{path}, line {reader.line_num}: {error}. {hint}") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise DataError(f"{path}: not a complete gzip file ({error}); fetch it again") from None


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
                f"{path}, line {number}: {len(row)} fields, but the first line names {len(names)}. Fix or remove it"
            )
        for name, text in zip(names, row):
            fault = fault_of(types[name], text) if name in keep else ""
            if fault:
                raise DataError(f"{path}, line {number}: {name} {shown(text)} {fault}. Fix or remove the line")
    if not rows:
        raise DataError(f"{path}: no line of data after the names of the columns")
    try:
        frame = pl.read_csv(content_of(path), separator=separator, schema=types, glob=False).select(keep)
    except (pl.exceptions.PolarsError, OSError) as error:
        odd = undecodable(path)
        where = f", line {odd[0]}: not UTF-8, in {odd[1]}. Save the file as UTF-8" if odd else f": {first_line(error)}"
        raise DataError(f"{path}{where}") from None
    frame = frame.filter(~pl.all_horizontal(pl.all().is_null()))  # blank lines, which csv leaves out too
    if frame.height != rows or any(series.null_count() for series in frame):
        raise DataError(f"{path}: {rows} rows by Python's csv, {frame.height} by Polars; the quotes are ambiguous")
    return frame


TEXT_TABLE = register(
    Reader(
        name="text table",
        about="a CSV, TSV or RecBole .inter table with named columns",
        sniff=sniff,
        read=read,
        order=80,
        scan=scan,
        main_files=("ratings.csv",),
        suffixes=(".csv", ".tsv", ".inter"),
    )
)
