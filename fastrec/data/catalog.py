"""Fields of items and users in the source: titles, years, genres, user fields; and the view that joins the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import polars as pl

from fastrec.errors import DataError

YEAR = r"\((\d{4})(?:[-–]\d{0,4})?\)\s*$"
"""Release year at the end of a MovieLens title: ``(1995)``; of a span such as ``(1990-1991)`` the first."""


@dataclass(frozen=True, eq=False)
class Catalog:
    """Frames that share the ids of the log.

    Parameters
    ----------
    movies : polars.DataFrame, optional
        ``item`` (the source's id), ``title`` as published, ``title_ascii`` transliterated, ``year`` Int16 or null,
        ``genres`` list of text. One row per catalogued item, rated or not.
    users : polars.DataFrame, optional
        ``user`` (the source's id), ``gender``, ``age``, ``occupation``, ``zip`` (text: leading zeros stay).
    ratings : polars.LazyFrame, optional
        The rows of the log as the source has them, ``user``, ``item`` and, where known, ``rating``, ``timestamp``
        (seconds since 1970) and ``datetime`` in UTC. Lazy: read from the file again when collected.
    unused : mapping of str to str
        Columns of the log that were not read: "time" for those that hold dates, else an empty text.
    """

    movies: pl.DataFrame | None = None
    users: pl.DataFrame | None = None
    ratings: pl.LazyFrame | None = None
    unused: Mapping[str, str] = field(default_factory=dict)

    def joined(self, *, unrated: bool = False) -> pl.LazyFrame:
        """Ratings x movies x users as one lazy frame; ids keep their integer or text type.

        Parameters
        ----------
        unrated : bool
            Also one row for each catalogued film that nobody rated, with null user and rating.

        Returns
        -------
        polars.LazyFrame
            Inner join: a rating whose movie or user is not catalogued has no row.

        Raises
        ------
        DataError
            If the source had no ratings to join.
        """
        if self.ratings is None:
            raise DataError("this catalog holds no ratings; join on a catalog that fastrec.data.load made from a file")
        view = self.ratings
        if self.users is not None:
            view = view.join(self.users.lazy(), on="user", how="inner", maintain_order="left")
        if self.movies is None:
            return view
        if not unrated:
            return view.join(self.movies.lazy(), on="item", how="inner", maintain_order="left")
        rated = view.join(self.movies.lazy(), on="item", how="inner", maintain_order="left")
        rest = self.movies.lazy().join(self.ratings.select("item"), on="item", how="anti", maintain_order="left")
        return pl.concat([rated, rest], how="diagonal")

    def titles_of(self, item_ids: Any) -> list[str]:
        """The published title of each id, or the id itself as text where the catalogue has none."""
        if self.movies is None:
            return [str(i) for i in item_ids]
        known = dict(zip(self.movies["item"].to_list(), self.movies["title"].to_list(), strict=True))
        return [known.get(i) or str(i) for i in item_ids.tolist()]


def movies_frame(items: Any, titles: Sequence[str], genres: Sequence[str] | None = None) -> pl.DataFrame:
    """The ``movies`` frame of a catalog from ids, published titles and genres written ``Action|Drama``.

    Raises
    ------
    DataError
        If an id is listed twice.
    """
    frame = pl.DataFrame({"item": items, "title": pl.Series(titles, dtype=pl.String)})
    twice = frame.filter(pl.col("item").is_duplicated())
    if twice.height:
        raise DataError(f"the catalogue lists item {twice['item'][0]!r} more than once; keep one of its lines")
    return frame.with_columns(
        pl.Series("title_ascii", transliterate(titles), dtype=pl.String),
        pl.col("title").str.extract(YEAR, 1).cast(pl.Int16).alias("year"),
        pl.Series("genres", [""] * len(titles) if genres is None else genres, dtype=pl.String)
        .replace("(no genres listed)", "")
        .str.split("|")
        .list.filter(pl.element() != ""),
    )


def transliterate(titles: Sequence[str]) -> list[str]:
    """Each title in plain ASCII ("Les Misérables" becomes "Les Miserables"), by Unidecode."""
    from unidecode import unidecode

    return [title if title.isascii() else unidecode(title) for title in titles]


def with_datetime(ratings: pl.LazyFrame) -> pl.LazyFrame:
    """Add ``datetime`` in UTC next to ``timestamp`` (seconds since 1970), where there is one."""
    if "timestamp" not in ratings.collect_schema():
        return ratings
    return ratings.with_columns(pl.from_epoch("timestamp", time_unit="s").dt.replace_time_zone("UTC").alias("datetime"))


def joined_tables(earlier: Catalog, new: Catalog | None) -> Catalog:
    """The tables of both: an id that both have has the newer row, a column that one lacks is null there.

    Raises
    ------
    DataError
        If a column of both has types that do not go together.
    """
    tables: dict[str, Any] = {}
    for name, key in (("movies", "item"), ("users", "user")):
        old, now = getattr(earlier, name), getattr(new, name, None)
        if old is not None and now is not None:
            try:
                now = pl.concat([now, old.join(now.select(key), on=key, how="anti")], how="diagonal_relaxed")
            except (pl.exceptions.PolarsError, TypeError) as error:
                raise DataError(
                    f"the table of {name} does not fit that of the run ({error}); write its columns as they were"
                ) from None
        tables[name] = old if now is None else now
    return replace(new or Catalog(), **tables)
