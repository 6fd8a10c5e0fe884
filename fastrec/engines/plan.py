"""What a training takes of memory, before it is started: arithmetic only, loads no torch.

U users, I items, D factors, E positives, N negatives, B positives of an update, W processes, bytes throughout.

Each process has a copy of the weights, of their gradients and of the optimiser's state, on its device:

- weights: ``4 D (U + I)``; MF adds ``4 (U + I)`` of biases, which is left out, as h of GMF is;
- gradients: ``4 D (U + I)``, dense in the torch engine; none in the fused one, which trains in one process;
- state: ``s D (U + I)``, s = 8 for adam, adamw and lazy-adam, 4 for adagrad, 0 for sgd; row-adagrad ``4 (U + I)``;
- 16-bit copies: ``2 D (U + I)`` with bf16 or fp16;
- log, for one GPU: ``12 E + 8 U``, and the membership, from which it draws its own batches;
- step: temporaries of the optimiser over its largest table, ``t 4 D max(U, I)``: t = 3 for row-adagrad and 4 for
  lazy-adam, which are written in torch operations, 0 for the others;
- exchange, for W > 1: by rows ``(W + 2) k (4 D + 8)`` of each table with ``k = min(R, ceil(B / W) c)``, c = 1 for users
  and 1 + N for items; where ``W k (D + 2) >= 2 R D`` a dense all-reduce instead, in place from 4,194,304 numbers on,
  else through a copy of ``4 D R``. See ``fastrec.engines.minibatch.exchange``.

And on the host, whatever the device:

- log: ``3 (4 E + 8 U)``: the training part, and the copies that sampler and order of visit check and keep, the latter
  with user and item in ``4 E``, or ``8 E`` where they do not fit 32 bits together;
- membership: a bitmap of ``4 U ceil(I / 32)`` up to 32 MiB, else a filter of about ``2 E`` within the sampler's budget
  of 512 MiB, else none;
- ids: ``8 (U + I)``, for integers; ids that are text take what their characters take, and are not counted;
- feed: ``3 max(B, 32,768) (16 + 4 N) / W``;
- the first weights: ``4 D (U + I)`` where the device is a GPU, drawn on the host.

What torch, CUDA and Python take by themselves, about 1 GB on a GPU and 0.5 GB on the host of each process, is counted
as ``BASE``. Evaluation is rank 0's, a block of users at a time, and is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, NamedTuple

from fastrec.errors import ConfigError

GB = 1e9
BASE = {"gpu": 1.0 * GB, "host": 0.5 * GB}
STATE = {"adam": 8, "adamw": 8, "lazy-adam": 8, "adagrad": 4, "sgd": 0, "row-adagrad": 0}
"""Bytes of optimiser state for each weight; row-adagrad has 4 for each row."""
TEMPORARIES = {"row-adagrad": 3, "lazy-adam": 4}
"""Copies of the largest table that a step makes."""
LIGHTER = ("adagrad", "sgd")
"""Optimisers by falling memory that take the place of Adam."""
FREE = 0.9
"""Fraction of a memory that a plan fills at most: allocators lose some to gaps."""
MAX_ROWS = 2**31 - 1
"""Ids are int32."""
_BITMAP, _BUDGET, _BLOCK, _IN_PLACE = 32 << 20, 512 << 20, 1 << 15, 1 << 22


class Part(NamedTuple):
    """One term of a process's memory."""

    name: str
    where: str
    """"device" or "host": the same memory where the device is the CPU."""
    n_bytes: float
    formula: str


@dataclass(frozen=True)
class Plan:
    """The memory of one process, and whether it fits.

    Parameters
    ----------
    users, items, dim : int
    positives : int
        Of the training part.
    gpus : int
        CUDA devices, one process each; 0 trains on the CPU.
    processes : int
        Processes where ``gpus`` is 0.
    hosts : int
        Machines among which the processes are divided.
    optimizer : str
    negatives : int
    batch_size : int
        Positives of a batch over all processes.
    precision : {"fp32", "bf16", "fp16"}
    gpu_memory, memory : float
        Bytes of a GPU, and of a machine.

    Raises
    ------
    ConfigError
        For sizes that fastrec does not train.
    """

    users: int
    items: int
    dim: int
    positives: int
    gpus: int = 0
    processes: int = 1
    hosts: int = 1
    optimizer: str = "adam"
    negatives: int = 4
    batch_size: int = 65_536
    precision: str = "fp32"
    gpu_memory: float = 80 * GB
    memory: float = 64 * GB
    notes: tuple[str, ...] = field(default=(), compare=False)

    def __post_init__(self) -> None:
        for name in ("users", "items", "dim", "positives", "processes", "hosts", "negatives", "batch_size"):
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} = {getattr(self, name)}: must be at least 1")
        for name in ("users", "items"):
            if getattr(self, name) > MAX_ROWS:
                raise ConfigError(f"{name} = {getattr(self, name):,}: must be at most {MAX_ROWS:,} (ids are int32)")
        if self.gpus < 0 or self.world % self.hosts:
            raise ConfigError(
                f"gpus = {self.gpus}, hosts = {self.hosts}: {self.world} processes cannot be divided evenly; change one"
            )
        if self.batch_size < self.world:
            raise ConfigError(f"batch_size = {self.batch_size}: fewer positives than {self.world} processes; raise it")
        if self.optimizer not in STATE:
            raise ConfigError(f"optimizer = {self.optimizer!r}: must be one of {', '.join(sorted(STATE))}")
        if self.precision not in ("fp32", "bf16", "fp16"):
            raise ConfigError(f"precision = {self.precision!r}: must be fp32, bf16 or fp16")

    @property
    def world(self) -> int:
        """Processes."""
        return self.gpus or self.processes

    @property
    def rows(self) -> int:
        """U + I."""
        return self.users + self.items

    def parts(self) -> list[Part]:
        """The terms of one process, in the order of the module's text."""
        d, rows = self.dim, self.rows
        state = 4.0 * rows if self.optimizer == "row-adagrad" else float(STATE[self.optimizer] * d * rows)
        step = TEMPORARIES.get(self.optimizer, 0) * 4.0 * d * max(self.users, self.items)
        found = [
            Part("weights", "device", 4.0 * d * rows, "4 D (U + I)"),
            Part("gradients", "device", 4.0 * d * rows, "4 D (U + I)"),
            Part("optimiser state", "device", state, self._state_formula()),
            Part("16-bit copies", "device", 0.0 if self.precision == "fp32" else 2.0 * d * rows, "2 D (U + I)"),
            Part("optimiser's step", "device", step, f"{TEMPORARIES.get(self.optimizer, 0)} * 4 D max(U, I)"),
            Part("exchange", "device", *self._exchange()),
            *self._resident(),
            *self._host(),
        ]
        base = [Part("torch and CUDA", "device", BASE["gpu"], "constant")] if self.gpus else []
        return [p for p in found if p.n_bytes] + base + [Part("Python and torch", "host", BASE["host"], "constant")]

    def _state_formula(self) -> str:
        return "4 (U + I)" if self.optimizer == "row-adagrad" else f"{STATE[self.optimizer]} D (U + I)"

    def _exchange(self) -> tuple[float, str]:
        if self.world == 1:
            return 0.0, ""
        own, total, ways = math.ceil(self.batch_size / self.world), 0.0, []
        for name, rows, columns in (("users", self.users, 1), ("items", self.items, 1 + self.negatives)):
            k = min(rows, own * columns)
            if self.world * k * (self.dim + 2) < 2 * rows * self.dim:  # as engines.minibatch.exchange.by_rows
                total += (self.world + 2) * k * (4 * self.dim + 8)
                ways.append(f"{name} by rows")
            else:
                total += 4.0 * self.dim * rows if self.dim * rows < _IN_PLACE else 0.0
                ways.append(f"{name} dense")
        return total, ", ".join(ways)

    def _membership(self, where: str) -> Part:
        bitmap, of_filter = 4 * self.users * -(-self.items // 32), 2 * self.positives
        if bitmap <= _BITMAP:
            return Part("membership", where, float(bitmap), "U I / 8")
        return Part("membership", where, float(of_filter if of_filter <= _BUDGET else 0), "2 E up to 512 MiB")

    def _resident(self) -> list[Part]:
        """What one GPU holds of the log to draw from; several get their batches from the host."""
        if self.gpus != 1:
            return []
        return [
            Part("log", "device", 12.0 * self.positives + 8.0 * self.users, "12 E + 8 U"),
            self._membership("device"),
        ]

    def _host(self) -> list[Part]:
        e, u, i = self.positives, self.users, self.items
        together = 4 if u.bit_length() + i.bit_length() <= 32 else 8
        log = float((8 + together) * e + 24 * u)
        feed = 3.0 * max(self.batch_size, _BLOCK) * (16 + 4 * self.negatives) / self.world
        found = [
            Part("log", "host", log, f"{8 + together} E + 24 U"),
            self._membership("host"),
            Part("ids", "host", 8.0 * self.rows, "8 (U + I)"),
            Part("feed", "host", feed, "3 max(B, 32768) (16 + 4 N) / W"),
        ]
        return found + ([Part("first weights", "host", 4.0 * self.dim * self.rows, "4 D (U + I)")] if self.gpus else [])

    def device_bytes(self) -> float:
        """Bytes on the GPU of one process; 0 on the CPU, where everything is on the host."""
        return sum(p.n_bytes for p in self.parts() if p.where == "device") if self.gpus else 0.0

    def host_bytes(self) -> float:
        """Bytes on the host of one process."""
        return sum(p.n_bytes for p in self.parts() if p.where == "host" or not self.gpus)

    def machine_bytes(self) -> float:
        """Bytes of all processes of one machine."""
        return self.host_bytes() * self.world / self.hosts

    def fits(self) -> bool:
        """Whether GPU and machine hold it, with a tenth to spare."""
        return self.device_bytes() <= FREE * self.gpu_memory and self.machine_bytes() <= FREE * self.memory

    def advice(self) -> list[str]:
        """What to set: this plan where it fits, else what is short and the nearest plans that fit."""
        if self.fits():
            return ["fits: " + self.command()]
        said = []
        if self.device_bytes() > FREE * self.gpu_memory:
            said.append(f"a GPU of {self.gpu_memory / GB:,.0f} GB does not hold {self.device_bytes() / GB:,.1f} GB")
        if self.machine_bytes() > FREE * self.memory:
            need = self.machine_bytes() / FREE / GB
            said.append(
                f"a machine of {self.memory / GB:,.0f} GB does not hold {self.machine_bytes() / GB:,.1f} GB: take "
                f"machines of {need:,.0f} GB or fewer processes on each"
            )
        if self.gpus and len(said) == 1 and self.machine_bytes() > FREE * self.memory:
            return said  # no option of the training changes what the host holds much
        fitting = [p for p in self._changes() if (p.device_bytes() <= FREE * p.gpu_memory if self.gpus else p.fits())]
        said += ["fits the GPU: " * bool(self.gpus) + "fits: " * (not self.gpus) + p.command() for p in fitting[:2]]
        if not fitting:
            each = sum(p.n_bytes for p in self.parts()[:4]) / self.world / GB
            said.append(
                "no optimizer and no dim of 8 or more fits, for every process has a copy of all weights; tables "
                f"divided over {self.world} processes would take {each:,.1f} GB each, which fastrec does not do yet"
            )
        return said

    def _changes(self) -> list[Plan]:
        """Other plans, those first that change the result least."""
        dims = [self.dim, *(d for d in (512, 256, 128, 64, 32, 16, 8) if d < self.dim)]
        rules = [self.optimizer, *(name for name in LIGHTER if STATE[name] < STATE[self.optimizer])]
        fewer = [n for n in range(self.processes - 1, 0, -1) if n % self.hosts == 0 and not self.gpus]
        found = [replace(self, processes=n) for n in fewer]
        return found + [replace(self, dim=d, optimizer=name) for d in dims for name in rules]

    def command(self) -> str:
        """The command of the plan."""
        run = "fastrec train" if self.world == 1 else f"torchrun --nproc_per_node={self.world // self.hosts}"
        run += f" --nnodes={self.hosts}" if self.hosts > 1 else ""
        run += " -m fastrec train" if self.world > 1 else ""
        device = "cuda" if self.gpus else "cpu"
        options = f"--dim {self.dim} --optimizer {self.optimizer} --batch-size {self.batch_size} --device {device}"
        return f"{run} --engine torch {options}" + (f" --precision {self.precision}" if self.gpus else "")

    def to_dict(self) -> dict[str, Any]:
        """The plan as JSON: sizes, terms, totals, and advice."""
        names = (
            "users",
            "items",
            "dim",
            "positives",
            "gpus",
            "hosts",
            "optimizer",
            "negatives",
            "batch_size",
            "precision",
        )
        return {
            **{name: getattr(self, name) for name in names},
            "processes": self.world,
            "parts": [p._asdict() for p in self.parts()],
            "device_bytes": self.device_bytes(),
            "host_bytes": self.host_bytes(),
            "machine_bytes": self.machine_bytes(),
            "gpu_memory_bytes": self.gpu_memory if self.gpus else None,
            "memory_bytes": self.memory,
            "fits": self.fits(),
            "advice": self.advice(),
            "notes": list(self.notes),
        }
