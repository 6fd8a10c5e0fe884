"""Folders that other libraries open: ONNX in onnxruntime, an index in usearch, vectors in TensorBoard's projector."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from fastrec import export, models, runs
from fastrec.cli.main import main
from fastrec.data import Catalog
from fastrec.data.catalog import movies_frame
from fastrec.data.split import Split
from fastrec.errors import ConfigError, FastrecError, MissingPackageError
from tests.helpers.fakes import interactions

N_USERS, N_ITEMS = 9, 300
TITLE = "Żółć\t\x1b[31m\r\n<b>é</b>"


def made(folder: Path, kind: str, **options: object) -> tuple[runs.Run, torch.nn.Module]:
    ids = [f"i{k}" for k in range(N_ITEMS)]
    titles = [TITLE, "", *[f"Amélie {k} (2001)" for k in range(2, N_ITEMS)]]
    genres = ["Drama|War" if k % 2 else "" for k in range(N_ITEMS)]
    catalog = Catalog(movies=movies_frame(ids, titles, genres))
    fields = {"item_ids": np.array(ids), "titles": np.array(titles), "catalog": catalog}
    rows, tested = [[k] for k in range(N_USERS)], [[k + 20] for k in range(N_USERS)]
    split = Split(*[interactions(part, N_ITEMS, "films train", **fields) for part in (rows, [[]] * N_USERS, tested)])
    run = runs.create(folder, config={"model": kind, "dim": 6}, split=split)
    model = models.build(kind, n_users=N_USERS, n_items=N_ITEMS, dim=6, seed=4, init_std=0.5, **options)
    if kind == "mf":
        with torch.no_grad():
            model.item_bias.normal_(generator=torch.Generator().manual_seed(1))
    run.save_model(model)
    return run, model


@pytest.mark.parametrize("kind", models.names())
def test_onnxruntime_gives_the_scores_of_torch(tmp_path: Path, kind: str) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    run, model = made(tmp_path / "run", kind)
    out = export(run, to="onnx", out=tmp_path / "out")
    assert sorted(os.listdir(out)) == ["items.parquet", "model.onnx", "users.parquet"]
    session = runtime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    rng = np.random.default_rng(3)
    for rows, each in ((1, 1), (7, 3), (64, 20)):
        users, items = rng.integers(0, N_USERS, rows), rng.integers(0, N_ITEMS, (rows, each))
        (scores,) = session.run(["scores"], {"users": users, "items": items})
        with torch.no_grad():
            want = model.eval()(torch.from_numpy(users), torch.from_numpy(items)).numpy()
        assert scores.dtype == np.float32
        np.testing.assert_allclose(scores, want, rtol=1e-5, atol=1e-6)
    assert json.loads(session.get_modelmeta().custom_metadata_map["fastrec"])["model"]["model"] == kind
    table = pl.read_parquet(out / "items.parquet")
    assert table.columns == ["row", "id", "title"]
    assert table.row(3) == (3, "i3", "Amélie 3 (2001)")


def test_layers_of_a_run_are_those_of_the_graph(tmp_path: Path) -> None:
    pytest.importorskip("onnx", reason="the extra `onnx` is not installed")
    runtime = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    run, model = made(tmp_path / "run", "mlp", layers=[8, 4])
    out = export(run, to="onnx", out=tmp_path / "out")
    pair = {"users": np.arange(3), "items": np.arange(6).reshape(3, 2)}
    session = runtime.InferenceSession(str(out / "model.onnx"), providers=["CPUExecutionProvider"])
    with torch.no_grad():
        want = model.eval()(*map(torch.from_numpy, pair.values())).numpy()
    np.testing.assert_allclose(session.run(None, pair)[0], want, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["mf", "gmf"])
def test_usearch_finds_what_exact_search_finds(tmp_path: Path, kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    usearch = pytest.importorskip("usearch.index", reason="the extra `ann` is not installed")
    run, model = made(tmp_path / "run", kind)
    out = tmp_path / "out"
    assert main(["export", str(run.path), "--to", "ann", "--out", str(out)]) == 0
    about = json.loads((out / "index.json").read_text())
    assert f"recall@10 {about['recall_at_10']:.4f} against exact search, over 9 users" in capsys.readouterr().out
    index = usearch.Index.restore(str(out / "index.usearch"))
    users, items = (pl.read_parquet(out / f"{name}.parquet") for name in ("users", "items"))
    assert len(index) == N_ITEMS == items.height
    vectors = np.array(users["vector"].to_list(), np.float32)
    found = index.search(vectors, 10)
    with torch.no_grad():
        scores = model.score_all(torch.arange(N_USERS, dtype=torch.int32)).numpy()
    best = np.argsort(-scores, axis=1)[:, :10]
    hits = np.mean([len({*a} & {*b}) / 10 for a, b in zip(found.keys.tolist(), best.tolist())])
    assert hits > 0.7, "an approximate index of few items, built by several threads"
    assert about["recall_at_10"] == pytest.approx(hits, abs=0.02)
    product = vectors @ np.array(items["vector"].to_list(), np.float32).T
    at = found.keys.astype(np.int64)
    np.testing.assert_allclose(1 - found.distances, np.take_along_axis(product, at, axis=1), rtol=1e-4, atol=1e-5)
    assert items["id"][int(at[0, 0])] == f"i{at[0, 0]}"


@pytest.mark.parametrize("kind", ["mf", "mlp"])
def test_tensorboard_reads_the_projector(tmp_path: Path, kind: str) -> None:
    from google.protobuf import text_format
    from tensorboard.plugins.projector import ProjectorConfig
    from tensorboard.plugins.projector.projector_plugin import _read_tensor_tsv_file

    run, model = made(tmp_path / "run", kind)
    out = export(run, to="projector", out=tmp_path / "out")
    config = text_format.Parse((out / "projector_config.pbtxt").read_text(), ProjectorConfig())
    (embedding,) = config.embeddings
    vectors = np.array(_read_tensor_tsv_file(str(out / embedding.tensor_path)))
    table = model.state_dict()["item_factors" if kind == "mf" else model.item_rows[0]]
    np.testing.assert_allclose(vectors, table.numpy(), rtol=1e-6)
    lines = (out / embedding.metadata_path).read_bytes().decode("ascii").splitlines()
    assert lines[0] == "title\tid\tyear\tgenres\tinteractions"
    assert lines[1] == "Zolc [31m <b>e</b>\ti0\t\t\t1"
    assert lines[2] == "i1\ti1\t\tDrama|War\t1", "an empty title is shown by its id"
    assert lines[4] == "Amelie 3 (2001)\ti3\t2001\tDrama|War\t1"
    assert len(lines) == 1 + N_ITEMS
    assert all(line.count("\t") == 4 for line in lines)


@pytest.mark.parametrize(
    ("to", "package", "line"),
    [("onnx", "onnx", r"pip install 'fastrec\[onnx\]'"), ("ann", "usearch.index", r"pip install 'fastrec\[ann\]'")],
)
def test_a_missing_package_is_named_with_the_line_that_installs_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str, package: str, line: str
) -> None:
    run, _ = made(tmp_path / "run", "gmf")
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(MissingPackageError, match=f"{package.partition('.')[0]} is not installed: {line}"):
        export(run, to=to, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_effect_or_no_vectors_is_refused(tmp_path: Path) -> None:
    run, _ = made(tmp_path / "run", "gmf")
    for to in ("onnx", "projector", "ann"):
        with pytest.raises(ConfigError, match="bias and dtype have no effect"):
            export(run, to=to, out=tmp_path / "out", dtype="float16")
    pytest.importorskip("usearch.index", reason="the extra `ann` is not installed")
    mlp, _ = made(tmp_path / "mlp", "mlp")
    with pytest.raises(ConfigError, match="a mlp scores through a network"):
        export(mlp, to="ann", out=tmp_path / "out")


def test_a_folder_is_written_completely_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run, _ = made(tmp_path / "run", "gmf")

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savetxt", full)
    with pytest.raises(FastrecError, match="No space left"):
        export(run, to="projector", out=tmp_path / "out")
    assert sorted(os.listdir(tmp_path)) == ["run"]
