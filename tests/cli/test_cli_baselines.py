"""A training next to its baselines, and ``fastrec baselines``: in this process, on a small log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.cli import baselines as cli
from fastrec.cli.main import main
from fastrec.cli.train import summary
from fastrec.runs import open_run

SMALL = ["--dim", "4", "--epochs", "2", "--batch-size", "64", "--no-progress", "--no-tensorboard"]


@pytest.fixture(scope="module")
def log(tmp_path_factory: pytest.TempPathFactory) -> Path:
    rng = np.random.default_rng(3)
    rows = ["user,item,timestamp"]
    for user in range(60):
        liked = rng.choice(20, size=10, replace=False) + 20 * (user % 2)
        rows += [f"u{user:02d},i{item:02d},{k}" for k, item in enumerate(liked)]
    path = tmp_path_factory.mktemp("log") / "log.csv"
    path.write_text("\n".join(rows) + "\n")
    return path


def test_a_training_prints_and_keeps_popularity_and_ease(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["train", "--data", str(log), *SMALL, "--candidates", "19", "--out", str(tmp_path / "run")]) == 0
    shown = capsys.readouterr().out
    result = open_run(tmp_path / "run").manifest["result"]
    kept = result["baselines"]
    assert list(kept) == ["popularity", "ease"]
    for protocol in ("19 candidates", "full ranking"):
        for name in kept:
            assert f"{kept[name]['metrics'][protocol]['NDCG@10']:.4f}" in shown
        scored = {"gmf": result["metrics"], **{name: row["metrics"] for name, row in kept.items()}}
        best = max(scored, key=lambda name: scored[name][protocol]["NDCG@10"])
        line = next(line for line in shown.splitlines() if line.startswith(f"best in {protocol}"))
        assert line.split("  ")[-1].strip() == f"{best}, by NDCG@10"
    # again, with the rest: what is there is not fitted twice
    assert main(["train", "--resume", str(tmp_path / "run"), "--baselines"]) == 0
    again = open_run(tmp_path / "run").manifest["result"]["baselines"]
    assert list(again) == ["popularity", "ease", "ials", "item-knn"]
    assert again["ease"] == kept["ease"]
    assert "item-knn" in capsys.readouterr().out


def test_the_command_scores_the_same_split_as_a_training(
    log: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--candidates", "19", "--select", "FULL:recall@5"]
    assert main(["train", "--data", str(log), *SMALL, *options, "--out", str(tmp_path / "run")]) == 0
    capsys.readouterr()
    assert main(["baselines", str(log), "--only", "popularity", "ease", "--json", *options]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    kept = open_run(tmp_path / "run").manifest["result"]["baselines"]
    for name, row in found.items():
        assert {**row, "seconds": 0} == {**kept[name], "seconds": 0}
    assert main(["baselines", str(log), "--only", "popularity", "ease"]) == 0
    shown = capsys.readouterr().out
    assert "best in full ranking" in shown
    assert "ridge" in shown


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--only", "knn"], "baseline = 'knn': must be one of ease, ials, item-knn, popularity"),
        (["--select", "full:NDGC@10"], "unknown metric 'NDGC'"),
        (["--validation", "0", "--select", "full:NDCG@10"], "there is no validation part to select on"),
    ],
)
def test_the_command_refuses_in_one_line(
    log: Path, options: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["baselines", str(log), *options]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert error.count("\n") == 1


def test_a_model_below_popularity_is_noted_and_loses_the_table(log: Path, tmp_path: Path) -> None:
    from fastrec.config import Config
    from fastrec.training.baselines import add_baselines, missing
    from fastrec.training.fit import fit
    from fastrec.training.job import prepare

    config = Config(
        data=str(log), dim=4, epochs=1, lr=1e-9, candidates=19, progress=False, tensorboard=False,
        out=str(tmp_path / "run"),
    )  # fmt: skip
    result = fit(prepare(config), config, loaded=True)
    seconds = result.seconds
    assert missing(result) == ["popularity", "ease"]
    result = add_baselines(result, missing(result))
    assert missing(result) == []
    assert result.seconds == result.run.manifest["result"]["seconds"] == seconds
    assert any("gmf is not above popularity" in note for note in cli.notes(result)) == (
        result.metrics["full ranking"]["NDCG@10"]
        <= result.baselines["popularity"]["metrics"]["full ranking"]["NDCG@10"]
        or result.metrics["19 candidates"]["NDCG@10"]
        <= result.baselines["popularity"]["metrics"]["19 candidates"]["NDCG@10"]
    )
    assert "best in full ranking" in summary(result)


def test_a_split_with_candidates_of_its_own_has_baselines_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As the NCF presets train: three files, no validation part; then each command that reads such a run."""
    folder, run = tmp_path / "ncf", str(tmp_path / "run")
    folder.mkdir()
    rows = [(u, (7 * u + 3 * k) % 30) for u in range(20) for k in range(6)]
    rng = np.random.default_rng(0)
    (folder / "x.train.rating").write_text("".join(f"{u}\t{i}\t5\t{k}\n" for k, (u, i) in enumerate(rows)))
    tests = [(u, next(i for i in range(30) if (u, i) not in rows)) for u in range(20)]
    (folder / "x.test.rating").write_text("".join(f"{u}\t{i}\t5\t999\n" for u, i in tests))
    lines = []
    for u, i in tests:
        rest = [str(j) for j in range(30) if (u, j) not in rows and j != i]
        lines.append("\t".join([f"({u},{i})", *rng.choice(rest, 9, replace=False)]) + "\n")
    (folder / "x.test.negative").write_text("".join(lines))
    none = ["--validation", "0", "--patience", "0"]
    assert main(["train", "--data", str(folder), *SMALL, *none, "--out", run]) == 0
    kept = open_run(run).manifest["result"]["baselines"]
    assert list(kept) == ["popularity", "ease"]
    assert set(kept["ease"]["metrics"]) == {"9 candidates", "full ranking"}
    assert main(["train", "--data", str(folder), *SMALL, *none, "--seed", "1", "--out", run + "1"]) == 0
    out = str(tmp_path / "report.html")
    for command in (
        ["baselines", str(folder)],
        ["evaluate", run],
        ["compare", run, run + "1"],
        ["report", run, "--out", out],
    ):
        assert main(command) == 0, (command, capsys.readouterr().err)
