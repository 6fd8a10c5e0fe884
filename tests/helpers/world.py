"""Several ranks as threads of one process: what the engine and the trainer exchange, without a process group."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor

from fastrec.engines.processes import ONE


class _Meeting:
    """Every thread puts a value, and gets those of all by rank."""

    def __init__(self, world: int) -> None:
        self.barrier = threading.Barrier(world, timeout=60)
        self.values: list[Any] = [None] * world

    def exchange(self, rank: int, value: Any) -> list[Any]:
        self.values[rank] = value
        self.barrier.wait()
        found = list(self.values)
        self.barrier.wait()
        return found


class ThreadProcesses:
    """``Processes`` by threads; ``calls`` counts what went over it."""

    def __init__(self, meeting: _Meeting, rank: int, world: int) -> None:
        self._meeting, self.rank, self.world, self.local_rank = meeting, rank, world, rank
        self.calls: list[str] = []

    def add(self, tensors: list[Tensor]) -> None:
        self.calls.append("add")
        everyone = self._meeting.exchange(self.rank, [t.clone() for t in tensors])
        for k, t in enumerate(tensors):
            total = torch.zeros_like(t)
            for theirs in everyone:
                total += theirs[k]
            t.copy_(total)

    def gather(self, tensor: Tensor) -> list[Tensor]:
        self.calls.append("gather")
        return [t.clone() for t in self._meeting.exchange(self.rank, tensor.clone())]

    def tell(self, value: Any) -> Any:
        return self._meeting.exchange(self.rank, value)[0]

    def any(self, flag: bool) -> bool:
        return any(self._meeting.exchange(self.rank, flag))


_here = threading.local()


@contextlib.contextmanager
def joined() -> Iterator[Any]:
    """In place of ``processes.joined``: the rank that this thread is."""
    yield getattr(_here, "processes", ONE)


def in_world(world: int, work: Callable[[Any], Any]) -> list[Any]:
    """What ``work(processes)`` gives on each of so many ranks; the first error is raised."""
    meeting, results, errors = _Meeting(world), [None] * world, []

    def one(rank: int) -> None:
        try:
            _here.processes = ThreadProcesses(meeting, rank, world)
            results[rank] = work(_here.processes)
        except BaseException as error:
            errors.append(error)
            meeting.barrier.abort()

    threads = [threading.Thread(target=one, args=(rank,)) for rank in range(world)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    if errors:
        raise next((e for e in errors if not isinstance(e, threading.BrokenBarrierError)), errors[0])
    return results
