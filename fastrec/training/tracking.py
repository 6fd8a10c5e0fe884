"""The records of a run: metrics.jsonl, TensorBoard files, and the progress on the screen."""

from __future__ import annotations

import contextlib
import errno
import io
import itertools
import json
import math
import os
import socket
import stat
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastrec.errors import FastrecError
from fastrec.files import write_bytes
from fastrec.jit import before_compiling
from fastrec.runs.checkpoint import Checkpoints
from fastrec.terminal import on_terminal, say

LONG_S = 60.0
"""A run of which more is left is announced with an estimate."""


class Tracker:
    """Writes metrics of a run to metrics.jsonl and TensorBoard.

    metrics.jsonl is the run's record: where it cannot be written, training stops. TensorBoard is an extra: where it
    fails, that is reported once, and training goes on without it.

    Parameters
    ----------
    folder : path
        The run folder.
    tensorboard : bool
        Write TensorBoard files too.
    length : int
        Bytes of metrics.jsonl to keep: a resumed run cuts off what was written after its checkpoint. Of a file that is
        shorter, or gone, the complete lines are kept.
    step : int
        Step it goes on from; TensorBoard drops later points of the run before.

    Attributes
    ----------
    notes : list of str
        What went wrong with either.

    Raises
    ------
    FastrecError
        If metrics.jsonl cannot be written, such as on a full disk, or is a link.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True, length: int = 0, step: int = 0) -> None:
        self.path, self.notes = folder / "metrics.jsonl", list[str]()
        self._writer: Any = None
        self._step = step
        try:
            self._keep(length)
            self._file = self._open()
        except OSError as error:
            raise self._cannot_write(error) from error
        if tensorboard:
            with self._extra():
                self._writer = Events(folder, purge_step=step + 1 if step else None)

    def _keep(self, length: int) -> None:
        """Cut the file off at ``length``, in a copy where it has a second name (``cp -al``), which keeps all."""
        try:
            found = os.lstat(self.path)
        except FileNotFoundError:
            if length:
                self._note(f"{self.path}: is gone; started again at step {self._step:,}")
            return
        if not stat.S_ISREG(found.st_mode):
            raise FastrecError(f"{self.path}: is a link or not a file, and is not written through: move it away")
        if found.st_size < length:
            self._note(f"{self.path}: is shorter than at the checkpoint ({found.st_size:,} of {length:,} bytes)")
        with self._open() as f:
            kept = f.read(length)
            kept = kept[: kept.rfind(b"\n") + 1]
            if found.st_nlink == 1:
                f.truncate(len(kept))
        if found.st_nlink > 1:
            write_bytes(self.path, kept)

    def _open(self) -> io.FileIO:
        """Open to append, without a buffer, and never through a link."""
        flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NOFOLLOW", 0)
        return io.FileIO(os.open(self.path, flags, 0o666), "r+")

    def _write(self, line: bytes) -> None:
        """Append a line; to a new file where somebody has removed or replaced the one that is open."""
        try:
            here = os.lstat(self.path)
        except FileNotFoundError:
            here = None
        mine = os.fstat(self._file.fileno())
        if here is None or (here.st_ino, here.st_dev) != (mine.st_ino, mine.st_dev):
            self._note(f"{self.path}: was removed or replaced while training; written on from step {self._step:,}")
            self._file.close()
            self._file = self._open()
        while line:  # a nearly full disk takes a part
            line = line[self._file.write(line) or 0 :]

    @property
    def length(self) -> int:
        """Bytes of metrics.jsonl so far, all of them on the disk."""
        self.sync()
        try:
            return self._file.seek(0, os.SEEK_END)
        except OSError as error:
            raise self._cannot_write(error) from error

    def sync(self) -> None:
        """Put every line of metrics.jsonl on the disk."""
        try:
            self._write(b"")
            os.fsync(self._file.fileno())
        except OSError as error:
            raise self._cannot_write(error) from error

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """Write one line of metrics.jsonl, and one TensorBoard point for every number in it."""
        line, self._step = {"kind": kind, "step": step, **values}, step
        try:
            self._write(json.dumps(line, allow_nan=True).encode() + b"\n")
        except OSError as error:
            raise self._cannot_write(error) from error
        with self._extra():
            for name, value in values.items():
                if self._writer is not None and isinstance(value, (int, float)) and name != "epoch":
                    self._writer.add_scalar(_tag(kind, name), value, step)
            if self._writer is not None:
                self._writer.flush()

    def options(self, values: dict[str, Any]) -> None:
        """Show the config as a table in TensorBoard's text tab."""
        rows = "\n".join(f"| {k} | {v} |" for k, v in values.items())
        with self._extra():
            if self._writer is not None:
                self._writer.add_text("config", f"| option | value |\n|---|---|\n{rows}")

    def outcome(self, config: dict[str, Any], metrics: dict[str, float]) -> None:
        """The options and final metrics of a run as one row of TensorBoard's HPARAMS tab."""
        with self._extra():
            if self._writer is not None:
                self._writer.add_hparams(config, {_tag("test", name): value for name, value in metrics.items()})

    def close(self) -> None:
        """Write out what is queued."""
        with self._extra():
            if self._writer is not None:
                self._writer.close()
        try:
            self._file.close()
        except OSError as error:
            raise self._cannot_write(error) from error

    @contextlib.contextmanager
    def _extra(self) -> Iterator[None]:
        """Say once that TensorBoard fails, whatever the reason, and go on without it."""
        try:
            yield
        except Exception as error:  # also a missing or incompatible tensorboard
            self._writer = None
            reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
            self._note(
                f"{self.path.parent}: TensorBoard's files cannot be written ({reason}); training goes on without it"
            )

    def _note(self, text: str) -> None:
        self.notes.append(text)
        say(f"fastrec: {text}", err=True, flush=True)

    def _cannot_write(self, error: OSError) -> FastrecError:
        if error.errno == errno.ELOOP:
            return FastrecError(f"{self.path}: is a link, and is not written through: move it away")
        left = Checkpoints(self.path.parent / "checkpoints").left()
        return FastrecError(f"{self.path}: cannot be written ({error.strerror}); free some space. {left}")


def _tag(kind: str, name: str) -> str:
    """Group and name of a point: validation has a group of its own."""
    return f"val/{name.removeprefix('val ')}" if name.startswith("val ") else f"{kind}/{name}"


class Events:
    """Writes a TensorBoard event file, in the calling thread: SummaryWriter's own thread dies of a failed write with a
    traceback on stderr. Cost: about 30 microseconds a point.
    """

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        from tensorboard.compat.proto.event_pb2 import Event, SessionLog
        from tensorboard.summary.writer.record_writer import RecordWriter

        folder.mkdir(exist_ok=True)
        now = time.time()
        stem = f"events.out.tfevents.{int(now):010d}.{socket.gethostname()}.{os.getpid()}"
        names = (folder / f"{stem}.{n}" for n in itertools.count())
        self._file = next(path for path in names if not path.exists()).open("xb")
        self._records, self._event = RecordWriter(self._file), Event
        self._write(Event(wall_time=now, file_version="brain.Event:2"))
        if purge_step is not None:
            start = SessionLog(status=SessionLog.START)
            self._write(Event(wall_time=now, step=purge_step, session_log=start))
        self.flush()

    def _write(self, event: Any) -> None:
        self._records.write(event.SerializeToString())

    def add_scalar(self, name: str, value: float, step: int) -> None:
        """Write one point."""
        from torch.utils.tensorboard.summary import scalar

        self._write(self._event(wall_time=time.time(), step=step, summary=scalar(name, value)))  # type: ignore[no-untyped-call]

    def add_text(self, name: str, text: str) -> None:
        """Write a text in Markdown."""
        from torch.utils.tensorboard import summary

        self._write(self._event(wall_time=time.time(), summary=summary.text(name, text)))  # type: ignore[no-untyped-call]

    def add_hparams(self, options: dict[str, Any], metrics: dict[str, float]) -> None:
        """Write options and the names of the metrics that a run is compared by."""
        from torch.utils.tensorboard.summary import hparams

        plain = {k: v if isinstance(v, (bool, int, float, str)) else str(v) for k, v in options.items()}
        for summary in hparams(plain, metrics):  # type: ignore[no-untyped-call]
            self._write(self._event(wall_time=time.time(), summary=summary))
        self.flush()

    def flush(self) -> None:
        """Flush the points to the system."""
        self._file.flush()

    def close(self) -> None:
        """Close the file."""
        self._file.close()


class ProgressBar:
    """A progress bar on a terminal; one line per epoch elsewhere.

    Parameters
    ----------
    shown : bool
        Show anything at all.
    epochs, samples : int
        Epochs at most, and samples of each.
    first : int
        Epochs of them that an earlier run did.
    done : int
        Samples done before, by the run that this one resumes.
    """

    def __init__(self, shown: bool, *, epochs: int, samples: int, first: int = 0, done: int = 0) -> None:
        self._shown, self._epochs, self._estimated = shown, epochs, False
        self._bar: Any = None
        if shown and on_terminal():
            from tqdm import tqdm

            self._bar = tqdm(
                total=(epochs - first) * samples,
                initial=done,
                unit=" samples",
                unit_scale=True,
                dynamic_ncols=True,
                smoothing=0.1,
                delay=1e-3,  # nothing is written yet, which could fail here
                bar_format="{desc} {percentage:3.0f}%|{bar}| {rate_fmt}{postfix} [{elapsed}<{remaining}]",
            )

    def advance(self, epoch: int, samples: int, loss: float) -> None:
        """Show that some steps were done."""
        if self._bar is not None:
            with self._safely():
                self._bar.set_description_str(f"epoch {epoch + 1}/{self._epochs}", refresh=False)
                self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
                self._bar.update(samples)

    def estimate(self, seconds: float, selects: bool) -> None:
        """Say once how long the steps that are left take, where that is more than a minute."""
        if self._estimated or not self._shown:
            return
        self._estimated = True
        if seconds > LONG_S:
            sooner = ", less where it stops early" if selects else ""
            self._line(f"about {duration(seconds)} of training for {self._epochs} epochs at this rate{sooner}")

    def epoch(self, epoch: int, values: dict[str, Any], samples_per_s: float) -> None:
        """Show that an epoch ended; ``samples_per_s`` is the epoch's, without compilation and validation."""
        shown = "  ".join(
            f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float) and (k.startswith("val ") or k == "loss")
        )
        line = f"epoch {epoch + 1}/{self._epochs}  {shown}  {samples_per_s / 1e6:.2f} M samples/s"
        self._line(line)

    def _line(self, line: str) -> None:
        if self._bar is not None:
            with self._safely():
                self._bar.write(line, file=sys.stderr)
        elif self._shown:
            self._shown = say(line, err=True, flush=True) is None

    def close(self) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            with self._safely():
                self._bar.close()

    @contextlib.contextmanager
    def _safely(self) -> Iterator[None]:
        """Show nothing more where the terminal has gone: that never stops a run."""
        try:
            yield
        except (OSError, ValueError):
            self._bar.disable = True  # or it writes again when it is collected
            self._bar, self._shown = None, False


_told: list[str] = []


@contextlib.contextmanager
def telling_of_compilation(shown: bool) -> Iterator[None]:
    """Say once a process, before the first kernel that is not on disk yet, why seconds pass in silence."""

    def tell() -> None:
        if not _told:
            _told.append("compiling kernels, once: they are kept on disk")
            say(_told[0], err=True, flush=True)

    with before_compiling(tell) if shown else contextlib.nullcontext():
        yield


def duration(seconds: float) -> str:
    """A time for people: 90 s, 12 min, 3.4 h."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def rounded(value: float) -> float:
    """Nine significant digits: sums of one run cut at other places differ beyond them."""
    return float(f"{value:.9g}") if math.isfinite(value) else value
