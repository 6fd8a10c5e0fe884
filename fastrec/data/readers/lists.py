"""Adjacency lists: a user and its items per line, separated by blanks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import polars as pl

from fastrec.data.catalog import Catalog
from fastrec.data.content import content_of
from fastrec.data.readers.base import Probe, Reader, register
from fastrec.data.readers.parts.columns import first_line
from fastrec.data.readers.parts.text import undecodable
from fastrec.data.source import Columns, Source, is_integer
from fastrec.data.spelling import settle_ids
from fastrec.errors import DataError, shown

NAMES = ("train.txt", "test.txt")
"""Starts of names that make a file a list whatever it holds."""


def sniff(probe: Probe) -> bool:
    """Whether the first line is integers between blanks, or the name says that it is a list."""
    return probe.path.name.startswith(NAMES) or all(map(is_integer, probe.first.split()))


def read(file: Path, columns: Columns) -> Source:
    """Read adjacency lists.

    Raises
    ------
    DataError
        As ``read_list``.
    ConfigError
        If columns are named.
    """
    columns.refuse(str(file))
    frame, lazy = read_list(file)
    return Source(frame, Catalog(ratings=lazy), "adjacency lists")


def read_list(file: Path, *, named: bool = False) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """Adjacency list: a user and its items per line, separated by blanks. A user without items has no row.

    Parameters
    ----------
    file : Path
        The list.
    named : bool
        Whether the folder tells that it is one (train.txt next to test.txt), rather than its first line.

    Raises
    ------
    DataError
        If the file is missing or empty, some ids are integers and others not, or every line has as many fields as
        ``user item rating`` would.
    """
    try:
        lines = pl.read_csv(
            content_of(file),
            separator="\x01",
            has_header=False,
            schema={"line": pl.String},
            quote_char=None,
            glob=False,
        )
    except pl.exceptions.PolarsError as error:
        odd = undecodable(file)
        where = f", line {odd[0]}: not UTF-8, in {odd[1]}" if odd else f": not lines of text ({first_line(error)})"
        raise DataError(f"{file}{where}; save it as UTF-8, one user and its items per line") from None
    words = (
        lines.with_row_index("number", offset=1)
        .with_columns(words=pl.col("line").str.extract_all(r"\S+"))
        .filter(pl.col("words").list.len() > 0)
        .select("number", "line", user=pl.col("words").list.first(), item=pl.col("words").list.slice(1))
    )
    _refuse_ratings(file, words, named)
    if not words["item"].list.len().sum():
        raise DataError(f"{file}: no line holds a user and an item; every line must be: user item item ...")
    mixed: Literal["refused", "integers"] = "refused" if named or file.name.startswith(NAMES) else "integers"
    # users without items have no row, but their ids are checked like the others
    users = settle_ids(words["user"], "user", lambda row: f"{file}, line {words['number'][row]}", mixed)
    pairs = words.select("number", users, "item").explode("item").filter(pl.col("item").is_not_null())
    items = settle_ids(pairs["item"], "item", lambda row: f"{file}, line {pairs['number'][row]}", mixed)
    frame = pairs.select("user", items)
    return frame, frame.lazy()


def _refuse_ratings(file: Path, words: pl.DataFrame, named: bool) -> None:
    """Refuse blank-separated ratings, which would read as lists of items.

    A list names each user once, and lists are seldom all of one length: a file with as many fields in every line is
    taken for ratings if a user occurs twice, and is ambiguous if only its content makes it a list.
    """
    if not named:
        tabs = words["line"].str.contains("\t", literal=True)
        if tabs.any():
            line = words["number"][int(tabs.arg_max() or 0)]
            raise DataError(f"{file}, line {line}: a tab; lists are separated by blanks, ratings by tabs only")
    widths = words["item"].list.len() + 1
    width = int(widths.max() or 0)  # type: ignore[arg-type]
    if width < 3 or widths.min() != width:
        return
    twice = words["user"].is_duplicated()
    if twice.any() or (width <= 4 and not named and not file.name.startswith(NAMES)):
        row = int(twice.arg_max() or 0)
        seen = f"and user {shown(words['user'][row])} occurs on several lines" if twice.any() else "as ratings would"
        raise DataError(
            f"{file}, line {words['number'][row]}: every line has {width} fields, {seen}, so these may be ratings "
            "(user item rating) or lists (user item item). Separate ratings by tabs, or write a csv with names of "
            "columns; write the items of a user on one line of train.txt, next to test.txt"
        )


LISTS = register(
    Reader(
        name="adjacency lists",
        about="adjacency lists (train.txt and test.txt, a user and its items per line)",
        sniff=sniff,
        read=read,
        order=70,
    )
)
