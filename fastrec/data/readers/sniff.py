"""Which format a file or folder is in, found by looking at it, and the frame that its reader makes."""

from __future__ import annotations

import os
from pathlib import Path

from fastrec.data.catalog import Catalog
from fastrec.data.content import is_parquet
from fastrec.data.datasets.registry import SETS
from fastrec.data.readers import given_split as formats_split
from fastrec.data.readers import movielens as formats_movielens
from fastrec.data.readers import table as formats_table
from fastrec.data.readers.text import lines_of
from fastrec.data.source import TABBED, TABLES, Columns, Source, is_integer, is_number, present, suffix_of
from fastrec.errors import DataError, shown

KNOWN = (
    "MovieLens .dat (ratings.dat), ml-100k (u.data), MovieLens csv (ratings.csv), the NCF paper's NAME.train.rating "
    "and NAME.test.rating, adjacency lists (train.txt and test.txt, a user and its items per line), or one CSV, TSV or "
    "Parquet table with named columns; each also as .gz or .zst"
)


def read_source(path: Path, columns: Columns | None = None) -> Source:
    """Read a file or folder in any known format.

    Raises
    ------
    DataError
        If nothing is there, the format is not known, or the content is malformed (with its line).
    ConfigError
        If columns are named for a format that has none.
    """
    columns = columns or Columns()
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
        return Source(frame, Catalog(ratings=lazy), "adjacency lists")
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
    there = ", ".join(sorted(p.name for p in path.iterdir())[:12])
    said = f"no log in a known format, only {there}" if there else "an empty folder"
    hidden = (
        ". It hides the data set of that name: give that one by its path, or start fastrec from another folder"
        if os.fspath(path) in SETS
        else ""
    )
    raise DataError(f"{path}: {said}{hidden}. Known are: {KNOWN}")


def sniff(file: Path) -> str:
    """One of "dat", "tabs", "lists", "table" by suffix and first line.

    Any line of a file that its reader accepts gives the same answer, so that the order of the lines does not matter.
    """
    if file.suffix.lower() == ".parquet" and is_parquet(file):
        return "table"
    if suffix_of(file) in TABBED:
        return "tabs"
    first = next((line for _, line in lines_of(file) if line.strip()), None)
    if first is None:
        raise DataError(f"{file}: there is nothing in the file; fetch it again")
    fields = first.split("\t")
    if 3 <= len(fields) <= 4 and all(map(is_number, fields[2:])):
        return "tabs"
    if "::" in first:
        return "dat"
    if len(fields) == 2 and all(map(is_number, fields)):
        return "tabs"
    words = first.split()
    if all(map(is_integer, words)) or file.name.startswith(formats_split.LISTS):
        return "lists"
    if suffix_of(file) in TABLES or any(mark in first for mark in ",\t;|"):
        return "table"
    raise DataError(f"{file}: the first line, {shown(first)}, fits no known format. Known are: {KNOWN}")
