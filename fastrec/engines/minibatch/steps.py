"""One update of a model from its batches: by CPU kernels in float32, or by autograd where no kernels serve.

B batch rows, N negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastrec import optim
from fastrec.batches.feed import DeviceBatch
from fastrec.engines.capabilities import name_of
from fastrec.engines.minibatch.cpu_factors import CpuFactors
from fastrec.engines.minibatch.cpu_mlp import CpuMlp
from fastrec.engines.minibatch.exchange import Exchange
from fastrec.engines.minibatch.precision import MixedPrecision
from fastrec.engines.units import SETTLED
from fastrec.errors import ConfigError
from fastrec.models import losses
from fastrec.models.parts.base import Model
from fastrec.models.parts.dropout import AddressedDropout
from fastrec.models.parts.loss import Loss
from fastrec.optim.groups import groups_of, set_lr
from fastrec.optim.rule import Setting


class Options(NamedTuple):
    """Loss, optimiser, decay and precision of a step."""

    loss: str = "bce"
    optimizer: str = "adam"
    l2: float = 0.0
    precision: str = "fp32"
    compile: bool = False
    n_hard: int = 0
    """Keep the n highest-scored of the drawn negatives; 0 keeps all."""
    output_l2: float | None = None
    """L2 on h and the layers of an MLP; None: ``l2``."""
    output_lr: float = 1.0
    """Learning rate of h as a fraction of that of the rows."""
    weight_decay: float = 0.0
    """Decoupled decay of every weight, by rules that have it."""
    bound: Loss | None = None
    """The loss with its options; None: with its defaults."""

    @property
    def decays(self) -> tuple[float, float]:
        """L2 of the loss: of rows and biases; of output and hidden weights. A rule that decays by itself has none."""
        if optim.get(self.optimizer).decays:
            return 0.0, 0.0
        return self.l2, self.l2 if self.output_l2 is None else self.output_l2

    @property
    def form(self) -> Loss:
        """The loss and its forms."""
        return losses.get(self.loss) if self.bound is None else self.bound

    def optimizer_of(self, model: Model, lr: float | Tensor, **setting: Any) -> Any:
        """The optimiser over a model's parameters, where they are."""
        kind = next(model.parameters()).device.type
        where = Setting(lr=lr, weight_decay=self.weight_decay, device=kind, **setting)
        rule = optim.get(self.optimizer)
        return rule.make(groups_of(model, lr, self.output_lr, most=SETTLED if rule.sums else None), where)

    def still(self, model: Model) -> list[Tensor]:
        """Weights whose gradient is 0 but for rounding, which Adam would blow up: see ``Loss.relative``."""
        names = (*model.user_biases, *model.global_biases) if self.form.relative else ()
        return [p for name, p in model.named_parameters() if name in names]


def hardest(items: Tensor, logits: Tensor, n: int) -> Tensor:
    """int32[B, 1+n]: the positive and the ``n`` highest-scored negatives of each row, best first.

    Source: dynamic negative sampling, Zhang et al., SIGIR 2013.
    """
    best = logits[:, 1:].topk(n, dim=1).indices + 1
    return torch.cat((items[:, :1], items.gather(1, best)), 1)


CPU_KERNELS: dict[str, type[CpuFactors] | type[CpuMlp]] = {
    "mf": CpuFactors,
    "gmf": CpuFactors,
    "mlp": CpuMlp,
    "neumf": CpuMlp,
}
"""Kernels of exactly these models."""


def cpu_kernels(model: Model, dropout: AddressedDropout | None) -> CpuFactors | CpuMlp:
    """The CPU kernels of a model.

    Raises
    ------
    ConfigError
        If there are none for exactly this class.
    """
    name = name_of(model)
    if name not in CPU_KERNELS:
        raise ConfigError(f"no CPU kernels for {type(model).__name__}; they serve {', '.join(CPU_KERNELS)}")
    kernels = CPU_KERNELS[name]
    return CpuMlp(model, dropout) if kernels is CpuMlp else CpuFactors(model)


def stop(weights: list[Tensor]) -> None:
    """Set the gradients of these weights to 0, so that a step leaves them where they are."""
    if weights:
        torch._foreach_zero_([p.grad for p in weights if p.grad is not None])


class CpuStep:
    """MF, GMF, MLP or NeuMF on the CPU in float32, by compiled kernels.

    Parameters
    ----------
    model : Model
    options : Options
    lr : float
    corrected : callable, optional
        What ``Loss.corrected`` made, where negatives are not uniform.
    dropout : AddressedDropout, optional
        After each layer of the MLP.
    """

    scaler = None
    dtype = torch.float32
    """Of the rows that are gathered."""

    def __init__(
        self,
        model: Model,
        options: Options,
        lr: float,
        *,
        corrected: Any = None,
        dropout: AddressedDropout | None = None,
    ) -> None:
        self._options, self._form, self._corrected = options, options.form, corrected
        self._kernels = cpu_kernels(model, dropout)
        self._decays = options.decays
        self.optimizer = options.optimizer_of(model, lr, added_to=True)
        self._still = options.still(model)
        self._zeroed = getattr(self.optimizer, "zeroes_gradients", False)
        self.exchange: Exchange | None = None
        """Sums gradients before an update, where several processes train."""

    def accumulate(self, batch: DeviceBatch, fraction: float, epoch: int, lr: float) -> Tensor:  # noqa: ARG002
        """Add the gradient of ``fraction`` times the batch's mean loss; returns that mean."""
        users, items, kernels = batch.users.numpy(), batch.items, self._kernels
        if self._options.n_hard:
            items = self._hardest(users, items)
        if self.exchange is not None:
            self.exchange.touch(batch.users, items)
        l2, output_l2 = (value * fraction / items.numel() for value in self._decays)
        if isinstance(kernels, CpuFactors):
            logits = kernels.logits(users, items.numpy())
            loss, gradient = self._loss(logits, fraction, batch.users, items, batch.weights)
            kernels.backward(users, items.numpy(), gradient, l2, output_l2)
            return loss
        kernels.begin(items.numpy())
        positions, total = batch.positions.numpy(), torch.zeros(())
        for lo, hi in kernels.blocks():
            logits = kernels.logits(users[lo:hi], lo, hi, int(epoch), positions[lo:hi])
            part = (hi - lo) / users.size
            weights = None if batch.weights is None else batch.weights[lo:hi]
            loss, gradient = self._loss(logits, fraction * part, batch.users[lo:hi], items[lo:hi], weights)
            kernels.backward(users[lo:hi], lo, hi, gradient, l2, output_l2)
            total.add_(loss, alpha=part)
        kernels.finish(l2, output_l2)
        return total

    def _hardest(self, users: Any, items: Tensor) -> Tensor:
        kernels = self._kernels
        if isinstance(kernels, CpuFactors):
            return hardest(items, kernels.logits(users, items.numpy()), self._options.n_hard)
        kernels.begin(items.numpy())
        parts = [kernels.logits(users[lo:hi], lo, hi) for lo, hi in kernels.blocks()]
        return hardest(items, torch.cat(parts), self._options.n_hard)

    def _loss(
        self, logits: Tensor, fraction: float, users: Tensor, items: Tensor, weights: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The mean loss of rows with these weights, and the gradient of ``fraction`` times it by the logits."""
        if weights is None and self._form.mean_and_gradient is not None:
            loss, gradient = self._form.mean_and_gradient(logits)
        else:
            logits.requires_grad_()
            if self._corrected is not None:
                loss = self._corrected(logits, users, items, weights)
            else:
                loss = self._form.mean(logits) if weights is None else self._form.weighted(logits, weights)
            loss.backward()  # type: ignore[no-untyped-call]
            assert logits.grad is not None
            gradient = logits.grad
        return loss.detach(), gradient * fraction if fraction != 1.0 else gradient

    def update(self, lr: float) -> None:
        """One step of the optimiser; gradients are zero after it."""
        set_lr(self.optimizer, lr)
        if self.exchange is not None:
            self.exchange.combine()
        stop(self._still)
        self.optimizer.step()
        if not self._zeroed:
            self._kernels.zero()

    def refresh(self) -> None:
        """There are no copies of the weights."""


class AutogradStep:
    """Any model, on any device, in any precision.

    Parameters
    ----------
    model : Model
    options : Options
    lr : float or Tensor
        A tensor on the device where a CUDA graph is to read it.
    in_batch : callable, optional
        What ``Loss.in_batch`` made, for a loss that has it.
    corrected : callable, optional
        What ``Loss.corrected`` made, where negatives are not uniform.
    dropout : AddressedDropout, optional
        Set to the batch before each forward pass.
    """

    def __init__(
        self,
        model: Any,
        options: Options,
        lr: float | Tensor,
        *,
        in_batch: Any = None,
        corrected: Any = None,
        dropout: AddressedDropout | None = None,
    ) -> None:
        self.model, self._options, self._dropout = model, options, dropout
        self._in_batch, self._corrected = in_batch, corrected
        self._form, self._roles = options.form, model.roles()
        self._l2, self._output_l2 = options.decays
        self._device, self._still = next(model.parameters()).device, options.still(model)
        self.lr = lr
        self.optimizer = options.optimizer_of(model, lr)
        self._mixed = MixedPrecision(model, options.precision) if options.precision != "fp32" else None
        self.dtype = self._mixed.dtype if self._mixed is not None else torch.float32
        self.scaler = torch.amp.GradScaler(self._device.type) if options.precision == "fp16" else None
        self._forward: Callable[..., Tensor] = torch.compile(model, dynamic=False) if options.compile else model
        self._uses: dict[str, Tensor] | None = None
        self.exchange: Exchange | None = None
        """Sums gradients before an update, where several processes train."""

    def accumulate(self, batch: DeviceBatch, fraction: float, epoch: Any, lr: float) -> Tensor:  # noqa: ARG002
        """Add the gradient of ``fraction`` times the batch's mean loss; returns that mean."""
        users, items = batch.users, batch.items
        if self._dropout is not None:
            self._dropout.at(epoch, batch.positions)
        if self._options.n_hard:
            with torch.no_grad():
                items = hardest(items, self._score(users, items, drop=False), self._options.n_hard)
        if self.exchange is not None:
            self.exchange.touch(users, items)
        loss = self._mean_loss(users, items, batch.weights)
        scaled = loss * fraction if fraction != 1.0 else loss
        (self.scaler.scale(scaled) if self.scaler else scaled).backward()  # type: ignore[no-untyped-call]
        if self._l2 or self._output_l2:
            self._count_uses(users, items, fraction)
        return loss.detach()

    def update(self, lr: float | None) -> None:
        """One step of the optimiser, then no gradients; ``None`` leaves the rate that ``self.lr`` holds."""
        set_lr(self.optimizer, self.lr if lr is None else lr)
        if self.exchange is not None:
            self.exchange.combine(self._uses_by_role() if self._l2 or self._output_l2 else None)
        if self.scaler is not None:
            self.scaler.unscale_(self.optimizer)
        if self._l2 or self._output_l2:
            self._add_l2()
        stop(self._still)
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()
        else:
            self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.refresh()

    def refresh(self) -> None:
        """Refresh the 16-bit copies from the weights."""
        if self._mixed is not None:
            self._mixed.refresh()

    def _score(self, users: Tensor, items: Tensor, *, drop: bool) -> Tensor:
        """float32[B, K]; dropout only where gradients follow."""
        if self._dropout is not None:
            self.model.drop = self._dropout if drop else None
        try:
            if self._mixed is None:
                return self._forward(users, items)
            with self._mixed.autocast():
                return self._forward(users, items)
        finally:
            if self._dropout is not None:
                self.model.drop = None

    def _mean_loss(self, users: Tensor, items: Tensor, weights: Tensor | None) -> Tensor:
        logits = self._score(users, items, drop=True)
        if self._in_batch is not None:
            mean: Tensor = self._in_batch(logits, self.model.cross(users, items[:, 0]), users, items, weights)
            return mean
        if self._corrected is not None:
            corrected: Tensor = self._corrected(logits, users, items, weights)
            return corrected
        return self._form.mean(logits) if weights is None else self._form.weighted(logits, weights)

    @torch.no_grad()
    def _count_uses(self, users: Tensor, items: Tensor, fraction: float) -> None:
        """How much of the L2 term falls on each row: a row counts as often as samples use it."""
        uses = self._uses_by_role()
        for name, ids in (("user", users), ("item", items.reshape(-1))):
            part = torch.full((ids.numel(),), self._l2 * fraction / ids.numel(), device=self._device)
            uses[name].index_add_(0, ids, part)

    def _uses_by_role(self) -> dict[str, Tensor]:
        if self._uses is None:
            sizes = {"user": self.model.n_users, "item": self.model.n_items}
            self._uses = {name: torch.zeros(size, device=self._device) for name, size in sizes.items()}
        return self._uses

    @torch.no_grad()
    def _add_l2(self) -> None:
        """The gradient of the L2 term; weights that every sample shares count once."""
        assert self._uses is not None
        for name, p in self.model.named_parameters():
            assert p.grad is not None, name
            uses = self._uses.get(self._roles[name])
            if uses is None:
                p.grad.add_(p, alpha=self._l2 if self._roles[name] == "bias" else self._output_l2)
            else:
                p.grad.addcmul_(p, uses.unsqueeze(1) if p.dim() == 2 else uses)
        for uses in self._uses.values():
            uses.zero_()
