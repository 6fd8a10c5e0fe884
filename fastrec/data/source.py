"""What every reader makes (``Log``), and what the readers share."""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.content import PACKED
from fastrec.data.readers.text import lines_of, read_delimited, scan_delimited, shown
from fastrec.errors import ConfigError, DataError

TABLES = (".csv", ".tsv", ".inter", ".parquet")


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, None where they are to be recognised."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None

    def refuse(self, where: str) -> None:
        """For formats without names.

        Raises
        ------
        ConfigError
            If a column is named.
        """
        named = [f"--{what}-col {name}" for what, name in vars(self).items() if name is not None]
        if named:
            raise ConfigError(f"{', '.join(named)}: {where} has no named columns; leave it out")


@dataclass(frozen=True)
class Log:
    """What a reader makes of a source.

    Parameters
    ----------
    frame : polars.DataFrame
        ``user`` and ``item`` (Int64 or String), ``rating`` (Float32) and ``timestamp`` (Int64, seconds since 1970 UTC)
        where the source has them; one row per line, in the order of the file; no nulls.
    catalog : Catalog
        Titles, user fields and the lazy ratings.
    format : str
        What the source was taken for.
    notes : tuple of str
        What the reader changed, with counts.
    """

    frame: pl.DataFrame
    catalog: Catalog
    format: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tables = ((self.catalog.movies, "item"), (self.catalog.users, "user"))
        for table, what in tables:
            if table is not None and table.schema[what] != self.frame.schema[what]:
                raise DataError(
                    f"the {what} ids of the log are {self.frame.schema[what]}, those of its catalogue "
                    f"{table.schema[what]}, so they can never meet; write both alike"
                )


def suffix_of(path: Path) -> str:
    """The suffix in lower case, looking through ``.gz`` and ``.zst``: ``.csv`` for ``ratings.csv.gz``."""
    return Path(plain_name(path.name)).suffix.lower()


def plain_name(name: str) -> str:
    """The name without ``.gz`` or ``.zst``."""
    return next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)


def present(folder: Path, name: str) -> Path | None:
    """``folder/name``, or the same packed as ``.gz`` or ``.zst``, if there is one."""
    return next((p for p in (folder / f"{name}{end}" for end in ("", *PACKED)) if p.is_file()), None)


def is_number(text: str) -> bool:
    """Whether the text reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_columns(file: Path, separator: str) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """Lines of ``user item [rating [timestamp]]`` without a header: the frame, and a lazy scan of the same.

    Whole ratings are read as integers first: floats would take a tenth longer in all.
    """
    filled = (line for _, line in lines_of(file) if line)
    head = [line.split(separator) for line in itertools.islice(filled, 9)]
    if not head:
        raise DataError(f"{file}: there is nothing in the file; fetch it again")
    width = Counter(map(len, head)).most_common(1)[0][0]  # a fault in the first line must not set the layout
    names = ("user", "item", "rating", "timestamp")
    if not 2 <= width <= 4:
        layout = separator.replace("\t", "<tab>").join(names)
        line = shown(separator.join(head[0]), 80)
        raise DataError(f"{file}, line 1: {len(head[0])} fields in {line}, but every line must be {layout}")
    schema: dict[str, type[pl.DataType]] = {}
    for k, name in enumerate(names[:2]):
        whole = [is_integer(fields[k]) for fields in head if len(fields) == width]
        schema[name] = pl.Int64 if 2 * sum(whole) >= len(whole) else pl.String
    schema |= dict(zip(names[2:width], (pl.Float32, pl.Int64)))
    frame = None
    if width > 2 and all(is_integer(fields[2]) for fields in head if len(fields) == width):
        with contextlib.suppress(DataError):  # a rating that is not whole, or a fault: the reading below tells which
            frame = read_delimited(file, separator, {**schema, "rating": pl.Int16}).cast({"rating": pl.Float32})
    if frame is None:
        frame = read_delimited(file, separator, schema)
    return frame, with_datetime(scan_delimited(file, separator, schema))


def is_integer(text: str) -> bool:
    """Whether the text is a whole number that fits 64 bits and keeps its spelling (no leading zero)."""
    short = len(text) <= 19  # Python refuses to convert more than 4,300 digits
    return short and text.isascii() and text.isdigit() and str(int(text)) == text and int(text) < 2**63
