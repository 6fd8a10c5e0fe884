"""Recommendations: unseen items alone, best first, by the ids and titles of the source."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastrec import runs
from fastrec.data.split import Split
from fastrec.errors import ConfigError, DataError
from fastrec.inference.recommend import recommend
from fastrec.models import build
from tests.helpers.fakes import Mlp, VectorModel, interactions, random_parts


def tiny(tmp_path: Path, **ids: object) -> runs.Run:
    """Two users, five items: user 10 met items 0 (train), 3 (validation), 4 (test)."""
    fields = {"user_ids": np.array([10, 7]), "item_ids": np.array([100, 101, 102, 103, 104]), **ids}
    rows = {"train": [[0], [1]], "validation": [[3], []], "test": [[4], [0]]}
    parts = [interactions(part, 5, f"tiny {name}", **fields) for name, part in rows.items()]
    return runs.create(tmp_path / "run", config={"model": "gmf"}, split=Split(*parts))


SCORES = VectorModel([[1.0], [-1.0]], [[9.0], [2.0], [5.0], [8.0], [7.0]])


def test_known_items_of_every_part_are_left_out(tmp_path: Path) -> None:
    rows = recommend(tiny(tmp_path), 10, 10, model=SCORES)
    assert rows == [
        {"rank": 1, "item_id": 102, "title": None, "score": 5.0},
        {"rank": 2, "item_id": 101, "title": None, "score": 2.0},
    ]
    assert [r["item_id"] for r in recommend(tiny(tmp_path / "b"), 7, 2, model=SCORES)] == [102, 104]


@pytest.mark.parametrize("user_id", [10, "10", np.int64(10), " 10 ", "+10", 10.0])
def test_a_number_may_come_as_text(tmp_path: Path, user_id: object) -> None:
    assert recommend(tiny(tmp_path), user_id, 1, model=SCORES)[0]["item_id"] == 102


def test_titles_and_text_ids(tmp_path: Path) -> None:
    titles = np.array(["Star Wars: Episode IV - A New Hope (1977)", "Amélie", "Léon", "D", "E"])
    run = tiny(tmp_path, user_ids=np.array(["ann", "bob"]), item_ids=np.array(list("abcde")), titles=titles)
    row = recommend(run, "ann", 1, model=SCORES)[0]
    assert (row["item_id"], row["title"]) == ("c", "Léon")
    assert type(row["item_id"]) is type(row["title"]) is str


@pytest.mark.parametrize("user_id", [11, "x", "10.5", 10.5, "1_0", "1e1", True, None, 2**70, "1" * 5000, ""])
def test_an_unknown_user_is_refused_with_some_that_exist(tmp_path: Path, user_id: object) -> None:
    with pytest.raises(DataError, match=r"not among the 2 users of tiny \(such as 10, 7\); give an id"):
        recommend(tiny(tmp_path), user_id, 1, model=SCORES)


def test_an_impossible_k_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="k=0: ask for at least 1"):
        recommend(tiny(tmp_path), 10, 0, model=SCORES)


def test_equal_scores_stand_in_order_of_ids(tmp_path: Path) -> None:
    model = Mlp(np.zeros((2, 1)), np.zeros((5, 1)))
    assert [r["item_id"] for r in recommend(tiny(tmp_path), 7, 5, model=model)] == [102, 103, 104]


def test_scores_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    model = Mlp([[1.0], [1.0]], [[1.0], [np.nan], [1.0], [1.0], [1.0]])
    with pytest.raises(DataError, match="not finite"):
        recommend(tiny(tmp_path), 7, 5, model=model)


@pytest.mark.parametrize("kind", ["mf", "gmf", "mlp", "neumf"])
def test_a_saved_run_recommends_what_its_model_scores_best(tmp_path: Path, kind: str, rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 6, 50))
    run = runs.create(tmp_path / "run", config={"model": kind}, split=split)
    model = build(kind, n_users=6, n_items=50, dim=4, seed=1, init_std=1.0)
    run.save_model(model)
    for user in range(6):
        with torch.no_grad():
            scores = model(torch.tensor([user]), torch.arange(50)[None])[0].numpy()
        known = np.concatenate([p.row(user) for p in (split.train, split.validation, split.test)])
        expected = [i for i in np.argsort(-scores) if i not in known][:10]
        rows = recommend(runs.open_run(run.path), user, 10)
        assert [r["item_id"] for r in rows] == expected
        assert [r["rank"] for r in rows] == list(range(1, 11))
        assert np.allclose([r["score"] for r in rows], scores[expected], atol=1e-5)


def test_users_get_lists_of_their_own(tmp_path: Path, rng: np.random.Generator) -> None:
    run = runs.create(tmp_path / "run", config={}, split=Split(*random_parts(rng, 3, 50)))
    model = VectorModel(rng.normal(size=(3, 8)), rng.normal(size=(50, 8)))
    lists = {tuple(r["item_id"] for r in recommend(run, user, 10, model=model)) for user in range(3)}
    assert len(lists) == 3


def test_ids_are_not_positions(tmp_path: Path) -> None:
    """The notebook indexes by raw MovieID - 1: ids that are neither dense nor sorted must map both ways."""
    run = tiny(tmp_path, item_ids=np.array([3952, 1, 17, 260, 9]))
    assert run.split().train.item_ids.tolist() == [3952, 1, 17, 260, 9]
    assert [r["item_id"] for r in recommend(run, 10, 5, model=SCORES)] == [17, 1]
