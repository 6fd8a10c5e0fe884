"""A build in pieces makes the file of ``load`` and ``save``, byte for byte; cut off, it goes on; misuse is refused."""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fastrec
from fastrec.cli.main import main
from fastrec.data.building import build as module
from fastrec.data.building import log as log_module
from fastrec.data.building import spill
from fastrec.data.building.build import build
from fastrec.data.readers.parts import parquet_check
from fastrec.errors import ConfigError, DataError


def frame(seed: int = 0, n: int = 3000, *, text: bool = True, scattered: bool = False) -> pl.DataFrame:
    """A log with duplicates, equal times, ratings, weights, and users of very different sizes."""
    rng = np.random.default_rng(seed)
    users, items = (rng.integers(0, 90, n) ** 2) // 90, rng.integers(0, 60, n)
    made = pl.DataFrame({"user": users, "item": items, "time": 1_600_000_000 + rng.integers(0, 50, n)})
    if scattered:
        made = made.with_columns(user=pl.col("user") * 10**12 - 7)
    if text:
        made = made.with_columns(user=pl.format("u{}", "user"), item=pl.format("é{}", "item"))
    return made.with_columns(rating=pl.Series(rng.integers(1, 6, n)), w=pl.Series(rng.random(n).astype("f4")))


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Many pieces and ranges of a small log."""
    monkeypatch.setattr(log_module, "BATCH", 257)
    monkeypatch.setattr(log_module, "MERGED", 100)
    monkeypatch.setattr(spill, "RANGE_ROWS", 200)
    monkeypatch.setattr(spill.Csr.pieces, "__defaults__", (150,))


CASES: list[tuple[dict[str, Any], dict[str, Any]]] = [
    ({}, {}),
    ({"text": False}, {"min_rating": 3.0}),
    ({"scattered": True, "text": False}, {"k_core": 15}),
    ({}, {"min_rating": 2.0, "k_core": 12, "weight_col": "w", "where": "rating < 5"}),
]


@pytest.mark.parametrize(("made", "options"), CASES)
def test_the_file_is_that_of_load_and_save(made: dict[str, Any], options: dict[str, Any], tmp_path: Path) -> None:
    source = tmp_path / "log.parquet"
    frame(**made).write_parquet(source, row_group_size=500)
    expected = fastrec.load(source, **options).save(tmp_path / "expected.safetensors")
    out = build(source, tmp_path / "out.safetensors", **options)
    assert out.read_bytes() == expected.read_bytes()
    assert not (tmp_path / "out.safetensors.building").exists()


def test_parts_in_a_folder_and_dates_are_read_as_load_reads_them(tmp_path: Path) -> None:
    folder = tmp_path / "log"
    for day, part in enumerate(frame().drop("time").iter_slices(1100)):
        (folder / f"day={day}").mkdir(parents=True)
        date = dt.datetime(2024, 1, 1 + day, 12, 30, tzinfo=dt.UTC)
        part.with_columns(date=pl.lit(date)).write_parquet(folder / f"day={day}" / "part-0.parquet")
    expected = fastrec.load(folder).save(tmp_path / "expected.safetensors")
    assert build(folder, tmp_path / "out.safetensors").read_bytes() == expected.read_bytes()


def test_a_build_that_was_cut_off_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source, out, said = tmp_path / "log.parquet", tmp_path / "out.safetensors", list[str]()
    frame().write_parquet(source)
    write = module.write_tensors

    def killed(*_: Any, **__: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "write_tensors", killed)
    with pytest.raises(KeyboardInterrupt):
        build(source, out, say=said.append)
    assert not out.exists()
    assert any(line.startswith("rows by ranges") for line in said)
    monkeypatch.setattr(module, "write_tensors", write)
    said.clear()
    build(source, out, say=said.append)
    assert not any(line.startswith(("distinct", "rows by ranges")) for line in said), "both were kept"
    assert out.read_bytes() == fastrec.load(source).save(tmp_path / "expected.safetensors").read_bytes()
    said.clear()
    assert build(source, out, say=said.append) == out
    assert said == [f"{out}: is made from these files and options already"]
    with pytest.raises(ConfigError, match="was made from other files or options"):
        build(source, out, k_core=2)
    frame(seed=1).write_parquet(source)
    with pytest.raises(ConfigError, match="was made from other files or options"):
        build(source, out)


@pytest.mark.parametrize(
    ("change", "options", "match"),
    [
        ({"user": None}, {}, "data row 700: user is missing"),
        ({"time": 1_600_000_000_000}, {}, "another unit|reads as milliseconds"),
        ({}, {"min_rating": 6.0}, "no interaction is left with min_rating=6.0"),
        ({}, {"k_core": 99}, "no interaction is left with k_core=99"),
        ({}, {"user_col": "nobody"}, "no column 'nobody'"),
        ({}, {"where": "rating"}, "is not a condition"),
    ],
)
def test_what_cannot_be_built_is_refused(
    change: dict[str, Any], options: dict[str, Any], match: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "BATCH", 1 << 20)
    source, out = tmp_path / "log.parquet", tmp_path / "out.safetensors"
    row = pl.int_range(pl.len()) == 700
    changed = {name: pl.when(row).then(pl.lit(v)).otherwise(pl.col(name)) for name, v in change.items()}
    frame().with_columns(**changed).write_parquet(source)
    with pytest.raises((DataError, ConfigError), match=match):
        build(source, out, **options)
    assert not out.exists()


def test_times_with_fractions_need_rows_in_their_order(tmp_path: Path) -> None:
    source = tmp_path / "log.parquet"
    fine = frame(text=False).with_columns(time=pl.col("time") * 1000 + pl.int_range(pl.len()) % 7)
    fine.write_parquet(source)
    with pytest.raises(DataError, match="fractions of a second, and the rows are not in order of time"):
        build(source, tmp_path / "out.safetensors")
    fine.sort("time", maintain_order=True).write_parquet(source)
    expected = fastrec.load(source).save(tmp_path / "expected.safetensors")
    assert build(source, tmp_path / "other.safetensors").read_bytes() == expected.read_bytes()


def test_the_command_builds_a_file_that_trains(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = tmp_path / "log.parquet", tmp_path / "out.safetensors"
    frame().write_parquet(source)
    assert main(["data", "build", str(source), "--out", str(out), "--k-core", "3"]) == 0
    shown = capsys.readouterr()
    assert shown.out.strip() == str(out)
    assert "3-core" in shown.err
    assert fastrec.load(out).n_interactions == fastrec.load(source, k_core=3).n_interactions
    (tmp_path / "log.csv").write_text("user,item\n1,2\n")
    assert main(["data", "build", str(tmp_path / "log.csv"), "--out", str(tmp_path / "x.safetensors")]) == 1
    assert "not Parquet, which is what is read in pieces" in capsys.readouterr().err
    assert main(["data", "build", str(source), "--out", str(tmp_path / "folder")]) == 2


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads resident memory from /proc")
def test_the_check_of_a_file_does_not_keep_its_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "log.parquet"
    values = np.random.default_rng(0).integers(0, 2**62, 4_000_000)
    pl.DataFrame({"user": values}).write_parquet(
        path, compression="uncompressed", row_group_size=100_000, data_page_size=16_384
    )
    sizes, check = list[int](), parquet_check._check_chunk

    def measured(*given: Any) -> None:
        check(*given)
        status = Path("/proc/self/status").read_text()
        sizes.append(int(status.partition("RssFile:")[2].split()[0]))

    monkeypatch.setattr(parquet_check, "_check_chunk", measured)
    parquet_check.check_parquet(path, ["user"])
    assert len(sizes) == 40
    assert max(sizes) - min(sizes) < 8_000, "kB, of a file of 32 MB"
