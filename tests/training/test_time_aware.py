"""``negatives_from = existing``: both engines, resume, update, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrec
from fastrec.cli.main import main
from fastrec.config import Config
from fastrec.data.split import Split, ratio_split
from fastrec.errors import ConfigError, DataError
from fastrec.runs import open_split, save_split
from fastrec.training.build import build_engine, make_sampler
from fastrec.training.fit import fit, recorded_config, resume
from fastrec.training.resolve import resolve
from fastrec.training.trainer import Trainer
from tests.data.test_grown import EVERY, LATE, OLD, made, pairs

SMALL: dict[str, Any] = {
    "dim": 4, "epochs": 2, "batch_size": 64, "candidates": 9, "progress": False, "tensorboard": False, "patience": 0,
    "negatives_from": "existing", "model": "mf",
}  # fmt: skip
ENGINES: dict[str, dict[str, Any]] = {"torch": {}, "fused": {"engine": "fused", "optimizer": "sgd"}}


@pytest.fixture(scope="module")
def split() -> Split:
    return ratio_split(made(EVERY), 0.2, 0.2, seed=5)


def train(split: Split, out: Path, **options: Any) -> fastrec.training.fit.Result:  # type: ignore[name-defined]
    return fit(split, Config(**{**SMALL, **options}), out=out)


@pytest.mark.parametrize("engine", ENGINES)
def test_a_cut_run_goes_on_to_the_same_bytes(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, engine: str
) -> None:
    whole = train(split, tmp_path / "a", **ENGINES[engine])
    inner = Trainer.run
    with monkeypatch.context() as m:
        m.setattr(Trainer, "run", lambda self: inner(self, stop_after=3))
        assert train(split, tmp_path / "b", **ENGINES[engine]).stopped == "interrupted"
    resume(tmp_path / "b")
    for name in ("model.safetensors", "data.safetensors", "config.toml"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes(), name
    plain = train(split, tmp_path / "c", **ENGINES[engine], negatives_from="all")
    assert (tmp_path / "a" / "model.safetensors").read_bytes() != (tmp_path / "c" / "model.safetensors").read_bytes()
    assert not any("had appeared" in n for n in plain.notes)
    assert whole.run.config["negatives_from"] == "existing"


def test_both_engines_draw_what_existed(split: Split) -> None:
    train_part = split.train
    first = np.full(split.n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, train_part.items, train_part.timestamps)
    drawn = []
    for options in ENGINES.values():
        engine = build_engine(split, resolve(Config(**{**SMALL, **options})))
        batch = engine.stream.read(1, 0, engine.n_positives)
        engine.close()
        at = {(u, i): t for u, i, t in zip(train_part.users, train_part.items, train_part.timestamps)}
        times = np.array([at[pair] for pair in zip(batch.users, batch.items[:, 0])])
        assert (first[batch.items[:, 1:]] <= times[:, None]).all()
        assert not any(int(i) in train_part.row(u) for u, row in zip(batch.users, batch.items[:, 1:]) for i in row)
        drawn.append(batch.items)
    assert np.array_equal(*drawn)


def test_positives_without_a_legal_item_are_counted(tmp_path: Path) -> None:
    """The very first interactions: nothing else exists yet."""
    x = made(EVERY)
    times = x.timestamps.copy()
    times[: x.indptr[1]] = -np.arange(1, x.indptr[1] + 1)  # user 0 is the first, item by item
    split = ratio_split(replace(x, timestamps=times), 0.2, 0.2, seed=5)
    n = int(split.train.degrees[0])
    result = train(split, tmp_path / "a", epochs=1)
    assert f"{n} training positives left out: no other item had appeared by their time" in " ".join(result.notes)
    again = make_sampler(result.run.split_with_times(), recorded_config(result.run))
    assert again.describe()["without_legal_item"] == n


def test_an_update_keeps_the_times(tmp_path: Path) -> None:
    options = {k: v for k, v in SMALL.items() if k != "candidates"}  # everything in train: no first appearance moves
    before = fastrec.train(made(OLD), split="none", out=str(tmp_path / "a"), **options)
    after = fastrec.update(before.run, made(LATE), out=str(tmp_path / "b"), epochs=1, progress=False)
    assert after.run.config["negatives_from"] == "existing"
    assert pairs(before.run.split().train) <= pairs(after.run.split().train)
    old, new = (make_sampler(r.split_with_times(), recorded_config(r)) for r in (before.run, after.run))
    train_part = before.run.split_with_times().train
    rows = {u for u in range(train_part.n_users) if np.array_equal(train_part.row(u), after.run.split().train.row(u))}
    kept = np.isin(train_part.users, list(rows))
    users = train_part.users[kept]
    positions = users.astype(np.int64) << 32 | train_part.items[kept]
    drawn = [s.sample(users, epoch=0, positions=positions) for s in (old, new)]
    assert kept.any()
    assert np.array_equal(*drawn), "newer items and users change no draw of an earlier positive"


def test_a_saved_split_keeps_its_times(split: Split, tmp_path: Path) -> None:
    save_split(tmp_path / "s.safetensors", split)
    options = {k: v for k, v in SMALL.items() if k != "epochs"}
    result = fastrec.train(str(tmp_path / "s.safetensors"), out=str(tmp_path / "a"), epochs=1, **options)
    assert np.array_equal(result.run.split_with_times().train.timestamps, split.train.timestamps)
    parts = {p: getattr(split, p) for p in ("train", "validation", "test")}
    wide = replace(split, **{p: replace(x, timestamps=x.timestamps * 10**9 - 5) for p, x in parts.items()})
    save_split(tmp_path / "w.safetensors", wide)
    assert np.array_equal(open_split(tmp_path / "w.safetensors", times=True).test.timestamps, wide.test.timestamps)
    assert open_split(tmp_path / "w.safetensors").test.timestamps is None


MANY = {"loss": "softmax", "model": "mf", "engine": "fused", "optimizer": "sgd"}


def test_what_is_refused(split: Split, tmp_path: Path) -> None:
    for options, says in (
        ({"distribution": "popularity"}, r"negatives_from = 'existing'.* it needs distribution = uniform"),
        (
            {"loss": "softmax", "model": "mf", "engine": "fused", "optimizer": "sgd"},
            r"negatives_from = .existing.: engine = fused",
        ),
        (
            {**MANY, "negatives_from": "all", "distribution": "popularity"},
            "distribution = .popularity.: engine = fused",
        ),
        ({"loss": "inbatch-softmax"}, r"negatives_from = 'existing'.* a loss without in-batch negatives"),
        ({"unrated_negatives": True}, r"unrated_negatives = True.* has not appeared"),
    ):
        with pytest.raises(ConfigError, match=says):
            resolve(Config(**{**SMALL, **options}))
    plain = Split(*(replace(getattr(split, p), timestamps=None) for p in ("train", "validation", "test")))
    with pytest.raises(DataError, match=r"has no times, and negatives_from = existing needs them"):
        train(plain, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_movielens_100k(real_data: Any, tmp_path: Path) -> None:
    words = "--negatives-from existing --model mf --epochs 1 --engine fused --optimizer sgd --lr 0.02 --dim 4"
    arguments = ["train", "--data", str(real_data("ml-100k")), *words.split(), "--batch-size", "4096", "--no-progress"]
    assert main([*arguments, "--no-tensorboard", "--out", str(tmp_path / "a")]) == 0
    run = fastrec.open_run(tmp_path / "a")
    x = run.split_with_times().train
    sampler = make_sampler(run.split_with_times(), recorded_config(run))
    positions = x.users.astype(np.int64) << 32 | x.items
    drawn = sampler.sample(x.users, epoch=0, positions=positions, threads=2)
    first = np.full(x.n_items, np.iinfo(np.int64).max)
    np.minimum.at(first, x.items, x.timestamps)
    served = drawn[:, 0] >= 0
    assert (first[drawn[served]] <= x.timestamps[served][:, None]).all()
    assert (~served).sum() == sampler.describe()["without_legal_item"]
    rows = x.users.astype(np.int64) * x.n_items
    assert not np.isin((rows[:, None] + drawn)[served], rows + x.items).any()
