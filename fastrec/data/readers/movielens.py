"""MovieLens in its three layouts: ``.dat`` with ``::``, ml-100k's ``u.*``, and csv; ratings, films and users."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import polars as pl

from fastrec.data.catalog import Catalog, movies_frame
from fastrec.data.content import content_of, open_content
from fastrec.data.readers.base import TEXT_ORDER, Probe, Reader, by_suffix, register
from fastrec.data.readers.parts.text import Schema, lines_of, open_text, read_delimited
from fastrec.data.readers.parts.unnamed import TABBED, read_columns
from fastrec.data.source import Columns, Source, is_integer, is_number, present, suffix_of
from fastrec.errors import DataError, shown

GENRES_100K = [
    "unknown",
    "Action",
    "Adventure",
    "Animation",
    "Children's",
    "Comedy",
    "Crime",
    "Documentary",
    "Drama",
    "Fantasy",
    "Film-Noir",
    "Horror",
    "Musical",
    "Mystery",
    "Romance",
    "Sci-Fi",
    "Thriller",
    "War",
    "Western",
]


def sniff_dat(probe: Probe) -> bool:
    """Whether the first line is separated by ``::``."""
    return "::" in probe.first


def read_dat(file: Path, columns: Columns) -> Source:
    """``user::item::rating::timestamp`` per line, with the films and users next to it."""
    columns.refuse(str(file))
    frame, ratings, notes = read_columns(file, "::")
    return Source(frame, Catalog(movies_dat(file.parent), users_dat(file.parent), ratings), "MovieLens .dat", notes)


def sniff_tabs(probe: Probe) -> bool:
    """Whether the name, or numbers between tabs, say that it is ``user<tab>item<tab>rating<tab>timestamp``."""
    if probe.suffix in TABBED:
        return True
    fields = probe.first.split("\t")
    return (3 <= len(fields) <= 4 and all(map(is_number, fields[2:]))) or (
        len(fields) == 2 and "::" not in probe.first and all(map(is_number, fields))
    )


def read_tabs(file: Path, columns: Columns) -> Source:
    """Lines of tab-separated numbers; ml-100k's ``u.data`` with the films and users next to it."""
    columns.refuse(str(file))
    frame, ratings, notes = read_columns(file, "\t")
    if present(file.parent, "u.item"):
        return Source(
            frame, Catalog(movies_100k(file.parent), users_100k(file.parent), ratings), "MovieLens 100k", notes
        )
    return Source(frame, Catalog(ratings=ratings), "lines of tab-separated numbers", notes)


def sniff_csv(probe: Probe) -> bool:
    """Whether it is a table called ``ratings``, next to ``movies.csv``."""
    reader = by_suffix(probe.suffix)
    if not probe.path.name.startswith("ratings.") or reader is None or present(probe.path.parent, "movies.csv") is None:
        return False
    return reader.sniff(probe) and (reader.order < TEXT_ORDER or not (sniff_tabs(probe) or sniff_dat(probe)))


def read_csv(file: Path, columns: Columns) -> Source:
    """A table of ratings, in any format of tables, with the films of ``movies.csv``."""
    reader = by_suffix(suffix_of(file))
    assert reader is not None
    source = reader.read(file, columns)
    return replace(source, catalog=replace(source.catalog, movies=movies_csv(file.parent)), format="MovieLens csv")


def decoded_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, or in Latin-1 where it is not UTF-8 (MovieLens up to 1M)."""
    with open_content(path) as f:
        raw = f.read().removeprefix(b"\xef\xbb\xbf")
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").rstrip("\n").split("\n")


def _number(path: Path, number: int, what: str, text: str) -> int:
    if not is_integer(text):
        raise DataError(f"{path}, line {number}: {what} {shown(text)} is not a 64-bit integer. Fix or remove the line")
    return int(text)


def movies_dat(folder: Path) -> pl.DataFrame | None:
    """``movies.dat``: id::title::genre|genre. The title is all between the first and the last ``::``.

    Where every one of several lines has the same fields more, these are columns of their own and not read.
    """
    path = present(folder, "movies.dat")
    if path is None:
        return None
    ids, titles, genres = [], [], []
    lines = decoded_lines(path)
    widths = {line.count("::") for line in lines}
    further = min(widths) - 2 if len(widths) == 1 and len(lines) > 1 else 0
    for number, line in enumerate(lines, 1):
        head, mid, tail = line.partition("::")
        if further > 0:
            tail = tail.rsplit("::", further)[0]
        title, mid, kinds = tail.rpartition("::")
        if not mid:
            raise DataError(
                f"{path}, line {number}: {shown(line)} is not MovieID::Title::Genres. Fix or remove the line"
            )
        ids.append(_number(path, number, "MovieID", head))
        titles.append(title)
        genres.append(kinds)
    return movies_frame(ids, titles, genres)


def users_dat(folder: Path) -> pl.DataFrame | None:
    """``users.dat``: id::gender::age::occupation::zip; age and occupation are the README's codes."""
    path = present(folder, "users.dat")
    if path is None:
        return None
    schema = {"user": pl.Int64, "gender": pl.String, "age": pl.Int64, "occupation": pl.Int64, "zip": pl.String}
    return _users(path, "::", schema)


def _users(path: Path, separator: str, schema: Schema) -> pl.DataFrame:
    """A table of users; further fields, as many in every line, are not read."""
    first = next((line for _, line in lines_of(path) if line), "")
    further = range(len(schema), first.count(separator) + 1)
    return read_delimited(path, separator, {**schema, **{f"field{k + 1}": pl.String for k in further}}, keep=schema)


def movies_100k(folder: Path) -> pl.DataFrame:
    """``u.item``: id|title|release date|video date|URL|one flag per genre of ``u.genre``."""
    path = present(folder, "u.item")
    assert path is not None
    genre_file = present(folder, "u.genre")
    names = GENRES_100K
    if genre_file is not None:
        names = [line.split("|")[0] for line in decoded_lines(genre_file) if line]
    ids, titles, genres = [], [], []
    lines = decoded_lines(path)
    width = max(5 + len(names), lines[0].count("|") + 1)
    for number, line in enumerate(lines, 1):
        fields = line.split("|")
        further = fields[5 + len(names) :]  # columns of their own, not read, unless they are flags of unnamed genres
        if len(fields) != width or {"0", "1"} & set(further):
            raise DataError(
                f"{path}, line {number}: {len(fields)} fields in {shown(line)}, but id, title, two dates, URL and "
                f"{len(names)} genre flags make {5 + len(names)}. Fix or remove the line"
            )
        ids.append(_number(path, number, "movie id", fields[0]))
        titles.append(fields[1])
        genres.append("|".join(name for name, flag in zip(names, fields[5:]) if flag == "1"))
    return movies_frame(ids, titles, genres)


def users_100k(folder: Path) -> pl.DataFrame | None:
    """``u.user``: id|age|gender|occupation|zip."""
    path = present(folder, "u.user")
    if path is None:
        return None
    schema = {"user": pl.Int64, "age": pl.Int64, "gender": pl.String, "occupation": pl.String, "zip": pl.String}
    return _users(path, "|", schema).select("user", "gender", "age", "occupation", "zip")


CSV_COLUMNS = {
    "item": ("movieid", "movie_id", "itemid", "item_id", "movie", "item"),
    "title": ("title", "name"),
    "genres": ("genres", "genre"),
}
"""Spellings of the columns of ``movies.csv``, whatever their case; genres may be absent, other columns are not read."""


def movies_csv(folder: Path) -> pl.DataFrame | None:
    """``movies.csv``: movieId, title and perhaps genres, by name and in any order, quoted where they hold a comma."""
    path = present(folder, "movies.csv")
    if path is None:
        return None
    layout = f"{path}: not a table of movieId,title,genres"
    try:
        with open_text(path) as f:
            header = next(csv.reader(f, strict=True), [])
    except csv.Error as error:
        raise DataError(f"{layout} ({error} in the first line)") from None
    names = {name.strip().lower().replace("-", "_"): k for k, name in reversed(list(enumerate(header)))}
    at = {use: next((names[s] for s in spellings if s in names), -1) for use, spellings in CSV_COLUMNS.items()}
    absent = [use for use in ("item", "title") if at[use] < 0]
    if absent:
        raise DataError(f"{layout}: no {absent[0]} column among {', '.join(header)[:200]}; name it in the first line")
    schema = {f"{k}": pl.String for k in range(len(header))}  # by place: unused columns may share a name
    try:
        table = pl.read_csv(content_of(path), has_header=False, schema=schema, glob=False).slice(1)
    except (pl.exceptions.PolarsError, OSError) as error:
        raise DataError(f"{layout} ({str(error).splitlines()[0]})") from None
    frame = table.select(**{use: pl.col(f"{k}") for use, k in at.items() if k >= 0})
    missing = frame.select(pl.col("item").is_null() | pl.col("title").is_null()).to_series()
    if missing.any():
        raise DataError(f"{path}, data row {missing.arg_max()}: movieId or title is missing. Add it or remove the row")
    ids = frame["item"].cast(pl.Int64, strict=False)
    if ids.null_count():
        row = int(ids.is_null().arg_max() or 0)
        raise DataError(f"{layout} (data row {row}: movieId {shown(frame['item'][row])} is not a 64-bit integer)")
    genres = frame["genres"].fill_null("").to_list() if "genres" in frame.columns else None
    return movies_frame(ids, frame["title"].to_list(), genres)


register(
    Reader(
        name="MovieLens 100k",
        about="ml-100k (u.data)",
        sniff=sniff_tabs,
        read=read_tabs,
        order=20,
        main_files=("u.data",),
    )
)
register(
    Reader(
        name="MovieLens .dat",
        about="MovieLens .dat (ratings.dat)",
        sniff=sniff_dat,
        read=read_dat,
        order=30,
        main_files=("ratings.dat",),
    )
)
register(
    Reader(
        name="MovieLens csv",
        about="MovieLens csv (ratings.csv next to movies.csv)",
        sniff=sniff_csv,
        read=read_csv,
        order=5,
        main_files=("ratings.csv",),
    )
)
