"""The torch engine: any model, loss and optimiser, a step at a time."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from fastrec.errors import ConfigError
from fastrec.models import losses
from fastrec.models.engine import Progress
from fastrec.models.factor_step import FactorStep
from fastrec.models.optim import HostAdam, make_optimizer
from fastrec.sampling.order import Cursor
from fastrec.training.stream import Batch, Stream


class TorchEngine:
    """Trains a model from a stream.

    Parameters
    ----------
    model : torch.nn.Module
        ``model(users int32[B], items int32[B, K]) -> float32[B, K]``.
    stream : Stream
    batch_size : int
        Positives a step.
    rate : callable
        Step (from 0) -> learning rate.
    loss : {"bce", "bpr"}
    optimizer : str
        As in ``make_optimizer``.
    l2 : float
        Each sample adds ``l2 / 2`` times the squares of the rows and shared weights that it uses.
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
    ) -> None:
        self.model, self.stream, self.batch_size, self.rate = model, stream, batch_size, rate
        self.n_positives = stream.n_positives
        self.step = 0
        self.loss_name = loss
        self._l2 = 0.0 if optimizer == "adamw" else l2  # AdamW decays by itself
        if loss not in ("bce", "bpr"):
            raise ConfigError(f"loss = {loss!r}: must be one of bce, bpr")
        self._loss: Callable[[Tensor], Tensor] = losses.bce if loss == "bce" else losses.bpr
        self._factors = FactorStep(model) if FactorStep.serves(model) else None
        self.optimizer = make_optimizer(
            optimizer, model.parameters(), lr=rate(0), l2=l2, host=self._factors is not None
        )

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Do up to ``n_steps`` steps, not beyond the cursor's epoch."""
        with flushed_denormals():
            return self._advance(cursor, n_steps)

    def _advance(self, cursor: Cursor, n_steps: int) -> Progress:
        total, samples, steps, start = 0.0, 0, 0, cursor.position
        found: list[tuple[Tensor, int]] = []
        while steps < n_steps and cursor.position < self.n_positives:
            batch, cursor = self.stream.batch(cursor, self.batch_size)
            for group in self.optimizer.param_groups:
                group["lr"] = self.rate(self.step)
            loss = self._by_hand(batch) if self._factors is not None else self._by_autograd(batch)
            found.append((loss, batch.items.size))
            self.step += 1
            steps += 1
            samples += batch.items.size
        for loss, n in found:
            total += float(loss) * n
        return Progress(cursor, total, samples, cursor.position - start, steps)

    def _by_hand(self, batch: Batch) -> Tensor:
        assert self._factors is not None
        if not isinstance(self.optimizer, HostAdam):
            self._factors.zero()
        logits = self._factors.logits(batch.users, batch.items)
        if self.loss_name == "bce":
            loss, gradient = losses.bce_with_gradient(logits)
        else:
            logits.requires_grad_()
            loss = self._loss(logits)
            loss.backward()
            assert logits.grad is not None
            gradient = logits.grad
        self._factors.backward(batch.users, batch.items, gradient, self._l2 / logits.numel())
        self.optimizer.step()
        return loss.detach()

    def _by_autograd(self, batch: Batch) -> Tensor:
        users, items = torch.from_numpy(batch.users), torch.from_numpy(batch.items)
        self.optimizer.zero_grad(set_to_none=True)
        loss = self._loss(self.model(users, items))
        loss.backward()
        if self._l2:
            self._add_l2(users, items)
        self.optimizer.step()
        return loss.detach()

    @torch.no_grad()
    def _add_l2(self, users: Tensor, items: Tensor) -> None:
        """The gradient of the L2 term: a row counts as often as samples use it, shared weights once a sample."""
        shares: dict[str, Tensor] = {}
        for name, ids in (("user", users), ("item", items)):
            size = getattr(self.model, f"n_{name}s")
            flat = ids.reshape(-1)
            shares[name] = torch.zeros(size, device=ids.device).index_add_(
                0, flat, torch.full((flat.numel(),), self._l2 / flat.numel(), device=ids.device)
            )
        for name, p in self.model.named_parameters():
            assert p.grad is not None
            share = shares.get(name.partition("_")[0])
            if share is None:
                p.grad.add_(p, alpha=self._l2)
            else:
                p.grad.addcmul_(p, share.unsqueeze(1) if p.dim() == 2 else share)

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Weights and optimiser state by name, and the step."""
        tensors = {f"model.{k}": v.detach().cpu() for k, v in self.model.state_dict().items()}
        names = {id(p): n for n, p in self.model.named_parameters()}
        for p, values in self.optimizer.state.items():
            for key, value in values.items():
                tensors[f"optimizer.{names[id(p)]}.{key}"] = value.detach().cpu()
        return tensors, {"step": self.step}

    def load_state(self, tensors: dict[str, Tensor], meta: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        self.model.load_state_dict({k[6:]: v for k, v in tensors.items() if k.startswith("model.")})
        for name, p in self.model.named_parameters():
            prefix = f"optimizer.{name}."
            given = {k[len(prefix) :]: v for k, v in tensors.items() if k.startswith(prefix)}
            self.optimizer.state[p] = {k: v.clone().to(p.device) for k, v in given.items()}
        self.step = int(meta["step"])

    def describe(self) -> dict[str, Any]:
        """What computes, on what, in which precision."""
        device = next(self.model.parameters()).device
        return {"engine": "torch", "device": str(device), "precision": "fp32", "torch": torch.__version__}

    def close(self) -> None:
        """Nothing runs in the background yet."""


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
