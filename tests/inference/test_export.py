"""Exports: the vectors give the scores, with the source's ids, in every format; nothing is overwritten."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open

from fastrec import runs
from fastrec.config import Config
from fastrec.data.interactions import unpack
from fastrec.data.split import Split
from fastrec.errors import ConfigError, DataError, FastrecError
from fastrec.inference.export import export
from fastrec.models import build
from fastrec.training.fit import fit
from tests.helpers.fakes import interactions, random_parts

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
    """user_ids, item_ids, user_vectors, item_vectors, metric, item_bias and titles if there, whatever the format."""
    if to == "npz":
        with np.load(path, allow_pickle=False) as f:
            return {**f, "metric": f["metric"].item()}
    if to == "safetensors":
        with safe_open(path, "numpy") as f:
            header, tensors = f.metadata(), {name: f.get_tensor(name) for name in f.keys()}  # noqa: SIM118  # no mapping
        names = ("user_ids", "item_ids", "titles")
        found: dict[str, Any] = {n: unpack(n, tensors) for n in names if n in tensors or f"{n}.bytes" in tensors}
        vectors = {k: v for k, v in tensors.items() if k in ("user_vectors", "item_vectors", "item_bias")}
        return {**found, **vectors, "metric": json.loads(header["fastrec"])["metric"]}
    pq = pytest.importorskip("pyarrow.parquet")
    assert sorted(os.listdir(path)) == ["items.parquet", "users.parquet"]
    found = {}
    for kind in ("user", "item"):
        table = pq.read_table(path / f"{kind}s.parquet")
        rows = table.to_pydict()
        dtype = table.schema.field("vector").type.value_type.to_pandas_dtype()
        found[f"{kind}_ids"] = np.array(rows.pop("id"))
        found[f"{kind}_vectors"] = np.array(rows.pop("vector"), dtype)
        found["metric"] = pq.read_metadata(path / f"{kind}s.parquet").metadata[b"metric"].decode()
        if "title" in rows:
            found["titles"] = np.array(rows.pop("title"))
        if "bias" in rows:
            found["item_bias"] = np.array(rows.pop("bias"), dtype)
        assert not rows
    return found


@pytest.mark.parametrize("to", ["npz", "parquet", "safetensors"])
@pytest.mark.parametrize("kind", ["gmf", "mf"])
@pytest.mark.parametrize("ids", IDS)
def test_vectors_give_the_scores_up_to_a_constant_a_user(tmp_path: Path, to: str, kind: str, ids: str) -> None:
    run, model = make_run(tmp_path, kind, ids)
    with torch.no_grad():
        scores = model.score_all(torch.arange(4, dtype=torch.int32)).numpy()
    for bias, dtype, close in (("folded", "float32", 1e-5), ("separate", "float32", 1e-5), ("folded", "float16", 0.05)):
        out = export(runs.open_run(run.path), to=to, out=tmp_path / f"{bias} {dtype}", bias=bias, dtype=dtype)
        found = read(out, to)
        assert found["user_ids"].tolist() == IDS[ids][0].tolist()
        assert found["item_ids"].tolist() == IDS[ids][1].tolist()
        assert found["titles"].tolist() == [f"Amélie: {i}" for i in range(30)]
        assert found["user_vectors"].dtype == found["item_vectors"].dtype == dtype
        product = found["user_vectors"].astype(np.float32) @ found["item_vectors"].astype(np.float32).T
        if bias == "folded":
            assert "item_bias" not in found
            assert found["metric"] == "dot"
            assert found["item_vectors"].shape == (30, 6 if kind == "mf" else 5)
        else:
            assert found["item_bias"].dtype == dtype
            assert found["metric"] == "dot + item_bias"
            assert found["item_vectors"].shape == (30, 5)
            product += found["item_bias"]
        assert np.ptp(scores - product, axis=1).max() < close


@pytest.mark.parametrize("to", ["npz", "parquet", "safetensors"])
@pytest.mark.parametrize("engine", ["torch", "fused"])
@pytest.mark.parametrize("kind", ["gmf", "mf"])
def test_a_plain_product_ranks_as_the_model_of_either_engine_does(
    tmp_path: Path, kind: str, engine: str, to: str
) -> None:
    """What a vector database does: no bias, no option. Popular items differ, so that biases decide much."""
    rng = np.random.default_rng(2)
    rows = [np.flatnonzero(rng.random(60) < np.linspace(0.9, 0.1, 60)) for _ in range(40)]
    split = Split(*(interactions([r[k::6].tolist() for r in rows], 60) for k in (0, 1, 2)))
    options = {"batch_size": 16, "epochs": 4, "lr": 0.05, "optimizer": "sgd" if engine == "fused" else "adam"}
    config = Config(model=kind, engine=engine, dim=20, progress=False, tensorboard=False, patience=0, **options)
    run = fit(split, config, out=tmp_path / "run").run
    found = read(export(run, to=to, out=tmp_path / "v"), to)
    product = found["user_vectors"] @ found["item_vectors"].T
    model = run.model()
    if kind == "mf":
        assert model.item_bias.abs().max() > 0.01
    with torch.no_grad():
        scores = model.score_all(torch.arange(40, dtype=torch.int32)).numpy()
    top = np.argsort(-product, axis=1, kind="stable")[:, :10]
    best = -np.sort(-scores, axis=1)[:, :10]
    assert np.allclose(np.take_along_axis(scores, top, axis=1), best, atol=1e-5), "equal up to ties in float32"


def test_what_does_not_fit_float16_is_refused(tmp_path: Path) -> None:
    run, model = make_run(tmp_path, "mf")
    with torch.no_grad():
        model.item_bias[3] = 1e5
    run.save_model(model)
    with pytest.raises(DataError, match=r"item vector: 100000 does not fit float16 \(at most 65504\); export float32"):
        export(run, to="npz", out=tmp_path / "x", dtype="float16")
    assert not (tmp_path / "x").exists()


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
    with pytest.raises(ConfigError, match="to='csv': must be one of ann, npz, onnx, parquet, projector, safetensors"):
        export(run, to="csv", out=tmp_path / "x")
    with pytest.raises(ConfigError, match="bias='none': must be one of folded, separate"):
        export(run, to="npz", out=tmp_path / "x", bias="none")
    with pytest.raises(ConfigError, match="dtype='int8': must be one of float32, float16"):
        export(run, to="npz", out=tmp_path / "x", dtype="int8")


def test_a_full_disk_is_one_line_in_every_format(tmp_path: Path) -> None:
    """Polars raises an error of its own, which holds the system's."""
    resource = pytest.importorskip("resource")
    run, _ = make_run(tmp_path, "mf")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    for to in ("npz", "parquet", "safetensors"):
        resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))
        try:
            with pytest.raises(FastrecError, match=r"out: cannot be written \(File too large\); nothing was left"):
                export(run, to=to, out=tmp_path / "out")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        assert os.listdir(tmp_path) == ["run"]


def test_an_export_removes_what_a_killed_one_left(tmp_path: Path) -> None:
    run, _ = make_run(tmp_path, "mf")
    (tmp_path / ".out.123-140540102484544.part").mkdir()
    (tmp_path / ".out.123-140540102484544.part" / "users.parquet").write_bytes(b"half")
    export(run, to="parquet", out=tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["out", "run"]
