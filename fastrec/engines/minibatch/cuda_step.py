"""One update of a model on a CUDA device by kernels of our own, where they serve it; autograd does everything else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fastrec.batches.feed import DeviceBatch
from fastrec.engines.minibatch.steps import Options, hardest
from fastrec.jit import triton_runs
from fastrec.models.dropout import AddressedDropout
from fastrec.optim.rules import h_apart, make_optimizer, set_rate


class DeviceStep:
    """Any model with BCE or BPR, in fp32 or bf16: gradients are added to buffers, and Adam zeroes them as it goes.

    Parameters
    ----------
    model : Factors
        On the device.
    options : Options
    lr : float or Tensor
        A tensor on the device where a CUDA graph is to read it.
    dropout : AddressedDropout, optional
        Of a tower's layers.
    """

    scaler = None

    def __init__(
        self, model: nn.Module, options: Options, lr: float | Tensor, *, dropout: AddressedDropout | None = None
    ) -> None:
        kernels = kernels_of(model, options)
        assert kernels is not None
        self.model, self._options, self.lr = model, options, lr
        self._kernels: Any = kernels(model, precision=options.precision, dropout=dropout)
        self._l2, self._l2_h = options.decays
        self._device = next(model.parameters()).device
        params = h_apart(model, lr, options.lr_h)
        copies = self._kernels.copies
        self.optimizer = make_optimizer(options.optimizer, params, lr=lr, l2=options.l2, added_to=True, copies=copies)
        self._in_one = options.optimizer in ("adam", "adamw")
        self._parameters = list(model.parameters())
        self.dtype = self._kernels.dtype

    def accumulate(self, batch: DeviceBatch, share: float, epoch: Any, lr: float) -> Tensor:  # noqa: ARG002
        """Add the gradient of ``share`` times the batch's mean loss; returns that mean."""
        users, items = batch.users, batch.items
        if not isinstance(epoch, Tensor):
            epoch = torch.full((1,), epoch, dtype=torch.int64, device=self._device)
        if self._options.n_hard:
            with torch.no_grad():
                items = hardest(items, self.model(users, items), self._options.n_hard)
        loss: Tensor = self._kernels.gradients(
            users, items, batch.positions, epoch, loss=self._options.loss, share=share, l2=self._l2, l2_h=self._l2_h
        )
        return loss

    def update(self, lr: float | None) -> None:
        """One step of the optimiser; gradients are zero after it. ``None`` leaves the rate that ``self.lr`` holds."""
        set_rate(self.optimizer, self.lr if lr is None else lr)
        self.optimizer.step()
        if not self._in_one:
            torch._foreach_zero_([p.grad for p in self._parameters if p.grad is not None])
            self._kernels.refresh()

    def refresh(self) -> None:
        """Bring 16-bit copies up to the weights, after these were put back."""
        self._kernels.refresh()


def kernels_of(model: nn.Module, options: Options) -> Any:
    """The class of kernels that serves a model on its device under these options, or None."""
    if options.loss not in ("bce", "bpr") or options.precision not in ("fp32", "bf16") or options.compile:
        return None
    if not triton_runs(next(model.parameters()).device.type):
        return None
    from fastrec.engines.minibatch.cuda_factors import GpuFactors  # needs triton
    from fastrec.engines.minibatch.cuda_mlp import GpuTower

    return next((kernels for kernels in (GpuFactors, GpuTower) if kernels.serves(model)), None)
