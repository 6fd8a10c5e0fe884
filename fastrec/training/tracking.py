"""What a run leaves to look at: metrics.jsonl, TensorBoard files, and the progress on the screen."""

from __future__ import annotations

import json
import math
import os
import sys
from pathlib import Path
from typing import Any

from fastrec.errors import FastrecError
from fastrec.terminal import say


class Tracker:
    """Writes metrics of a run to metrics.jsonl and TensorBoard.

    Parameters
    ----------
    folder : path
        The run folder.
    tensorboard : bool
        Write TensorBoard files too.
    length : int
        Bytes of metrics.jsonl to keep: a resumed run cuts off what was written after its checkpoint.
    step : int
        Step it goes on from; TensorBoard drops later points of the run before.

    Raises
    ------
    FastrecError
        If a file cannot be written, such as on a full disk.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True, length: int = 0, step: int = 0) -> None:
        self.path = folder / "metrics.jsonl"
        self._writer: Any = None
        try:
            self._file = self.path.open("ab")
            self._file.truncate(length)
            if tensorboard:
                from torch.utils.tensorboard import SummaryWriter

                # the writer queues and writes in a thread of its own: no step waits for the disk
                self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=step + 1 if step else None)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    @property
    def length(self) -> int:
        """Bytes of metrics.jsonl so far, all of them on the disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise _cannot_write(self.path, error) from error
        return self._file.seek(0, os.SEEK_END)

    def record(self, kind: str, step: int, values: dict[str, Any]) -> None:
        """One line of metrics.jsonl, and one TensorBoard point for every number in it."""
        line = {"kind": kind, "step": step, **values}
        try:
            self._file.write(json.dumps(line, allow_nan=True).encode() + b"\n")
            if self._writer is not None:
                for name, value in values.items():
                    if isinstance(value, (int, float)) and name != "epoch":
                        self._writer.add_scalar(f"{kind}/{name}", value, step)
        except OSError as error:
            raise _cannot_write(self.path, error) from error

    def options(self, values: dict[str, Any]) -> None:
        """The config, as a table in TensorBoard's text tab."""
        if self._writer is not None:
            rows = "\n".join(f"| {k} | {v} |" for k, v in values.items())
            self._writer.add_text("config", f"| option | value |\n|---|---|\n{rows}")

    def close(self) -> None:
        """Write out what is queued."""
        try:
            self._file.close()
            if self._writer is not None:
                self._writer.close()
        except OSError as error:
            raise _cannot_write(self.path, error) from error


def _cannot_write(path: Path, error: OSError) -> FastrecError:
    return FastrecError(
        f"{path}: cannot be written ({error.strerror}); the last checkpoint is intact; free some space, then go on "
        f"with `fastrec train --resume {path.parent}`"
    )


class Screen:
    """A progress bar on a terminal; one line an epoch elsewhere.

    Parameters
    ----------
    shown : bool
        Show anything at all.
    epochs, samples : int
        Epochs at most, and samples of each.
    done : int
        Samples done before, by the run that this one resumes.
    """

    def __init__(self, shown: bool, *, epochs: int, samples: int, done: int = 0) -> None:
        self._shown, self._epochs = shown, epochs
        self._bar: Any = None
        if shown and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=epochs * samples,
                initial=done,
                unit=" samples",
                unit_scale=True,
                dynamic_ncols=True,
                smoothing=0.1,
                bar_format="{desc} {percentage:3.0f}%|{bar}| {rate_fmt}{postfix} [{elapsed}<{remaining}]",
            )

    def advance(self, epoch: int, samples: int, loss: float) -> None:
        """Some steps were done."""
        if self._bar is not None:
            self._bar.set_description_str(f"epoch {epoch + 1}/{self._epochs}", refresh=False)
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update(samples)

    def epoch(self, epoch: int, values: dict[str, Any], samples_per_s: float) -> None:
        """An epoch ended."""
        shown = "  ".join(
            f"{k} {v:.4f}" for k, v in values.items() if isinstance(v, float) and ("@10" in k or k == "loss")
        )
        line = f"epoch {epoch + 1}/{self._epochs}  {shown}  {samples_per_s / 1e6:.2f} M samples/s"
        if self._bar is not None:
            self._bar.write(line)
        elif self._shown:
            say(line, err=True, flush=True)

    def close(self) -> None:
        """Leave the terminal clean."""
        if self._bar is not None:
            self._bar.close()


def rounded(value: float) -> float:
    """Nine significant digits: sums of one run cut at other places differ beyond them."""
    return float(f"{value:.9g}") if math.isfinite(value) else value
