"""The epoch of each iteration of a data set, agreed upon by the worker processes of a DataLoader."""

from __future__ import annotations

import time
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray

from fastrec.errors import ConfigError, FastrecError
from fastrec.sampling.order import Cursor

MAX_WORKERS = 1024
_KEPT = 64
"""Iterations whose beginning is remembered: more than can be under way at once."""
_NEXT, _SERIAL, _MOVED, _RING = slice(0, 2), 2, 3, 4
_JOINED = _RING + 6 * _KEPT
_DONE = _JOINED + MAX_WORKERS
PATIENCE_S = 300


class Iteration(NamedTuple):
    """One pass over the data set."""

    serial: int
    seed: int
    """Base seed of the DataLoader's iterator; 0 in the process of the data set itself."""
    turn: int
    """Passes that the same worker processes made before (persistent workers)."""
    epoch: int
    position: int
    workers: int


class Epochs:
    """The next epoch, and the iterations under way, in memory that worker processes share, forked or spawned.

    A DataLoader tells the data set in its own process nothing of an iteration, and each worker iterates over a copy. So
    worker 0 opens each iteration here, under what tells it from others (the base seed and its own count of passes), and
    the other workers look it up: all of them read one epoch, however late one of them starts.
    """

    def __init__(self) -> None:
        self._shared = torch.zeros(_DONE + MAX_WORKERS, dtype=torch.int64).share_memory_()  # type: ignore[no-untyped-call]
        self._turn = (0, 0)
        self._taken = (0, 0)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        if not self._shared.is_shared():  # a copy, by pickle or deepcopy, goes its own way
            self._shared = self._shared.clone().share_memory_()

    @property
    def _memory(self) -> NDArray[Any]:
        shared: NDArray[Any] = self._shared.numpy()
        return shared

    @property
    def next(self) -> Cursor:
        """The start of the next iteration."""
        return Cursor(*self._memory[_NEXT].tolist())

    @next.setter
    def next(self, cursor: Cursor) -> None:
        self._memory[_NEXT] = cursor
        self._memory[_MOVED] = 1

    @property
    def latest(self) -> Iteration | None:
        """The iteration opened last; None before the first, and once ``next`` is set."""
        serial = int(self._memory[_SERIAL])
        return None if not serial or self._memory[_MOVED] else self._read(serial)

    def begin(self, worker: Any) -> Iteration:
        """The iteration that starts now in this process: a new one, or in workers but the first that of worker 0."""
        if worker is None:
            return self._open(0, 0, 0)
        if worker.num_workers > MAX_WORKERS:
            raise ConfigError(f"num_workers={worker.num_workers}: at most {MAX_WORKERS}")
        seed = worker.seed - worker.id
        turn = self._turn[1] + 1 if self._turn[0] == seed else 0
        self._turn = (seed, turn)
        if worker.id == 0:
            found = self._open(seed, turn, worker.num_workers)
        else:
            found = self._wait(seed, turn, int(self._memory[_JOINED + worker.id]))
        self._memory[_JOINED + worker.id] = found.serial
        return found

    def _open(self, seed: int, turn: int, workers: int) -> Iteration:
        memory = self._memory
        serial = int(memory[_SERIAL]) + 1
        made = Iteration(serial, seed, turn, *self.next, workers)
        at = _RING + 6 * (serial % _KEPT)
        memory[at] = 0  # readers skip a slot that is being written
        memory[at + 1 : at + 6] = made[1:]
        memory[at] = serial
        memory[_NEXT] = made.epoch + 1, 0
        memory[_MOVED] = 0
        memory[_SERIAL] = serial
        return made

    def _read(self, serial: int) -> Iteration:
        at = _RING + 6 * (serial % _KEPT)
        return Iteration(*self._memory[at : at + 6].tolist())

    def _wait(self, seed: int, turn: int, joined: int) -> Iteration:
        end = time.monotonic() + PATIENCE_S
        while time.monotonic() < end:
            last = int(self._memory[_SERIAL])
            for serial in range(last, max(joined, last - _KEPT), -1):
                found = self._read(serial)
                if found[:3] == (serial, seed, turn):
                    return found
            time.sleep(1e-3)
        raise FastrecError(f"worker 0 of the DataLoader has not begun to iterate for {PATIENCE_S} s; look at its error")

    def take(self, iteration: Iteration, position: int) -> None:
        """Note in the process of the data set how far its own iteration has come."""
        self._taken = (iteration.serial, position)

    def taken(self, iteration: Iteration) -> int | None:
        """The progress that ``take`` noted of this iteration; None if another process iterates."""
        return self._taken[1] if self._taken[0] == iteration.serial else None

    def finish(self, iteration: Iteration, worker: Any) -> None:
        """Note that a worker has no more batches."""
        if worker is not None:
            self._memory[_DONE + worker.id] = iteration.serial

    def finished(self, iteration: Iteration) -> bool:
        """Whether every worker has made its last batch of the iteration."""
        return bool((self._memory[_DONE : _DONE + iteration.workers] >= iteration.serial).all())
