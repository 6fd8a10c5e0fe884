"""The training loop that every engine shares: epochs, validation, early stopping, checkpoints, signals."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field, fields
from typing import Any, NamedTuple

from fastrec.engines.base import Engine, Progress
from fastrec.engines.processes import ONE, Processes
from fastrec.errors import CheckpointError, FastrecError, shown
from fastrec.files import COUNT, SHA256, expect
from fastrec.runs.checkpoint import Checkpoints
from fastrec.sampling.order import Cursor
from fastrec.training.faults import Diverged, clear_memory_errors
from fastrec.training.tracking import ProgressBar, Tracker, rounded

MAX_WEIGHT = 1e4
"""A larger weight means divergence. Initial weights stay below 700 (init_std = 100) and weights that rank well below
100; `lr = 1e6` gives 1e6 to 1e7 with a finite loss, which no check of the loss finds."""
_PATIENT_S = 1.0  # an advance lasts about this long at most, so that a signal is answered


_STATE = {
    **dict.fromkeys(("epoch", "position", "step", "n_samples", "waited", "total_samples", "metrics_bytes"), COUNT),
    **dict.fromkeys(("loss_sum", "train_s", "wall_s"), float),
    "window": [float],
    "best": (float, None),
    "best_epoch": (COUNT, None),
    "best_file": ({"file": str, "sha256": SHA256}, None),
    "ended": (str, None),
}


@dataclass
class State:
    """The state of a run, except the engine's own: JSON in each checkpoint."""

    epoch: int = 0
    position: int = 0
    step: int = 0
    loss_sum: float = 0.0
    n_samples: int = 0
    window: tuple[float, int, float] = (0.0, 0, 0.0)
    """Loss sum, samples and seconds since the last record."""
    best: float | None = None
    best_epoch: int | None = None
    waited: int = 0
    best_file: dict[str, str] | None = None
    train_s: float = 0.0
    wall_s: float = 0.0
    total_samples: int = 0
    metrics_bytes: int = 0
    ended: str | None = None

    @classmethod
    def of(cls, values: Any, n_positives: int) -> State:
        """The state that a checkpoint holds, checked; ValueError with the reason."""
        expect(values, {f"{name}?": kind for name, kind in _STATE.items()}, "trainer")
        unknown = set(values) - {f.name for f in fields(cls)}
        if unknown:
            raise ValueError(f"trainer has unknown fields {shown(sorted(unknown))}")
        state = cls(**values)
        if len(state.window) != 3 or state.position > n_positives or (state.position and not state.n_samples):
            raise ValueError(f"trainer is at position {state.position} of {n_positives}, window {shown(state.window)}")
        return state

    @property
    def cursor(self) -> Cursor:
        """Epoch and position as one."""
        return Cursor(self.epoch, self.position)


class _Timed(NamedTuple):
    """Steps of this epoch that were timed: not the first of a process, which compiles."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0

    def plus(self, done: Progress, seconds: float) -> _Timed:
        return _Timed(self.steps + done.n_steps, self.samples + done.n_samples, self.seconds + seconds)

    @property
    def rate(self) -> float:
        """Samples a second; 0 where no step was timed."""
        return self.samples / self.seconds if self.seconds else 0.0

    @property
    def tells(self) -> bool:
        """Whether they are enough to estimate the time of a run."""
        return self.samples > 0 and (self.steps >= 5 or self.seconds >= 1.0)


@dataclass
class Trainer:
    """Runs an engine to the end of its epochs, or until something stops it.

    Parameters
    ----------
    engine : Engine
    epochs : int
        Number of the last epoch at most, counted from the first of all.
    patience : int
        Epochs without a better validation before stopping; 0 never stops and keeps the last weights.
    validate : callable, optional
        Gives the metrics of the current weights, among them ``select``; None where there is no validation part.
    select : str
        The metric, of those that ``validate`` gives, whose best epoch is kept.
    checkpoints : Checkpoints, optional
        Where states go; None keeps everything in memory.
    tracker : Tracker, optional
    checkpoint_every : int
        Steps between checkpoints; 0 writes one at the end of each epoch.
    log_every : int
        Steps between records of the loss.
    progress : bool
        Show progress on stderr.
    lr : callable, optional
        Step -> learning rate, for the record.
    extra : dict
        Kept in every checkpoint: what a resumed run must agree with.
    first : int
        Epochs before this run's own: those of the run that it updates.
    processes : Processes
        Those that train together. Rank 0 decides what depends on the clock; a signal to any of them ends all.
    keeps : bool
        Whether this process keeps the best weights; of several only rank 0 does.
    """

    engine: Engine
    epochs: int
    patience: int = 0
    validate: Callable[[], dict[str, float]] | None = None
    select: str = "full:NDCG@10"
    checkpoints: Checkpoints | None = None
    tracker: Tracker | None = None
    checkpoint_every: int = 0
    log_every: int = 100
    progress: bool = True
    lr: Callable[[int], float] | None = None
    extra: dict[str, Any] = field(default_factory=dict)
    processes: Processes = ONE
    keeps: bool = True
    state: State = field(default_factory=State)
    first: int = 0

    def __post_init__(self) -> None:
        self._signal: int | None = None
        self._best_weights: dict[str, Any] | None = None
        self._step_s = 0.0
        self._epoch_began = self.state.train_s
        self._timed = _Timed()
        self.rate_of_epoch: float | None = None

    @property
    def selects(self) -> bool:
        """Whether the best epoch's weights are kept, rather than the last."""
        return self.patience > 0 and self.validate is not None

    def run(self, *, stop_after: int | None = None) -> str:
        """Train on from ``state``; returns why it ended.

        Parameters
        ----------
        stop_after : int, optional
            End as if interrupted once this many steps are done in all.

        Returns
        -------
        str
            "all epochs", "early stopping" or "interrupted". Unless interrupted, the model then holds the weights that
            are kept: those of the best epoch, or the last with ``patience=0`` or without validation.

        Raises
        ------
        FastrecError
            If the loss or a weight is NaN, infinite or absurd, memory runs out, or a file cannot be written. The last
            checkpoint is intact.
        """
        s, samples = self.state, self._samples_per_epoch()
        bar = ProgressBar(self.progress, epochs=self.epochs, first=self.first, samples=samples, done=s.total_samples)
        began, before = time.perf_counter(), s.wall_s
        try:
            with clear_memory_errors(), self._signals():
                while s.ended is None and s.epoch < self.epochs:
                    if s.position < self.engine.n_positives:
                        self._advance(bar, stop_after)
                    s.wall_s = before + time.perf_counter() - began
                    if s.position >= self.engine.n_positives:
                        self._end_epoch(bar)
                        if s.ended is None and not self.checkpoint_every:
                            self.save()
                    if self.processes.any(self._signal is not None) or (
                        stop_after is not None and s.step >= stop_after
                    ):
                        if s.ended is None and s.epoch < self.epochs:
                            self.save()
                            return "interrupted"
                        break
                s.ended = s.ended or "all epochs"
                s.wall_s = before + time.perf_counter() - began
                self.save()
        finally:
            bar.close()
        self._restore_best()
        return s.ended

    def resume(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Take up the state of a checkpoint.

        Raises
        ------
        CheckpointError
            If it is not a state of this run's trainer and engine.
        """
        try:
            self.state = State.of(meta.get("trainer"), self.engine.n_positives)
            expect(meta.get("engine"), {"step": COUNT}, "engine")
            self.engine.load_state(tensors, meta["engine"])
            self._epoch_began = self.state.train_s
        except (ValueError, TypeError, KeyError, AttributeError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint of step {shown(meta.get('step'))} does not fit this run ({shown(error, 300)}); "
                "restore the run's own files, or train again"
            ) from error

    def _samples_per_epoch(self) -> int:
        return self.engine.n_positives * (1 + self.engine.n_negatives)

    def _advance(self, bar: ProgressBar, stop_after: int | None) -> None:
        s = self.state
        n = self.log_every - s.step % self.log_every
        if self.checkpoint_every:
            n = min(n, self.checkpoint_every - s.step % self.checkpoint_every)
        n = min(n, max(1, int(_PATIENT_S / self._step_s)) if self._step_s else 1)
        if stop_after is not None:
            n = min(n, stop_after - s.step)
        n = self.processes.tell(n)
        began = time.perf_counter()
        done = self.engine.advance(s.cursor, n)
        took = time.perf_counter() - began
        first = not self._step_s  # compiles, and starts the feed
        self._step_s = took / max(1, done.n_steps)
        if not first:
            self._timed = self._timed.plus(done, took)
        self._check_loss(done)
        s.epoch, s.position = done.cursor
        s.step += done.n_steps
        s.loss_sum += done.loss_sum
        s.n_samples += done.n_samples
        s.total_samples += done.n_samples
        s.train_s += took
        bar.advance(s.epoch, done.n_samples, s.loss_sum / s.n_samples)
        if self._timed.tells:
            left = self.epochs * self._samples_per_epoch() - s.total_samples
            bar.estimate(self._timed.seconds / self._timed.samples * left, self.selects)
        loss, n_samples, seconds = s.window
        s.window = (loss + done.loss_sum, n_samples + done.n_samples, seconds + took)
        if s.step % self.log_every == 0:
            self._record_window()
        at_end = s.position >= self.engine.n_positives
        if self.checkpoint_every and s.step % self.checkpoint_every == 0 and not at_end:
            self.save()

    def _record_window(self) -> None:
        """The loss of the steps since the last record; where those steps were cut up plays no part."""
        s = self.state
        loss, n_samples, seconds = s.window
        s.window = (0.0, 0, 0.0)
        if self.tracker is not None and n_samples:
            values = {"loss": rounded(loss / n_samples), "samples_per_s": round(n_samples / max(seconds, 1e-9))}
            self.tracker.record("train", s.step, values | ({"lr": self.lr(s.step - 1)} if self.lr else {}))

    def _check_loss(self, done: Progress) -> None:
        if not math.isfinite(done.loss_sum):
            epoch, position = done.cursor
            raise self._diverged(f"the loss is {done.loss_sum} at epoch {epoch + 1}, by positive {position:,}")

    def _check_weights(self) -> None:
        """Refuse weights that mean nothing, before they are validated or kept. Cost: one pass over them, one sync."""
        for name, weight in self.engine.model.state_dict().items():
            largest = float(weight.detach().abs().max()) if weight.numel() else 0.0
            if not largest <= MAX_WEIGHT:  # NaN too
                raise self._diverged(
                    f"the largest weight of {name} is {largest:.3g} at epoch {self.state.epoch + 1} "
                    f"(more than {MAX_WEIGHT:,.0f} means nothing)"
                )

    def _diverged(self, what: str) -> Diverged:
        left = f". {self.checkpoints.left(resume=False)}" if self.checkpoints is not None else ""
        return Diverged(f"{what}: training diverged; train again with a lower lr or a higher l2{left}")

    def _end_epoch(self, bar: ProgressBar) -> None:
        """Validate, record, decide; then the cursor is at the start of the next epoch."""
        self._check_weights()
        s = self.state
        values: dict[str, Any] = {"epoch": s.epoch + 1, "loss": rounded(s.loss_sum / s.n_samples)}
        rate = self._timed.rate or (s.total_samples / s.train_s if s.train_s else 0.0)
        took, self._epoch_began = s.train_s - self._epoch_began, s.train_s
        self.rate_of_epoch, self._timed = rate, _Timed()
        if self.validate is not None:
            metrics = self.validate()
            values |= {f"val {k}": float(v) for k, v in metrics.items()}
            if self.selects:
                self._select(metrics[self.select])
        bar.epoch(s.epoch, values, rate)
        if self.tracker is not None:
            values |= {"samples_per_s": round(rate), "epoch_s": round(took, 3)}
            values |= {"train_s": round(s.train_s, 3), "wall_s": round(s.wall_s, 3)}
            self.tracker.record("epoch", s.step, values)
        s.epoch, s.position, s.loss_sum, s.n_samples = s.epoch + 1, 0, 0.0, 0
        if self.selects and s.waited >= self.patience:
            s.ended = "early stopping"
        elif self.checkpoint_every and s.step % self.checkpoint_every == 0 and s.epoch < self.epochs:
            self.save()

    def _select(self, value: float) -> None:
        s = self.state
        if s.best is not None and not value > s.best:
            s.waited += 1
            return
        s.best, s.best_epoch, s.waited = value, s.epoch + 1, 0
        if not self.keeps:
            return
        weights = {k: v.detach().cpu().clone() for k, v in self.engine.model.state_dict().items()}
        if self.checkpoints is not None:
            s.best_file = self.checkpoints.save_best(s.best_epoch, weights)
        else:
            self._best_weights = weights

    def _restore_best(self) -> None:
        if not self.selects or not self.keeps or self.state.best_epoch is None:
            return
        if self.checkpoints is not None and self.state.best_file is not None:
            self._best_weights = self.checkpoints.load_best(self.state.best_file)
        self.engine.model.load_state_dict(self._best_weights)

    def save(self) -> None:
        """Write a checkpoint of the state as it is; nothing where there is no place for it."""
        if self.checkpoints is None and self.keeps:
            return
        self._check_weights()  # on every process, so that all of them end if the weights are refused
        if self.checkpoints is None:
            return
        if self.tracker is not None:
            self.state.metrics_bytes = self.tracker.length
        tensors, meta = self.engine.state()
        try:
            self.checkpoints.save(
                self.state.step,
                tensors,
                {"trainer": asdict(self.state), "engine": meta, "best": self.state.best_file, **self.extra},
            )
        except FastrecError as error:
            raise FastrecError(f"{error}. {self.checkpoints.left()}") from error

    @contextlib.contextmanager
    def _signals(self) -> Iterator[None]:
        """SIGINT, SIGTERM and SIGHUP ask for an end after the step; a second SIGINT or SIGTERM is not held back.

        A closing terminal sends SIGHUP, often twice and with SIGTERM: it never keeps the checkpoint from being written.
        Where it is ignored (``nohup``) it stays so.
        """
        if threading.current_thread() is not threading.main_thread():
            yield  # Python delivers signals to the main thread only
            return
        before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            before[hangup] = signal.getsignal(hangup)

        def ask(number: int, _: Any) -> None:
            self._signal = number
            if number != hangup:
                for n in (signal.SIGINT, signal.SIGTERM):
                    signal.signal(n, before[n])

        for number in before:
            signal.signal(number, ask)
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
