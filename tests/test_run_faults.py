"""Small faults around a run: foreign files, links, lost output, a failing TensorBoard. None of them harms it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec.batches.device import check_compiler
from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import CheckpointError, ConfigError, FastrecError
from fastrec.runs import open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.fit import fit, resume
from fastrec.training.tracking import ProgressBar, Tracker
from fastrec.training.trainer import Trainer, clear_memory_errors
from tests.helpers.training import make_engine, positives

ROOT = Path(__file__).resolve().parent.parent
SMALL: dict[str, Any] = {
    "dim": 4, "epochs": 3, "batch_size": 32, "candidates": 9, "progress": False, "tensorboard": False, "patience": 0,
}  # fmt: skip


@pytest.fixture
def split() -> Split:
    indptr, items = positives(n_users=40, n_items=30)
    return ratio_split(Interactions(indptr, items, user_ids=np.arange(40), item_ids=np.arange(30), name="small"))


def cut_run(split: Split, folder: Path, **options: Any) -> None:
    inner = Trainer.run
    with pytest.MonkeyPatch.context() as m:
        m.setattr(Trainer, "run", lambda self: inner(self, stop_after=5))
        fit(split, Config(**{**SMALL, **options}), out=folder)


def lines(folder: Path) -> list[dict[str, Any]]:
    data = (folder / "metrics.jsonl").read_bytes()
    assert b"\0" not in data
    return [json.loads(line) for line in data.splitlines()]


# files that are not the run's own

FOREIGN = (
    "mine.safetensors", "step-3.safetensors", "step-000000001 (1).json", "step-copy.json", "step-.json", "notes.json",
    "step-000000001.safetensors.bak", "best-epoch-1.safetensors", "best-epoch-copy.safetensors", "xstep-000000001.json",
    "step-\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661\u0661.json", "step-000000001.json.tmp", ".mine.part",
)  # fmt: skip


def test_only_checkpoints_are_read_and_deleted(tmp_path: Path) -> None:
    for name in FOREIGN:
        (tmp_path / name).write_text("precious")
    (tmp_path / "step-000000009.json").mkdir()
    folder = Checkpoints(tmp_path, keep=1)
    for step in (1, 2, 3):
        best = folder.save_best(step, {"w": torch.ones(2)})
        folder.save(step, {"x": torch.tensor([step])}, {"best": best})
    assert folder.steps() == [3]
    assert folder.load()[0]["x"].item() == 3
    assert all((tmp_path / name).read_text() == "precious" for name in FOREIGN)
    own = {p.name for p in tmp_path.iterdir()} - {*FOREIGN, "step-000000009.json"}
    assert own == {"step-000000003.json", "step-000000003.safetensors", "best-epoch-00003.safetensors"}


def test_a_stray_file_is_ignored_with_a_note(split: Split, tmp_path: Path) -> None:
    cut_run(split, tmp_path / "run")
    (tmp_path / "run" / "checkpoints" / "step-000000005 (1).json").write_text("{}")
    left = tmp_path / "run" / "checkpoints" / ".step-000000005.safetensors.123-456.part"
    left.write_text("half")
    result = resume(tmp_path / "run")
    assert any("ignored" in n and "step-000000005 (1).json" in n for n in result.notes)
    assert not left.exists(), "what a killed process left is swept"


def test_a_linked_checkpoint_folder_is_refused_and_nothing_in_it_touched(split: Split, tmp_path: Path) -> None:
    cut_run(split, tmp_path / "run")
    (tmp_path / "run" / "checkpoints").rename(tmp_path / "other")
    (tmp_path / "other" / ".step-000000005.safetensors.1-2.part").write_text("x")
    (tmp_path / "run" / "checkpoints").symlink_to(tmp_path / "other")
    before = sorted((p.name, p.read_bytes()) for p in (tmp_path / "other").iterdir())
    with pytest.raises(CheckpointError, match="checkpoints: is a link"):
        resume(tmp_path / "run")
    with pytest.raises(CheckpointError, match="is a link"):
        Checkpoints(tmp_path / "run" / "checkpoints").save(9, {"x": torch.ones(1)}, {})
    assert sorted((p.name, p.read_bytes()) for p in (tmp_path / "other").iterdir()) == before


def test_a_linked_metrics_file_is_not_written_through(split: Split, tmp_path: Path) -> None:
    cut_run(split, tmp_path / "run")
    path, mine = tmp_path / "run" / "metrics.jsonl", tmp_path / "mine"
    mine.write_text("precious")
    for target in (mine, tmp_path / "absent"):
        path.unlink()
        path.symlink_to(target)
        with pytest.raises(FastrecError, match=r"metrics\.jsonl: is a link"):
            resume(tmp_path / "run")
    assert mine.read_text() == "precious"
    assert not (tmp_path / "absent").exists()


def test_a_second_name_of_the_metrics_file_keeps_its_content(tmp_path: Path) -> None:
    tracker = Tracker(tmp_path, tensorboard=False)
    tracker.record("train", 1, {"loss": 1.0})
    length = tracker.length
    tracker.record("train", 2, {"loss": 0.5})
    tracker.close()
    os.link(tmp_path / "metrics.jsonl", tmp_path / "backup")
    before = (tmp_path / "backup").read_bytes()
    tracker = Tracker(tmp_path, tensorboard=False, length=length)
    tracker.record("train", 3, {"loss": 0.2})
    tracker.close()
    assert (tmp_path / "backup").read_bytes() == before
    assert [x["step"] for x in lines(tmp_path)] == [1, 3]


# metrics.jsonl goes away


@pytest.mark.parametrize("how", ["gone", "emptied", "cut"])
def test_a_lost_metrics_file_is_started_again(split: Split, tmp_path: Path, how: str) -> None:
    cut_run(split, tmp_path / "run", log_every=1)
    path = tmp_path / "run" / "metrics.jsonl"
    data = path.read_bytes()
    path.unlink() if how == "gone" else path.write_bytes(data[: 0 if how == "emptied" else len(data) - 3])
    result = resume(tmp_path / "run", log_every=1)
    assert any("metrics.jsonl" in note for note in result.notes)
    steps = [x["step"] for x in lines(tmp_path / "run") if x["kind"] == "train"]
    assert steps[0] == (1 if how == "cut" else 6)
    assert steps == sorted(set(steps))


@pytest.mark.parametrize("how", ["removed", "replaced", "emptied"])
def test_a_metrics_file_lost_while_training_is_written_on(tmp_path: Path, how: str) -> None:
    tracker = Tracker(tmp_path, tensorboard=False)
    tracker.record("train", 1, {"loss": 1.0})
    if how == "emptied":
        os.truncate(tmp_path / "metrics.jsonl", 0)
    else:
        (tmp_path / "metrics.jsonl").unlink()
        if how == "replaced":
            (tmp_path / "metrics.jsonl").write_text('{"step": 0}\n')
    tracker.record("train", 2, {"loss": 0.5})
    length = tracker.length
    tracker.close()
    assert [x["step"] for x in lines(tmp_path)] == ([0, 2] if how == "replaced" else [2])
    assert length == (tmp_path / "metrics.jsonl").stat().st_size
    assert len(tracker.notes) == (how != "emptied")


# TensorBoard


def test_a_failing_tensorboard_is_said_once_and_training_goes_on(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from tensorboard.summary.writer.record_writer import RecordWriter

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(RecordWriter, "write", fail)
    result = fit(split, Config(**{**SMALL, "tensorboard": True, "log_every": 1}), out=tmp_path / "run")
    assert result.stopped == "all epochs"
    said = capsys.readouterr().err
    assert said.count("training goes on without it") == 1
    assert "TensorBoard's files cannot be written (Input/output error)" in said
    assert "metrics.jsonl" not in said
    assert any("TensorBoard" in note for note in result.notes)
    assert len(lines(tmp_path / "run")) > 10


@pytest.mark.parametrize("how", ["missing", "close"])
def test_a_tensorboard_that_cannot_start_or_end_stops_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    if how == "missing":
        monkeypatch.setitem(sys.modules, "tensorboard.summary.writer.record_writer", None)
    tracker = Tracker(tmp_path)
    tracker.options({"lr": 1})
    tracker.record("train", 1, {"loss": 1.0})
    if how == "close":
        writer = tracker._writer
        monkeypatch.setattr(writer, "close", lambda: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    tracker.close()
    assert len(tracker.notes) == 1
    assert [x["step"] for x in lines(tmp_path)] == [1]


# divergence


@pytest.mark.parametrize("optimizer", ["adam", "adagrad"])
@pytest.mark.parametrize("model", ["mf", "gmf", "mlp"])
def test_absurd_weights_stop_the_run_with_the_last_good_state_kept(tmp_path: Path, model: str, optimizer: str) -> None:
    per_epoch = -(-make_engine(model).n_positives // 16)
    engine = make_engine(model, optimizer=optimizer, lr=lambda step: 0.01 if step < 2 * per_epoch else 1e6)
    t = Trainer(engine, epochs=9, progress=False, checkpoints=Checkpoints(tmp_path / "checkpoints"))
    with pytest.raises(FastrecError, match=rf"diverged; .*lower lr.*step {2 * per_epoch} is intact$"):
        t.run()
    tensors, meta = Checkpoints(tmp_path / "checkpoints").load()
    assert meta["step"] == 2 * per_epoch
    assert all(v.abs().max() < 1e4 for v in tensors.values() if v.is_floating_point())


def test_divergence_before_any_checkpoint_claims_none(split: Split, tmp_path: Path) -> None:
    with pytest.raises(FastrecError, match=r"epoch 1 .*diverged.*No checkpoint was written$"):
        fit(split, Config(**{**SMALL, "lr": 1e6}), out=tmp_path / "run")
    assert not list(tmp_path.glob("run/checkpoints/*"))
    assert not (tmp_path / "run" / "model.safetensors").exists()
    run = open_run(tmp_path / "run")
    assert run.manifest["status"] == "diverged"
    assert "training diverged" in run.manifest["error"]
    with pytest.raises(CheckpointError, match=r"no weights yet \(status: diverged\); train again with a lower lr"):
        run.model()


def test_a_run_that_fails_says_so_and_can_be_taken_up(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise FastrecError("checkpoints: cannot be written (No space left on device)")

    with monkeypatch.context() as patch:
        patch.setattr(Checkpoints, "save", full)
        with pytest.raises(FastrecError, match="No space left"):
            fit(split, Config(**SMALL), out=tmp_path / "run")
    failed = open_run(tmp_path / "run").manifest
    assert failed["status"] == "failed"
    assert "No space left" in failed["error"]
    assert resume(tmp_path / "run", progress=False).stopped == "all epochs"
    done = open_run(tmp_path / "run").manifest
    assert done["status"] == "done"
    assert "error" not in done


def test_compile_without_a_compiler_is_refused_before_training(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from torch._inductor import config as inductor

    monkeypatch.setattr(inductor.cpp, "cxx", ("no-such-compiler",))
    with pytest.raises(
        ConfigError, match=r"compile = True: torch\.compile needs a C\+\+ compiler .* or leave compile out"
    ):
        fit(split, Config(**{**SMALL, "compile": True}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    monkeypatch.setenv("CC", "no-such-compiler")
    with pytest.raises(ConfigError, match=r"compile = True: torch\.compile needs a C compiler \(gcc or clang\)"):
        check_compiler("cuda:0")


def test_a_compiler_that_fails_is_named() -> None:
    from torch._inductor.exc import CppCompileError

    says = r"torch\.compile cannot compile the model .*; leave compile out"
    with pytest.raises(FastrecError, match=says), clear_memory_errors():
        raise CppCompileError(["g++"], "Python.h: No such file or directory")


def test_the_largest_start_is_no_divergence(split: Split, tmp_path: Path) -> None:
    assert fit(split, Config(**{**SMALL, "init_std": 100.0}), out=tmp_path / "run").stopped == "all epochs"


# output


class Broken:
    """A stream whose reader has gone."""

    encoding = "utf-8"

    def __init__(self, error: Exception, tty: bool, good: int) -> None:
        self.error, self.tty, self.good = error, tty, good

    def write(self, text: str) -> int:
        self.flush()
        return len(text)

    def flush(self) -> None:
        self.good -= 1
        if self.good < 0:
            raise self.error

    def isatty(self) -> bool:
        return self.tty


@pytest.mark.parametrize(("tty", "good"), [(False, 0), (True, 0), (True, 3), (True, 9)])
@pytest.mark.parametrize(
    "error", [BrokenPipeError(32, "Broken pipe"), OSError(5, "Input/output error"), OSError(28, "No space left"),
              ValueError("I/O operation on closed file"), None],
    ids=lambda e: type(e).__name__ + str(getattr(e, "errno", "")),
)  # fmt: skip
def test_progress_that_cannot_be_shown_stops_nothing(
    error: Exception | None, tty: bool, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stderr", None if error is None else Broken(error, tty, good))
    t = Trainer(make_engine(), epochs=3, progress=True)
    assert t.run() == "all epochs"


def test_a_line_that_the_encoding_lacks_is_transliterated(monkeypatch: pytest.MonkeyPatch) -> None:
    import io

    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stderr", io.TextIOWrapper(raw, encoding="ascii"))
    ProgressBar(True, epochs=1, samples=1).epoch(0, {"val T\u014dky\u014d@10": 1.0}, 1e6)
    assert b"Tokyo@10" in raw.getvalue()


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
@pytest.mark.parametrize("sent", [["SIGHUP"], ["SIGHUP", "SIGHUP"], ["SIGHUP", "SIGTERM"], ["SIGTERM", "SIGHUP"]])
def test_a_hangup_leaves_a_checkpoint_however_often_it_comes(tmp_path: Path, sent: list[str]) -> None:
    engine = make_engine()
    t = Trainer(engine, epochs=50, progress=False, checkpoints=Checkpoints(tmp_path))
    inner, calls = engine.advance, []

    def advance(cursor: Any, n: int) -> Any:
        calls.append(n)
        if len(calls) == 3:
            for name in sent:
                os.kill(os.getpid(), getattr(signal, name))
        return inner(cursor, n)

    engine.advance = advance  # type: ignore[method-assign]
    before = signal.getsignal(signal.SIGHUP)
    assert t.run() == "interrupted"
    assert signal.getsignal(signal.SIGHUP) is before
    assert Checkpoints(tmp_path).steps()[-1] == t.state.step


@pytest.mark.skipif(not hasattr(signal, "SIGHUP"), reason="no SIGHUP on this system")
def test_an_ignored_hangup_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        t = Trainer(make_engine(), epochs=2, progress=False, checkpoints=Checkpoints(tmp_path))
        t.validate = lambda: os.kill(os.getpid(), signal.SIGHUP) or {"full:NDCG@10": 0.1}
        assert t.run() == "all epochs"
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize(
    ("shell", "code"),
    [
        pytest.param("2>&-", 0, marks=pytest.mark.slow),
        (">&- 2>&- <&-", 0),
        ("2>&1 | head -1", 0),
        ("> /dev/full", 1),
        pytest.param("> /dev/full 2>&1", 1, marks=pytest.mark.slow),
    ],
)
def test_output_that_cannot_be_shown_never_stops_a_run(tmp_path: Path, shell: str, code: int) -> None:
    if "/dev/full" in shell and not Path("/dev/full").exists():
        pytest.skip("no /dev/full on this system")
    log = "\n".join(f"u{u},i{(u * 7 + k * 3) % 40},{k}" for u in range(60) for k in range(8))
    (tmp_path / "log.csv").write_text("user,item,timestamp\n" + log + "\n")
    command = (
        f"set -o pipefail; {sys.executable} -m fastrec train --data log.csv --dim 4 --epochs 3 --batch-size 64 "
        f"--no-tensorboard --patience 0 --out run {shell}"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        ["bash", "-c", command], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=240
    )
    assert done.returncode == code, done.stderr
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["status"] == "done"
    assert [x["epoch"] for x in lines(tmp_path / "run") if x["kind"] == "epoch"] == [1, 2, 3]
    assert "Traceback" not in done.stderr
    if shell == "> /dev/full":
        assert "stdout: cannot be written (No space left on device); the run is in run" in done.stderr
