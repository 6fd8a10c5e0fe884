"""A grid: rows multiply, runs share one split, an interrupted grid goes on, test is scored for the picked row only."""

from __future__ import annotations

import json
import os
import statistics
from pathlib import Path
from typing import Any

import pytest

from fastrec.cli.main import main
from fastrec.errors import ConfigError
from fastrec.runs import open_run
from fastrec.training import grid as grids
from fastrec.training.grid import parse_sets, row_name

BASE = ["train", "--data", "synthetic-small", "--model", "mf", "--dim", "4", "--epochs", "2", "--no-tensorboard"]


def test_values_of_a_key_are_alternatives_and_keys_multiply() -> None:
    rows = parse_sets(["dim=4", "dim=8", "output-init=one", "layers=64,32", "lr=1e-3", "compile=true"])
    assert rows == [
        {"dim": dim, "output_init": "one", "layers": (64, 32), "lr": 0.001, "compile": True} for dim in (4, 8)
    ]
    assert parse_sets([]) == [{}]
    assert [row_name(row, "mf") for row in (rows[1], {})] == [
        "dim=8,output_init=one,layers=64-32,lr=0.001,compile=True",
        "mf",
    ]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["dim"], "write KEY=VALUE"),
        (["dmi=3"], "did you mean 'dim'"),
        (["dim=x"], "dim = 'x': must be an integer"),
        (["compile=1"], "must be true or false"),
        (["dim=3", "dim=3"], "given twice"),
        (["seed=3"], "--seeds K"),
        (["split_seed=3"], "all rows of a grid share it"),
        (["cutoffs=3"], "all rows of a grid share it"),
    ],
)
def test_what_is_no_row_is_refused(given: list[str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_sets(given)


def test_a_grid_end_to_end(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any) -> None:
    out = tmp_path / "grid"
    command = [*BASE, "--set", "lr=1e-6", "--set", "lr=0.02", "--seeds", "2", "--seed", "5", "--out", str(out)]
    fit, calls = grids.fit, []

    def stopping(*args: Any, **given: Any) -> Any:
        calls.append(given["out"].name)
        result = fit(*args, **given)
        if len(calls) == 2:  # as if interrupted in its first epoch
            result.run.record(status="interrupted")
            object.__setattr__(result, "stopped", "interrupted")
        return result

    monkeypatch.setattr(grids, "fit", stopping)
    assert main(command) == 130
    assert f"--out {out}" in capsys.readouterr().out
    assert calls == ["lr=1e-06-seed5", "lr=0.02-seed5"]
    assert not (out / "grid.json").exists()
    monkeypatch.setattr(grids, "fit", fit)
    kept = (out / "lr=1e-06-seed5" / "model.safetensors").stat().st_mtime_ns
    resumed: list[str] = []
    resume = grids.resume
    monkeypatch.setattr(grids, "resume", lambda path, **given: resumed.append(path.name) or resume(path, **given))
    assert main(command) == 0
    shown = capsys.readouterr()
    assert resumed == ["lr=0.02-seed5"]
    assert (out / "lr=1e-06-seed5" / "model.safetensors").stat().st_mtime_ns == kept, "finished runs are skipped"
    assert sorted(p.name for p in out.iterdir()) == [
        "grid.json", "lr=0.02-seed5", "lr=0.02-seed6", "lr=1e-06-seed5", "lr=1e-06-seed6", "shared",
    ]  # fmt: skip
    runs = {p.name: open_run(p) for p in out.glob("lr=*")}
    scored = {name for name, run in runs.items() if run.manifest["result"]["metrics"]}
    assert scored == {"lr=0.02-seed5", "lr=0.02-seed6"}, "test is scored for the picked row only"
    assert all("results.parquet" in runs[name].manifest["files"] for name in scored)
    record = json.loads((out / "grid.json").read_text())
    assert record["picked"] == "lr=0.02"
    (row,) = [row for row in record["rows"] if row["name"] == "lr=0.02"]
    assert row["validation"] == [runs[f"lr=0.02-seed{n}"].manifest["result"]["best_validation"] for n in (5, 6)]
    figures = f"{statistics.fmean(row['validation']):.4f}", f"{statistics.stdev(row['validation']):.4f}", "2"
    assert shown.out.splitlines()[1].split() == ["lr=0.02", "*", *figures]
    inodes = {os.stat(run.path / "data.safetensors").st_ino for run in runs.values()}
    assert len(inodes) == 1, "one saved split for all"
    assert {run.split().n_users for run in runs.values()} == {runs["lr=0.02-seed5"].manifest["data"]["n_users"]}
    other = [*BASE, "--set", "lr=1e-6", "--seed", "5", "--batch-size", "64", "--out", str(out)]
    assert main(other) == 2
    assert "batch_size: 1024 -> 64" in capsys.readouterr().err


def test_without_early_stopping_the_last_epoch_counts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid"
    assert main([*BASE, "--seeds", "1", "--patience", "0", "--out", str(out), "--no-progress"]) == 0
    run = open_run(out / "mf-seed0")
    assert run.manifest["result"]["best_validation"] is None
    lines = [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]
    last = [line for line in lines if line["kind"] == "epoch"][-1]
    assert f"{last['val full:NDCG@10']:.4f}" in capsys.readouterr().out
    assert main([*BASE, "--set", "dim=3", "--out", str(tmp_path / "x")]) == 2
    assert "both as an option and by --set" in capsys.readouterr().err
    assert main([*BASE, "--seeds", "2", "--validation", "0", "--out", str(tmp_path / "x")]) == 2
    assert "a grid picks by validation" in capsys.readouterr().err


def test_a_run_that_was_cut_off_while_made_is_made_again(tmp_path: Path) -> None:
    cut = tmp_path / "mf-seed0"
    cut.mkdir()
    (cut / "config.toml").write_text("")
    grids._drop_unmade(cut)
    assert not cut.exists()
    cut.mkdir()
    (cut / "thesis.txt").write_text("")
    grids._drop_unmade(cut)
    assert cut.exists()


@pytest.mark.real_data
def test_a_grid_on_real_data(tmp_path: Path, real_data, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid"
    command = ["train", "--data", str(real_data("ml-100k")), "--epochs", "3", "--no-tensorboard", "--out", str(out)]
    assert main([*command, "--set", "dim=2", "--set", "dim=8", "--seeds", "2", "--lr", "0.01"]) == 0
    assert capsys.readouterr().out.count("dim=") == 2
    assert len(list(out.glob("dim=*"))) == 4
