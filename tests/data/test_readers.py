"""The registry of formats: one file adds a format, and the messages list what is registered."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

import fastrec.data.readers
from fastrec.data import load
from fastrec.data.readers import base
from fastrec.errors import DataError

NEW_FORMAT = """
import polars as pl
from fastrec.data.catalog import Catalog
from fastrec.data.readers.base import Reader, register
from fastrec.data.source import Source

def read(path, columns):
    columns.refuse(str(path))
    pairs = [line.split("->") for line in path.read_text().split()]
    frame = pl.DataFrame({"user": [int(u) for u, _ in pairs], "item": [int(i) for _, i in pairs]})
    return Source(frame, Catalog(ratings=frame.lazy()), "arrows")

register(Reader("arrows", "arrows (user->item)", lambda probe: "->" in probe.first, read, 15, ("log.arrows",)))
"""


def test_one_file_on_the_package_path_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = tmp_path / "data" / "log.arrows"
    log.parent.mkdir()
    log.write_text("7->3\n7->4\n8->3\n")
    with pytest.raises(DataError, match="fits no known format"):
        load(log)
    (tmp_path / "readers").mkdir()
    (tmp_path / "readers" / "arrows_of_a_test.py").write_text(NEW_FORMAT)
    monkeypatch.setattr(fastrec.data.readers, "__path__", [*fastrec.data.readers.__path__, str(tmp_path / "readers")])
    monkeypatch.setattr(base, "_REGISTERED", dict(base._REGISTERED))
    try:
        for path in (log, log.parent):  # by its content, and as the file that a folder is read from
            loaded = load(path)
            assert loaded.user_ids.tolist() == [7, 8]
            assert loaded.items.tolist() == [0, 1, 0]
        assert "arrows (user->item)" in base.known()
    finally:
        sys.modules.pop("fastrec.data.readers.arrows_of_a_test", None)


def test_every_module_of_the_folder_registers_a_format() -> None:
    names = {reader.name for reader in base.readers()}
    assert {"text table", "Parquet", "adjacency lists", "MovieLens .dat", "MovieLens 100k", "MovieLens csv"} <= names
    folder = Path(base.__file__).parent
    for module in folder.glob("*.py"):
        if module.stem not in ("__init__", "base"):
            assert "register(" in module.read_text(), f"{module.name} registers nothing; move it to parts/"


def test_known_formats_are_listed_from_the_registry(tmp_path: Path) -> None:
    with pytest.raises(DataError) as error:
        load(tmp_path)
    for reader in base.readers():
        assert reader.about in str(error.value)


def test_a_table_called_ratings_next_to_movies_csv_has_titles_in_any_format(tmp_path: Path) -> None:
    import polars as pl

    (tmp_path / "movies.csv").write_text("movieId,title,genres\n3,Film (1990),Drama\n")
    frame = pl.DataFrame({"userId": [1, 2], "movieId": [3, 3], "rating": [4.0, 5.0]})
    frame.write_csv(tmp_path / "ratings.csv")
    assert load(tmp_path).titles.tolist() == ["Film (1990)"]  # type: ignore[union-attr]
    frame.write_parquet(tmp_path / "ratings.parquet")
    (tmp_path / "ratings.csv").unlink()
    assert load(tmp_path).titles.tolist() == ["Film (1990)"]  # type: ignore[union-attr]
    assert load(tmp_path / "ratings.parquet").catalog.movies.height == 1
