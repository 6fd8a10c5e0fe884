"""Lines of ``user item [rating [timestamp]]`` without names of columns."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

import polars as pl

from fastrec.data.catalog import with_datetime
from fastrec.data.readers.parts.text import lines_of, read_delimited, scan_delimited
from fastrec.data.source import is_integer, suffix_of
from fastrec.data.spelling import settle_ids
from fastrec.data.times import settle_time
from fastrec.errors import DataError, shown

TABBED = (".data", ".base", ".rating")
"""Suffixes of files whose fields are separated by tabs, whatever the first line holds."""


def read_columns(file: Path, separator: str) -> tuple[pl.DataFrame, pl.LazyFrame, tuple[str, ...]]:
    """Lines of ``user item [rating [timestamp]]`` without a header: the frame, a lazy scan of the same, and notes.

    Ids of one column are all integers or all text. Integral ratings are read as integers first: floats would take
    10 % longer in all.
    """
    filled = (line for _, line in lines_of(file) if line)
    head = [line.split(separator) for line in itertools.islice(filled, 9)]
    if not head:
        raise DataError(f"{file}: there is nothing in the file; fetch it again")
    width = Counter(map(len, head)).most_common(1)[0][0]  # a fault in the first line must not set the layout
    names = ("user", "item", "rating", "timestamp")
    if not 2 <= width <= 4:
        layout = separator.replace("\t", "<tab>").join(names)
        line = shown(separator.join(head[0]))
        raise DataError(f"{file}, line 1: {len(head[0])} fields in {line}, but every line must be {layout}")
    schema: dict[str, type[pl.DataType]] = {}
    for k, name in enumerate(names[:2]):
        whole = [is_integer(fields[k]) for fields in head if len(fields) == width]
        schema[name] = pl.Int64 if 2 * sum(whole) >= len(whole) else pl.String  # a guess, which saves a second reading
    schema |= dict(zip(names[2:width], (pl.Float32, pl.Int64)))
    whole_ratings = width > 2 and all(is_integer(fields[2]) for fields in head if len(fields) == width)
    frame = _read_columns(file, separator, schema, whole_ratings)
    # two columns of numbers are taken for ids by their content only, where a line of text would be a header
    mixed: Literal["refused", "integers"] = "refused"
    if width == 2 and separator == "\t" and suffix_of(file) not in TABBED:
        mixed = "integers"
    for what in ("user", "item"):
        if frame[what].dtype == pl.String:
            frame = frame.with_columns(settle_ids(frame[what], what, lambda row: f"{file}, line {row + 1}", mixed))
        schema[what] = pl.Int64 if frame[what].dtype == pl.Int64 else pl.String
    lazy = scan_delimited(file, separator, schema)
    frame, seconds, notes = settle_time(frame, lambda row: f"{file}, line {row + 1}")
    return frame, with_datetime(lazy if seconds is None else lazy.with_columns(timestamp=seconds)), notes


def _read_columns(
    file: Path, separator: str, schema: Mapping[str, type[pl.DataType]], whole_ratings: bool
) -> pl.DataFrame:
    """The columns by the guessed schema if it fits and no id has an odd spelling, else with ids as text."""
    if whole_ratings:
        with contextlib.suppress(DataError):  # a fractional rating, or a fault: the reading below tells which
            frame = read_delimited(file, separator, {**schema, "rating": pl.Int16}, plain=True)
            return frame.cast({"rating": pl.Float32})
    try:
        return read_delimited(file, separator, schema, plain=True)
    except DataError as error:
        try:
            return read_delimited(file, separator, {**schema, "user": pl.String, "item": pl.String})
        except DataError:
            raise error from None
