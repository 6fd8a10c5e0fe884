"""Exports: the vectors give the scores, with the source's ids, in every format; nothing is overwritten."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec import runs
from fastrec.data.interactions import map_safetensors, unpack
from fastrec.data.split import Split
from fastrec.errors import ConfigError, FastrecError
from fastrec.inference.export import export
from fastrec.models import build
from tests.helpers.fakes import random_parts

IDS = {
    "numbers": (np.array([10, 7, 3, 8]), np.arange(30) * 7 + 1),
    "text": (np.array(["ann", "bob", "cé", "d"]), np.array([f"item {i}" for i in range(30)])),
}


def make_run(tmp_path: Path, kind: str, ids: str = "numbers", titled: bool = True) -> tuple[runs.Run, Any]:

    user_ids, item_ids = IDS[ids]
    titles = np.array([f"Amélie: {i}" for i in range(30)]) if titled else None
    parts = random_parts(np.random.default_rng(4), 4, 30)
    split = Split(*(replace(p, user_ids=user_ids, item_ids=item_ids, titles=titles) for p in parts))
    run = runs.create(tmp_path / "run", config={"model": kind}, split=split)
    model = build(kind, n_users=4, n_items=30, dim=5, seed=1, init_std=1.0)
    with torch.no_grad():
        for p in model.parameters():
            p.add_(torch.linspace(-1, 1, p.numel()).reshape(p.shape))  # biases that start at 0 get values too
    run.save_model(model)
    return run, model


def read(path: Path, to: str) -> dict[str, Any]:
    """user_ids, item_ids, user_vectors, item_vectors, item_bias, titles, whatever the format."""
    if to == "npz":
        with np.load(path, allow_pickle=False) as f:
            return dict(f)
    if to == "safetensors":
        tensors, _ = map_safetensors(path)
        names = ("user_ids", "item_ids", "titles")
        found = {n: unpack(n, tensors) for n in names if n in tensors or f"{n}.bytes" in tensors}
        return {**found, **{k: v for k, v in tensors.items() if k in ("user_vectors", "item_vectors", "item_bias")}}
    pq = pytest.importorskip("pyarrow.parquet")
    rows = pq.read_table(path).to_pylist()
    users, items = ([r for r in rows if r["kind"] == kind] for kind in ("user", "item"))
    assert len(users) + len(items) == len(rows)
    assert all(r["title"] is None and r["bias"] == 0 for r in users)
    found = {
        "user_ids": np.array([r["id"] for r in users]),
        "item_ids": np.array([r["id"] for r in items]),
        "user_vectors": np.array([r["vector"] for r in users], np.float32),
        "item_vectors": np.array([r["vector"] for r in items], np.float32),
        "item_bias": np.array([r["bias"] for r in items], np.float32),
    }
    return found if items[0]["title"] is None else {**found, "titles": np.array([r["title"] for r in items])}


@pytest.mark.parametrize("to", ["npz", "parquet", "safetensors"])
@pytest.mark.parametrize("kind", ["gmf", "mf"])
@pytest.mark.parametrize("ids", IDS)
def test_vectors_give_the_scores_up_to_a_constant_a_user(tmp_path: Path, to: str, kind: str, ids: str) -> None:
    run, model = make_run(tmp_path, kind, ids)
    out = export(runs.open_run(run.path), to=to, out=tmp_path / "vectors")
    found = read(out, to)
    assert np.array_equal(found["user_ids"], IDS[ids][0])
    assert np.array_equal(found["item_ids"], IDS[ids][1])
    assert found["titles"].tolist() == [f"Amélie: {i}" for i in range(30)]
    with torch.no_grad():
        scores = model.score_all(torch.arange(4, dtype=torch.int32)).numpy()
    constant = scores - (found["user_vectors"] @ found["item_vectors"].T + found["item_bias"])
    assert np.ptp(constant, axis=1).max() < 1e-5
    assert found["user_vectors"].dtype == found["item_vectors"].dtype == found["item_bias"].dtype == np.float32


@pytest.mark.parametrize("to", ["npz", "parquet", "safetensors"])
def test_without_titles_there_are_none(tmp_path: Path, to: str) -> None:
    run, _ = make_run(tmp_path, "gmf", titled=False)
    assert "titles" not in read(export(run, to=to, out=tmp_path / "vectors"), to)


@pytest.mark.parametrize("kind", ["mlp", "neumf"])
def test_models_without_vectors_are_refused(tmp_path: Path, kind: str) -> None:
    run, _ = make_run(tmp_path, kind)
    with pytest.raises(ConfigError, match=f"a {kind} scores through a network and has no vectors"):
        export(run, to="npz", out=tmp_path / "x.npz")
    assert not (tmp_path / "x.npz").exists()


@pytest.mark.parametrize("to", ["npz", "parquet", "safetensors"])
def test_nothing_is_overwritten_or_half_written(tmp_path: Path, to: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = make_run(tmp_path, "gmf")
    (tmp_path / "mine").write_text("mine")
    with pytest.raises(ConfigError, match="exists and is not overwritten; name another"):
        export(run, to=to, out=tmp_path / "mine")
    assert (tmp_path / "mine").read_text() == "mine"
    with pytest.raises(ConfigError, match="there is no folder"):
        export(run, to=to, out=tmp_path / "no" / "x")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(FastrecError, match="No space left"):
        export(run, to=to, out=tmp_path / "x")
    assert sorted(os.listdir(tmp_path)) == ["mine", "run"]


def test_an_unknown_format_is_refused(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, "gmf")
    with pytest.raises(ConfigError, match="to='csv': must be one of npz, parquet, safetensors"):
        export(run, to="csv", out=tmp_path / "x")
