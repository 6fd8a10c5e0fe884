"""A run is trained by one process at a time; a dead one holds no lock."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import CheckpointError
from fastrec.runs import locked, open_run
from fastrec.training.fit import fit, resume
from fastrec.training.trainer import Trainer
from tests.helpers.training import positives

SMALL = {"dim": 4, "epochs": 2, "batch_size": 32, "candidates": 9, "progress": False, "tensorboard": False}
ROOT = Path(__file__).resolve().parent.parent
HOLD = """
import os, sys, time
from pathlib import Path
from fastrec.runs.lock import locked
with locked(Path(sys.argv[1])):
    if "fork" in sys.argv and os.fork() == 0:
        print("held", flush=True)
        time.sleep(60)
        os._exit(0)
    if "fork" not in sys.argv:
        print("held", flush=True)
    time.sleep(60)
"""


@pytest.fixture
def split() -> Split:
    indptr, items = positives(n_users=40, n_items=30)
    return ratio_split(Interactions(indptr, items, user_ids=np.arange(40), item_ids=np.arange(30), name="small"))


def hold(folder: Path, *args: str) -> subprocess.Popen[str]:
    """A process that holds the lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(folder), *args]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT, start_new_session=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_process_is_refused_in_one_line_and_a_dead_one_holds_nothing(tmp_path: Path) -> None:
    process = hold(tmp_path)
    try:
        said = rf"^\S+: is being trained already \(process {process.pid}\); [^\n]*$"
        with pytest.raises(CheckpointError, match=said), locked(tmp_path):
            pass
    finally:
        process.kill()
        process.wait()
    with locked(tmp_path):
        pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_does_not_keep_the_lock_of_a_killed_parent(tmp_path: Path) -> None:
    process = hold(tmp_path, "fork")
    process.kill()
    process.wait()
    try:
        with locked(tmp_path):
            pass
    finally:
        os.killpg(process.pid, signal.SIGKILL)


def test_a_second_thread_of_one_process_is_refused(tmp_path: Path) -> None:
    with locked(tmp_path), pytest.raises(CheckpointError, match="trained already"), locked(tmp_path):
        pass
    with locked(tmp_path):
        pass


def test_a_run_cannot_be_resumed_while_it_trains(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    inner = Trainer.run

    def run(self: Trainer) -> str:
        with pytest.raises(CheckpointError, match="is being trained already") as caught:
            resume(tmp_path / "run")
        seen.append(str(caught.value))
        return inner(self, stop_after=2)

    with monkeypatch.context() as m:
        m.setattr(Trainer, "run", run)
        fit(split, Config(**SMALL), out=tmp_path / "run")  # type: ignore[arg-type]
        resume(tmp_path / "run")
    assert len(seen) == 2, "while it trains, and while a resumed one does"
    assert resume(tmp_path / "run").stopped == "all epochs"


def test_a_run_that_another_process_ended_meanwhile_is_not_trained_again(split: Split, tmp_path: Path) -> None:
    """The manifest is read again under the lock."""
    result = fit(split, Config(**SMALL), out=tmp_path / "run")  # type: ignore[arg-type]
    lines = (tmp_path / "run" / "metrics.jsonl").read_bytes()
    result.run.record(status="training")
    stale = open_run(tmp_path / "run")
    result.run.record(status="done")
    opened = [stale, open_run(tmp_path / "run")]
    with pytest.MonkeyPatch.context() as m:
        m.setattr("fastrec.training.fit.open_run", lambda _: opened.pop(0))
        resume(tmp_path / "run")
    assert not opened
    assert (tmp_path / "run" / "metrics.jsonl").read_bytes() == lines


def test_a_link_in_place_of_the_lock_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("precious")
    (tmp_path / ".lock").symlink_to(tmp_path / "mine")
    with pytest.raises(CheckpointError, match="cannot be opened"), locked(tmp_path):
        pass
    assert (tmp_path / "mine").read_text() == "precious"


def test_a_system_without_fcntl_locks_by_msvcrt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    taken: list[int] = []

    def locking(descriptor: int, mode: int, n: int) -> None:
        assert (mode, n) == (2, 1)
        if taken:
            raise PermissionError(13, "Permission denied")
        taken.append(descriptor)

    monkeypatch.setitem(sys.modules, "fcntl", None)
    monkeypatch.setitem(sys.modules, "msvcrt", types.SimpleNamespace(locking=locking, LK_NBLCK=2))
    with locked(tmp_path), pytest.raises(CheckpointError, match="trained already"), locked(tmp_path):
        pass


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    def flock(*_: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr(fcntl, "flock", flock)
    with pytest.warns(UserWarning, match="No locks available"), locked(tmp_path):
        pass
