"""The torch engine: any model, loss and optimiser, on the CPU or one CUDA device.

A step reads one batch of the feed (or ``accumulate`` of them) and updates the weights once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastrec.batches.device import HostDevice, open_device
from fastrec.batches.feed import Feed, ResidentFeed
from fastrec.batches.stream import Stream
from fastrec.engines.base import Progress
from fastrec.engines.minibatch.cpu_factors import FactorStep
from fastrec.engines.minibatch.cpu_mlp import TowerStep
from fastrec.engines.minibatch.cuda_step import DeviceStep, kernels_of
from fastrec.engines.minibatch.graph import GraphedStep
from fastrec.engines.minibatch.steps import AutogradStep, HandStep, Options
from fastrec.errors import CheckpointError, ConfigError
from fastrec.models.dropout import AddressedDropout
from fastrec.models.losses import InBatchSoftmax
from fastrec.optim.rules import HostAdam, RowAdagrad
from fastrec.sampling.order import Cursor

LOSSES = ("bce", "bpr", "softmax")
GPU_TWIN = {"distribution": "uniform", "distinct": False}  # what fastrec.sampling.triton_twin draws


class TorchEngine:
    """Trains a model from a stream.

    Parameters
    ----------
    model : Factors
        From ``models.nets.build``; moved to the device.
    stream : Stream
        With ``hard_negatives``, its sampler draws that many.
    batch_size : int
        Positives of a batch.
    rate : callable
        Step (from 0) -> learning rate.
    loss : {"bce", "bpr", "softmax"}
    optimizer : str
        As in ``make_optimizer``.
    l2 : float
        Each sample adds ``l2 / 2`` times the squares of the rows and shared weights that it uses; AdamW decays by it.
    l2_h : float, optional
        In place of ``l2`` on h and on the layers of an MLP.
    lr_h : float
        Share of the learning rate by which h moves.
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

    Raises
    ------
    ConfigError
        For a combination that has no meaning.
    """

    def __init__(
        self,
        model: nn.Module,
        stream: Stream,
        *,
        batch_size: int,
        rate: Callable[[int], float],
        loss: str = "bce",
        optimizer: str = "adam",
        l2: float = 0.0,
        l2_h: float | None = None,
        lr_h: float = 1.0,
        accumulate: int = 1,
        negatives: int | None = None,
        dropout: float = 0.0,
        seed: int = 0,
        device: str | HostDevice = "cpu",
        precision: str = "fp32",
        graph: bool = True,
        compile: bool = False,
        threads: int | None = None,
    ) -> None:
        if loss not in LOSSES:
            raise ConfigError(f"loss = {loss!r}: must be one of {', '.join(LOSSES)}")
        if dropout and not hasattr(model, "drop"):
            raise ConfigError(f"dropout = {dropout}: MF and GMF have no layer to drop units of; use mlp or neumf, or 0")
        n_hard = 0 if negatives in (None, stream.n_negatives) else int(negatives or 0)
        if n_hard > stream.n_negatives:
            raise ConfigError(f"negatives = {n_hard}: only {stream.n_negatives} are drawn")
        self.device = open_device(device) if isinstance(device, str) else device
        self.model: Any = model.to(self.device.device)
        self.stream, self.rate, self.step = stream, rate, 0
        self.n_positives = stream.n_positives
        self._micro, self.batch_size = batch_size, batch_size * accumulate
        self.n_negatives = n_hard or stream.n_negatives
        options = Options(loss, optimizer, l2, precision, compile, n_hard, l2_h, lr_h)
        by_hand = (
            (FactorStep.serves(model) or TowerStep.serves(model))
            and not self.device.captures
            and precision == "fp32"
            and loss != "softmax"
            and not compile
        )
        self._step: HandStep | AutogradStep | DeviceStep | GraphedStep
        drop = AddressedDropout(dropout, seed, threads=threads) if dropout else None
        if by_hand:
            self._step = HandStep(model, options, rate(0), dropout=drop)
        else:
            captured = graph and accumulate == 1 and GraphedStep.serves(self.device, options)
            lr = torch.tensor(rate(0), device=self.device.device) if captured else rate(0)
            in_batch = None
            if loss == "softmax":
                items = stream.items_of
                in_batch = InBatchSoftmax(stream.indptr, items, stream.sampler.n_items, device=self.device.device)
            step: AutogradStep | DeviceStep
            if kernels_of(self.model, options) is not None:
                by_hand, step = True, DeviceStep(self.model, options, lr, dropout=drop)
            else:
                step = AutogradStep(self.model, options, lr, in_batch=in_batch, dropout=drop)
            self._step = GraphedStep(step, self.device, batch_size, 1 + stream.n_negatives) if captured else step
        self.feed = self._make_feed(batch_size)
        self._about = {
            "engine": "torch",
            "step": ("by hand" if by_hand else "autograd") + ", graph" * isinstance(self._step, GraphedStep),
            "precision": precision,
            "feed": "resident" if isinstance(self.feed, ResidentFeed) else "ring",
            "gathered": str(self._step.dtype).removeprefix("torch."),
        }

    def _make_feed(self, batch_size: int) -> Feed | ResidentFeed:
        """On CUDA the sampler's Triton twin, where it draws what the host's would; else the ring."""
        sampler, stream = self.stream.sampler, self.stream
        if self.device.kind == "cuda" and not stream.n_left_out and GPU_TWIN.items() <= sampler.describe().items():
            from fastrec.sampling.triton_twin import GpuStream

            twin = GpuStream(stream.indptr, stream.items_of, sampler, stream.order.seed, self.device.device)
            return ResidentFeed(twin, stream.n_positives, batch_size=batch_size)
        return Feed(stream, batch_size=batch_size, device=self.device, threads=1)

    @property
    def optimizer(self) -> Any:
        """What updates the weights."""
        return self._step.optimizer

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Do up to ``n_steps`` steps, not beyond the cursor's epoch; reads the loss once, at the end."""
        with flushed_denormals():
            return self._advance(cursor, n_steps)

    def _advance(self, cursor: Cursor, n_steps: int) -> Progress:
        start, steps = cursor.position, 0
        total = torch.zeros((), dtype=torch.float64, device=self.device.device)
        while steps < n_steps and cursor.position < self.n_positives:
            update = min(self.batch_size, self.n_positives - cursor.position)
            stop, lr = cursor.position + update, self.rate(self.step)
            while cursor.position < stop:
                batch, cursor = self.feed.next(cursor)
                n = batch.users.shape[0]
                loss = self._step.accumulate(batch, n / update, cursor.epoch, lr)
                total.add_(loss, alpha=n * (1 + self.n_negatives))
            self._step.update(lr)
            self.step += 1
            steps += 1
        done = cursor.position - start
        # sync point: the only one of an advance
        return Progress(cursor, float(total), done * (1 + self.n_negatives), done, steps)

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
            by_row = (p.shape[:1], (*p.shape[:1], 1)) if isinstance(self.optimizer, RowAdagrad) else ()
            fits = value.numel() == 1 if key == "step" else value.shape in (p.shape, *by_row)
            if not fits or (key != "step" and value.dtype != p.dtype):
                raise CheckpointError(
                    f"optimizer.{name}.{key} is {value.dtype}{list(value.shape)}, but {name} {p.dtype}{list(p.shape)}"
                )
        if isinstance(self.optimizer, HostAdam) and given.keys() not in ({"step", "exp_avg", "exp_avg_sq"}, set()):
            raise CheckpointError(f"the optimiser's state of {name} holds {sorted(given)}")

    def _placed(self, key: str, value: Tensor, p: Tensor) -> Tensor:
        """A step count stays where its optimiser keeps it: on the host, unless the optimiser is a fused one."""
        on_host = key == "step" and isinstance(self.optimizer, (HostAdam, torch.optim.Adagrad))
        return value if on_host else value.to(p.device)

    def describe(self) -> dict[str, Any]:
        """What computes, on what, in which precision."""
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
