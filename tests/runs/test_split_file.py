"""A split saved by itself: the same when opened, refused when damaged, and enough to train on without Polars."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec import files, runs
from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import ConfigError, DataError, FastrecError
from fastrec.training.job import prepare
from tests.helpers.fakes import random_parts
from tests.helpers.training import positives

ROOT = Path(__file__).resolve().parents[2]
SMALL = ["epochs=1", "layers=[8;4]", "batch_size=32", "candidates=9", "device=cpu"]


@pytest.fixture
def split(rng: np.random.Generator) -> Split:
    parts = random_parts(rng, 7, 40)
    ids = {"user_ids": np.array(["zoë", *"bcdefg"]), "item_ids": np.arange(5, 45), "titles": None}
    named = [replace(p, name=f"tiny {name}", **ids) for p, name in zip(parts, ("train", "validation", "test"))]
    candidates = np.full((named[2].n_interactions, 3), -1, np.int32)
    return Split(*named, how="of its own", candidates=candidates, comparable=True, notes=("one", "two"))


def whole(n_users: int = 60, n_items: int = 40) -> Interactions:
    indptr, items = positives(n_users=n_users, n_items=n_items)
    return Interactions(indptr, items, user_ids=np.arange(n_users), item_ids=np.arange(n_items), name="small")


def untested(split: Split) -> Split:
    return replace(split, test=split.test.keep(np.zeros(split.test.n_interactions, np.bool_)))


def choose(*arguments: str) -> subprocess.CompletedProcess[str]:
    """scripts/choose_ncf.py where no Polars is installed."""
    code = (
        "import runpy, sys; sys.modules['polars'] = None; sys.path.insert(0, 'scripts')\n"
        f"sys.argv = ['choose_ncf.py', *{list(arguments)!r}]\n"
        "runpy.run_path('scripts/choose_ncf.py', run_name='__main__')"
    )
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)


def test_a_split_comes_back_whole(tmp_path: Path, split: Split) -> None:
    digest = runs.save_split(tmp_path / "a.safetensors", split)
    again = runs.open_split(tmp_path / "a.safetensors")
    for name in ("train", "validation", "test"):
        before, after = getattr(split, name), getattr(again, name)
        for what in ("indptr", "items", "user_ids", "item_ids"):
            assert np.array_equal(getattr(before, what), getattr(after, what)), (name, what)
        assert before.name == after.name
    assert np.array_equal(again.candidates, split.candidates)
    assert (again.how, again.notes, again.comparable) == (split.how, split.notes, True)
    assert runs.fingerprints(again) == runs.fingerprints(split)
    assert runs.save_split(tmp_path / "b.safetensors", again) == digest
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.safetensors", "b.safetensors"]


def test_the_data_of_a_run_are_such_a_file(tmp_path: Path, split: Split) -> None:
    run = runs.create(tmp_path / "run", config={"model": "gmf"}, split=split)
    assert runs.fingerprints(runs.open_split(run.path / "data.safetensors")) == runs.fingerprints(split)


def test_a_damaged_or_other_file_is_refused(tmp_path: Path, split: Split) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(DataError, match=r"x\.safetensors: no such file.*save_split"):
        runs.open_split(path)
    with pytest.raises(DataError, match="no such file"):
        runs.open_split(tmp_path)
    runs.save_split(path, split)
    data = path.read_bytes()
    for end in (0, 4, 9, len(data) // 2, len(data) - 1):
        path.write_bytes(data[:end])
        with pytest.raises(DataError, match=r"x\.safetensors: not a complete saved split .*save it again"):
            runs.open_split(path)
    whole().save(path)
    with pytest.raises(DataError, match=r"x\.safetensors: not a"):
        runs.open_split(path)
    files.write_tensors(path, {"indptr": np.zeros(1, np.int64)})
    with pytest.raises(DataError, match=r"not a saved split \(it has no 'fastrec'\)"):
        runs.open_split(path)


@pytest.mark.parametrize(
    ("meta", "says"),
    [
        ({"version": 3}, "version 3, this fastrec reads 2"),
        ({"names": ["a", "b"]}, "not a complete saved split"),
        ({"notes": None}, "not a complete saved split"),
    ],
)
def test_what_another_version_wrote_is_refused(tmp_path: Path, split: Split, meta: dict[str, Any], says: str) -> None:
    path = tmp_path / "x.safetensors"
    runs.save_split(path, split)
    data = path.read_bytes()
    length = int.from_bytes(data[:8], "little")
    header = json.loads(data[8 : 8 + length])
    header["__metadata__"]["fastrec"] = json.dumps({**json.loads(header["__metadata__"]["fastrec"]), **meta})
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(DataError, match="checksum does not fit"):
        runs.open_split(path)
    header["__metadata__"].pop("checksum")
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + data[8 + length :])
    with pytest.raises(DataError, match=says):
        runs.open_split(path)


def test_parts_that_do_not_fit_are_refused(tmp_path: Path, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrec.runs import split_file

    for part in (np.zeros(3, np.uint8), np.full(10_000, 7, np.uint8)):

        def damaged(path: Any, tensors: Any, meta: Any, part: Any = part, **options: Any) -> str:
            size = tensors["part"].size
            return files.write_tensors(path, {**tensors, "part": part[:size]}, meta, **options)

        monkeypatch.setattr(split_file, "write_tensors", damaged)
        runs.save_split(tmp_path / "x.safetensors", split)
        with pytest.raises(DataError, match="the parts do not fit"):
            runs.open_split(tmp_path / "x.safetensors")


def test_a_split_that_cannot_be_written_says_so(tmp_path: Path, split: Split) -> None:
    with pytest.raises(FastrecError, match="cannot be written"):
        runs.save_split(tmp_path / "none" / "x.safetensors", split)


def test_a_saved_split_trains_without_polars(tmp_path: Path) -> None:
    path = tmp_path / "small.safetensors"
    runs.save_split(path, ratio_split(whole(), test=0.2, validation=0.2))
    code = (
        "import sys; sys.modules['polars'] = None\n"
        "from fastrec.config import Config\nfrom fastrec.runs import open_split\nfrom fastrec.training.fit import fit\n"
        "config = Config(epochs=1, dim=4, candidates=9, progress=False, tensorboard=False)\n"
        f"print(*fit(open_split({str(path)!r}), config, out={str(tmp_path / 'run')!r}).metrics, sep='|')"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "9 candidates|full ranking", done.stderr


def test_recipes_are_scored_on_a_saved_split_without_polars(tmp_path: Path) -> None:
    path = tmp_path / "part.safetensors"
    part = untested(ratio_split(whole(), test=0.2, validation=0.2))
    runs.save_split(path, part)
    done = choose("ncf-mlp-64", "lr=.001,.01", *SMALL, "--threads", "1", "--split", str(path))
    rows = done.stdout.splitlines()
    assert rows[0].endswith(f"validation part of ncf-ml-1m, {runs.fingerprints(part)['split'][:12]}"), done.stderr
    assert [row.startswith("| lr=") for row in rows[3:]] == [True, True], done.stdout + done.stderr


def test_recipes_are_never_scored_on_a_test_part(tmp_path: Path) -> None:
    path = tmp_path / "tested.safetensors"
    runs.save_split(path, ratio_split(whole(), test=0.2, validation=0.2))
    done = choose("ncf-mlp-64", *SMALL, "--split", str(path))
    assert done.returncode == 1
    assert "recipes are chosen on a validation part without a test" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_saved_split_is_data_to_train_on(tmp_path: Path) -> None:
    """By its path, without Polars, as it was cut; options of a log are refused."""
    path = tmp_path / "whole.safetensors"
    runs.save_split(path, ratio_split(whole(), test=0.2, validation=0.1, seed=3))
    command = ["train", "--data", str(path), "--out", str(tmp_path / "run"), "--epochs", "1", "--device", "cpu"]
    code = f"import sys; sys.modules['polars'] = None; from fastrec.cli.main import main; sys.exit(main({command!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    again = runs.open_run(tmp_path / "run").split()
    assert runs.fingerprints(again) == runs.fingerprints(runs.open_split(path))
    for option in ({"min_rating": 4.0}, {"user_col": "u"}):
        with pytest.raises(ConfigError, match=f"{next(iter(option))}: .*comes with its own split"):
            prepare(Config(data=str(path), **option))
    assert not runs.is_split_file(whole().save(tmp_path / "log.safetensors"))
