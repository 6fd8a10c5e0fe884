"""What writes files: each world has an old state, an act that changes it, and a check of whatever state is found.

The check of a state returns "old", "new" or "nothing"; anything else is an AssertionError or an error of fastrec.
"""

from __future__ import annotations

import functools
import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec.config import Config
from fastrec.data.catalog import Catalog
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import CheckpointError
from fastrec.inference.export import export
from fastrec.inference.recommender import Recommender
from fastrec.runs import open_run, open_split, save_split
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.fit import fit, resume
from fastrec.training.trainer import Trainer
from scripts.torture.children import in_child
from tests.helpers.training import positives

OPTIONS: dict[str, Any] = {
    "dim": 4, "epochs": 3, "batch_size": 24, "candidates": 9, "progress": False, "patience": 2, "checkpoint_every": 5,
    "log_every": 1, "threads": 1, "lr": 0.01,
}  # fmt: skip


@dataclass(frozen=True)
class World:
    """One thing that writes."""

    name: str
    prepare: Callable[[Path], Any]
    """Makes the old state in an empty folder."""
    act: Callable[[Path], Any]
    check: Callable[[Path], str]
    """The state found; goes on from it to the end where it is one to go on from."""
    durable: bool = True
    """Whether the new state survives a power cut right after the act has returned."""


@functools.cache
def data(seed: int = 5) -> Interactions:
    """40 users, 30 items."""
    indptr, items = positives(seed, n_users=40, n_items=30)
    ids = {"user_ids": np.arange(40), "item_ids": np.array([f"i{k:02}" for k in range(30)])}
    return Interactions(indptr, items, **ids, name="small")


def split(*, tables: bool = False) -> Split:
    """A train, validation and test part; with a table of items if asked for."""
    if not tables:
        return ratio_split(data())
    import polars as pl  # in a child only: its threads do not survive a fork

    items = pl.DataFrame({"item": data().item_ids.tolist(), "title": [f"Film {k}" for k in range(30)]})
    return ratio_split(replace(data(), catalog=Catalog(movies=items)))


def config(**options: Any) -> Config:
    """A run of 3 epochs with checkpoints."""
    return Config(**{**OPTIONS, **options})


def digest(path: Path) -> str:
    """sha256 of a file."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def nothing(_: Path) -> None:
    """Leave the folder empty."""


# a run

_REFERENCE: dict[str, str] = {}
"""Digest of the weights that an uninterrupted run ends with."""


def train(folder: Path) -> None:
    """Train into ``folder/run``."""
    fit(split(), config(), out=folder / "run")


def train_with_tables(folder: Path) -> None:
    """Train on data with a table of items."""
    fit(split(tables=True), config(), out=folder / "run")


def cut(folder: Path) -> None:
    """A run that was stopped after its second checkpoint."""
    inner = Trainer.run
    Trainer.run = lambda self: inner(self, stop_after=9)  # type: ignore[method-assign, misc, assignment]
    try:
        train(folder)
    finally:
        Trainer.run = inner  # type: ignore[method-assign]


def finished_weights(scratch: Path) -> str:
    """Digest of the weights of a run without a fault."""
    train(scratch)
    return digest(scratch / "run" / "model.safetensors")


def learn_reference(scratch: Path) -> None:
    """Warm this process for every child, and train once without a fault.

    The end of a run writes a table with Polars, whose threads do not survive a fork: this process stops before it.
    """
    cut(scratch)
    shutil.rmtree(scratch / "run")
    end = in_child(lambda: finished_weights(scratch))
    assert end.how == "returned", end
    _REFERENCE["weights"] = end.value
    shutil.rmtree(scratch / "run")


def run_state(folder: Path, before: str = "nothing") -> str:
    """A run folder opens and resumes to the reference's bytes, or says that it was never complete."""
    path = folder / "run"
    if not (path / "manifest.json").exists():
        assert before == "nothing", "a run that was there has lost its manifest"
        with pytest.raises(CheckpointError, match=r"no such run folder|not a run folder|cut off"):
            open_run(path)
        return "nothing"
    status = open_run(path).manifest["status"]
    result = resume(path)
    assert result.stopped in ("all epochs", "early stopping"), result.stopped
    assert digest(path / "model.safetensors") == _REFERENCE["weights"], "other weights than the run nobody disturbed"
    again = open_run(path)
    again.model(), again.split()
    assert again.manifest["status"] == "done"
    assert (path / "README.md").exists(), "a finished run has no card"
    lines = [json.loads(line) for line in (path / "metrics.jsonl").read_bytes().splitlines()]
    steps = [line["step"] for line in lines if line["kind"] == "train"]
    assert steps == sorted(set(steps)), f"metrics.jsonl has steps {steps}"
    left = [p.name for p in path.rglob(".*.part")]
    assert not left, f"parts are left: {left}"
    kept = len(list((path / "checkpoints").glob("step-*.json")))
    assert kept <= 2 or status == "done", f"{kept} checkpoints are kept"  # a power cut may undo the last deletions
    return "new" if status == "done" else "old"


def resumed(folder: Path) -> None:
    """Resume the run that was cut."""
    resume(folder / "run")


# single files


def two_checkpoints(step: int) -> Callable[[Path], None]:
    """Write the checkpoint of a step, and the best weights that belong to it."""

    def write(folder: Path) -> None:
        kept = Checkpoints(folder / "checkpoints", keep=1)
        best = kept.save_best(step, {"w": torch.full((3,), float(step))})
        kept.save(step, {"x": torch.arange(5000) * step}, {"best": best})

    return write


def checkpoint_state(folder: Path) -> str:
    """The tensors of one step, complete, with their best weights; and the next checkpoint can be written."""
    kept = Checkpoints(folder / "checkpoints", keep=1)
    tensors, meta = kept.load()
    step = meta["step"]
    assert torch.equal(tensors["x"], torch.arange(5000) * step)
    assert torch.equal(kept.load_best(meta["best"])["w"], torch.full((3,), float(step)))
    two_checkpoints(3)(folder)
    assert kept.steps() == [3]
    return {1: "old", 2: "new"}[step]


def save(seed: int) -> Callable[[Path], None]:
    """Save Interactions over what is there."""
    return lambda folder: void(data(seed).save(folder / "saved.safetensors"))


def saved_state(folder: Path) -> str:
    """Interactions of one of the two."""
    found = Interactions.open(folder / "saved.safetensors").fingerprint()
    kinds = {data(5).fingerprint(): "old", data(6).fingerprint(): "new"}
    save(7)(folder)
    assert Interactions.open(folder / "saved.safetensors").fingerprint() == data(7).fingerprint()
    assert [p.name for p in folder.iterdir()] == ["saved.safetensors"], "parts are left"
    return kinds[found]


def save_parts(seed: int) -> Callable[[Path], None]:
    """Save a split over what is there."""
    return lambda folder: void(save_split(folder / "split.safetensors", ratio_split(data(seed))))


def split_state(folder: Path) -> str:
    """A split of one of the two."""
    found = open_split(folder / "split.safetensors").train.fingerprint()
    kinds = {ratio_split(data(s)).train.fingerprint(): name for s, name in ((5, "old"), (6, "new"))}
    assert [p.name for p in folder.iterdir()] == ["split.safetensors"], "parts are left"
    return next(name for key, name in kinds.items() if key == found)


# an export


def export_to(kind: str, name: str) -> Callable[[Path], None]:
    """Export the finished run of the folder."""
    return lambda folder: void(export(open_run(folder / "run"), to=kind, out=folder / "out" / name))


def exported_state(kind: str, name: str) -> Callable[[Path], str]:
    """The export is complete or absent; absent, it can be made, and nothing of the first try is left."""

    def check(folder: Path) -> str:
        path, made = folder / "out" / name, folder / "again"
        state = "new" if path.exists() else "old"
        if state == "old":
            export_to(kind, name)(folder)
        made.mkdir()
        export(open_run(folder / "run"), to=kind, out=made / name)
        for one in [made / name] if (made / name).is_file() else sorted((made / name).iterdir()):
            other = path / one.name if path.is_dir() else path
            assert other.read_bytes() == one.read_bytes(), f"{one.name} is not what an undisturbed export writes"
        left = [p.name for p in (folder / "out").iterdir() if p.name != name]
        assert not left, f"left behind: {left}"
        return state

    return check


def listed(kind: str) -> Callable[[Path], None]:
    """Write the lists of every user to a file."""
    return lambda folder: void(Recommender(open_run(folder / "run")).recommend_all(5, out=folder / "out" / f"x.{kind}"))


def listed_state(kind: str) -> Callable[[Path], str]:
    """The lists are complete or absent; absent, they can be written."""

    def check(folder: Path) -> str:
        path = folder / "out" / f"x.{kind}"
        state = "new" if path.exists() else "old"
        if state == "old":
            listed(kind)(folder)
        first = path.read_bytes()
        path.unlink()
        listed(kind)(folder)
        assert path.read_bytes() == first, "other bytes than an undisturbed call writes"
        assert [p.name for p in (folder / "out").iterdir()] == [path.name], "parts are left"
        return state

    return check


def finished(folder: Path) -> None:
    """A finished run, and a folder for the export."""
    train(folder)
    (folder / "out").mkdir()


def void(_: Any) -> None:
    """Drop a value."""


# a writer that is not atomic, for the test of the harness


def in_place(step: int) -> Callable[[Path], None]:
    """Overwrite two files in place, without a sync."""

    def write(folder: Path) -> None:
        for name in "ab":
            (folder / name).write_text(f"{step}\n")

    return write


def in_place_state(folder: Path) -> str:
    """Both files are of one step."""
    step = {(folder / name).read_text() for name in "ab"}
    assert step in ({"1\n"}, {"2\n"}), f"torn: {step}"
    return "old" if step == {"1\n"} else "new"


IN_PLACE = World("in place", in_place(1), in_place(2), in_place_state)
EXPORTS = [
    World(f"export {kind}", finished, export_to(kind, name), exported_state(kind, name))
    for kind, name in (("npz", "vectors.npz"), ("safetensors", "vectors.safetensors"), ("parquet", "vectors"))
]
WORLDS = [
    World("train", nothing, train, run_state),
    World("train with tables", nothing, train_with_tables, run_state),
    World("resume", cut, resumed, functools.partial(run_state, before="cut")),
    World("checkpoint", two_checkpoints(1), two_checkpoints(2), checkpoint_state),
    World("interactions", save(5), save(6), saved_state),
    World("split", save_parts(5), save_parts(6), split_state),
    *EXPORTS,
    *(World(f"lists {kind}", finished, listed(kind), listed_state(kind)) for kind in ("csv", "jsonl", "parquet")),
]
