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
from fastrec.data import Interactions
from fastrec.data.loading import load_split
from fastrec.data.split import Split, add_validation, leave_one_out, ratio_split, time_split
from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation.candidates import candidates_for
from fastrec.evaluation.score import evaluate, score_split
from fastrec.models import build
from tests.helpers.fakes import Mlp, VectorModel, interactions, popularity, random_parts

ROOT = Path(__file__).resolve().parents[2]


def test_a_run_folder_scores_as_its_training_did(tmp_path: Path, rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 30, 200, (20, 4, 3)))
    config = {"model": "gmf", "candidates": 20, "candidate_seed": 3, "cutoffs": [2, 7]}
    run = runs.create(tmp_path / "run", config=config, split=split)
    model = build("gmf", n_users=30, n_items=200, dim=4, seed=1, init_std=1.0)
    run.save_model(model)
    scores = score_split(model, split, cutoffs=[2, 7], n_candidates=20, candidate_seed=3)
    assert list(scores)[:2] == ["20 candidates", "full ranking"]
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

    assert "comparable" not in notes(Split(*parts, how="leave-one-out")), "nobody could think so"
    own = Split(replace(parts[0], name="ml-1m train"), *parts[1:], how="leave-one-out")
    assert "not comparable with the NCF paper's tables: the split is leave-one-out" in notes(own)
    assert "drawn (seed 0)" in notes(own)
    given = np.full((parts[2].n_interactions, 2), -1, np.int32)
    assert "candidates are its own" in notes(replace(own, candidates=given))
    assert "comparable" not in notes(replace(own, candidates=given, comparable=True))


def cold_split() -> Split:
    """Users 0 and 1 are in train, 2 is not; item 9 is in no part but test; user 3 has every item but one."""
    train = interactions([[0, 1], [2], [], list(range(9))], 10)
    validation = interactions([[], [], [3], []], 10)
    test = interactions([[4, 9], [5], [6], [9]], 10)
    return Split(train, validation, test)


BEST_OF_THE_CATALOGUE = VectorModel(np.zeros((4, 1)), np.zeros((10, 1)), np.arange(10.0))


def test_an_item_absent_from_train_is_a_miss_and_its_user_stays_in_the_mean() -> None:
    """The model puts item 9 first for everyone: by luck, because nothing in train says so."""
    scores = score_split(BEST_OF_THE_CATALOGUE, cold_split(), cutoffs=[1, 4], n_candidates=5)
    full = scores["full ranking"]
    assert (full["n_users"], full["n_positives"]) == (3, 4)
    assert full["HR@1"] == 0.0
    # user 0: item 4 is behind 9, 8, 7, 6, 5; user 1: item 5 behind 9, 8, 7, 6
    assert full["HR@4"] == 0.0
    assert "2 test positives are of 1 items that are not in train: counted as misses" in full["notes"]
    by_candidates = scores["5 candidates"]
    assert (by_candidates["n_users"], by_candidates["n_positives"]) == (3, 4)
    assert set(full["notes"]) <= set(by_candidates["notes"]), "both protocols say it"


def test_users_absent_from_train_have_a_row_of_their_own() -> None:
    scores = score_split(BEST_OF_THE_CATALOGUE, cold_split(), cutoffs=[4], n_candidates=5)
    assert list(scores) == [
        "5 candidates", "full ranking", "5 candidates, users not in train", "full ranking, users not in train"
    ]  # fmt: skip
    cold = scores["full ranking, users not in train"]
    assert (cold["n_users"], cold["n_positives"], cold["HR@4"]) == (1, 1, 1.0)  # item 6 behind 9, 8, 7
    said = "1 of 4 test users (1 of 5 test positives) are not in train: rows of their own, not in the headline"
    assert said in scores["full ranking"]["notes"]
    assert json.loads(json.dumps(scores)) == scores


def test_a_test_part_of_untrained_users_alone_has_no_headline() -> None:
    train, nothing = interactions([[0], []], 9), interactions([[], []], 9)
    scores = score_split(
        VectorModel(np.zeros((2, 1)), np.zeros((9, 1))), Split(train, nothing, interactions([[], [3]], 9))
    )
    assert scores["full ranking"]["n_users"] == 0
    assert not any("@" in name for name in scores["full ranking"])
    assert scores["full ranking, users not in train"]["n_users"] == 1


@pytest.mark.parametrize("kind", [VectorModel, Mlp])
def test_a_list_without_another_item_is_no_hit(kind: Any) -> None:
    split = Split(interactions([[0, 1, 2], [3]], 4), interactions([[]] * 2, 4), interactions([[3], [2]], 4))
    scores = score_split(kind(np.zeros((2, 1)), np.zeros((4, 1))), split, cutoffs=[10])
    for name in ("99 candidates", "full ranking"):
        assert scores[name]["n_users"] == 2
        assert scores[name]["HR@10"] == 0.5, "user 1 is third of three; user 0 has no other item"
        assert "1 test positives have no item to be ranked against: counted as misses" in scores[name]["notes"]


def test_both_protocols_count_a_hit_by_user(rng: np.random.Generator) -> None:
    """Each of 40 users has 8 test positives: a hit is any of them in K, in either row of the table."""
    rows = [rng.permutation(300)[:30].tolist() for _ in range(40)]
    train, test = interactions([r[:22] for r in rows], 300), interactions([r[22:] for r in rows], 300)
    split = Split(train, interactions([[]] * 40, 300), test)
    model = VectorModel(rng.normal(size=(40, 8)), rng.normal(size=(300, 8)))
    scores = score_split(model, split, cutoffs=[10], n_candidates=50)
    frozen = candidates_for(split, n=50)
    table = model.score_all(torch.arange(40)).detach().numpy().astype(np.float64)
    own = table[frozen.users, frozen.positives][:, None]
    hit = (table[frozen.users[:, None], frozen.items] >= own).sum(axis=1) < 10
    learned = train.item_counts()[frozen.positives] > 0
    assert scores["50 candidates"]["HR@10"] == np.mean([(hit & learned)[frozen.users == u].any() for u in range(40)])
    assert scores["50 candidates"]["n_users"] == scores["full ranking"]["n_users"] == 40
    assert scores["full ranking"]["HR@10"] <= scores["50 candidates"]["HR@10"]
    assert {n for n in scores["50 candidates"] if "@" in n} == {n for n in scores["full ranking"] if "@" in n}


@pytest.mark.parametrize("rule", ["leave-one-out", "ratio", "time", "given"])
def test_every_rule_of_splitting_is_counted_alike(rule: str, rng: np.random.Generator) -> None:
    log = Interactions.from_arrays(rng.integers(0, 40, 300), rng.integers(0, 200, 300), np.arange(300))
    made = {"leave-one-out": leave_one_out, "ratio": ratio_split, "time": time_split}
    split = made[rule](log) if rule in made else add_validation(replace(time_split(log, validation=0.0), how="given"))
    ids = np.arange(float(split.n_items))
    scores = score_split(VectorModel(np.zeros((split.n_users, 1)), np.zeros((split.n_items, 1)), ids), split)
    trained = split.train.degrees[split.test.users] > 0
    missed = trained & (split.train.item_counts()[split.test.items] == 0)
    assert scores["full ranking"]["n_positives"] == trained.sum()
    assert missed.any()
    for name in ("99 candidates", "full ranking"):
        assert any(note.startswith(f"{missed.sum()} test positives are of ") for note in scores[name]["notes"])
    assert ("full ranking, users not in train" in scores) == (not trained.all())


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
    assert scores["notes"] == ["2 test positives are of 2 items that are not in train: counted as misses"]


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
