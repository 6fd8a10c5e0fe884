"""The fused engine: sample, score and update in compiled passes, without materialising a batch of rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
import numpy as np

from fastrec.engines.base import Progress
from fastrec.engines.capabilities import Wish, choose, name_of
from fastrec.engines.fused.deterministic import Deterministic
from fastrec.engines.fused.lock_free import LockFree
from fastrec.engines.fused.prepare import Block
from fastrec.engines.fused.weights import Weights, restored
from fastrec.engines.units import Units
from fastrec.errors import ConfigError
from fastrec.jit import resolve_threads, run_ranges
from fastrec.models import losses
from fastrec.sampling.order import Cursor

AT_ONCE = 65_536
"""Positives of one call of the deterministic kernel, where batches are small: threads meet in Python between calls."""

MODES = ("deterministic", "lock_free")


class FusedEngine:
    """Trains MF (BCE, BPR) and GMF (BCE) on the CPU, from the same positives and negatives as the torch engine.

    Parameters
    ----------
    model : torch.nn.Module
        MF or GMF of ``fastrec.models``; its parameters are trained in place.
    stream : Stream
    batch_size : int
        Positives a step.
    lr : callable
        Step (from 0) -> learning rate; that of one sample for SGD.
    mode : {"deterministic", "lock_free"}
    loss : {"bce", "bpr"}
    optimizer : {"sgd", "row-adagrad", "lazy-adam"}
        lazy-adam in deterministic mode.
    l2 : float
        Each positive adds ``l2 / 2`` times the squares of what it and its negatives use; see ``engines.units``.
    output_l2 : float, optional
        In place of ``l2`` on h.
    output_lr : float
        Learning rate of h as a fraction of ``lr``.
    threads : int, optional
        None means every processor.

    Raises
    ------
    ConfigError
        For an unsupported model, loss, optimiser or mode.

    Notes
    -----
    Guarantee: deterministic mode gives the same bytes for any number of threads, any cuts into ``advance`` calls, and
    any restart, on one machine with one set of versions. lock_free gives this with one thread only.
    """

    def __init__(
        self,
        model: Any,
        stream: Any,
        *,
        batch_size: int,
        lr: Callable[[int], float],
        mode: str = "deterministic",
        loss: str = "bce",
        optimizer: str = "sgd",
        l2: float = 0.0,
        output_l2: float | None = None,
        output_lr: float = 1.0,
        threads: int | None = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"fused_mode = {mode!r}: must be one of {', '.join(MODES)}")
        self.weights = Weights(model, optimizer)
        weighted = stream.weights is not None
        choose(Wish(name_of(model), loss, optimizer, engine="fused", fused_mode=mode, weighted=weighted))
        self.model, self.stream, self.batch_size, self.lr = model, stream, int(batch_size), lr
        self.n_negatives = stream.n_negatives
        self.n_positives = stream.n_positives
        self.mode, self.loss, self.optimizer, self.l2 = mode, loss, optimizer, float(l2)
        self.output_l2, self.output_lr = self.l2 if output_l2 is None else float(output_l2), float(output_lr)
        self.threads = resolve_threads(threads)
        self.step = 0
        rows = min(self.batch_size, self.n_positives)
        n_items = self.weights.item_factors.shape[0] if mode == "deterministic" else 0
        self._block = Block(self._n_batches(rows), rows, stream.n_negatives, n_items=n_items, weighted=weighted)
        self._units = Units(losses.get(loss), optimizer, 1 + stream.n_negatives)
        decay = self._units.l2 if mode == "deterministic" else self._units.l2_of_sample
        options: dict[str, Any] = {
            "loss": loss,
            "l2": decay(self.l2),
            "output_l2": decay(self.output_l2),
            "output_lr": self.output_lr,
            "threads": self.threads,
        }
        self._passes: Deterministic | LockFree
        if mode == "deterministic":
            self._passes = Deterministic(self.weights, self._block, **options)
        else:
            self._passes = LockFree(self.weights, weighted=weighted, **options)

    def _n_batches(self, rows: int) -> int:
        """Batches prepared at once, each by one thread: as many for every thread, so that the cores are even."""
        batches = 2 if self.mode == "lock_free" else max(2, min(64, AT_ONCE // (rows * self.threads)))
        return batches * self.threads

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Run up to ``n_steps`` steps, not beyond the cursor's epoch."""
        total, start, steps, columns = 0.0, cursor.position, 0, 1 + self.n_negatives
        terms = losses.get(self.loss).terms(1, columns)  # of a row's summed loss; the mean is told per sample
        while steps < n_steps and cursor.position < self.n_positives:
            starts = range(cursor.position, self.n_positives, self.batch_size)[: n_steps - steps]
            cuts = [(at, min(at + self.batch_size, self.n_positives)) for at in starts[: len(self._block.users)]]
            self._prepare(cursor.epoch, cuts)
            sizes = np.array([stop - at for at, stop in cuts], np.int64)
            lrs = [self.lr(self.step + k) for k in range(len(cuts))]
            if isinstance(self._passes, Deterministic):
                lrs = [self._units.step_lr(lr, int(n)) for lr, n in zip(lrs, sizes)]
                means = self._passes.run(sizes, lrs, self.step)
                total += float(means @ sizes) * columns
            else:
                for k, lr in enumerate(lrs):
                    total += self._passes.step(self._block.batch(k, sizes[k]), lr) * columns / terms
            self.step += len(cuts)
            steps += len(cuts)
            cursor = Cursor(cursor.epoch, cuts[-1][1])
        n = cursor.position - start
        return Progress(cursor, total, n * columns, n, steps)

    def _prepare(self, epoch: int, cuts: list[tuple[int, int]]) -> None:
        def work(lo: int, hi: int) -> None:
            for k in range(lo, hi):
                self._block.fill(k, self.stream, epoch, *cuts[k])

        run_ranges(work, len(cuts), self.threads)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights and the optimiser's state, named as the torch engine names them, and the step."""
        import torch

        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        for name, states in self.weights.states.items():
            shape = (-1, 1) if self.weights.named[name].ndim == 2 else (-1,)
            for key, array in states.items():
                state = torch.from_numpy(array)
                tensors[f"optimizer.{name}.{key}"] = state.reshape(shape) if key == "sum" else state
            if self.optimizer == "lazy-adam":
                tensors[f"optimizer.{name}.step"] = torch.tensor(float(self.step), dtype=torch.float64)
        return tensors, {"step": self.step}

    def load_state(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Put back what ``state`` gave.

        Raises
        ------
        CheckpointError
            If a tensor is missing or has another shape.
        """
        arrays = {f"model.{name}": array for name, array in self.weights.named.items()}
        for name, states in self.weights.states.items():
            arrays |= {f"optimizer.{name}.{key}": array for key, array in states.items()}
        for array, values in restored(arrays, tensors):
            array[...] = values
        self.step = int(meta["step"])

    def describe(self) -> dict[str, Any]:
        """Backend, device and precision."""
        return {
            "engine": "fused",
            "fused_mode": self.mode,
            "device": "cpu",
            "precision": "fp32",
            "threads": self.threads,
            "numba": numba.__version__,
        }

    def close(self) -> None:
        """Nothing runs in the background."""
