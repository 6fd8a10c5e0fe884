"""Losses for many negatives behind fit: a killed run goes on to the byte, a run of cosines is a run like any other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.config import Config, restored
from fastrec.config.files import recorded
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.engines.fused.many_engine import ManyEngine
from fastrec.errors import CheckpointError, ConfigError
from fastrec.evaluation.score import score_split
from fastrec.inference.export import export
from fastrec.inference.recommender import Recommender
from fastrec.models import losses
from fastrec.runs import open_run
from fastrec.training.fit import Result, fit, resume
from fastrec.training.resolve import resolve
from tests.helpers.training import positives

CCL: dict[str, Any] = {
    "model": "cosine-mf", "loss": "ccl", "optimizer": "row-adagrad", "dim": 20, "negatives": 800, "epochs": 2,
    "history_weight": 2.0, "scored_history_weight": 4.0, "margin": 0.3, "batch_size": 64, "candidates": 9,
    "patience": 0, "progress": False, "tensorboard": False, "threads": 1, "device": "cpu",
}  # fmt: skip


@pytest.fixture(scope="module")
def split() -> Split:
    indptr, items = positives(n_users=60, n_items=40)
    everything = Interactions(indptr, items, user_ids=np.arange(60), item_ids=np.arange(100, 140), name="small")
    return ratio_split(everything, test=0.2, validation=0.2)


@pytest.fixture(scope="module")
def result(split: Split, tmp_path_factory: pytest.TempPathFactory) -> Result:
    return fit(split, Config(**CCL), out=tmp_path_factory.mktemp("runs") / "run")


def test_auto_takes_the_fused_pass_and_records_the_options(result: Result) -> None:
    run = open_run(result.run.path)
    assert run.manifest["engine"]["pass"] == "many"
    assert (run.config["engine"], run.config["fused_mode"]) == ("fused", "deterministic")
    assert {k: run.config[k] for k in ("margin", "negative_weight")} == {"margin": 0.3, "negative_weight": 150.0}
    assert not {"temperature", "calibration", "l2"} & run.config.keys()


def test_killed_mid_epoch_and_resumed_ends_in_the_same_bytes(
    split: Split, result: Result, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With 800 negatives; the process dies inside a step, one step after the last checkpoint."""
    per_epoch, inner = -(-split.train.n_interactions // 64), ManyEngine.advance
    assert per_epoch > 2
    for step in (2, per_epoch + 1):

        def advance(self: ManyEngine, cursor: Any, n_steps: int, step: int = step) -> Any:
            if self.step >= step:
                raise SystemExit("killed")
            return inner(self, cursor, n_steps)

        with monkeypatch.context() as m:
            m.setattr(ManyEngine, "advance", advance)
            with pytest.raises(SystemExit):
                fit(split, Config(**CCL).override(checkpoint_every=1), out=tmp_path / f"cut-{step}")
        assert resume(tmp_path / f"cut-{step}", progress=False, threads=2).stopped == "all epochs"
        found, expected = (p / "model.safetensors" for p in (tmp_path / f"cut-{step}", result.run.path))
        assert found.read_bytes() == expected.read_bytes(), f"killed after step {step}"


def test_a_run_of_cosines_evaluates_recommends_and_exports(result: Result, tmp_path: Path) -> None:
    run = open_run(result.run.path)
    model = run.model()
    assert (model.history_weight, model.scored_history_weight) == (2.0, 4.0)
    again = score_split(model, run.split(), cutoffs=(5, 10, 20), n_candidates=9, candidate_seed=0)
    assert {k: v["NDCG@10"] for k, v in again.items()} == {k: v["NDCG@10"] for k, v in result.metrics.items()}
    users, items, _ = (t.numpy() for t in model.vectors())
    listed = Recommender(run).recommend([0, 7], k=5, seen=True, output="arrays")
    best = [np.argsort(-(items @ users[u]))[:5] for u in (0, 7)]
    np.testing.assert_array_equal(listed["item_id"], 100 + np.concatenate(best))
    with np.load(export(run, to="npz", out=tmp_path / "vectors.npz")) as made:
        np.testing.assert_allclose(made["user_vectors"] @ made["item_vectors"].T, users @ items.T, atol=1e-6)


def test_weights_that_do_not_fit_the_history_are_refused(result: Result) -> None:
    run = open_run(result.run.path)
    run.manifest["model"] = {**run.manifest["model"], "history_weight": -1.0}
    with pytest.raises(CheckpointError, match="does not fit the model"):
        run.model()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"model": "mf"}, "loss = 'ccl': is for cosine scores, and model = 'mf' gives dot scores; with it use bce"),
        ({"loss": "bce"}, "loss = 'bce': is for dot scores, and model = 'cosine-mf' gives cosine scores"),
        ({"model": "mf", "loss": "gbce", "distribution": "popularity"}, "distribution = 'popularity': loss = gbce"),
        ({"l2": 0.1}, "l2 = 0.1: has no effect here; .* unlike cosine-mf's"),
        ({"engine": "fused", "distribution": "popularity"}, "distribution = 'popularity': engine = fused"),
        (
            {"engine": "fused", "optimizer": "adam"},
            "optimizer = 'adam': engine = fused .* takes 'sgd'",
        ),
        ({"temperature": 0.1}, "temperature = 0.1: has no effect here; it needs loss = softmax"),
    ],
)
def test_what_does_not_go_together_is_refused(options: dict[str, Any], says: str) -> None:
    given = {k: v for k, v in CCL.items() if k in ("model", "loss", "optimizer", "device")}
    with pytest.raises(ConfigError, match=says):
        resolve(Config(**{**given, **options}))


def test_the_former_softmax_of_a_run_is_the_in_batch_one() -> None:
    old = {"optim": {"loss": "softmax"}, "model": {"model": "mf"}}
    assert restored(recorded(old)).optim.loss == "inbatch-softmax"
    new = resolve(Config(device="cpu", model="mf", loss="softmax")).to_nested()
    assert restored(recorded(new)).optim.loss == "softmax"
    assert losses.get("inbatch-softmax").in_batch is not None
