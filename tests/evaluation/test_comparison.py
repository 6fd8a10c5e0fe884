"""Two recipes compared user by user, from what runs keep; and the statistics it rests on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

import fastrec
from fastrec.cli.main import main
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation.comparison import compare
from fastrec.evaluation.results import read_results
from fastrec.evaluation.statistics import (
    _incomplete_beta,
    bootstrap,
    interval,
    paired_t,
    seeds_to_settle,
    student_p,
)
from fastrec.runs import open_run
from tests.helpers.fakes import random_parts


def small(seed: int = 3, n_users: int = 40) -> Split:
    return Split(*random_parts(np.random.default_rng(seed), n_users, 60, (12, 3, 2)))


def train(out: Path, split: Split | None = None, **options: Any) -> Path:
    given = {"model": "mf", "dim": 4, "epochs": 2, "tensorboard": False, "progress": False, **options}
    return fastrec.train(split or small(), out=str(out), **given).run.path


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two recipes with three seeds each, as a sweep leaves them."""
    root = tmp_path_factory.mktemp("runs")
    for name, lr in (("slow", 1e-4), ("fast", 0.02)):
        for seed in range(3):
            train(root / f"{name}-seed{seed}", lr=lr, seed=seed)
    return root


def test_a_run_keeps_the_rank_of_each_test_positive(runs: Path) -> None:
    run = open_run(runs / "fast-seed0")
    assert "results.parquet" in run.manifest["files"]
    kept = read_results(run)
    assert kept.user_ids.tolist() == run.split().test.users.tolist()
    (run.path / "results.parquet").rename(runs / "aside")
    with pytest.raises(CheckpointError, match=r"results\.parquet"):
        read_results(run)
    (runs / "aside").rename(run.path / "results.parquet")
    older = open_run(run.path)
    del older.manifest["files"]["results.parquet"]
    again = read_results(older)
    assert again.candidates["sha256"] == kept.candidates["sha256"]
    for protocol in ("candidates", "full"):
        assert np.array_equal(again.ranks[protocol], kept.ranks[protocol])


def test_a_run_against_itself_gives_zero(runs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(runs / "fast-seed0")
    assert main(["compare", path, path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    for row in found["metrics"].values():
        assert row["difference"] == row["effect_size"] == row["better"] == row["worse"] == 0
        assert row["interval"] == [0, 0]
        assert row["p"] == 1
        assert row["more_seeds"] is None
    assert found["options"] == {}


def test_differences_are_those_of_the_runs_own_figures(runs: Path) -> None:
    a, b = open_run(runs / "slow-seed1"), open_run(runs / "fast-seed1")
    found = compare(a, b, metrics=["full:ndcg@5", "candidates:Recall@20"])
    figures = [run.manifest["result"]["metrics"] for run in (a, b)]
    for name, protocol, metric in (
        ("full:NDCG@5", "full ranking", "NDCG@5"),
        ("candidates:Recall@20", "99 candidates", "Recall@20"),
    ):
        row = found["metrics"][name]
        assert (row["a"], row["b"]) == pytest.approx([part[protocol][metric] for part in figures])
        assert row["difference"] == pytest.approx(row["b"] - row["a"])
        assert row["interval"][0] <= row["difference"] <= row["interval"][1]
        assert row["better"] + row["worse"] + row["equal"] == found["n_users"]
    assert found["options"] == {"lr": [1e-4, 0.02]}
    assert any("one pair" in note for note in found["notes"])
    other = compare(b, a, metrics=["full:NDCG@5"])["metrics"]["full:NDCG@5"]
    assert other["difference"] == -found["metrics"]["full:NDCG@5"]["difference"]


def test_seeds_are_paired(runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = compare(runs / "slow", runs / "fast")
    assert found["seeds"] == [[0, 0], [1, 1], [2, 2]]
    row = found["metrics"]["full:HR@10"]
    single = [
        compare(runs / f"slow-seed{k}", runs / f"fast-seed{k}")["metrics"]["full:HR@10"]["difference"] for k in range(3)
    ]
    assert row["difference"] == pytest.approx(np.mean(single))
    assert row["seed_deviation"] == pytest.approx(np.std(single, ddof=1))
    assert main(["compare", str(runs / "slow"), str(runs / "fast"), "--metric", "full:HR@10"]) == 0
    assert "3 pairs of runs (seed 0, 1, 2)" in capsys.readouterr().out
    folder = tmp_path / "seeds"
    folder.mkdir()
    for seed in (1, 7):
        train(folder / f"x{seed}", seed=seed)
    found = compare(runs / "slow", folder)
    assert found["seeds"] == [[1, 1]]
    assert "seeds 0, 2, 7 are on one side only" in found["notes"][0]
    with pytest.raises(DataError, match="not one recipe"):
        compare(runs, folder)


def test_what_differs_is_refused_with_the_difference(
    runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base = runs / "fast-seed0"
    other = train(tmp_path / "data", small(4))
    assert main(["compare", str(base), str(other)]) == 1
    assert "n_train" in capsys.readouterr().err
    other = train(tmp_path / "candidates", candidates=7)
    assert main(["compare", str(base), str(other)]) == 1
    assert "other candidates (n 99 and 7)" in capsys.readouterr().err
    assert main(["compare", str(base), str(tmp_path / "nothing")]) == 1
    assert main(["compare", str(base), str(base), "--metric", "full:HR"]) == 2
    run = open_run(other)
    run.record(status="interrupted")
    with pytest.raises(CheckpointError, match="has not ended"):
        compare(base, other)


@settings(max_examples=200, deadline=None)
@given(st.floats(-40, 40), st.integers(1, 5000))
def test_student_equals_scipy(t: float, freedom: int) -> None:
    assert student_p(t, freedom) == pytest.approx(2 * stats.t.sf(abs(t), freedom), rel=1e-7)  # scipy: 8 digits near 1


@settings(max_examples=100, deadline=None)
@given(st.floats(0.1, 50), st.floats(0.1, 50), st.floats(0, 1))
def test_the_incomplete_beta_equals_scipy(a: float, b: float, x: float) -> None:
    assert _incomplete_beta(a, b, x, 1 - x) == pytest.approx(special.betainc(a, b, x), rel=1e-9, abs=1e-12)


def test_the_paired_test_equals_scipy(rng: np.random.Generator) -> None:
    x, y = rng.normal(size=(2, 50))
    p, effect = paired_t(y - x)
    assert p == pytest.approx(stats.ttest_rel(y, x).pvalue)
    assert effect == pytest.approx((y - x).mean() / (y - x).std(ddof=1))


def test_the_bootstrap_is_addressed_and_covers(rng: np.random.Generator) -> None:
    users = rng.normal(0.2, 1.0, (1, 900))
    one = bootstrap(users, seed=3, threads=1)
    assert np.array_equal(one, bootstrap(users, seed=3, threads=2))
    assert not np.array_equal(one, bootstrap(users, seed=4))
    assert one.std() == pytest.approx(users.std() / 30, rel=0.1)
    low, high = interval(one)
    assert low < users.mean() < high
    assert high - low == pytest.approx(2 * 1.96 * users.std() / 30, rel=0.1)
    seeds = np.repeat(rng.normal(0, 1.0, (30, 1)), 5, axis=1)  # users are equal: only seeds vary
    assert bootstrap(seeds).std() == pytest.approx(seeds[:, 0].std() / 30**0.5, rel=0.1)


def test_seeds_to_settle() -> None:
    assert seeds_to_settle(0.0, 1.0) is None
    assert seeds_to_settle(1.0, 0.0) == 2
    n = seeds_to_settle(0.5, 1.0)
    assert n is not None
    assert stats.t.sf(0.5 * n**0.5, n - 1) * 2 < 0.05 <= stats.t.sf(0.5 * (n - 1) ** 0.5, n - 2) * 2
    assert seeds_to_settle(1e-9, 1.0) is None


@pytest.mark.real_data
def test_two_dims_on_real_data(tmp_path: Path, real_data) -> None:
    split = fastrec.leave_one_out(fastrec.load(real_data("ml-100k")))
    paths = [train(tmp_path / f"d{dim}", split, model="gmf", dim=dim, epochs=4, lr=0.01) for dim in (2, 16)]
    found = compare(*paths)
    assert found["n_users"] == 943
    assert found["options"]["dim"] == [2, 16]
    assert all(row["a"] > 0 and row["p"] <= 1 for row in found["metrics"].values())
