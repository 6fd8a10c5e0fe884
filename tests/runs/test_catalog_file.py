"""The source's tables travel with the run: kept as Parquet, verified, readable where the source is not."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import polars as pl
import pytest

from fastrec import leave_one_out, runs
from fastrec.data import Catalog, load
from fastrec.data.catalog import movies_frame
from fastrec.data.lists import write_frames
from fastrec.data.split import Split
from fastrec.data.tables import write_frame
from fastrec.errors import CheckpointError, DataError, FastrecError
from tests.helpers.fakes import interactions


def source(folder: Path) -> Path:
    """A log in MovieLens' format with fields of users, and an item that nobody rated."""
    folder.mkdir()
    rows = [f"{u}::{m}::5::{900 + u + m}" for u in (1, 2, 3) for m in (10, 20, 30)]
    (folder / "ratings.dat").write_text("\n".join(rows) + "\n")
    films = [
        "10::Misérables, Les (1995)::Drama|War",
        "20::Up <b>\x1b[31m (2009)::Comedy",
        "30::Z::",
        "40::Unseen (2001)::Drama",
    ]
    (folder / "movies.dat").write_bytes(("\n".join(films) + "\n").encode("latin-1"))
    (folder / "users.dat").write_text("1::F::1::10::02460\n2::M::56::16::70072\n3::M::25::3::00001\n")
    return folder


def make(folder: Path, data: Path) -> runs.Run:
    return runs.create(folder, config={"model": "mf"}, split=leave_one_out(load(data), validation=0))


def test_tables_are_kept_and_open_elsewhere(tmp_path: Path) -> None:
    data = source(tmp_path / "source")
    want = load(data).catalog
    run = make(tmp_path / "run", data)
    shutil.rmtree(data)
    shutil.move(run.path, tmp_path / "moved")
    opened = runs.open_run(tmp_path / "moved")
    found = opened.catalog()
    assert found.movies is not None
    assert found.movies.equals(want.movies)
    assert found.users is not None
    assert found.users.equals(want.users)
    assert found.users["zip"].to_list() == ["02460", "70072", "00001"]
    assert found.movies["title_ascii"][0] == "Miserables, Les (1995)"
    assert opened.tables() == {"items": ["item", "title", "title_ascii", "year", "genres"], "users": want.users.columns}


def test_extra_columns_are_kept(tmp_path: Path) -> None:
    movies = movies_frame([0, 1], ["A (1990)", "B"]).with_columns(
        price=pl.Series([1.5, None]), tags=pl.Series([["x"], []])
    )
    parts = [
        interactions(rows, 2, name, catalog=Catalog(movies=movies))
        for rows, name in (([[0]], "a"), ([[]], "b"), ([[1]], "c"))
    ]
    run = runs.create(tmp_path / "run", config={}, split=Split(*parts))
    found = runs.open_run(run.path).catalog()
    assert found.movies is not None
    assert found.movies.equals(movies)
    assert found.users is None


@pytest.mark.parametrize("name", ["items.parquet", "users.parquet"])
def test_an_altered_or_missing_table_is_found(tmp_path: Path, name: str) -> None:
    run = make(tmp_path / "run", source(tmp_path / "source"))
    path = run.path / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"{name}: is not the file this run wrote"):
        runs.open_run(run.path).catalog()
    path.unlink()
    with pytest.raises(CheckpointError, match=rf"{name}: cannot be read"):
        runs.open_run(run.path).catalog()


def test_a_recorded_file_that_is_no_table_is_refused(tmp_path: Path) -> None:
    run = make(tmp_path / "run", source(tmp_path / "source"))
    from fastrec.files import write_bytes

    digest = write_bytes(run.path / "items.parquet", b"PAR1 nothing PAR1")
    run.record(files={**run.manifest["files"], "items.parquet": digest})
    with pytest.raises(CheckpointError, match="not a readable Parquet file"):
        run.catalog()


def test_runs_without_tables_open(tmp_path: Path) -> None:
    plain = runs.create(
        tmp_path / "plain", config={}, split=Split(*[interactions([r], 2, "x") for r in ([0], [], [1])])
    )
    assert plain.catalog().movies is None
    assert plain.tables() == {}
    manifest = json.loads((plain.path / "manifest.json").read_text())
    assert set(manifest["files"]) == {"config.toml", "data.safetensors"}


def test_a_run_of_an_earlier_fastrec_opens(tmp_path: Path) -> None:
    run = make(tmp_path / "run", source(tmp_path / "source"))
    old = {k: v for k, v in run.manifest.items() if k != "catalog"}
    old["files"] = {k: v for k, v in old["files"].items() if not k.endswith(".parquet")}
    run.manifest = old
    run.record()
    opened = runs.open_run(run.path)
    assert opened.tables() is None
    assert opened.catalog().movies is None
    assert opened.split().train.titles is not None


def test_a_table_that_parquet_cannot_hold_is_refused_and_leaves_no_folder(tmp_path: Path) -> None:
    movies = movies_frame([0, 1], ["A", "B"]).with_columns(pl.Series("thing", [object(), object()], dtype=pl.Object))
    parts = [interactions([r], 2, "x", catalog=Catalog(movies=movies)) for r in ([0], [], [1])]
    with pytest.raises(DataError, match="cannot be kept as Parquet"):
        runs.create(tmp_path / "run", config={}, split=Split(*parts))
    assert not (tmp_path / "run").exists()


@pytest.mark.real_data
def test_ml_100k_keeps_its_tables_and_filters_by_them(tmp_path: Path, real_data) -> None:
    from fastrec import Recommender
    from fastrec.models import build

    run = make(tmp_path / "run", real_data("ml-100k"))
    run.save_model(build("mf", n_users=943, n_items=1682, dim=4, seed=1, init_std=1.0))
    rec = Recommender.load(run.path)
    assert rec.users.columns == ["user", "gender", "age", "occupation", "zip"]
    assert rec.users.row(7) == (8, "M", 36, "administrator", "05201")
    found = rec.recommend(8, 1682, where={"genres": "Drama", "year": (1990, 1995)})
    facts = rec.items.filter(pl.col("item").is_in(found["item_id"].implode()))
    assert found.height == facts.height > 100
    assert all("Drama" in genres for genres in facts["genres"])
    assert facts["year"].is_between(1990, 1995).all()


def test_a_full_disk_is_not_blamed_on_a_column(tmp_path: Path) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    frame = pl.DataFrame({"item": range(5000), "title": [f"Film {k}" for k in range(5000)]})
    resource.setrlimit(resource.RLIMIT_FSIZE, (500, limits[1]))
    try:
        with pytest.raises(FastrecError, match=r"items\.parquet: cannot be written \(File too large\)"):
            write_frame(tmp_path / "items.parquet", frame)
        for name in ("x.csv", "x.jsonl", "x.parquet"):
            with pytest.raises(FastrecError, match=rf"{name}: cannot be written \(File too large\)"):
                write_frames(tmp_path / name, iter([frame]))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(tmp_path.iterdir())
