"""Options of the data at the command line and from Python: recorded, used, and named where they are not."""

from __future__ import annotations

from pathlib import Path

import fastrec
from fastrec.cli.main import main

OPTIONS = {"epochs": 1, "dim": 4, "negatives": 1, "candidates": 2, "progress": False, "tensorboard": False}


def log(folder: Path) -> Path:
    rows = [
        f"{u},{i},{100 * u + i},{'buy' if i % 2 else 'view'},{i}" for u in range(12) for i in range(u % 3, u % 3 + 8)
    ]
    path = folder / "log.csv"
    path.write_text("user,sku,created_at,event,count\n" + "\n".join(rows) + "\n")
    (folder / "items.csv").write_text("sku,title\n" + "".join(f"{i},Title {i}\n" for i in range(12)))
    return path


def test_data_info_names_unused_columns_and_counts_what_where_keeps(tmp_path: Path, capsys) -> None:  # type: ignore[no-untyped-def]
    path = str(log(tmp_path))
    assert main(["data", "info", path]) == 0
    assert "columns not used: event, count" in capsys.readouterr().out
    args = ["--where", "event = 'buy'", "--item-table", str(tmp_path / "items.csv")]
    assert main(["data", "info", path, *args]) == 0
    out = capsys.readouterr().out
    assert "48 of 96 rows kept, where event = 'buy'" in out
    assert "columns not used: count" in out


def test_a_run_records_where_and_names_unused_columns(tmp_path: Path) -> None:
    where = "event = 'buy'"
    result = fastrec.train(log(tmp_path), where=where, out=str(tmp_path / "run"), **OPTIONS)
    assert any("columns not used: count" in note for note in result.notes)
    assert any(f"rows kept, where {where}" in note for note in result.notes)
    assert where in (tmp_path / "run" / "config.toml").read_text()


def test_a_frame_is_trained_on_and_none_holds_nothing_out(tmp_path: Path) -> None:
    import polars as pl

    frame = pl.read_csv(log(tmp_path))
    options = {k: v for k, v in OPTIONS.items() if k != "candidates"}
    result = fastrec.train(frame, where="count < 9", split="none", out=str(tmp_path / "run"), **options)
    assert result.metrics == {}
    assert result.run.manifest["data"]["n_train"] == frame.filter(pl.col("count") < 9).height
    assert any("no validation part" in note for note in result.notes)
