"""Whole runs on the real data sets: what a user sees after ``make train``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrec
from fastrec.inference.recommend import recommend
from fastrec.training.fit import Result

QUICK: dict[str, Any] = {"progress": False, "tensorboard": False, "dim": 16, "lr": 3e-3}

pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def ml_1m(real_data, tmp_path_factory: pytest.TempPathFactory) -> Result:
    out = tmp_path_factory.mktemp("real") / "ml-1m"
    return fastrec.train(str(real_data("ml-1m")), **QUICK, epochs=8, out=str(out))


def test_users_of_ml_1m_get_lists_of_their_own_that_they_have_not_rated(ml_1m: Result) -> None:
    split = ml_1m.run.split()
    every = [split.train, split.validation, split.test]
    counts = sum(part.item_counts() for part in every)
    popular = {int(split.train.item_ids[i]) for i in np.argsort(-counts)[:10]}
    lists = []
    for user in (1, 2, 3):
        rows = recommend(ml_1m.run, str(user), 10)
        items = [r["item_id"] for r in rows]
        u = split.train.user_ids.tolist().index(user)
        known = {int(split.train.item_ids[i]) for part in every for i in part.row(u)}
        assert len(set(items)) == 10
        assert not known & set(items)
        assert len(popular & set(items)) <= 5
        assert all(r["title"] for r in rows)
        lists.append(items)
    assert len({tuple(items) for items in lists}) == 3


def test_a_short_run_already_beats_popularity(ml_1m: Result) -> None:
    test = ml_1m.metrics["99 candidates"]
    assert test["HR@10"] > 0.55  # popularity: .453
    assert test["NDCG@10"] <= test["HR@10"]


@pytest.mark.parametrize("name", ["ml-100k", "ml-latest-small"])
def test_small_sets_recommend_titles(name: str, real_data, tmp_path: Path) -> None:
    result = fastrec.train(str(real_data(name)), **QUICK, epochs=10, out=str(tmp_path / "run"))
    lists = [recommend(result.run, str(user), 10) for user in (1, 2, 3)]
    assert all(row["title"] for rows in lists for row in rows)
    assert len({tuple(row["item_id"] for row in rows) for rows in lists}) == 3


def test_gowalla_brings_its_split_and_recommends_ids(real_data, tmp_path: Path) -> None:
    result = fastrec.train(str(real_data("gowalla")), **QUICK, epochs=4, out=str(tmp_path / "run"))
    assert "train.txt" in result.run.manifest["data"]["split"]
    assert "Recall@10" in result.metrics["full ranking"]
    lists = [recommend(result.run, str(user), 10) for user in (1, 2, 3)]
    assert all(not row["title"] for rows in lists for row in rows)
    assert len({tuple(row["item_id"] for row in rows) for rows in lists}) == 3


def test_the_ncf_papers_own_split_and_candidates_are_used_and_said(real_data, tmp_path: Path) -> None:
    result = fastrec.train(str(real_data("ncf-ml-1m")), **QUICK, epochs=1, out=str(tmp_path / "run"))
    data = result.run.manifest["data"]
    assert data["comparable"]
    assert data["n_train"] + data["n_validation"] == 994_169
    assert data["n_test"] == 6_040
    assert not any("not comparable" in note for note in result.notes)
