"""Baselines through the split, evaluator and record of a run: choice on validation, memory, winners."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from fastrec.data.loading import load_split
from fastrec.data.split import Split
from fastrec.errors import ConfigError
from fastrec.evaluation import baselines
from fastrec.evaluation.baseline_runs import available_bytes, remarks, run_baselines, usual, winners
from fastrec.evaluation.candidates import candidates_for
from fastrec.evaluation.full_ranking import evaluate_full
from fastrec.evaluation.score import score_split
from fastrec.evaluation.selection import Selection, Validator
from tests.helpers.fakes import VectorModel, popularity, random_parts


@pytest.fixture
def split(rng: np.random.Generator) -> Split:
    return Split(*random_parts(rng, 60, 50, (15, 4, 3)))


@pytest.mark.parametrize("select", ["full:NDCG@10", "candidates:HR@3"])
def test_settings_are_those_that_validate_best_and_scores_are_the_evaluators(split: Split, select: str) -> None:
    found = run_baselines(split, ["ease", "item-knn"], select=select, cutoffs=[3], n_candidates=9, candidate_seed=5)
    validator = Validator.of(split, Selection.parse(select), n_candidates=9, seed=5)
    assert validator is not None
    for name, row in found.items():
        entry = baselines.get(name)
        values = [validator.value(entry.fit(split.train, **settings)) for settings in entry.grid]
        assert row["validation"] == max(values)
        assert row["settings"] == entry.grid[int(np.argmax(values))]
        model = entry.fit(split.train, **row["settings"])
        assert row["metrics"] == score_split(model, split, cutoffs=[3], n_candidates=9, candidate_seed=5)
        frozen = candidates_for(split, n=9, seed=5)
        assert row["metrics"]["9 candidates"]["candidates"]["sha256"] == frozen.sha256
    assert json.loads(json.dumps(found)) == found


def test_without_a_selection_the_first_settings_are_taken(split: Split) -> None:
    found = run_baselines(split, ["ease", "popularity"])
    assert found["ease"]["settings"] == {"ridge": 500.0}
    assert found["ease"]["validation"] is None
    assert found["popularity"]["settings"] == {}


def test_what_takes_more_than_half_of_free_memory_is_left_out_with_a_reason(split: Split) -> None:
    need = baselines.get("ease").n_bytes(split.n_users, split.n_items, split.train.n_interactions)
    found = run_baselines(split, ["popularity", "ease"], free_bytes=2 * need - 1)
    assert set(found["ease"]) == {"left_out"}
    said = remarks("gmf", {}, found)
    assert said == ["baseline ease left out: it takes 0.0 GB, more than half of the 0.0 GB of memory free"]
    assert "metrics" in found["popularity"]
    assert "metrics" in run_baselines(split, ["ease"], free_bytes=2 * need)["ease"]


def test_free_memory_is_known_here() -> None:
    free = available_bytes()
    assert free is not None
    assert 1 << 20 < free < 1 << 50


def test_an_unknown_baseline_is_refused_before_anything_is_fitted(split: Split) -> None:
    with pytest.raises(ConfigError, match="baseline = 'knn': must be one of"):
        run_baselines(split, ["popularity", "knn"])


def test_the_winner_of_each_protocol_is_named_whoever_it_is() -> None:
    rows: dict[str, Any] = {
        "gmf": {"full ranking": {"NDCG@10": 0.1, "NDCG@20": 0.9}, "99 candidates": {"NDCG@10": 0.5}},
        "ease": {"full ranking": {"NDCG@10": 0.2, "NDCG@20": 0.1}, "99 candidates": {"NDCG@10": 0.5}},
        "cold": {"full ranking, users not in train": {"NDCG@10": 1.0}},
    }
    assert winners(rows) == {"full ranking": ("ease", "NDCG@10"), "99 candidates": ("gmf", "NDCG@10")}
    assert winners({"a": {"full ranking": {"NDCG@5": 0.1, "NDCG@7": 0.2}}}) == {"full ranking": ("a", "NDCG@7")}


@pytest.mark.parametrize(("ours", "said"), [(0.3, 0), (0.2, 1), (0.1, 1)])
def test_a_model_that_is_not_above_popularity_is_said_to_be_so(ours: float, said: int) -> None:
    found = {"popularity": {"metrics": {"full ranking": {"NDCG@10": 0.2}}}}
    notes = remarks("gmf", {"full ranking": {"NDCG@10": ours}}, found)
    assert len(notes) == said
    assert all("gmf is not above popularity in full ranking: NDCG@10" in note for note in notes)


def test_ease_is_usual_where_the_catalogue_is_small() -> None:
    assert usual(5_000) == ["popularity", "ease"]
    assert usual(5_001) == ["popularity"]


def independent(scores: np.ndarray, train: Any, test: Any, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Recall@K and NDCG@K of each user by sorting, ties broken against the positives: ten lines of NumPy."""
    recalls, gains = [], []
    for row, user in enumerate(np.flatnonzero(test.degrees)):
        positives, mine = test.row(user), scores[row].astype(np.float64)
        mine[train.row(user)] = -np.inf
        near = np.flatnonzero(mine >= np.partition(mine, -k)[-k])
        good = np.isin(near, positives)
        hit = good[np.lexsort((good, -mine[near]))[:k]]
        ideal = (1 / np.log2(np.arange(2, 2 + min(k, positives.size)))).sum()
        recalls.append(hit.sum() / positives.size)
        gains.append((hit / np.log2(np.arange(2, k + 2))).sum() / ideal)
    return np.array(recalls), np.array(gains)


@pytest.mark.real_data
@pytest.mark.parametrize("kind", ["popularity", "random vectors"])
def test_recall_and_ndcg_of_gowalla_equal_an_independent_implementation(
    real_data: Any, rng: np.random.Generator, kind: str
) -> None:
    split = load_split(str(real_data("gowalla")))
    test = split.test.keep(np.isin(split.test.users, np.flatnonzero(split.test.degrees)[::8]))  # 3,733 users
    if kind == "popularity":
        model, scores = popularity(split.train), split.train.item_counts()[None, :].astype(np.float32)
    else:
        p, q = rng.normal(size=(split.n_users, 4)), rng.normal(size=(split.n_items, 4))
        q *= split.train.item_counts()[:, None] ** 0.5  # near popularity, so that there are hits
        model, scores = VectorModel(p, q), None
    sums, n = np.zeros(2), 0
    for users in np.array_split(np.flatnonzero(test.degrees), 40):
        block = np.tile(scores, (users.size, 1)) if scores is not None else p[users].astype("f4") @ q.T.astype("f4")
        part = test.keep(np.isin(test.users, users))
        found = independent(block, split.train, part, 20)
        sums, n = sums + [found[0].sum(), found[1].sum()], n + users.size
    metrics = evaluate_full(model, split.train, test, (20,))
    assert metrics.n_users == n
    assert metrics["Recall@20"] == pytest.approx(sums[0] / n, abs=1e-6)
    assert metrics["NDCG@20"] == pytest.approx(sums[1] / n, abs=1e-6)
    assert metrics["Recall@20"] > 1e-3
