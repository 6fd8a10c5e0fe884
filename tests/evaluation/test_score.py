"""Closing scores by both protocols; a run folder is all that it takes to repeat them."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec import runs
from fastrec.data.split import Split, leave_one_out, load_split
from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation.candidates import candidates_for
from fastrec.evaluation.score import evaluate, score_split
from fastrec.models import build
from tests.helpers.fakes import VectorModel, interactions, popularity, random_parts

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_folder_scores_as_its_training_did(tmp_path: Path, rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 30, 200, (20, 4, 3)))
    config = {"model": "gmf", "candidates": 20, "candidate_seed": 3, "cutoffs": [2, 7]}
    run = runs.create(tmp_path / "run", config=config, split=split)
    model = build("gmf", n_users=30, n_items=200, dim=4, seed=1, init_std=1.0)
    run.save_model(model)
    scores = score_split(model, split, cutoffs=[2, 7], n_candidates=20, candidate_seed=3)
    assert list(scores) == ["20 candidates", "full ranking"]
    assert evaluate(run.path) == evaluate(runs.open_run(run.path), threads=1) == scores
    assert json.loads(json.dumps(scores)) == scores
    assert "Recall@7" in scores["full ranking"]
    assert "HR@3" in evaluate(run.path, cutoffs=[3])["full ranking"]
    frozen = candidates_for(split, n=20, seed=3)
    assert scores["20 candidates"]["candidates"]["sha256"] == frozen.sha256


def test_evaluating_needs_no_polars(tmp_path: Path, rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 9, 200))
    run = runs.create(tmp_path / "run", config={"model": "gmf"}, split=split)
    run.save_model(build("gmf", n_users=9, n_items=200, dim=4, seed=1))
    code = f"import sys, fastrec; fastrec.evaluate({str(run.path)!r}); print('polars' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False"]


def test_what_cannot_be_compared_with_the_paper_is_said(rng: np.random.Generator) -> None:
    parts = random_parts(rng, 9, 200)
    model = VectorModel(np.zeros((9, 1)), rng.normal(size=(200, 1)))

    def notes(split: Split) -> str:
        return " ".join(next(iter(score_split(model, split).values()))["notes"])

    own = Split(*parts, how="leave-one-out")
    assert "not comparable with the NCF paper's tables: the split is leave-one-out" in notes(own)
    assert "drawn (seed 0)" in notes(own)
    given = np.full((parts[2].n_interactions, 2), -1, np.int32)
    assert "candidates are its own" in notes(replace(own, candidates=given))
    assert notes(replace(own, candidates=given, comparable=True)) == ""


def test_without_a_test_part_there_are_no_scores(tmp_path: Path) -> None:
    nothing = interactions([[], []], 9)
    split = Split(interactions([[1], [2]], 9), nothing, nothing)
    assert score_split(VectorModel(np.zeros((2, 1)), np.zeros((9, 1))), split) == {}
    run = runs.create(tmp_path / "run", config={}, split=split)
    with pytest.raises(DataError, match="no test part"):
        evaluate(run)


def test_altered_weights_are_not_scored(tmp_path: Path, rng: np.random.Generator) -> None:
    run = runs.create(tmp_path / "run", config={"model": "gmf"}, split=Split(*random_parts(rng, 9, 200)))
    run.save_model(build("gmf", n_users=9, n_items=200, dim=4, seed=1))
    from safetensors.torch import load_file, save_file

    weights = load_file(run.path / "model.safetensors")
    save_file({**weights, "h": torch.ones(4)}, run.path / "model.safetensors")
    with pytest.raises(CheckpointError, match="is not the file this run wrote"):
        evaluate(run.path)


@pytest.fixture(scope="module")
def ncf(real_data: Any) -> Split:
    return load_split(real_data("ncf-ml-1m"))


@pytest.mark.real_data
def test_popularity_on_the_ncf_benchmark_reaches_the_published_figures(ncf: Split) -> None:
    """.453 / .254 in Dacrema et al., RecSys 2019."""
    scores = score_split(popularity(ncf.train), ncf)["99 candidates"]
    assert scores["HR@10"] == pytest.approx(0.453, abs=0.002)
    assert scores["NDCG@10"] == pytest.approx(0.254, abs=0.002)
    assert scores["standard_errors"]["HR@10"] == pytest.approx(0.0064, abs=0.0003)
    assert (scores["n_users"], scores["n_positives"]) == (6040, 6040)
    assert scores["notes"] == []


@pytest.mark.real_data
def test_random_scores_on_the_ncf_benchmark_give_a_tenth(ncf: Split, rng: np.random.Generator) -> None:
    model = VectorModel(rng.normal(size=(6040, 16)), rng.normal(size=(3706, 16)))
    scores = score_split(model, ncf)["99 candidates"]
    assert scores["HR@10"] == pytest.approx(0.100, abs=0.012)
    assert scores["NDCG@10"] == pytest.approx(0.045, abs=0.006)


@pytest.mark.real_data
def test_constant_scores_on_the_ncf_benchmark_give_nothing(ncf: Split) -> None:
    model = VectorModel(np.ones((6040, 3)), np.ones((3706, 3)))
    assert all(part["HR@10"] == part["NDCG@10"] == 0.0 for part in score_split(model, ncf).values())


@pytest.mark.real_data
def test_own_leave_one_out_of_ml_1m_says_it_is_not_comparable(real_data: Any) -> None:
    from fastrec.data import load

    split = leave_one_out(load(real_data("ml-1m")))
    frozen = candidates_for(split)
    assert not any(len(np.intersect1d(row, split.train.row(u))) for u, row in zip(frozen.users, frozen.items))
    scores = score_split(popularity(split.train), split)["99 candidates"]
    assert any("not comparable" in note for note in scores["notes"])
    assert 0.40 < scores["HR@10"] < 0.50
