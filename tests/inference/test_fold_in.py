"""Folding in: someone new gets a vector from a list of items, by the run's own loss and addressed negatives."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastrec
from fastrec import Recommender, runs
from fastrec.cli.main import main
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.inference.fold_in import Folder, minimise
from fastrec.models import build
from fastrec.models.parts.host_losses import Terms
from tests.conftest import ROOT
from tests.helpers import oracle
from tests.helpers.fakes import interactions, random_parts

N_USERS, N_ITEMS, DIM = 9, 60, 4


def make(folder: Path, kind: str = "mf", **config: Any) -> runs.Run:
    """A run of a random model on random parts; item ids are text, one of them with commas."""
    rng = np.random.default_rng(7)
    ids = np.array(["3,4", *(f"{k:03d}" for k in range(1, N_ITEMS))])
    parts = [
        interactions([part.row(u).tolist() for u in range(N_USERS)], N_ITEMS, part.name, item_ids=ids)
        for part in random_parts(rng, N_USERS, N_ITEMS)
    ]
    options = {"model": kind, "dim": DIM, "seed": 5, "negatives": 3, "loss": "bce", "l2": 0.05, **config}
    run = runs.create(folder, config=options, split=Split(*parts))
    model = build(kind, n_users=N_USERS, n_items=N_ITEMS, dim=DIM, seed=3, init_std=1.0)
    if kind == "mf":
        model.item_bias.data[:] = 0.1
        model.bias.data[:] = -0.7
    run.save_model(model)
    return runs.open_run(run.path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> dict[str, runs.Run]:
    folder = tmp_path_factory.mktemp("runs")
    return {kind: make(folder / kind, kind) for kind in ("mf", "gmf")}


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, N_ITEMS - 1), min_size=1, max_size=20), st.randoms(), st.sampled_from(["mf", "gmf"]))
def test_equal_lists_in_any_order_give_equal_bytes(made, items: list[int], random, kind: str) -> None:
    folder = Folder(made[kind])
    other = [*items, items[0]]
    random.shuffle(other)
    one, two = folder.solve(items, ids="contiguous"), folder.solve(other, ids="contiguous")
    assert one.vector.tobytes() == two.vector.tobytes()
    assert one.constant == two.constant
    assert one.vector.dtype == np.float32
    assert one.vector.shape == (DIM,)
    negatives = folder.negatives(one.items)
    for epoch, drawn in enumerate(negatives):
        for item, row in zip(one.items.tolist(), drawn.tolist()):
            address = {"seed": 5, "epoch": epoch, "position": oracle.identity(N_USERS, item)}
            assert row == oracle.uniform(one.items.tolist(), N_ITEMS, 3, **address), "addressed at user n_users"


@pytest.mark.parametrize(("kind", "loss"), [("mf", "bce"), ("mf", "bpr"), ("gmf", "bce")])
def test_the_vector_minimises_the_loss_of_the_run(tmp_path: Path, kind: str, loss: str) -> None:
    import torch

    from fastrec.models import losses

    run = make(tmp_path / "run", kind, loss=loss)
    folder, own = Folder(run), [1, 5, 17, 40]
    new = folder.solve(own, ids="contiguous")
    negatives = folder.negatives(new.items)
    columns = np.concatenate([np.column_stack((new.items, drawn)) for drawn in negatives])
    table, bias = (torch.from_numpy(x).double() for x in (folder._table, folder._bias))
    of = losses.get(loss)
    row = torch.from_numpy(new.vector.astype(np.float64)).requires_grad_()
    constant = torch.tensor(new.constant, dtype=torch.float64, requires_grad=True)
    picked = torch.from_numpy(columns).long()
    logits = (table[picked] * row).sum(-1) + bias[picked] + constant
    terms = of.terms(len(own), logits.shape[1])  # of one round: the mean over all rounds times these
    own_bias = constant + 0.7 if kind == "mf" and loss == "bce" else torch.zeros(())
    rows = run.model().user_factors.detach().double()[run.split().train.degrees > 0]
    l2 = 0.05 * len(own) + 1 / rows.square().mean()
    total = of.mean(logits) * terms + l2 / 2 * (row.square().sum() + own_bias**2)
    total.backward()
    assert row.grad.abs().max() < 1e-4
    if kind == "mf" and loss == "bce":
        assert constant.grad.abs() < 1e-4


def test_a_run_without_l2_has_a_minimum_too(tmp_path: Path) -> None:
    new = Folder(make(tmp_path / "run", "gmf", l2=0.0)).solve(["007"])
    assert np.isfinite(new.vector).all()
    assert 0 < np.abs(new.vector).max() < 10


def test_popularity_draws_by_the_counts_of_train(tmp_path: Path) -> None:
    run = make(tmp_path / "run", "gmf", distribution="popularity", popularity_alpha=0.5)
    drawn = Folder(run).negatives(np.array([1, 2], np.int32))
    assert (run.split().train.item_counts()[drawn] > 0).all()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 30), st.integers(1, 5), st.floats(1e-3, 10), st.integers(0, 99))
def test_newton_ends_where_the_gradient_is_zero(n: int, dim: int, l2: float, seed: int) -> None:
    rng = np.random.default_rng(seed)
    terms = Terms(3 * rng.normal(size=(n, dim)), rng.normal(size=n), rng.integers(0, 2, n) * 1.0, rng.random(n), True)
    x = minimise(terms, l2)
    p = 1 / (1 + np.exp(-(terms.rows @ x + terms.offsets)))
    gradient = terms.rows.T @ (terms.weights * (p - terms.labels)) + l2 * x
    assert np.abs(gradient).max() < 1e-3 * max(1.0, l2)


def test_lists_leave_out_what_was_given_and_rank_by_the_vector(made: dict[str, runs.Run]) -> None:
    rec = Recommender(made["mf"])
    own = ["003", "3,4", "030"]
    vector = rec.fold_in(own)
    assert vector.tobytes() == fastrec.fold_in(made["mf"].path, reversed(own)).tobytes()
    scores = rec.item_vectors @ vector + rec.item_bias
    numbers = rec.item_index.find(own)[0]
    found = rec.recommend_new(own, N_ITEMS, output="arrays")
    order = [i for i in np.argsort(-scores, kind="stable").tolist() if i not in numbers]
    assert found["item_id"].tolist() == rec.item_ids[order].tolist()
    constant = Folder(made["mf"]).solve(own).constant
    assert np.allclose(found["score"], scores[order] + constant, atol=1e-5)
    frame = rec.recommend_new(own, 3, seen=True, allow=own)
    assert frame.columns == ["rank", "item_id", "score"]
    assert sorted(frame["item_id"].to_list()) == sorted(own)


def test_folding_in_needs_numpy_and_numba_only(made: dict[str, runs.Run]) -> None:
    code = (
        "import sys, fastrec; v = fastrec.fold_in(sys.argv[1], ['001', '3,4']); "
        "print({'torch', 'polars'} & set(sys.modules), v.tobytes().hex())"
    )
    command = [sys.executable, "-c", code, str(made["mf"].path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["set()", fastrec.fold_in(made["mf"], ["3,4", "001"]).tobytes().hex()]


def test_what_cannot_be_folded_in_is_refused(tmp_path: Path, made: dict[str, runs.Run]) -> None:
    for items, message in (([], "no item"), (["nope", "nor"], "item 'nope' and 1 more: not among the 60 items")):
        with pytest.raises(DataError, match=message):
            fastrec.fold_in(made["gmf"], items)
    with pytest.raises(DataError, match="none left to draw"):
        fastrec.fold_in(made["gmf"], range(N_ITEMS), ids="contiguous")
    with pytest.raises(ConfigError, match="mlp has no user vector to fold in"):
        fastrec.fold_in(make(tmp_path / "mlp", "mlp"), ["001"])
    for option, message in (
        ({"loss": "softmax"}, "other users of a batch"),
        ({"hard_negatives": 9}, "by the user's own"),
    ):
        with pytest.raises(ConfigError, match=message):
            fastrec.fold_in(make(tmp_path / message[:5], "gmf", **option), ["001"])
    old = make(tmp_path / "old", "gmf")
    old.record(stream_version=1)
    with pytest.raises(CheckpointError, match="stream version 1"):
        fastrec.fold_in(old, ["001"])


def test_the_command_takes_items(made: dict[str, runs.Run], capsys: pytest.CaptureFixture[str]) -> None:
    path = str(made["gmf"].path)
    expected = Recommender(made["gmf"]).recommend_new(["001", "3,4", "002"], 4, output="arrays")
    assert main(["recommend", path, "--items", "001,002", "--items", "3,4", "-k", "4", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["item_id"] for row in found] == expected["item_id"].tolist()
    assert main(["recommend", path, "--items", "001", "-k", "2"]) == 0
    assert capsys.readouterr().out.splitlines()[0].split() == ["rank", "item", "score"]
    assert main(["recommend", path, "--items", "001,x"]) == 1
    assert "item 'x'" in capsys.readouterr().err
    assert main(["recommend", path, "--items", "001,x", "--skip-unknown", "--json"]) == 0
    assert main(["recommend", path, "--items", "001", "--out", "x.csv"]) == 2


@pytest.mark.real_data
def test_folded_in_users_rank_nearly_as_trained_ones(tmp_path: Path, real_data) -> None:
    split = fastrec.leave_one_out(fastrec.load(real_data("ml-100k")), validation=0.0)
    result = fastrec.train(split, model="gmf", dim=16, epochs=8, out=str(tmp_path / "run"), progress=False)
    rec, users = result.recommender(), np.arange(0, split.n_users, 5)
    hits = np.zeros(2)
    for user in users.tolist():
        new, kept = rec.fold_in(split.train.row(user), ids="contiguous"), rec.user_vectors[user]
        (test,) = split.test.row(user)
        for k, vector in enumerate((kept, new)):
            scores = rec.item_vectors @ vector
            scores[split.train.row(user)] = -np.inf
            hits[k] += (scores >= scores[test]).sum() <= 50
    assert hits[0] > 0.1 * users.size, "the model has learned"
    assert hits[1] > 0.8 * hits[0]
