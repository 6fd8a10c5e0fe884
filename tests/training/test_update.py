"""``fastrec.update``: rows, optimiser state, epoch numbers and draws go on; refusals say what to do."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

import fastrec
from fastrec.cli.main import main
from fastrec.data.interactions import Interactions
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.runs import Run, open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.build import build_engine
from fastrec.training.fit import recorded_config, resume
from fastrec.training.start import Start
from fastrec.training.trainer import Trainer
from tests.data.test_grown import EVERY, LATE, OLD, made, pairs

SMALL: dict[str, Any] = {
    "dim": 4, "epochs": 2, "batch_size": 64, "candidates": 9, "progress": False, "tensorboard": False, "keep": 99,
    "init_std": 0.1, "patience": 0,
}  # fmt: skip
UPDATE: dict[str, Any] = {"epochs": 2, "progress": False}
KINDS: dict[str, dict[str, Any]] = {
    "mf adam": {"model": "mf", "lr": 0.02},
    "gmf adagrad": {"model": "gmf", "optimizer": "adagrad"},
    "mlp adam": {"model": "mlp", "layers": (8, 4), "dim": None, "lr": 0.02},
    "neumf adamw": {"model": "neumf", "layers": (8, 4), "optimizer": "adamw", "lr": 0.02},
    "mf sgd fused": {"model": "mf", "optimizer": "sgd", "engine": "fused"},
    "gmf lazy-adam fused": {"model": "gmf", "optimizer": "lazy-adam", "engine": "fused", "lr": 0.02},
    "mf lock-free": {
        "model": "mf",
        "optimizer": "row-adagrad",
        "engine": "fused",
        "fused_mode": "lock_free",
        "threads": 1,
    },
}


def train(folder: Path, kind: str = "mf adam", data: Interactions | None = None, **options: Any) -> Run:
    merged = {**SMALL, **KINDS[kind], **options}
    if merged.get("dim") is None:
        del merged["dim"]
    return fastrec.train(made(OLD) if data is None else data, out=str(folder), **merged).run


@pytest.fixture(scope="module")
def parent(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return train(tmp_path_factory.mktemp("update") / "parent")


def records(run: Run) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run.path / "metrics.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("kind", KINDS)
def test_rows_and_state_of_old_users_and_items_go_on(tmp_path: Path, kind: str) -> None:
    before = train(tmp_path / "a", kind)
    result = fastrec.update(before, made(LATE), out=str(tmp_path / "b"), **UPDATE)
    run, about = result.run, result.run.manifest["update"]
    old, new = before.split(), run.split()
    assert new.n_users > old.n_users
    assert np.array_equal(new.train.user_ids[: old.n_users], old.train.user_ids)
    assert pairs(old.train) <= pairs(new.train)
    steps = Checkpoints(run.path / "checkpoints").steps()
    was, _ = Checkpoints(before.path / "checkpoints").load()
    tensors, meta = Checkpoints(run.path / "checkpoints").load(steps[0])
    assert (
        steps[0]
        == about["first_step"]
        == meta["engine"]["step"]
        == Checkpoints(before.path / "checkpoints").steps()[-1]
    )
    fresh = build_engine(new, recorded_config(run)).model.state_dict()  # newcomers: initial weights of their addresses
    kept, roles = before.model().state_dict(), before.model().roles()
    for name, weight in kept.items():
        n = weight.shape[0] if roles[name] in ("user", "item") else fresh[name].shape[0]
        value = tensors[f"model.{name}"]
        assert torch.equal(value[:n], weight), name
        assert torch.equal(value[n:], fresh[name][n:]), name
    assert was.keys() == tensors.keys()
    states = [key for key in was if key.startswith("optimizer.")]
    assert bool(states) == ("sgd" not in kind)
    for key in states:
        n = was[key].shape[0] if was[key].ndim else 0
        assert torch.equal(tensors[key][:n] if n else tensors[key], was[key]), key
        assert not n or not tensors[key][n:].any(), key
    moved = run.model().state_dict()
    assert any(not torch.equal(moved[k][: kept[k].shape[0]], kept[k]) for k in kept), "training went on"
    assert set(result.metrics) == {"9 candidates", "full ranking"}


def test_epochs_and_draws_go_on_under_a_schedule_of_its_own(parent: Run, tmp_path: Path) -> None:
    result = fastrec.update(
        parent, made(EVERY), out=str(tmp_path / "b"), log_every=1, lr=0.05, epochs=3, progress=False
    )
    found = records(result.run)
    assert [r["epoch"] for r in found if r["kind"] == "epoch"] == [3, 4, 5]
    lrs = [r["lr"] for r in found if r["kind"] == "train"]
    assert lrs[0] == pytest.approx(0.05)
    assert lrs == sorted(lrs, reverse=True)
    assert lrs[-1] < 0.05 / 10
    assert (result.epochs_done, result.best_epoch) == (3, None)
    assert result.run.manifest["update"]["first_epoch"] == 2
    again = fastrec.update(result.run, made(EVERY), out=str(tmp_path / "c"), **{**UPDATE, "epochs": 1})
    assert again.run.manifest["update"]["first_epoch"] == 5
    assert [r["epoch"] for r in records(again.run) if r["kind"] == "epoch"] == [6]
    assert again.run.config["lr"] == 0.05
    assert pairs(result.run.split().train) <= pairs(again.run.split().train)


def test_a_new_part_and_the_complete_log_give_equal_bytes(parent: Run, tmp_path: Path) -> None:
    for name, rows in (("a", EVERY), ("b", LATE), ("c", LATE)):
        fastrec.update(parent, made(rows), out=str(tmp_path / name), **UPDATE)
    weights = [(tmp_path / name / "model.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] == weights[2]
    counts = [open_run(tmp_path / name).manifest["update"]["counts"]["merged"] for name in "ab"]
    assert counts == [700, 0]


@pytest.mark.parametrize("positives", ["all", "new"])
def test_an_interrupted_update_goes_on_without_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, positives: str
) -> None:
    before = train(tmp_path / "a")
    fastrec.update(before, made(LATE), positives=positives, out=str(tmp_path / "b"), **UPDATE)
    inner = Trainer.run
    first = Checkpoints(before.path / "checkpoints").steps()[-1]
    with monkeypatch.context() as m:
        m.setattr(Trainer, "run", lambda self: inner(self, stop_after=first + 2))
        cut = fastrec.update(before, made(LATE), positives=positives, out=str(tmp_path / "c"), **UPDATE)
    assert cut.stopped == "interrupted"
    shutil.rmtree(before.path)
    done = resume(tmp_path / "c")
    assert done.epochs_done == 2
    for name in ("model.safetensors", "data.safetensors", "config.toml"):
        assert (tmp_path / "b" / name).read_bytes() == (tmp_path / "c" / name).read_bytes(), name
    for p in (tmp_path / "c" / "checkpoints").iterdir():
        p.unlink()
    run = open_run(tmp_path / "c")
    run.record(status="interrupted")
    with pytest.raises(CheckpointError, match="cut off before its first checkpoint; delete it and update again"):
        resume(tmp_path / "c")


def test_new_positives_only_are_visited(tmp_path: Path) -> None:
    before = train(tmp_path / "a", "mf sgd fused", l2=0.0)
    result = fastrec.update(before, made(LATE), positives="new", out=str(tmp_path / "b"), **UPDATE)
    run = result.run
    start = Start.recorded(run)
    engine = build_engine(run.split(), recorded_config(run), start)
    train_part = run.split().train
    assert start.only is not None
    assert engine.n_positives == start.only.size < train_part.n_interactions
    fresh = {(train_part.user_ids[train_part.users[e]], train_part.item_ids[train_part.items[e]]) for e in start.only}
    assert fresh == pairs(train_part) - pairs(before.split().train)
    batch = engine.stream.read(2, 0, engine.n_positives)
    visited = set(zip(train_part.user_ids[batch.users].tolist(), train_part.item_ids[batch.items[:, 0]].tolist()))
    assert visited == fresh
    quiet = np.setdiff1d(np.arange(before.split().n_users), batch.users)
    assert quiet.size
    was, now = before.model().user_factors, run.model().user_factors
    assert torch.equal(now[quiet], was[quiet]), "nobody without a new positive moves"
    assert "only the new positives" in (run.path / "README.md").read_text()


def test_without_checkpoints_the_state_starts_from_zero_and_says_so(tmp_path: Path) -> None:
    for kind, says in (("mf adam", True), ("mf sgd fused", False)):
        before = train(tmp_path / f"{kind} a", kind)
        shutil.rmtree(before.path / "checkpoints")
        result = fastrec.update(before, made(LATE), out=str(tmp_path / f"{kind} b"), **UPDATE)
        assert any("keeps no optimiser state" in note for note in result.notes) == says
        assert result.run.manifest["update"]["optimizer_state"] is False
        assert result.run.manifest["update"]["first_epoch"] == 2


def test_weights_are_those_that_the_parent_kept(tmp_path: Path) -> None:
    before = train(tmp_path / "a", patience=1, epochs=30, lr=0.3)
    result = before.manifest["result"]
    assert result["best_epoch"] < result["epochs_done"]
    after = fastrec.update(before, made(LATE), out=str(tmp_path / "b"), epochs=1, patience=0, progress=False)
    assert after.run.manifest["update"]["first_epoch"] == result["epochs_done"]
    assert any(f"weights of epoch {result['best_epoch']}, the best by validation" in n for n in after.notes)


def test_a_pretrained_parent_is_updated_from_its_own_weights(tmp_path: Path) -> None:
    train(tmp_path / "gmf", "gmf adagrad", epochs=1)
    train(tmp_path / "mlp", "mlp adam", epochs=1)
    options = {k: v for k, v in SMALL.items() if k != "init_std"}
    fastrec.train(
        made(OLD), out=str(tmp_path / "a"), model="neumf", layers=(8, 4), pretrained_gmf=str(tmp_path / "gmf"),
        pretrained_mlp=str(tmp_path / "mlp"), **options,
    )  # fmt: skip
    after = fastrec.update(tmp_path / "a", made(LATE), out=str(tmp_path / "b"), **UPDATE)
    assert "pretrained_gmf" not in after.run.config
    assert after.run.manifest["update"]["counts"]["new_users"] > 0


def test_files_are_read_by_the_parents_filters(tmp_path: Path) -> None:
    users, items, times = made(EVERY).user_ids[made(EVERY).users], made(EVERY).items, made(EVERY).timestamps
    rating = np.where(np.arange(users.size) % 5 == 0, 1.0, 5.0)
    whole = pl.DataFrame({"who": users, "item_id": items, "stars": rating, "when": times}).sort("when")
    old, late = tmp_path / "old.csv", tmp_path / "late.csv"
    whole[:700].write_csv(old)
    whole[700:].rename({"who": "user"}).write_csv(late)
    options = {**SMALL, "model": "mf", "epochs": 1, "min_rating": 4.0, "where": "item_id <> 3", "k_core": 2}
    run = fastrec.train(
        str(old), out=str(tmp_path / "a"), user_col="who", rating_col="stars", time_col="when", **options
    ).run
    out = tmp_path / "b"
    assert (
        main(
            [
                "update",
                str(run.path),
                "--data",
                str(late),
                "--user-col",
                "user",
                "--epochs",
                "1",
                "--no-progress",
                "--out",
                str(out),
            ]
        )
        == 0
    )
    child = open_run(out)
    found = set().union(*(pairs(getattr(child.split(), p)) for p in ("train", "validation", "test")))
    wanted = {(u, i) for u, i, r, _ in whole.iter_rows() if r > 4 and i != 3}
    assert found <= wanted
    assert len(found) > 0.9 * len(wanted)
    assert child.config["data"] == str(late)
    assert child.config["user_col"] == "user"
    assert child.manifest["update"]["parent"] == str(run.path)
    with pytest.raises(ConfigError, match=r"filters its data by min_rating = 4.0, where = .*give the log as a path"):
        fastrec.update(run, made(LATE), out=str(tmp_path / "c"))


def test_refusals(parent: Run, tmp_path: Path) -> None:
    out = str(tmp_path / "b")
    with pytest.raises(ConfigError, match=r"model, seed: an update keeps the run's own; it takes user_col, .*lr"):
        fastrec.update(parent, made(LATE), model="gmf", seed=3, out=out)
    with pytest.raises(ConfigError, match='positives = \'some\': must be "all" or "new"'):
        fastrec.update(parent, made(LATE), positives="some", out=out)
    with pytest.raises(ConfigError, match="data is a list"):
        fastrec.update(parent, [1, 2], out=out)
    with pytest.raises(DataError, match=r"has no training positive that .* did not train on"):
        fastrec.update(parent, parent.split_with_times().train, positives="new", out=out)
    copy = tmp_path / "old"
    shutil.copytree(parent.path, copy)
    run = open_run(copy)
    run.record(status="interrupted")
    with pytest.raises(CheckpointError, match=r"its training has not ended .*--resume"):
        fastrec.update(copy, made(LATE), out=out)
    del run.manifest["stream_version"]  # as version 1 wrote it
    run.record(status="done")
    with pytest.raises(CheckpointError, match=r"stream version 1, .* cannot update it") as error:
        fastrec.update(copy, made(LATE), out=out)
    assert "\n" not in str(error.value)
    assert not Path(out).exists()
    assert main(["update", str(copy), "--data", str(tmp_path / "none.csv"), "--out", out]) == 1


def test_a_start_that_does_not_fit_is_refused(parent: Run) -> None:
    model = parent.model()
    weights = dict(parent.model().state_dict())
    weights["bias"] = torch.zeros(2)
    with pytest.raises(ConfigError, match=r"MF.bias: \[2\] in the run, \[1\] with the new data"):
        Start(weights=weights).fill(model)
    with pytest.raises(ConfigError, match="has weights bias, other that the run or the model lacks"):
        Start(weights={**{k: v for k, v in weights.items() if k != "bias"}, "other": weights["bias"]}).fill(model)


def test_movielens_100k_by_time(real_data: Any, tmp_path: Path) -> None:
    x = fastrec.load(real_data("ml-100k"))
    assert x.timestamps is not None
    at = np.sort(x.timestamps)[int(0.9 * x.n_interactions)]
    old, late = (x.keep(mask).reindex("time") for mask in (x.timestamps < at, x.timestamps >= at))
    options = {**SMALL, **KINDS["gmf lazy-adam fused"], "batch_size": 1024, "epochs": 2}
    before = fastrec.train(old, out=str(tmp_path / "a"), **options)
    results = [
        fastrec.update(before.run, data, out=str(tmp_path / name), **UPDATE) for name, data in (("b", x), ("c", late))
    ]
    assert (tmp_path / "b" / "model.safetensors").read_bytes() == (tmp_path / "c" / "model.safetensors").read_bytes()
    split = results[0].run.split()
    assert split.train.n_interactions + split.validation.n_interactions + split.test.n_interactions == 100_000
    assert pairs(before.run.split().train) <= pairs(split.train)
    counts = results[1].run.manifest["update"]["counts"]
    assert counts["new_pairs"] == late.n_interactions
    assert counts["new_users"] == x.n_users - old.n_users > 0
    assert split.train.titles is not None
    table = results[1].run.catalog().movies
    assert table is not None
    assert table.height == 1682
    assert len(fastrec.recommend(results[1].run, int(split.train.user_ids[-1]), k=3)) == 3, "a newcomer is served"
