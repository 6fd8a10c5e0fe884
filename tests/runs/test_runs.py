"""Run folders: whole, named apart, verified; what is damaged is refused with what to do."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fastrec import runs
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, ConfigError, FastrecError
from fastrec.models import build
from fastrec.runs import folder
from tests.helpers.fakes import random_parts

ROOT = Path(__file__).resolve().parents[2]
CONFIG = {"model": "gmf", "data": "ml/tiny set", "dim": 4, "lr": 0.1, "layers": [], "out": None}


@pytest.fixture
def split(rng: np.random.Generator) -> Split:
    parts = random_parts(rng, 7, 40)
    ids = {
        "user_ids": np.arange(100, 107),
        "item_ids": np.array([f"é{i}" for i in range(40)]),
        "titles": np.array([f"Amélie: part {i}" for i in range(40)]),
    }
    named = [replace(p, name=f"tiny {name}", **ids) for p, name in zip(parts, ("train", "validation", "test"))]
    candidates = np.full((named[2].n_interactions, 3), -1, np.int32)
    return Split(*named, how="leave-one-out", candidates=candidates, notes=("2 users stay in train",))


def test_a_run_keeps_its_config_data_and_provenance(tmp_path: Path, split: Split) -> None:
    runs.create(tmp_path / "a" / "run", config=CONFIG, split=split)
    run = runs.open_run(tmp_path / "a" / "run")
    assert run.config == {k: v for k, v in CONFIG.items() if v is not None}
    assert run.manifest["status"] == "training"
    assert run.manifest["environment"]["packages"]["numpy"] == np.__version__
    assert run.manifest["data"]["n_train"] == split.train.n_interactions
    again = run.split()
    for name in ("train", "validation", "test"):
        before, after = getattr(split, name), getattr(again, name)
        for what in ("indptr", "items", "user_ids", "item_ids", "titles"):
            assert np.array_equal(getattr(before, what), getattr(after, what)), (name, what)
        assert before.name == after.name
    assert np.array_equal(again.candidates, split.candidates)
    assert (again.how, again.notes, again.comparable) == (split.how, split.notes, split.comparable)
    assert runs.fingerprints(again) == runs.fingerprints(split) == run.manifest["data"]["fingerprints"]


def test_times_do_not_change_the_fingerprint_and_items_do(split: Split) -> None:
    timed = replace(split.train, timestamps=np.arange(split.train.n_interactions))
    assert runs.fingerprints(replace(split, train=timed)) == runs.fingerprints(split)
    assert runs.fingerprints(replace(split, how="ratio")) != runs.fingerprints(split)
    fewer = split.train.keep(np.arange(split.train.n_interactions) > 0)
    assert runs.fingerprints(replace(split, train=fewer))["split"] != runs.fingerprints(split)["split"]


def test_a_run_opens_without_polars_and_torch(tmp_path: Path, split: Split) -> None:
    runs.create(tmp_path / "run", config=CONFIG, split=split)
    code = (
        "import sys; from fastrec.runs import open_run; "
        f"open_run({str(tmp_path / 'run')!r}).split(); print('polars' in sys.modules, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "False"]


def test_nothing_is_overwritten(tmp_path: Path, split: Split) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "file").write_text("text")
    for name in ("mine", "file"):
        with pytest.raises(ConfigError, match=r"exists; every run gets a new folder.*name another"):
            runs.create(tmp_path / name, config=CONFIG, split=split)
    assert os.listdir(tmp_path / "mine") == []
    assert (tmp_path / "file").read_text() == "text"
    with pytest.raises(ConfigError, match="cannot be made"):
        runs.create(tmp_path / "file" / "run", config=CONFIG, split=split)


def test_unnamed_runs_get_folders_of_their_own(tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder.time, "strftime", lambda _: "20261123-120000")
    names = [runs.create(None, config=CONFIG, split=split, root=tmp_path / "runs").path.name for _ in range(3)]
    assert names == [f"20261123-120000-gmf-tiny-set{suffix}" for suffix in ("", "-2", "-3")]


def test_a_run_that_cannot_be_made_leaves_nothing(
    tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise FastrecError("no space left")

    monkeypatch.setattr(folder, "save_split", full)
    with pytest.raises(FastrecError, match="no space"):
        runs.create(tmp_path / "run", config=CONFIG, split=split)
    assert os.listdir(tmp_path) == []


def test_toml_text_with_comments_is_kept(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split, toml='# model\nmodel = "gmf"\n')
    assert (tmp_path / "run" / "config.toml").read_text().startswith("# model")
    assert run.config == {"model": "gmf"}


def test_record_writes_json_and_refuses_what_is_none(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    run.record(status="finished", metrics={"HR@10": np.float64(0.5), "n": np.int64(3)}, where=Path("x"))
    assert runs.open_run(run.path).manifest["metrics"] == {"HR@10": 0.5, "n": 3}
    for bad in (float("nan"), {1, 2}):
        with pytest.raises(ConfigError, match="cannot record"):
            run.record(metrics=bad)
    assert runs.open_run(run.path).manifest["status"] == "finished"


def test_what_is_no_run_is_refused(tmp_path: Path, split: Split) -> None:
    with pytest.raises(CheckpointError, match=r"no such run folder; fastrec train makes one"):
        runs.open_run(tmp_path / "nothing")
    runs.create(tmp_path / "one", config=CONFIG, split=split)
    with pytest.raises(CheckpointError, match=r"no such run folder; the latest in .* are one"):
        runs.open_run(tmp_path / "two")
    with pytest.raises(CheckpointError, match=r"cut off while it was made \(no manifest.json\); name another"):
        runs.open_run(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"fastrec": "run 1"}', '{"fastrec": 1, "files": {}}'])
def test_a_damaged_manifest_is_refused(tmp_path: Path, split: Split, text: str) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    (run.path / "manifest.json").write_text(text)
    with pytest.raises(CheckpointError, match=r"manifest.json: damaged .*train again"):
        runs.open_run(run.path)


def test_another_version_is_refused(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    manifest = json.loads((run.path / "manifest.json").read_text())
    (run.path / "manifest.json").write_text(json.dumps({**manifest, "fastrec": "run 99"}))
    with pytest.raises(CheckpointError, match=r"made as 'run 99', this fastrec reads 'run 2'"):
        runs.open_run(run.path)


@pytest.mark.parametrize("name", ["config.toml", "data.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "altered"])
def test_a_damaged_file_is_refused(tmp_path: Path, split: Split, name: str, damage: str) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    path = run.path / name
    data = bytearray(path.read_bytes())
    if damage == "gone":
        path.unlink()
    elif damage == "cut":
        path.write_bytes(data[: len(data) // 2])
    else:
        data[-1] ^= 1
        path.write_bytes(data)
    message = "cannot be read .*copy" if damage == "gone" else "is not the file this run wrote .*copy"
    with pytest.raises(CheckpointError, match=rf"{re.escape(name)}: {message}"):
        runs.open_run(run.path).split()


def test_a_run_without_weights_says_how_to_go_on(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    with pytest.raises(CheckpointError, match=r"no weights yet \(status: training\).*--resume"):
        run.model()


@pytest.mark.parametrize("model", ["mf", "gmf", "mlp", "neumf"])
def test_weights_come_back_and_equal_weights_are_equal_bytes(tmp_path: Path, split: Split, model: str) -> None:
    for name in ("one", "two"):
        run = runs.create(tmp_path / name, config=CONFIG, split=split)
        run.save_model(build(model, n_users=7, n_items=40, dim=4, seed=3))
    assert (tmp_path / "one" / "model.safetensors").read_bytes() == (run.path / "model.safetensors").read_bytes()
    again = runs.open_run(run.path).model()
    expected = build(model, n_users=7, n_items=40, dim=4, seed=3).state_dict()
    assert {k: v.tolist() for k, v in again.state_dict().items()} == {k: v.tolist() for k, v in expected.items()}
    run.save_model(build(model, n_users=7, n_items=40, dim=4, seed=4))
    assert (tmp_path / "one" / "model.safetensors").read_bytes() != (run.path / "model.safetensors").read_bytes()


def test_altered_weights_are_refused(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    run.save_model(build("gmf", n_users=7, n_items=40, dim=4, seed=3))
    path = run.path / "model.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"model.safetensors: is not the file this run wrote .*altered"):
        runs.open_run(run.path).model()


def test_weights_of_another_shape_are_refused(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config=CONFIG, split=split)
    run.save_model(build("gmf", n_users=7, n_items=40, dim=4, seed=3))
    run.record(model={**run.manifest["model"], "dim": 5})
    with pytest.raises(CheckpointError, match=r"does not fit the model that manifest.json describes"):
        run.model()


def test_the_commit_is_that_of_fastrec_and_not_of_a_repository_around_it(tmp_path: Path) -> None:
    """An installed copy in an environment inside somebody's repository has no commit of its own."""

    def git(*arguments: str, folder: Path) -> str:
        options = ["-c", "user.name=a", "-c", "user.email=a@b"]
        done = subprocess.run(["git", *options, *arguments], cwd=folder, check=True, capture_output=True, text=True)
        return done.stdout.strip()

    def commit(at: Path) -> str:
        code = "from fastrec.runs.provenance import commit; print(commit())"
        env = {**os.environ, "PYTHONPATH": str(at)}
        return subprocess.run(
            [sys.executable, "-P", "-c", code], cwd=tmp_path, env=env, check=True, capture_output=True, text=True
        ).stdout.strip()

    git("init", "-q", folder=tmp_path)
    (tmp_path / ".gitignore").write_text("env\n")
    git("add", ".gitignore", folder=tmp_path)
    git("commit", "-qm", "x", folder=tmp_path)
    copy = tmp_path / "env"
    copy.mkdir()
    subprocess.run(["cp", "-r", str(ROOT / "fastrec"), str(copy)], check=True)
    assert commit(copy) == "None"
    git("add", "-f", "env", folder=tmp_path)
    git("commit", "-qm", "y", folder=tmp_path)
    head = git("rev-parse", "HEAD", folder=tmp_path)
    assert commit(copy).removesuffix("-dirty") == head
    (copy / "fastrec" / "errors.py").open("a").write("# changed\n")
    assert commit(copy) == f"{head}-dirty"
