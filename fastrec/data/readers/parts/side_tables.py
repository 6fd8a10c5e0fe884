"""Tables of items and users next to a log: titles, genres and any other fields, by the ids of the log."""

from __future__ import annotations

import csv
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import polars as pl

from fastrec.data.catalog import movies_frame
from fastrec.data.content import content_of, is_json, is_parquet
from fastrec.data.readers.parts.columns import first_line, listed, readable
from fastrec.data.readers.parts.parquet_check import check_parquet
from fastrec.data.readers.parts.text import lines_of
from fastrec.data.source import Source, suffix_of
from fastrec.errors import DataError, shown
from fastrec.sampling.sources import ITEM_COLUMNS, USER_COLUMNS, plain_name

TITLES = ("title", "name", "item_name", "product_name", "product_title", "movie_title", "song_name", "track_name")
GENRES = ("genres", "genre", "categories", "category", "tags")


def with_tables(source: Source, items: Any = None, users: Any = None) -> Source:
    """The source with the fields of a table of items and one of users: paths or frames, left out where None.

    Raises
    ------
    DataError
        If a table cannot be read, lists an id twice, or has no id of the log.
    """
    catalog, notes = source.catalog, list(source.notes)
    if items is not None:
        frame, where = _table(items, "--item-table")
        frame, column = _by_ids(frame, where, source.frame["item"], ITEM_COLUMNS)
        titles, genres = _field(frame, TITLES), _field(frame, GENRES)
        made = movies_frame(
            frame["item"],
            ["" if title is None else str(title) for title in frame[titles].to_list()]
            if titles
            else [""] * frame.height,
            None if genres is None else _joined(frame[genres]),
        )
        rest = frame.drop([name for name in ("item", titles, genres) if name])
        clash = {name: f"{name}_of_item" for name in rest.columns if name in made.columns}
        catalog = replace(catalog, movies=made.hstack(rest.rename(clash)))
        notes.append(_count(where, source.frame["item"], frame["item"], "items", column))
    if users is not None:
        frame, where = _table(users, "--user-table")
        frame, column = _by_ids(frame, where, source.frame["user"], USER_COLUMNS)
        catalog = replace(catalog, users=frame)
        notes.append(_count(where, source.frame["user"], frame["user"], "users", column))
    return replace(source, catalog=catalog, notes=tuple(notes))


def _table(given: Any, option: str) -> tuple[pl.DataFrame, str]:
    """Every column of a table, text where the file has no types."""
    if isinstance(given, pl.LazyFrame):
        return given.collect(), option
    if isinstance(given, pl.DataFrame):
        return given, option
    if hasattr(type(given), "column_names"):
        return pl.DataFrame(given), option
    if not isinstance(given, (str, Path)):
        try:
            return pl.DataFrame({str(name): list(given[name]) for name in given}), option
        except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
            raise DataError(f"{option}: {type(given).__name__} is not a table ({first_line(error)})") from None
    path = Path(given).expanduser()
    suffix = suffix_of(path)
    with readable(str(path), "not a readable table"):
        if suffix == ".parquet" and is_parquet(path):
            lazy = pl.scan_parquet(path, glob=False, hive_partitioning=False)
            check_parquet(path, list(lazy.collect_schema()))
            return lazy.collect(), str(path)
        if suffix in (".jsonl", ".ndjson", ".json") and is_json(path):
            content = content_of(path, json=True)
            content = content if isinstance(content, bytes) else content.read_bytes()
            return pl.read_ndjson(content, infer_schema_length=None), str(path)
        if suffix in (".arrow", ".feather", ".ipc"):
            return pl.read_ipc(path.read_bytes()), str(path)
        first = next((line for _, line in lines_of(path)), "")
        separator = max(",\t;|", key=first.count)
        try:
            header = next(csv.reader([first], delimiter=separator), [])
        except csv.Error as error:
            raise DataError(
                f"{path}, line 1: {shown(first)} holds no names of columns ({error}); is this a table?"
            ) from None
        if len(set(header)) < len(header):
            raise DataError(f"{path}: two columns are called {shown(Counter(header).most_common(1)[0][0])}; rename one")
        schema = dict.fromkeys(header, pl.String)
        return pl.read_csv(content_of(path), separator=separator, schema=schema, glob=False), str(path)


def _field(frame: pl.DataFrame, spellings: tuple[str, ...]) -> str | None:
    plain = {plain_name(name): name for name in reversed(frame.columns)}
    return next((plain[s] for s in spellings if s in plain), None)


def _joined(series: pl.Series) -> list[str]:
    """Genres as ``Action|Drama``, from lists too."""
    values = series.to_list()
    return ["" if v is None else "|".join(map(str, v)) if isinstance(v, list) else str(v) for v in values]


def _by_ids(frame: pl.DataFrame, where: str, log: pl.Series, spellings: tuple[str, ...]) -> tuple[pl.DataFrame, str]:
    """The table with its ids first, under the name and type that the log has."""
    use = log.name
    column = _field(frame, spellings) or _field(frame, ("id",))
    if column is None:
        raise DataError(f"{where}: no {use} column recognised among {listed(frame.columns)}; rename one to {use!r}")
    ids = frame[column]
    if not (ids.dtype.is_integer() or ids.dtype in (pl.String, pl.Categorical, pl.Enum)):
        raise DataError(f"{where}: {use} column {column!r} is {ids.dtype}; ids are integers or text")
    numbers = ids.cast(pl.Int64, strict=False)
    made = ids.cast(pl.String)
    if log.dtype == pl.Int64:  # only an integer in its plain spelling is that id
        made = pl.select(pl.when(numbers.cast(pl.String) == made).then(numbers)).to_series()
    if made.null_count():
        row, a_use = int(made.is_null().arg_max() or 0), "an item" if use == "item" else "a user"
        raise DataError(
            f"{where}, data row {row}: {column} {shown(str(ids[row]))} is not {a_use} id of the log, whose "
            f"ids are {'integers' if log.dtype == pl.Int64 else 'text'}. Fix or remove the row"
        )
    if made.is_duplicated().any():
        row = int(made.is_duplicated().arg_max() or 0)
        raise DataError(
            f"{where}, data row {row}: {column} {shown(str(ids[row]))} is listed twice; keep one of its rows"
        )
    rest = frame.drop(column)
    rest = rest.rename({use: f"{use}_of_table"}) if use in rest.columns else rest
    return rest.select(made.alias(use), pl.all()), column


def _count(where: str, log: pl.Series, ids: pl.Series, what: str, column: str) -> str:
    known = log.unique()
    met = int(known.is_in(ids.implode()).sum())
    if not met:
        raise DataError(f"{where}: none of its {ids.len()} ids ({column}) is an id of the log; check the column of ids")
    return f"{where}: fields of {met} of {known.len()} {what}"
