"""The torch engine: any model, loss and optimiser, on the CPU or one CUDA device.

A step reads one batch of the feed (or ``accumulate`` of them) and updates the weights once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor

from fastrec import optim
from fastrec.batches.device import HostDevice, open_device
from fastrec.batches.feed import DeviceBatch, Feed, ResidentFeed
from fastrec.batches.slices import Slices, cut
from fastrec.batches.stream import Stream
from fastrec.engines.base import Progress
from fastrec.engines.capabilities import BACKENDS, Wish, choose, name_of, slow_path
from fastrec.engines.minibatch.cuda_step import CudaStep
from fastrec.engines.minibatch.exchange import Exchange
from fastrec.engines.minibatch.graph import GraphedStep
from fastrec.engines.minibatch.steps import AutogradStep, CpuStep, Options
from fastrec.engines.processes import ONE, Processes
from fastrec.engines.units import Units
from fastrec.errors import CheckpointError, ConfigError
from fastrec.jit import triton_runs
from fastrec.models import losses
from fastrec.models.parts.base import Model
from fastrec.models.parts.dropout import AddressedDropout
from fastrec.sampling.order import Cursor

GPU_TWIN = {"distribution": "uniform", "distinct": False}  # what fastrec.sampling.triton_twin draws


class TorchEngine:
    """Trains a model from a stream.

    Parameters
    ----------
    model : Model
        From ``models.build``, or of a class of one's own; moved to the device.
    stream : Stream
        With ``hard_negatives``, its sampler draws that many.
    batch_size : int
        Positives of a batch.
    lr : callable
        Step (from 0) -> learning rate; that of one sample for SGD.
    loss : str
        A name of ``models.losses``.
    loss_options : mapping, optional
        Its options by name; what is left out has the loss's own default.
    optimizer : str
        A name of ``optim``.
    l2 : float
        Each positive adds ``l2 / 2`` times the squares of what it and its negatives use; see ``engines.units``.
    weight_decay : float
        Decoupled decay of every weight at every step, by rules that have it (adamw).
    output_l2 : float, optional
        In place of ``l2`` on h and on the layers of an MLP.
    output_lr : float
        Learning rate of h as a fraction of ``lr``.
    accumulate : int
        Batches whose gradients make one update; an epoch's last update takes what is left.
    negatives : int, optional
        How many of the stream's negatives are trained: the highest-scored ones; left out: all.
    dropout : float
        After each MLP layer.
    seed : int
        Of the dropout.
    device : str or HostDevice
    precision : {"fp32", "bf16", "fp16"}
    graph : bool
        Capture the step as a CUDA graph, where there is one to capture.
    compile : bool
        Compile the forward pass by ``torch.compile``.
    threads : int, optional
        CPU threads of sampler and dropout.
    processes : Processes
        Those that train together: each takes its rows of every batch, and gradients are summed before each update.

    Raises
    ------
    ConfigError
        For a combination that has no meaning.
    """

    def __init__(
        self,
        model: Model,
        stream: Stream,
        *,
        batch_size: int,
        lr: Callable[[int], float],
        loss: str = "bce",
        loss_options: Mapping[str, float] | None = None,
        optimizer: str = "adam",
        l2: float = 0.0,
        weight_decay: float = 0.0,
        output_l2: float | None = None,
        output_lr: float = 1.0,
        accumulate: int = 1,
        negatives: int | None = None,
        dropout: float = 0.0,
        seed: int = 0,
        device: str | HostDevice = "cpu",
        precision: str = "fp32",
        graph: bool = True,
        compile: bool = False,
        threads: int | None = None,
        processes: Processes = ONE,
    ) -> None:
        if dropout and "dropout" not in model.options:
            raise ConfigError(
                f"dropout = {dropout}: {type(model).__name__} has no layer to drop units of; use mlp or neumf, or 0"
            )
        n_hard = 0 if negatives in (None, stream.n_negatives) else int(negatives or 0)
        if n_hard > stream.n_negatives:
            raise ConfigError(f"negatives = {n_hard}: only {stream.n_negatives} are drawn")
        self.device = open_device(device) if isinstance(device, str) else device
        self.model: Any = model.to(self.device.device)
        self.stream, self.lr, self.step = stream, lr, 0
        self.n_positives = stream.n_positives
        self._micro, self.batch_size = batch_size, batch_size * accumulate
        self._processes, self._slices = processes, None
        if processes.world > 1:
            self._slices = Slices(stream, batch_size, rank=processes.rank, world=processes.world)
        self.n_negatives = n_hard or stream.n_negatives
        self._rule = optim.get(optimizer)
        form = losses.get(loss).bind(loss_options or {}, self.n_negatives, stream.sampler.n_items)
        self._units = Units(form, optimizer, 1 + self.n_negatives)
        decays = self._units.l2(l2), None if output_l2 is None else self._units.l2(output_l2)
        options = Options(
            loss, optimizer, decays[0], precision, compile, n_hard, decays[1], output_lr, weight_decay, form
        )  # fmt: skip
        if self._rule.decays and (l2 or output_l2):
            raise ConfigError(f"l2 = {l2}, output_l2 = {output_l2}: {optimizer} has no L2 term; use weight_decay")
        if weight_decay and not self._rule.decays:
            raise ConfigError(f"weight_decay = {weight_decay}: {optimizer} has none; use l2, or optimizer = adamw")
        drawn = stream.sampler.describe()["distribution"]
        existing = drawn == "existing"
        wish = Wish(
            name_of(model), loss, optimizer, "uniform" if existing else drawn, self._kind(), precision,
            engine="torch", accumulate=accumulate, hard_negatives=n_hard, compile=compile,
            weighted=stream.weights is not None, negatives_from=drawn if existing else "all", processes=processes.world,
        )  # fmt: skip
        self.backend = choose(wish)
        if self.backend.name != "autograd" and not self._kernels_serve():
            self.backend = next(b for b in BACKENDS if b.name == "autograd")
        self.slow_path = slow_path(wish, self.backend)
        """A note on a path that is slower than it need be; None otherwise."""
        drop = AddressedDropout(dropout, seed, threads=threads) if dropout else None
        plain = accumulate == 1 == processes.world and stream.weights is None
        self._step = self._make_step(options, drop, batch_size, graph=graph and plain)
        if processes.world > 1:
            rows = accumulate * -(-batch_size // processes.world)
            exchange = Exchange(model, processes, positives=rows, columns=1 + stream.n_negatives)
            assert isinstance(self._step, (CpuStep, AutogradStep)), "capabilities: the others train in one process"
            self._step.exchange = exchange
        self.feed = self._make_feed(batch_size)
        self._about: dict[str, Any] = {
            "engine": "torch",
            "backend": self.backend.name,
            "step": ("autograd" if self.backend.name == "autograd" else "kernels")
            + ", graph" * isinstance(self._step, GraphedStep),
            "precision": precision,
            "feed": "resident" if isinstance(self.feed, ResidentFeed) else "ring",
            "gathered": str(self._step.dtype).removeprefix("torch."),
        }
        if processes.world > 1:
            rows_of = ", ".join(f"{role} rows" for role in exchange.sparse)
            self._about["processes"] = processes.world
            self._about["gradients"] = f"{rows_of or 'none'} by touched rows, the others by a dense all-reduce"

    def _kind(self) -> str:
        """Column of the capability table: a device that captures graphs takes what CUDA takes."""
        return "cuda" if self.device.captures else self.device.kind

    def _kernels_serve(self) -> bool:
        """Whether the weights are of a type that the backend's kernels read, and Triton is there for CUDA's."""
        kinds = {p.dtype for p in self.model.parameters()}
        if self.backend.name == "cpu-kernels":
            return kinds <= {torch.float32, torch.float64}
        return kinds == {torch.float32} and triton_runs(self.device.device.type)

    def _make_step(
        self, options: Options, drop: AddressedDropout | None, batch_size: int, *, graph: bool
    ) -> CpuStep | AutogradStep | CudaStep | GraphedStep:
        lr = self._units.step_lr(self.lr(0), min(self.batch_size, self.n_positives))
        form, sampler = options.form, self.stream.sampler
        corrected = None
        if form.corrected is not None and sampler.weights is not None:
            corrected = form.corrected(form, sampler, device=self.device.device)
        if self.backend.name == "cpu-kernels":
            return CpuStep(self.model, options, lr, corrected=corrected, dropout=drop)
        captured = graph and self.model.captures and GraphedStep.serves(self.device, options)
        held = torch.tensor(lr, device=self.device.device) if captured else lr
        step: AutogradStep | CudaStep
        if self.backend.name == "cuda-kernels":
            step = CudaStep(self.model, options, held, dropout=drop)
        else:
            in_batch, stream = None, self.stream
            if form.in_batch is not None:
                csr = (stream.indptr, stream.items_of, sampler.n_items)
                in_batch = form.in_batch(*csr, device=self.device.device)
            step = AutogradStep(self.model, options, held, in_batch=in_batch, corrected=corrected, dropout=drop)
        return GraphedStep(step, self.device, batch_size, 1 + self.stream.n_negatives) if captured else step

    def _make_feed(self, batch_size: int) -> Feed | ResidentFeed:
        """Choose the feed: on CUDA the sampler's Triton twin if it draws the same negatives, else the ring."""
        sampler, stream = self.stream.sampler, self.stream
        if self._slices is not None:
            return Feed(self._slices, batch_size=self._slices.batch_size, device=self.device, threads=1)
        if self.device.kind == "cuda" and not stream.eligible.size and GPU_TWIN.items() <= sampler.describe().items():
            from fastrec.sampling.triton_twin import GpuStream

            twin = GpuStream(stream.indptr, stream.items_of, sampler, stream.order.seed, self.device.device)
            return ResidentFeed(twin, stream.n_positives, batch_size=batch_size)
        return Feed(stream, batch_size=batch_size, device=self.device, threads=1)

    @property
    def optimizer(self) -> Any:
        """The step that updates the weights."""
        return self._step.optimizer

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Run up to ``n_steps`` steps, not beyond the cursor's epoch; reads the loss once, at the end."""
        with flushed_denormals():
            return self._advance(cursor, n_steps)

    def _advance(self, cursor: Cursor, n_steps: int) -> Progress:
        start, steps = cursor.position, 0
        total = torch.zeros((), dtype=torch.float64, device=self.device.device)
        while steps < n_steps and cursor.position < self.n_positives:
            update = min(self.batch_size, self.n_positives - cursor.position)
            stop, lr = cursor.position + update, self._units.step_lr(self.lr(self.step), update)
            while cursor.position < stop:
                batch, cursor = self._next(cursor)
                if batch is None:
                    continue
                n = batch.users.shape[0]
                loss = self._step.accumulate(batch, n / update, cursor.epoch, lr)
                total.add_(loss, alpha=n * (1 + self.n_negatives))
            self._step.update(lr)
            self.step += 1
            steps += 1
        done = cursor.position - start
        self._processes.add([total])
        # sync point: the only one of an advance
        return Progress(cursor, float(total), done * (1 + self.n_negatives), done, steps)

    def _next(self, cursor: Cursor) -> tuple[DeviceBatch | None, Cursor]:
        """The rows of this process of the batch at ``cursor``, None where it has none, and the cursor after it."""
        start = cursor.position
        if self._slices is None:
            batch, after = self.feed.next(cursor)
            stop = after.position
        else:
            after = Cursor(cursor.epoch, min(start + self._micro, self.n_positives))
            start, stop = cut(start, after.position, self._slices.rank, self._slices.world)
            if start == stop:
                return None, after
            batch, _ = self.feed.next(self._slices.local(cursor))
        if self.stream.weights is not None:
            weights = torch.from_numpy(self.stream.weights_of(cursor.epoch, start, stop))
            batch = batch._replace(weights=weights.to(self.device.device))
        return batch, after

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and optimiser state by name, the step, and the scaler."""
        tensors = {f"model.{k}": v.detach().cpu() for k, v in self.model.state_dict().items()}
        names = {id(p): n for n, p in self.model.named_parameters()}
        for p, values in self.optimizer.state.items():
            for key, value in values.items():
                tensors[f"optimizer.{names[id(p)]}.{key}"] = value.detach().cpu()
        scaler = self._step.scaler.state_dict() if self._step.scaler is not None else None
        return tensors, {"step": self.step, "scaler": scaler}

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Put back what ``state`` gave.

        Raises
        ------
        CheckpointError
            If a tensor of the optimiser is not of its parameter's shape: compiled kernels would write past its end.
        """
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, p in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            given = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            self._check(name, given, p)
            self.optimizer.state[p] = {k: self._placed(k, v.clone(), p) for k, v in given.items()}
        self.step = int(meta["step"])
        if meta["scaler"] is not None and self._step.scaler is not None:
            self._step.scaler.load_state_dict(meta["scaler"])
        self._step.refresh()

    def _check(self, name: str, given: dict[str, Tensor], p: Tensor) -> None:
        for key, value in given.items():
            by_row = (p.shape[:1], (*p.shape[:1], 1)) if self._rule.state_by_row else ()
            fits = value.numel() == 1 if key == "step" else value.shape in (p.shape, *by_row)
            if not fits or (key != "step" and value.dtype != p.dtype):
                raise CheckpointError(
                    f"optimizer.{name}.{key} is {value.dtype}{list(value.shape)}, but {name} {p.dtype}{list(p.shape)}"
                )
        whole = getattr(self.optimizer, "state_names", given.keys())
        if given.keys() not in (whole, set()):
            raise CheckpointError(f"the optimiser's state of {name} holds {sorted(given)}")

    def _placed(self, key: str, value: Tensor, p: Tensor) -> Tensor:
        """A step count stays where its optimiser keeps it: on the host, unless the optimiser is a fused one."""
        on_host = key == "step" and getattr(self.optimizer, "step_on_host", self._rule.step_on_host)
        return value if on_host else value.to(p.device)

    def describe(self) -> dict[str, Any]:
        """Backend, device and precision."""
        d = self.device.device
        name = torch.cuda.get_device_name(d) if d.type == "cuda" else "cpu"
        return {**self._about, "device": str(d), "device_name": name, "torch": torch.__version__}

    def close(self) -> None:
        """End the feed's thread."""
        self.feed.close()


@contextlib.contextmanager
def flushed_denormals() -> Iterator[None]:
    """Count numbers below 1.2e-38 as zero in this thread; the setting before comes back.

    L2 shrinks factors that a GMF does not need to such numbers, and a processor takes 10 times as long over them.
    """
    before = (torch.tensor(1e-39) * 0.5).item() == 0.0
    torch.set_flush_denormal(True)
    try:
        yield
    finally:
        torch.set_flush_denormal(before)
