"""Which format a file or folder is in, found by looking at it, and the frame that its reader makes."""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.text import lines_of, read_delimited, require_file, scan_delimited
from fastrec.errors import ConfigError, DataError

TABLES = (".csv", ".tsv", ".inter", ".parquet")
KNOWN = (
    "MovieLens .dat (ratings.dat), ml-100k (u.data), MovieLens csv (ratings.csv), the NCF paper's NAME.train.rating "
    "and NAME.test.rating, adjacency lists (train.txt and test.txt, a user and its items per line), or one CSV, TSV or "
    "Parquet table with named columns; each also as .gz"
)


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
    """The suffix in lower case, looking through ``.gz``: ``.csv`` for ``ratings.csv.gz``."""
    return Path(path.name.removesuffix(".gz")).suffix.lower()


def present(folder: Path, name: str) -> Path | None:
    """``folder/name`` or ``folder/name.gz`` if there is one."""
    return next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)


def read_log(path: Path, columns: Columns = Columns()) -> Log:
    """Read a file or folder in any known format.

    Raises
    ------
    DataError
        If nothing is there, the format is not known, or the content is malformed (with its line).
    ConfigError
        If columns are named for a format that has none.
    """
    from fastrec.data import formats_movielens, formats_split, formats_table

    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give the path of a log in a known format: {KNOWN}")
    files = formats_split.find_split(path) if path.is_dir() else None
    if files is not None:
        return formats_split.read_whole(files, columns)
    file = main_file(path)
    kind = sniff(file)
    if kind == "table":
        return formats_table.read_table(file, columns)
    columns.refuse(str(file))
    if kind == "lists":
        frame, lazy = formats_split.read_list(file)
        return Log(frame, Catalog(ratings=lazy), "adjacency lists")
    return formats_movielens.read_lines(file, kind)


def main_file(path: Path) -> Path:
    """The file of a folder that holds the interactions, or the path itself if it is a file.

    Raises
    ------
    DataError
        If the folder holds none, or several that are equally likely.
    """
    if path.is_file():
        return path
    for name in ("ratings.dat", "u.data", "ratings.csv", "ratings.parquet"):
        found = present(path, name)
        if found is not None:
            return found
    tables = sorted(p for p in path.iterdir() if p.is_file() and suffix_of(p) in TABLES)
    if len(tables) == 1:
        return tables[0]
    if tables:
        names = ", ".join(p.name for p in tables[:8])
        raise DataError(f"{path}: several files could hold the interactions ({names}); give the path of one of them")
    there = ", ".join(sorted(p.name for p in path.iterdir())[:12]) or "nothing"
    raise DataError(f"{path}: no log in a known format, only {there}. Known are: {KNOWN}")


def sniff(file: Path) -> str:
    """One of "dat", "tabs", "lists", "table" by suffix and first line."""
    require_file(file)
    if suffix_of(file) == ".parquet":
        return "table"
    first = next((line for _, line in lines_of(file)), None)
    if first is None:
        raise DataError(f"{file}: there is nothing in the file; fetch it again")
    if "::" in first:
        return "dat"
    fields = first.split("\t")
    numbers = 2 <= len(fields) <= 4 and all(map(is_number, fields[2:] or fields))
    if numbers or suffix_of(file) in (".data", ".base", ".rating"):
        return "tabs"
    words = first.split()
    if words and (all(map(str.isdigit, words)) or file.name.startswith(("train.txt", "test.txt"))):
        return "lists"
    if suffix_of(file) in TABLES or any(mark in first for mark in ",\t;|"):
        return "table"
    raise DataError(f"{file}: the first line, {first[:60]!r}, fits no known format. Known are: {KNOWN}")


def is_number(text: str) -> bool:
    """Whether the text reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def read_columns(file: Path, separator: str) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """Lines of ``user item [rating [timestamp]]`` without a header: the frame, and a lazy scan of the same."""
    head = [line.split(separator) for _, line in itertools.islice(lines_of(file), 9)]
    width = Counter(map(len, head)).most_common(1)[0][0]  # a fault in the first line must not set the layout
    names = ("user", "item", "rating", "timestamp")
    if not 2 <= width <= 4:
        layout = separator.replace("\t", "<tab>").join(names)
        raise DataError(f"{file}, line 1: {width} fields in {head[0]}, but every line must be {layout}")
    schema: dict[str, type[pl.DataType]] = {}
    for k, name in enumerate(names[:2]):
        whole = [is_integer(fields[k]) for fields in head if len(fields) == width]
        schema[name] = pl.Int64 if 2 * sum(whole) >= len(whole) else pl.String
    schema |= dict(zip(names[2:width], (pl.Float32, pl.Int64)))
    frame = read_delimited(file, separator, schema)
    return frame, with_datetime(scan_delimited(file, separator, schema))


def is_integer(text: str) -> bool:
    """Whether the text is a whole number that fits 64 bits and keeps its spelling (no leading zero)."""
    return text.isascii() and text.isdigit() and str(int(text)) == text and int(text) < 2**63
