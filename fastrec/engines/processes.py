"""The processes of one training: which one this is, and what they exchange. Gloo on the CPU, NCCL on CUDA devices.

Started by ``torchrun --nproc_per_node=W -m fastrec train ...``. Nothing here knows of data: which rows a process
trains follows from its rank (``fastrec.batches.slices``).

W processes.
"""

from __future__ import annotations

import atexit
import contextlib
import json
import os
import sys
from collections.abc import Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from fastrec.errors import ConfigError, FastrecError

if TYPE_CHECKING:
    from torch import Tensor

PATIENCE = timedelta(hours=2)
"""The longest wait for another process, such as for rank 0 while it evaluates. A dead one is noticed at once, by its
closed connection."""
_LARGE = 1 << 22
"""Elements from which a tensor is summed by a call of its own; smaller ones are copied into one: a call costs a
millisecond or two by gloo (2 threads of an AMD EPYC), as much as copying 10 MB."""


class LostProcess(FastrecError):
    """Another process of the job has ended, or cannot be reached; its own message says why."""


class Launch(NamedTuple):
    """The place of this process among those of its job."""

    rank: int = 0
    world: int = 1
    local_rank: int = 0
    """Rank among the processes of this machine: the number of its CUDA device."""


def launched() -> Launch:
    """The place that torchrun, or an initialised ``torch.distributed``, gave this process. Loads no torch.

    Raises
    ------
    ConfigError
        If the environment has a part of torchrun's variables only: each process would train everything.
    """
    dist = sys.modules.get("torch.distributed")
    if dist is not None and dist.is_available() and dist.is_initialized():
        rank = int(dist.get_rank())
        return Launch(rank, int(dist.get_world_size()), int(os.environ.get("LOCAL_RANK", rank)))
    names = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
    found = {name: os.environ.get(name) for name in names}
    if (found["WORLD_SIZE"] or "1") == "1" and found["RANK"] in (None, "0"):
        return Launch()
    missing = [name for name, value in found.items() if not value]
    try:
        rank, world = int(found["RANK"] or ""), int(found["WORLD_SIZE"] or "")
        local = int(os.environ.get("LOCAL_RANK") or rank)
    except ValueError:
        rank, world, local = -1, 0, 0
    if missing or not 0 <= rank < world:
        what = f"; {', '.join(missing)} not set" if missing else ""
        raise ConfigError(
            f"WORLD_SIZE={found['WORLD_SIZE']}, RANK={found['RANK']}{what}: not the environment of one of several "
            "processes; start them by torchrun, or start one without torchrun and unset these variables"
        )
    return Launch(rank, world, local)


def refuse_several(what: str) -> None:
    """Refuse what one process does, where torchrun started several.

    Raises
    ------
    ConfigError
        With how to start it.
    """
    if (place := launched()).world > 1:
        raise ConfigError(
            f"{what}: runs in one process, and this is one of {place.world} that would all do the same; start it "
            "without torchrun"
        )


class Processes(Protocol):
    """What the processes of a training exchange; every method is called by all of them, in the same order."""

    rank: int
    world: int
    local_rank: int

    def add(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over the processes, the same bytes on all."""
        ...

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of every process, by rank; all have one shape."""
        ...

    def tell(self, value: Any) -> Any:
        """The JSON value that rank 0 passed; floats keep every bit."""
        ...

    def any(self, flag: bool) -> bool:
        """Whether any process passed True."""
        ...


class OneProcess:
    """A training by itself: nothing to exchange."""

    rank, world, local_rank = 0, 1, 0

    def add(self, tensors: list[Tensor]) -> None:
        """Each sum is the tensor itself."""

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor."""
        return [tensor]

    def tell(self, value: Any) -> Any:
        """The value."""
        return value

    def any(self, flag: bool) -> bool:
        """The flag."""
        return flag


ONE = OneProcess()


class TorchProcesses:
    """The default process group of ``torch.distributed``.

    Raises
    ------
    LostProcess
        From every method, once another process has ended.
    """

    def __init__(self, place: Launch) -> None:
        self.rank, self.world, self.local_rank = place

    def add(self, tensors: list[Tensor]) -> None:
        """Sum in place. Cost: large tensors one call each, in flight together; small ones are packed by dtype."""
        import torch
        import torch.distributed as dist

        large = [t for t in tensors if t.numel() >= _LARGE and t.is_contiguous()]
        small = [t for t in tensors if not (t.numel() >= _LARGE and t.is_contiguous())]
        packs = [[t for t in small if t.dtype == kind] for kind in dict.fromkeys(t.dtype for t in small)]
        flat = [torch.cat([t.reshape(-1) for t in pack]) for pack in packs]
        with self._reported():
            for work in [dist.all_reduce(t, async_op=True) for t in (*large, *flat)]:
                work.wait()
        for pack, sums in zip(packs, flat):
            for t, part in zip(pack, sums.split_with_sizes([t.numel() for t in pack])):
                t.copy_(part.view_as(t))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensor of every process, by rank."""
        import torch
        import torch.distributed as dist

        found = [torch.empty_like(tensor) for _ in range(self.world)]
        with self._reported():
            dist.all_gather(found, tensor)
        return found

    def tell(self, value: Any) -> Any:
        """Broadcast JSON from rank 0 as bytes: no pickle."""
        import numpy as np
        import torch
        import torch.distributed as dist

        text = json.dumps(value).encode() if self.rank == 0 else b""
        length = torch.tensor([len(text)])
        with self._reported():
            dist.broadcast(length, 0)
            data = torch.zeros(int(length), dtype=torch.uint8)
            if self.rank == 0:
                data.copy_(torch.from_numpy(np.frombuffer(text, np.uint8).copy()))
            dist.broadcast(data, 0)
        return json.loads(data.numpy().tobytes())

    def any(self, flag: bool) -> bool:
        """Whether any process passed True."""
        import torch
        import torch.distributed as dist

        found = torch.tensor([int(flag)])
        with self._reported():
            dist.all_reduce(found, dist.ReduceOp.MAX)
        return bool(found)

    @contextlib.contextmanager
    def _reported(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:  # torch has no narrower one that gloo and NCCL both raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise LostProcess(
                f"rank {self.rank} of {self.world} lost another process ({lines[0][:200]}): the job ends; the process "
                "that ended first says why, and `fastrec train --resume RUN` under torchrun continues the run"
            ) from error


@contextlib.contextmanager
def joined() -> Iterator[Processes]:
    """The processes of this job, connected here unless the caller has done so.

    They stay connected until this process ends, for a second group under the same address may wait forever; after an
    error they are cut off at once, so that the others notice.

    Raises
    ------
    ConfigError
        See ``launched``; or if this torch was built without ``torch.distributed``.
    LostProcess
        If the others cannot be reached.
    """
    place = launched()
    if place.world == 1:
        yield ONE
        return
    import torch
    import torch.distributed as dist

    if not dist.is_available():
        raise ConfigError(f"torch {torch.__version__} was built without torch.distributed: start one process")
    if not dist.is_initialized():
        _join(place)
    try:
        yield TorchProcesses(place)
    except BaseException:
        if _joined:
            _leave()
        raise


_joined: list[Launch] = []
"""The place for which ``joined`` made the group; empty where the caller made it, or there is none."""


def _join(place: Launch) -> None:
    import torch
    import torch.distributed as dist

    nccl = torch.cuda.is_available() and dist.is_nccl_available()
    try:
        dist.init_process_group("cpu:gloo,cuda:nccl" if nccl else "gloo", timeout=PATIENCE)
    except (RuntimeError, ValueError) as error:
        raise LostProcess(
            f"rank {place.rank} of {place.world} cannot join the others ({str(error).strip().splitlines()[0][:200]}); "
            "start all of them by one torchrun command for each machine"
        ) from error
    _joined.append(place)
    atexit.register(_leave)


def _leave() -> None:
    import torch.distributed as dist

    _joined.clear()
    if dist.is_initialized():
        dist.destroy_process_group()
