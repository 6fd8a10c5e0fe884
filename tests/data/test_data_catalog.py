"""The catalog: titles, years, genres, users, UTC times, and the view that joins them to the ratings."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec.data import Catalog, load
from fastrec.data.catalog import movies_frame
from fastrec.data.tables import write_parquet
from fastrec.errors import DataError


@pytest.fixture
def movielens(tmp_path: Path) -> Path:
    """A folder in the layout of ML-1M: 3 films of which one is unrated, a rating of an unlisted film."""
    (tmp_path / "ratings.dat").write_text(
        "2::10::5::978300760\n1::10::3::978300000\n1::40::4::978300001\n1::99::1::5\n"
    )
    (tmp_path / "movies.dat").write_bytes(
        "10::Misérables, Les: Épisode (1995)::Drama|Musical\n20::Never::Seen: Film (1931)::Horror\n"
        "40::Cité (1995-1996)::\n".encode("latin-1")
    )
    (tmp_path / "users.dat").write_text("1::F::1::10::02460\n2::M::56::16::70072-1234\n")
    return tmp_path


def test_films_and_users_as_published(movielens: Path) -> None:
    catalog = load(movielens).catalog
    assert catalog.movies.rows() == [
        (10, "Misérables, Les: Épisode (1995)", "Miserables, Les: Episode (1995)", 1995, ["Drama", "Musical"]),
        (20, "Never::Seen: Film (1931)", "Never::Seen: Film (1931)", 1931, ["Horror"]),
        (40, "Cité (1995-1996)", "Cite (1995-1996)", 1995, []),
    ]
    assert catalog.users.rows() == [(1, "F", 1, 10, "02460"), (2, "M", 56, 16, "70072-1234")]
    assert catalog.movies.columns == ["item", "title", "title_ascii", "year", "genres"]


def test_titles_follow_the_items(movielens: Path) -> None:
    loaded = load(movielens)
    assert loaded.item_ids.tolist() == [10, 40, 99]
    assert loaded.titles is not None
    assert loaded.titles.tolist() == ["Misérables, Les: Épisode (1995)", "Cité (1995-1996)", "99"]


def test_joined_view_is_lazy_inner_and_keeps_ids_whole(movielens: Path) -> None:
    view = load(movielens).catalog.joined()
    assert isinstance(view, pl.LazyFrame)
    frame = view.collect()
    assert frame.select("user", "item", "rating", "gender", "title_ascii").rows() == [
        (2, 10, 5.0, "M", "Miserables, Les: Episode (1995)"),
        (1, 10, 3.0, "F", "Miserables, Les: Episode (1995)"),
        (1, 40, 4.0, "F", "Cite (1995-1996)"),
    ]
    assert frame.schema["user"] == frame.schema["item"] == pl.Int64
    assert frame.schema["datetime"] == pl.Datetime("us", "UTC")
    assert frame["datetime"][0] == datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)


def test_joined_view_with_unrated_films_on_request(movielens: Path) -> None:
    frame = load(movielens).catalog.joined(unrated=True).collect()
    assert frame.height == 4
    last = frame.row(-1, named=True)
    assert (last["item"], last["user"], last["rating"], last["datetime"]) == (20, None, None, None)
    assert last["title"] == "Never::Seen: Film (1931)"
    assert frame.schema["user"] == frame.schema["item"] == pl.Int64


def test_unrated_negatives_give_ids_to_catalogued_films(movielens: Path) -> None:
    loaded = load(movielens, unrated_negatives=True)
    assert loaded.item_ids.tolist() == [10, 20, 40, 99]
    assert loaded.titles is not None
    assert loaded.titles[1] == "Never::Seen: Film (1931)"
    assert loaded.item_counts().tolist() == [2, 0, 1, 1]
    assert loaded.item_ids[loaded.row(0)].tolist() == [10, 40, 99]
    assert "1 catalogued items without interactions were given ids" in loaded.notes


def test_utf8_catalogues_are_read_as_utf8(movielens: Path) -> None:
    """MovieLens-10M is in UTF-8, 1M in Latin-1, and both are called movies.dat."""
    (movielens / "movies.dat").write_text("10::Амели é (2001)::Comedy\n", encoding="utf-8")
    assert load(movielens).catalog.movies.row(0)[1:3] == ("Амели é (2001)", "Ameli e (2001)")


def test_movies_csv_with_quoted_titles(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,5,3.5,1260759144\n")
    (tmp_path / "movies.csv").write_text(
        'movieId,title,genres\n5,"American President, The (1995)",Comedy|Drama\n6,"A ""B"" ",(no genres listed)\n'
    )
    loaded = load(tmp_path)
    assert loaded.titles is not None
    assert loaded.titles.tolist() == ["American President, The (1995)"]
    assert loaded.catalog.movies["genres"].to_list() == [["Comedy", "Drama"], []]
    assert loaded.catalog.movies["year"].to_list() == [1995, None]
    assert loaded.catalog.joined().collect().height == 1


def test_joined_view_is_read_again_from_packed_files(tmp_path: Path) -> None:
    import gzip

    (tmp_path / "ratings.dat.gz").write_bytes(gzip.compress(b"2::10::5::978300760\n1::10::3::978300000\n"))
    (tmp_path / "movies.dat.gz").write_bytes(gzip.compress("10::É (1990)::Drama\n".encode("latin-1")))
    assert load(tmp_path).catalog.joined().collect()["title_ascii"].to_list() == ["E (1990)"] * 2


def test_a_catalog_without_ratings_cannot_join() -> None:
    with pytest.raises(DataError, match="this catalog holds no ratings"):
        Catalog(movies=movies_frame([1], ["A"])).joined()


def test_tables_keep_ids_titles_and_vectors(tmp_path: Path, rng: np.random.Generator) -> None:
    vectors = rng.standard_normal((3, 4)).astype(np.float32)
    titles = np.array(["é", None, "b"], object)
    write_parquet(tmp_path / "t.parquet", {"id": np.array([2**60, 1, 2]), "title": titles, "vector": vectors})
    frame = pl.read_parquet(tmp_path / "t.parquet")
    assert frame.schema == {"id": pl.Int64, "title": pl.String, "vector": pl.List(pl.Float32)}
    assert frame["id"].to_list() == [2**60, 1, 2]
    assert frame["title"].to_list() == ["é", None, "b"]
    assert np.array_equal(np.array(frame["vector"].to_list(), np.float32), vectors)
    with pytest.raises(DataError, match="columns differ in length"):
        write_parquet(tmp_path / "t.parquet", {"a": np.zeros(2), "b": np.zeros(3)})
