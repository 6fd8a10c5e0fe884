"""Checkpoints: whole or refused, the one before offered, and resume that loses nothing."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import torch

from fastrec import models
from fastrec.errors import CheckpointError, FastrecError
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.trainer import Trainer
from tests.helpers.training import make_engine


def weights(engine: object) -> dict[str, torch.Tensor]:
    return {k: v.clone() for k, v in engine.model.state_dict().items()}  # type: ignore[attr-defined]


def trainer(folder: Path, model: str = "gmf", validate: object = None, **options: object) -> Trainer:
    patience = 2 if validate else 0
    engine = make_engine(model, 32, **options)
    return Trainer(
        engine,
        epochs=3 if validate else 2,
        patience=patience,
        validate=validate,  # type: ignore[arg-type]
        checkpoints=Checkpoints(folder, keep=3),
        checkpoint_every=4,
        log_every=3,
        progress=False,
    )


@pytest.mark.parametrize(
    ("model", "options"),
    [*((model, {}) for model in models.names()), ("mlp", {"dropout": 0.3}), ("neumf", {"dropout": 0.3, "l2": 0.01})],
)
def test_cut_at_every_step_and_resumed_ends_in_the_same_bytes(
    tmp_path: Path, model: str, options: dict[str, object]
) -> None:
    whole = trainer(tmp_path / "whole", model, **options)
    assert whole.run() == "all epochs"
    expected, losses = weights(whole.engine), whole.state.total_samples
    n_steps = whole.state.step
    assert n_steps > 6, "the run must be cut inside epochs and at their ends"
    for cut in range(1, n_steps):
        folder = tmp_path / f"cut-{cut}"
        first = trainer(folder, model, **options)
        assert first.run(stop_after=cut) == "interrupted"
        second = trainer(folder, model, **options)
        second.resume(*second.checkpoints.load())  # type: ignore[union-attr]
        assert second.state.step == cut
        assert second.run() == "all epochs"
        assert second.state.total_samples == losses
        for name, value in weights(second.engine).items():
            assert torch.equal(value, expected[name]), f"{name} after a cut at step {cut}"


@pytest.mark.parametrize("optimizer", ["adam", "adamw", "sgd", "adagrad", "lazy-adam", "row-adagrad"])
def test_every_optimizer_resumes_to_the_bit(tmp_path: Path, optimizer: str) -> None:
    decay = {"weight_decay" if optimizer == "adamw" else "l2": 0.01}
    whole = trainer(tmp_path / "whole", optimizer=optimizer, **decay)
    whole.run()
    first = trainer(tmp_path / "cut", optimizer=optimizer, **decay)
    first.run(stop_after=5)
    second = trainer(tmp_path / "cut", optimizer=optimizer, **decay)
    second.resume(*second.checkpoints.load())  # type: ignore[union-attr]
    second.run()
    for name, value in weights(second.engine).items():
        assert torch.equal(value, weights(whole.engine)[name]), name


def test_best_and_patience_survive_a_cut(tmp_path: Path) -> None:
    """The best epoch is the first; its weights, the wait and the end are the same with a cut at any step."""

    def scripted() -> object:
        values = {1: 0.5, 2: 0.4, 3: 0.3}
        return lambda t: {"full:NDCG@10": values[t.state.epoch + 1]}

    def make(folder: Path) -> Trainer:
        t = trainer(folder, validate=dict)
        t.validate = lambda: scripted()(t)  # type: ignore[operator]
        return t

    whole = make(tmp_path / "whole")
    assert whole.run() == "early stopping"
    assert (whole.state.best_epoch, whole.state.waited, whole.state.epoch) == (1, 2, 3)
    for cut in range(1, whole.state.step, 3):
        make(tmp_path / f"{cut}").run(stop_after=cut)
        second = make(tmp_path / f"{cut}")
        second.resume(*second.checkpoints.load())  # type: ignore[union-attr]
        assert second.run() == "early stopping"
        assert all(torch.equal(v, weights(whole.engine)[k]) for k, v in weights(second.engine).items())


def test_kept_are_the_last_and_the_best_they_name(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path, keep=2)
    for step in range(1, 6):
        best = folder.save_best(step, {"w": torch.full((2,), float(step))}) if step in (1, 3) else best  # noqa: F821
        folder.save(step, {"x": torch.tensor([step])}, {"best": best})
    assert folder.steps() == [4, 5]
    assert sorted(p.name for p in tmp_path.glob("best-*")) == ["best-epoch-00003.safetensors"]
    assert folder.load()[0]["x"].item() == 5
    assert folder.load_best(folder.load()[1]["best"])["w"][0] == 3


@pytest.mark.parametrize("suffix", [".safetensors", ".json"])
@pytest.mark.parametrize("how", ["flip", "cut", "gone"])
def test_a_damaged_one_is_refused_and_the_one_before_offered(tmp_path: Path, suffix: str, how: str) -> None:
    folder = Checkpoints(tmp_path, keep=3)
    for step in (10, 20):
        folder.save(step, {"x": torch.arange(100)}, {"trainer": {"step": step}})
    path = tmp_path / f"step-000000020{suffix}"
    blob = bytearray(path.read_bytes())
    if how == "gone":
        path.unlink()
        if suffix == ".json":
            assert folder.load()[1]["step"] == 10, "without its json a checkpoint never counted"
            return
    else:
        blob[len(blob) // 2] ^= 1
        path.write_bytes(blob if how == "flip" else blob[: len(blob) // 2])
    with pytest.raises(CheckpointError, match=r"step-000000020.*step 10 is complete: delete .*step-000000020\.json"):
        folder.load()
    (tmp_path / "step-000000020.json").unlink()
    assert folder.load()[1]["step"] == 10


def test_none_whole_and_none_at_all_say_so(tmp_path: Path) -> None:
    folder = Checkpoints(tmp_path / "none")
    with pytest.raises(CheckpointError, match="no checkpoint"):
        folder.load()
    folder.save(1, {"x": torch.arange(3)}, {})
    (tmp_path / "none" / "step-000000001.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError, match="no earlier one is complete"):
        folder.load()


def test_another_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Checkpoints(tmp_path)
    monkeypatch.setattr("fastrec.runs.checkpoint.VERSION", 99)
    folder.save(1, {"x": torch.arange(3)}, {})
    monkeypatch.undo()
    with pytest.raises(CheckpointError, match="version 99"):
        folder.load()


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = Checkpoints(tmp_path)
    folder.save(1, {"x": torch.arange(3)}, {})

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(FastrecError, match="No space left"):
        folder.save(2, {"x": torch.arange(3)}, {})
    monkeypatch.undo()
    assert folder.steps() == [1]
    assert folder.load()[1]["step"] == 1
    assert not list(tmp_path.glob("*.part"))


def test_meta_is_plain_json(tmp_path: Path) -> None:
    t = trainer(tmp_path)
    t.run(stop_after=2)
    outer = json.loads((tmp_path / "step-000000002.json").read_text())
    body = json.loads(outer["body"])
    assert body["trainer"]["position"] == 64
    assert body["step"] == 2


def reach(tensors: dict[str, torch.Tensor], meta: dict) -> list[tuple[dict, dict]]:
    """States that a hostile checkpoint may hold: tensors gone or of another shape, numbers of another type."""
    states = [({k: v for k, v in tensors.items() if k != name}, meta) for name in tensors if name.startswith("model")]
    moment = "optimizer.item_factors.exp_avg"
    for other in (torch.zeros(1), torch.zeros(1, 4), torch.zeros_like(tensors[moment], dtype=torch.int64)):
        states.append(({**tensors, moment: other}, meta))
    states.append(({k: v for k, v in tensors.items() if k != moment}, meta))
    for what, value in (("position", 10**6), ("position", -1), ("step", "x"), ("loss_sum", None), ("window", [1.0])):
        states.append((tensors, {**meta, "trainer": {**meta["trainer"], what: value}}))
    states += [(tensors, {**meta, "trainer": {**meta["trainer"], "n_samples": 0}})]
    states += [
        (tensors, {**meta, what: odd}) for what in ("trainer", "engine") for odd in (None, [], {"step": "x"}, {"a": 1})
    ]
    return states


def test_a_state_that_does_not_fit_is_refused_before_a_step(tmp_path: Path) -> None:
    """The moments of Adam go to a compiled kernel: one too short is memory that is not its own."""
    first = trainer(tmp_path)
    first.run(stop_after=2)
    tensors, meta = first.checkpoints.load()  # type: ignore[union-attr]
    second = trainer(tmp_path)
    for bad_tensors, bad_meta in reach(tensors, meta):
        with pytest.raises(CheckpointError):
            second.resume(bad_tensors, bad_meta)
    second.resume(tensors, meta)
    assert second.run() == "all epochs"


@pytest.mark.parametrize("written", [0, 1])
def test_what_there_is_to_go_on_from_is_said(tmp_path: Path, written: int) -> None:
    folder = Checkpoints(tmp_path / "run" / "checkpoints")
    for step in range(written):
        folder.save(step + 7, {"x": torch.zeros(1)}, {})
    says = "The checkpoint of step 7 is intact: resume with" if written else "No checkpoint was written"
    assert folder.left().startswith(says)


def test_the_folder_of_checkpoints_survives_a_power_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (synced.add(os.fstat(d).st_ino), fsync(d))[1])
    Checkpoints(tmp_path / "run" / "checkpoints").save(1, {"x": torch.zeros(1)}, {})
    assert {tmp_path.stat().st_ino, (tmp_path / "run").stat().st_ino} <= synced, "its parents hold its name"


def test_a_failing_disk_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", io_error)
    with pytest.raises(FastrecError, match=r"cannot be made \(Input/output error\)"):
        Checkpoints(tmp_path / "checkpoints", keep=1).save(2, {"x": torch.zeros(1)}, {})


def test_a_checkpoint_that_cannot_be_deleted_does_not_end_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = Checkpoints(tmp_path / "checkpoints", keep=1)
    folder.save(1, {"x": torch.zeros(1)}, {})
    monkeypatch.setattr(Path, "unlink", io_error)
    folder.save(2, {"x": torch.ones(1)}, {})
    assert folder.load(2)[0]["x"] == 1


def io_error(*_: object, **__: object) -> None:
    raise OSError(5, "Input/output error")
