"""Metrics beyond the headline, from ``evaluate``, ``evaluate_scores`` and the command line."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec import evaluate, evaluate_scores, runs
from fastrec.cli.main import main
from fastrec.data import Catalog
from fastrec.data.catalog import movies_frame
from fastrec.data.split import Split
from fastrec.errors import ConfigError
from fastrec.evaluation.analysis import best_lists
from fastrec.evaluation.metrics import grouped
from fastrec.evaluation.score import FULL
from fastrec.models import build
from tests.helpers.fakes import Mlp, VectorModel, random_parts

N_USERS, N_ITEMS = 70, 40


def the_split(rng: np.random.Generator) -> Split:
    ids = [f"i{k}" for k in range(N_ITEMS)]
    genres = [("Drama|War", "Drama", "", "Comedy")[k % 4] for k in range(N_ITEMS)]
    users = pl.DataFrame(
        {
            "user": range(N_USERS),
            "gender": ["FM"[k % 2] for k in range(N_USERS)],
            "zip": [f"z{k}" for k in range(N_USERS)],
            "points": [k * 1.5 if k else None for k in range(N_USERS)],
        }
    )
    train, validation, test = random_parts(rng, N_USERS, N_ITEMS)
    fields = {"item_ids": np.array(ids), "titles": np.array(ids)}
    fields["catalog"] = Catalog(movies=movies_frame(ids, ids, genres), users=users)
    made = [
        type(p)(indptr=p.indptr, items=p.items, user_ids=p.user_ids, name=p.name, **fields)
        for p in (train, validation, test)
    ]
    return Split(*made)


@pytest.mark.parametrize("kind", [VectorModel, Mlp])
def test_lists_are_the_best_unseen_items(rng: np.random.Generator, kind: type[VectorModel]) -> None:
    split = the_split(rng)
    model = kind(
        rng.standard_normal((N_USERS, 3)), rng.integers(-1, 2, (N_ITEMS, 3)), np.round(rng.standard_normal(N_ITEMS))
    )
    lists, lengths = best_lists(model, split, 10)
    scores = (model.p @ model.q.T + model.b).detach().numpy()
    for user in range(N_USERS):
        seen = {*split.train.row(user).tolist(), *split.validation.row(user).tolist()}
        best = sorted((set(range(N_ITEMS)) - seen), key=lambda i: (-scores[user, i], i))[:10]
        assert lengths[user] == len(best)
        np.testing.assert_allclose(scores[user, lists[user]], scores[user, best], rtol=1e-6)


def test_a_user_with_few_items_left_has_a_short_list(rng: np.random.Generator) -> None:
    split = the_split(rng)
    lists, lengths = best_lists(VectorModel(np.ones((N_USERS, 1)), np.ones((N_ITEMS, 1))), split, N_ITEMS)
    seen = split.train.degrees + split.validation.degrees
    assert lengths.tolist() == (N_ITEMS - seen).tolist()
    assert set(lists[0, : lengths[0]].tolist()).isdisjoint(split.train.row(0).tolist())


def test_groups_and_beyond_are_next_to_the_means(rng: np.random.Generator) -> None:
    split = the_split(rng)
    scores = rng.standard_normal((N_USERS, N_ITEMS)).astype(np.float32)
    plain = evaluate_scores(scores, split)
    found = evaluate_scores(scores, split, beyond=True, by=None)
    row = found[FULL]
    assert {name: row[name] for name in plain[FULL] if "@" in name} == {
        n: v for n, v in plain[FULL].items() if "@" in n
    }
    assert {"MAP@10", "Precision@10", "AUC"} <= row.keys() & row["standard_errors"].keys()
    assert set(row["lists"]) == {"coverage", "gini", "novelty", "popularity", "popularity_bias"}
    groups = row["groups"]
    assert set(groups) == {"activity", "popularity", "genres", "gender", "points"}, "zip and year make no groups"
    assert set(groups["genres"]) == {"Drama", "War", "Comedy"}
    for name in ("activity", "popularity", "gender"):
        assert sum(g["n_positives"] for g in groups[name].values()) == row["n_positives"]
    for name in ("activity", "gender", "points"):  # groups of users part the users: their mean is that of all
        total = sum(g["n_users"] * g["HR@10"] for g in groups[name].values())
        covered = sum(g["n_users"] for g in groups[name].values())
        if covered == row["n_users"]:
            assert total / covered == pytest.approx(row["HR@10"])


def test_a_group_holds_exactly_its_users(rng: np.random.Generator) -> None:
    split = the_split(rng)
    scores = rng.standard_normal((N_USERS, N_ITEMS)).astype(np.float32)
    women = evaluate_scores(scores, split, by=["gender"], cutoffs=[3])[FULL]["groups"]["gender"]["F"]
    ranks, users = [], []
    for user in range(0, N_USERS, 2):
        if not split.train.degrees[user]:
            continue
        seen = {*split.train.row(user).tolist(), *split.validation.row(user).tolist()}
        order = [i for i in np.argsort(-scores[user]).tolist() if i not in seen]
        for item in split.test.row(user).tolist():
            ranks.append(order.index(item) + 1)
            users.append(user)
    want = grouped(np.array(ranks), np.array(users), (3,))
    assert (women["n_users"], women["HR@3"]) == (want.n_users, pytest.approx(want["HR@3"]))
    assert women["NDCG@3"] == pytest.approx(want["NDCG@3"])


@pytest.mark.parametrize(("by", "words"), [("genre", "did you mean genres?"), ("zip", "makes no groups")])
def test_a_column_that_makes_no_groups_is_refused(rng: np.random.Generator, by: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words.replace("?", r"\?")):
        evaluate_scores(rng.random((N_USERS, N_ITEMS)), the_split(rng), by=[by])


def test_from_a_run_folder_and_the_command_line(
    rng: np.random.Generator, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    split = the_split(rng)
    run = runs.create(tmp_path / "run", config={"model": "mf", "dim": 4}, split=split)
    run.save_model(build("mf", n_users=N_USERS, n_items=N_ITEMS, dim=4, seed=3, init_std=1.0))
    found = evaluate(run.path, beyond=True, by=["gender", "activity"], cutoffs=[5])
    assert list(found[FULL]["groups"]) == ["gender", "activity"]
    args = ["evaluate", str(run.path), "--beyond", "--by", "gender", "activity", "--cutoffs", "5"]
    assert main([*args, "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == found
    assert main(args) == 0
    out = capsys.readouterr().out
    half = 1.96 * found[FULL]["standard_errors"]["AUC"]
    assert f"{found[FULL]['AUC']:.4f} +-{half:.4f}" in out
    assert "by gender" in out
    assert f"coverage                    {found[FULL]['lists']['coverage']:.4f}" in out
    assert main(["evaluate", str(run.path), "--by", "ages"]) == 2
    assert "there is no such group or column" in capsys.readouterr().err
