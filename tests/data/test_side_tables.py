"""Tables of items and users next to a log: every kind of table, ids that meet, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import polars as pl
import pytest

from fastrec.data import load
from fastrec.errors import ConfigError, DataError

LOG = {"user": [1, 2, 2], "item": [10, 10, 11]}
ITEMS = pl.DataFrame(
    {"sku": [11, 10, 12], "name": ["Beta", "Alpha (1999)", None], "genre": ["a|b", "", None], "price": ["2", "1", "3"]}
)
USERS = pl.DataFrame({"user_id": [2, 1], "country": ["FR", "DE"]})


def tables(folder: Path) -> list[Any]:
    ITEMS.write_csv(folder / "items.csv")
    ITEMS.write_csv(folder / "items.tsv", separator="\t")
    ITEMS.write_parquet(folder / "items.parquet")
    ITEMS.write_ndjson(folder / "items.jsonl")
    ITEMS.write_ipc(folder / "items.arrow")
    files = [folder / f"items.{end}" for end in ("csv", "tsv", "parquet", "jsonl", "arrow")]
    return [*files, ITEMS, ITEMS.lazy(), ITEMS.to_arrow(), {name: ITEMS[name].to_list() for name in ITEMS.columns}]


def test_every_kind_of_item_table_gives_titles_genres_and_fields(tmp_path: Path) -> None:
    for table in tables(tmp_path):
        loaded = load(LOG, item_table=table)
        assert loaded.titles.tolist() == ["Alpha (1999)", "Beta"]  # type: ignore[union-attr]
        movies = loaded.catalog.movies.sort("item")
        assert movies["genres"].to_list() == [[], ["a", "b"], []]
        assert movies["price"].to_list() == ["1", "2", "3"]
        assert movies["year"].to_list() == [1999, None, None]
        assert any("fields of 2 of 2 items" in note for note in loaded.notes)
        assert loaded.catalog.joined().collect().height == 3
    assert load(LOG, item_table=ITEMS, unrated_negatives=True).n_items == 3


def test_a_user_table_and_a_table_without_titles(tmp_path: Path) -> None:
    USERS.write_csv(tmp_path / "users.csv")
    loaded = load(LOG, user_table=tmp_path / "users.csv", item_table=ITEMS.select("sku", "price"))
    assert loaded.catalog.users.rows() == [(2, "FR"), (1, "DE")]
    assert loaded.titles.tolist() == ["10", "11"]  # type: ignore[union-attr]
    view = loaded.catalog.joined().collect()
    assert view["country"].to_list() == ["DE", "FR", "FR"]


def test_text_ids_meet_text_ids_and_007_is_not_7() -> None:
    log = {"user": ["a", "b"], "item": ["007", "x"]}
    loaded = load(log, item_table={"item": ["7", "007", "x"], "title": ["seven", "bond", "ex"]})
    assert loaded.titles.tolist() == ["bond", "ex"]  # type: ignore[union-attr]
    with pytest.raises(
        DataError, match=r"--item-table, data row 0: item '007' is not an item id of the log, whose ids are int"
    ):
        load(LOG, item_table={"item": ["007"], "title": ["bond"]})


@pytest.mark.parametrize(
    ("table", "says"),
    [
        ({"title": ["a"]}, "no item column recognised among title"),
        ({"item": [10, 10], "title": ["a", "b"]}, "data row 0: item '10' is listed twice"),
        ({"item": [10.0], "title": ["a"]}, "item column 'item' is Float64"),
        ({"item": [99], "title": ["a"]}, "none of its 1 ids"),
        ({"item": [10, None], "title": ["a", "b"]}, "data row 1"),
    ],
)
def test_a_table_that_cannot_be_joined_is_refused(table: dict[str, Any], says: str) -> None:
    with pytest.raises(DataError) as error:
        load(LOG, item_table=table)
    assert says in str(error.value)


@pytest.mark.parametrize("header", [b"item,ti\rtle", b"item," + b"t" * 140_000])
def test_a_first_line_that_csv_does_not_read_is_named(tmp_path: Path, header: bytes) -> None:
    (tmp_path / "items.csv").write_bytes(header + b"\n1,A\n")
    with pytest.raises(DataError, match=r"items\.csv, line 1: .* holds no names of columns") as error:
        load({"user": [1, 2], "item": [1, 2]}, item_table=tmp_path / "items.csv")
    assert len(str(error.value)) < 400


def test_a_ragged_or_missing_table_is_refused_and_a_csr_takes_none(tmp_path: Path) -> None:
    (tmp_path / "items.csv").write_text("item,title\n10,a,b\n")
    for path in (tmp_path / "items.csv", tmp_path / "none.csv", tmp_path):
        with pytest.raises(DataError):
            load(LOG, item_table=path)
    with pytest.raises(ConfigError, match="item_table: synthetic-small is a CSR already"):
        load("synthetic-small", item_table=ITEMS)
