"""The fused engine on a CUDA device: deterministic mini-batch steps, drawn, sorted, scored and applied there.

A block of several steps is drawn and sorted at once, by user and by item, since the samples of a step do not
depend on weights; a step is then four launches (``gpu_steps``). Nothing is copied per step, and the loss is read once
per ``advance``. Sorting costs about a hundred bytes per sample and saves every atomic: sums run in a fixed order, and
only the touched rows are moved, in the pass that sums them.

B batch rows, N negatives, U users, I items, D dim, K steps of a block.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import triton
from torch import Tensor

from fastrec.engines.base import Progress
from fastrec.engines.capabilities import Wish, choose, name_of
from fastrec.engines.fused.gpu_steps import items_kernel, score_kernel, shared_kernel, users_kernel
from fastrec.engines.fused.weights import Weights, restored
from fastrec.engines.units import SETTLED, Units
from fastrec.errors import ConfigError
from fastrec.jit import triton_runs
from fastrec.models import losses
from fastrec.sampling.order import Cursor
from fastrec.sampling.philox import TAG_ROUNDING
from fastrec.sampling.triton_twin import GpuStream

BLOCK = 1 << 18
"""Positives that are drawn and sorted at once, at least: the dozen launches for it serve many small batches."""

PARTS = 1024
"""Programs that score a step at most: a constant, so that sums over all samples are cut alike on every device."""

SHORT = 2**15 - 1
"""Keys up to here are sorted as int16, by half the passes."""

COLUMN = 16
"""Elements of h that one program of ``shared_kernel`` sums."""

GPU_TWIN = {"distribution": "uniform", "distinct": False}  # what fastrec.sampling.triton_twin draws


class HostStream:
    """Draws batches on the host and copies them: for what the sampler's twin does not draw."""

    def __init__(self, stream: Any, device: torch.device, threads: int) -> None:
        self._stream, self._device, self._threads = stream, device, threads

    def batch(self, epoch: int, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """(users int32[B], items int32[B, 1+N], positions int64[B]) of [start, stop)."""
        drawn = self._stream.read(epoch, start, stop, threads=self._threads)
        users, items, positions = (torch.from_numpy(a).to(self._device) for a in drawn)
        return users, items, positions


class CudaEngine:
    """Trains MF (BCE, BPR) and GMF (BCE) on one CUDA device, as ``FusedEngine`` in deterministic mode does on the CPU.

    Parameters
    ----------
    model : torch.nn.Module
        MF or GMF of ``fastrec.models``, on the CPU; moved to the device.
    stream : Stream
    batch_size : int
        Positives a step.
    lr : callable
        Step (from 0) -> learning rate; that of one sample for SGD.
    device : HostDevice
        The seam of ``training.device``: a CUDA device, or the host under Triton's interpreter.
    loss : {"bce", "bpr"}
    optimizer : {"sgd", "row-adagrad"}
    l2 : float
        Each positive adds ``l2 / 2`` times the squares of what it and its negatives use; see ``engines.units``.
    output_l2 : float, optional
        In place of ``l2`` on h.
    output_lr : float
        Learning rate of h as a fraction of ``lr``.
    precision : {"fp32", "bf16"}
        bf16 stores the factor tables in 16 bits, rounded stochastically; biases, h, sums and accumulators stay fp32.
    seed : int
        Of the rounding.
    graph : bool
        Replay a complete block's steps as one CUDA graph.
    threads : int
        Of the host's sampler, where the twin does not draw.

    Raises
    ------
    ConfigError
        For an unsupported model, loss, optimiser, precision or device.

    Notes
    -----
    Guarantee: two runs on one kind of device with one set of versions give the same bytes, for any cuts into
    ``advance`` calls and any restart. Against the CPU engine weights agree to float32 rounding (fp32).
    Cost: in addition to the weights, B * D floats, and about 13 bytes per sample of a block.
    """

    def __init__(
        self,
        model: Any,
        stream: Any,
        *,
        batch_size: int,
        lr: Callable[[int], float],
        device: Any,
        loss: str = "bce",
        optimizer: str = "sgd",
        l2: float = 0.0,
        output_l2: float | None = None,
        output_lr: float = 1.0,
        precision: str = "fp32",
        seed: int = 0,
        graph: bool = True,
        threads: int | None = None,
    ) -> None:
        checked = Weights(model, optimizer)
        weighted = stream.weights is not None
        choose(Wish(name_of(model), loss, optimizer, "uniform", "cuda", precision, "fused", weighted=weighted))
        self._form = losses.get(loss)
        self._units = Units(self._form, optimizer, 1 + stream.n_negatives)
        if not triton_runs(device.kind):
            raise ConfigError(f"device {device.device}: Triton's kernels run on CUDA, or under TRITON_INTERPRET=1")
        self.model, self.stream, self.batch_size, self.lr = model, stream, int(batch_size), lr
        self.n_negatives, self.n_positives = stream.n_negatives, stream.n_positives
        self.loss, self.optimizer, self.l2, self.precision = loss, optimizer, float(l2), precision
        self.output_l2, self.output_lr = self.l2 if output_l2 is None else float(output_l2), float(output_lr)
        self._decays = self._units.l2(self.l2), self._units.l2(self.output_l2)
        self.step = 0
        self._gmf, self._adagrad, self._seam, self._seed = checked.gmf, checked.adagrad, device, seed
        self._device = device.device
        model.to(self._device)
        self.named = {name: p.detach() for name, p in model.named_parameters()}
        self.sums = {name: torch.zeros(p.shape[0], device=self._device) for name, p in self.named.items()}
        if not self._adagrad:
            self.sums.clear()
        self._tables = {n: p for n, p in self.named.items() if p.dim() == 2}
        if precision == "bf16":
            self._tables = {n: p.to(torch.bfloat16) for n, p in self._tables.items()}
        self._n_users, self._n_items, self._dim = *(len(t) for t in self._tables.values()), checked.dim
        twin = not stream.eligible.size and stream.sampler.describe().items() >= GPU_TWIN.items()
        self._source: GpuStream | HostStream = (
            GpuStream(stream.indptr, stream.items_of, stream.sampler, stream.order.seed, self._device)
            if twin
            else HostStream(stream, self._device, threads or 1)
        )
        self._allocate()
        self._graph: Callable[[], None] | None = None
        self._graphs, self._warm = graph and device.captures, False

    def _allocate(self) -> None:
        """Memory of a block and of a step; addresses stay, so that a graph can hold them."""
        rows = min(self.batch_size, self.n_positives)
        columns, dim = 1 + self.n_negatives, self._dim
        keys = 2**31 // max(self._n_users, self._n_items)  # int32 keys: step of the block times rows of the table
        self._steps = max(1, min(BLOCK // rows, -(-self.n_positives // rows), keys))
        n = rows * self._steps

        def make(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.zeros(shape, dtype=dtype, device=self._device)

        self._users, self._items = make(n, dtype=torch.int32), make(n, columns, dtype=torch.int32)
        self._key = torch.int16 if self._steps * max(self._n_users, self._n_items) <= SHORT else torch.int32
        self._step_of = torch.arange(n, dtype=torch.int32, device=self._device) // rows
        self._by_user, self._by_item = make(n, dtype=torch.int32), make(n * columns, dtype=torch.int32)
        self._user_edges, self._item_edges = (
            torch.arange(self._steps * size + 1, device=self._device).to(self._key)
            for size in (self._n_users, self._n_items)
        )
        self._user_starts, self._item_starts = (
            make(len(edges), dtype=torch.int32) for edges in (self._user_edges, self._item_edges)
        )
        self._g, self._w = make(n * columns), make(rows, dim)
        self._slopes = make(rows if not self._gmf else 1)
        self._losses, self._slope_parts = make(PARTS, dtype=torch.float64), make(PARTS, dtype=torch.float64)
        self._h_parts = make(PARTS, dim if self._gmf else 1)
        self._total, self._step_at = make(1, dtype=torch.float64), make(1, dtype=torch.int64)
        self._lrs, self._none = make(self._steps), make(1)
        self._width = triton.next_power_of_2(max(dim, 16))
        self._size = max(1, 1024 // self._width)  # 8 elements of a tile a thread: under 100 registers

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Run up to ``n_steps`` steps, not beyond the cursor's epoch; reads the loss once, at the end."""
        n_steps = min(n_steps, len(self._starts(cursor)))
        rows = [min(self.batch_size, self.n_positives - at) for at in self._starts(cursor)[:n_steps]]
        moves = [self._units.step_lr(self.lr(self.step + k), n) for k, n in enumerate(rows)]
        lrs = torch.tensor(moves, dtype=torch.float32)
        if self._device.type == "cuda":
            lrs = lrs.pin_memory().to(self._device, non_blocking=True)  # unpinned, the copy would wait
        self._total.zero_()
        start = cursor.position
        for done in range(0, n_steps, self._steps):
            k = min(self._steps, n_steps - done)
            stop = min(cursor.position + k * self.batch_size, self.n_positives)
            self._draw(cursor.epoch, cursor.position, stop, k)
            self._lrs[:k].copy_(lrs[done : done + k])
            self._step_at.fill_(self.step)
            self._run(stop - cursor.position)
            self.step += k
            cursor = Cursor(cursor.epoch, stop)
        if self.precision == "bf16":
            self._show()
        n = cursor.position - start
        # sync point: the only one of an advance
        return Progress(cursor, float(self._total), n * (1 + self.n_negatives), n, n_steps)

    def _starts(self, cursor: Cursor) -> range:
        """First positions of the epoch's batches from the cursor on."""
        return range(cursor.position, self.n_positives, self.batch_size)

    def _draw(self, epoch: int, start: int, stop: int, k: int) -> None:
        """Positives [start, stop) of an epoch, ``k`` steps of them, and where each user's and item's samples are."""
        n, columns = stop - start, 1 + self.n_negatives
        users, items, _ = self._source.batch(epoch, start, stop)
        self._users[:n].copy_(users)
        self._items[:n].copy_(items)
        step_of = self._step_of[:n]
        for keys, size, order, edges, starts in (
            (users + step_of * self._n_users, self._n_users, self._by_user[:n], self._user_edges, self._user_starts),
            (
                (items + (step_of * self._n_items).unsqueeze(1)).reshape(-1),
                self._n_items,
                self._by_item[: n * columns],
                self._item_edges,
                self._item_starts,
            ),
        ):
            # stable: a row's sum runs in the order of visit
            ascending, at = torch.sort(keys.to(self._key), stable=True)
            order.copy_(at)
            some = slice(k * size + 1)
            torch.searchsorted(ascending, edges[some], out_int32=True, out=starts[some])

    def _run(self, n: int) -> None:
        """The steps of a drawn block of ``n`` positives; complete blocks as a graph, once one has run without it."""
        whole = n == self._users.shape[0]
        if not (whole and self._graphs):
            self._launch(n)
        elif self._graph is not None:
            self._graph()
        elif not self._warm:  # compiles, which a capture may not
            self._warm = True
            self._launch(n)
        else:
            self._graph = self._seam.capture(lambda: self._launch(n))
            self._graph()

    def _launch(self, n: int) -> None:
        for k in range(-(-n // self.batch_size)):
            self._step(k, k * self.batch_size, min(self.batch_size, n - k * self.batch_size))

    def _step(self, k: int, first: int, rows: int) -> None:
        """Four launches: step ``k`` of the block, whose ``rows`` rows begin at ``first``."""
        w, s, t = self.named, self.sums, self._tables
        none, columns, dim, width, size = self._none, 1 + self.n_negatives, self._dim, self._width, self._size
        p, q, h = t["user_factors"], t["item_factors"], w.get("h", none)
        bf16 = self.precision == "bf16"
        if bf16:
            p, q = p.view(torch.int16), q.view(torch.int16)
        user_bias, item_bias, bias = w.get("user_bias", none), w.get("item_bias", none), w["bias"]
        n_samples = rows * columns
        n_losses = self._form.terms(rows, columns)
        per_program = -(-rows // (PARTS * size)) * size
        n_parts = triton.cdiv(rows, per_program)
        l2 = self._decays[0] / n_samples
        rounding = (self._seed, TAG_ROUNDING)
        form = {"GMF": self._gmf, "ADAGRAD": self._adagrad, "DIM": dim}
        shape = {"BF16": bf16, "WIDTH": width, "COLUMNS": columns, "SIZE": size}
        score_kernel[(n_parts,)](
            self._users, self._items, p, q, h, user_bias, item_bias, bias, self._g, self._w, self._slopes,
            self._losses, self._slope_parts, self._h_parts, first, rows, per_program, 1.0 / n_losses,
            BPR=self._form.triton == "bpr", GMF=self._gmf, DIM=dim, **shape,
        )  # fmt: skip
        items_kernel[(self._n_items,)](
            self._users, self._by_item, self._item_starts, self._g, p, q, h, item_bias, s.get("item_factors", none),
            s.get("item_bias", none), self._lrs, self._step_at, k, self._n_items, l2, *rounding,
            **form, **shape | {"SIZE": 2 * size}, num_warps=2,
        )  # fmt: skip
        users_kernel[(self._n_users,)](
            self._by_user, self._user_starts, self._w, self._slopes, p, user_bias, s.get("user_factors", none),
            s.get("user_bias", none), self._lrs, self._step_at, k, first, self._n_users, l2, *rounding,
            **form, **shape | {"SIZE": max(1, size // 2)}, num_warps=1,
        )  # fmt: skip
        shared_kernel[(triton.cdiv(dim, COLUMN) if self._gmf else 1,)](
            self._losses, self._slope_parts, self._h_parts, bias, s.get("bias", none), h, s.get("h", none),
            self._total, self._lrs, k, n_parts, n_samples / n_losses, *self._decays, self.output_lr,
            **form, PARTS=PARTS, COLUMN=COLUMN, SETTLED=SETTLED, num_warps=8,
        )  # fmt: skip

    @torch.no_grad()
    def _show(self) -> None:
        """The model's own parameters: what the 16-bit tables hold."""
        for name, table in self._tables.items():
            self.named[name].copy_(table)

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights and Adagrad's accumulators, named and shaped as every engine has them, and the step."""
        tensors = {f"model.{name}": p.cpu() for name, p in self.named.items()}
        for name, sums in self.sums.items():
            tensors[f"optimizer.{name}.sum"] = sums.cpu().reshape((-1, 1) if self.named[name].dim() == 2 else (-1,))
        return tensors, {"step": self.step}

    def load_state(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Put back what ``state`` gave, or that of the fused engine on the CPU.

        Raises
        ------
        CheckpointError
            If a tensor is missing or has another shape.
        """
        places = {f"model.{name}": tensor for name, tensor in self.named.items()}
        places |= {f"optimizer.{name}.sum": tensor for name, tensor in self.sums.items()}
        for tensor, values in restored(places, tensors):
            tensor.copy_(torch.from_numpy(values))
        if self.precision == "bf16":
            for name, table in self._tables.items():
                table.copy_(self.named[name])
            self._show()
        self.step = int(meta["step"])

    def describe(self) -> dict[str, Any]:
        """Backend, device and precision."""
        on_cuda = self._device.type == "cuda"
        return {
            "engine": "fused",
            "fused_mode": "deterministic",
            "step": "graph" if self._graphs else "launches",
            "device": str(self._device),
            "device_name": torch.cuda.get_device_name(self._device) if on_cuda else "Triton's interpreter",
            "precision": self.precision,
            "feed": "resident" if isinstance(self._source, GpuStream) else "host",
            "torch": torch.__version__,
            "triton": triton.__version__,
        }

    def close(self) -> None:
        """Nothing runs in the background."""
