"""MovieLens in its three layouts: ``.dat`` with ``::``, ml-100k's ``u.*``, and csv; ratings, films and users."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fastrec.data.catalog import Catalog, movies_frame
from fastrec.data.readers.text import read_delimited, require_file, unpack_gzip
from fastrec.data.source import Log, is_integer, present, read_columns
from fastrec.errors import DataError

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


def read_lines(file: Path, kind: str) -> Log:
    """``user item rating timestamp`` per line, by ``::`` or tabs, with the films and users that lie beside it."""
    if kind == "dat":
        frame, ratings, notes = read_columns(file, "::")
        return Log(frame, Catalog(movies_dat(file.parent), users_dat(file.parent), ratings), "MovieLens .dat", notes)
    frame, ratings, notes = read_columns(file, "\t")
    if present(file.parent, "u.item"):
        return Log(frame, Catalog(movies_100k(file.parent), users_100k(file.parent), ratings), "MovieLens 100k", notes)
    return Log(frame, Catalog(ratings=ratings), "lines of tab-separated numbers", notes)


def decoded_lines(path: Path) -> list[str]:
    """The lines of a file in UTF-8, or in Latin-1 where it is not UTF-8 (MovieLens up to 1M)."""
    raw = unpack_gzip(path) if path.suffix == ".gz" else require_file(path).read_bytes()
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError:
        text = raw.decode("latin-1")
    return text.replace("\r\n", "\n").rstrip("\n").split("\n")


def _number(path: Path, number: int, what: str, text: str) -> int:
    if not is_integer(text):
        raise DataError(f"{path}, line {number}: {what} {text!r} is not a whole number. Mend or remove the line")
    return int(text)


def movies_dat(folder: Path) -> pl.DataFrame | None:
    """``movies.dat``: id::title::genre|genre. The title is all between the first and the last ``::``."""
    path = present(folder, "movies.dat")
    if path is None:
        return None
    ids, titles, genres = [], [], []
    for number, line in enumerate(decoded_lines(path), 1):
        head, mid, tail = line.partition("::")
        title, mid, kinds = tail.rpartition("::")
        if not mid:
            raise DataError(
                f"{path}, line {number}: {line[:80]!r} is not MovieID::Title::Genres. Mend or remove the line"
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
    return read_delimited(path, "::", schema)


def movies_100k(folder: Path) -> pl.DataFrame:
    """``u.item``: id|title|release date|video date|URL|one flag per genre of ``u.genre``."""
    path = present(folder, "u.item")
    assert path is not None
    genre_file = present(folder, "u.genre")
    names = GENRES_100K
    if genre_file is not None:
        names = [line.split("|")[0] for line in decoded_lines(genre_file) if line]
    ids, titles, genres = [], [], []
    for number, line in enumerate(decoded_lines(path), 1):
        fields = line.split("|")
        if len(fields) != 5 + len(names):
            raise DataError(
                f"{path}, line {number}: {len(fields)} fields in {line[:60]!r}, but id, title, two dates, URL and "
                f"{len(names)} genre flags make {5 + len(names)}. Mend or remove the line"
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
    return read_delimited(path, "|", schema).select("user", "gender", "age", "occupation", "zip")


def movies_csv(folder: Path) -> pl.DataFrame | None:
    """``movies.csv``: movieId,title,genres with titles quoted where they hold a comma."""
    path = present(folder, "movies.csv")
    if path is None:
        return None
    try:
        frame = pl.read_csv(path, schema={"movieId": pl.Int64, "title": pl.String, "genres": pl.String})
    except (pl.exceptions.PolarsError, OSError) as error:  # OSError: a gzip file cut short
        raise DataError(f"{path}: not a table of movieId,title,genres ({str(error).splitlines()[0]})") from None
    if frame["movieId"].null_count() or frame["title"].null_count():
        row = frame.select((pl.col("movieId").is_null() | pl.col("title").is_null()).arg_max()).item()
        raise DataError(f"{path}, line {row + 2}: movieId or title is missing. Mend or remove the line")
    return movies_frame(frame["movieId"], frame["title"].to_list(), frame["genres"].fill_null("").to_list())
