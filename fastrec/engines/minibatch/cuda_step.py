"""One update of a model on a CUDA device by Triton kernels."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastrec.batches.feed import DeviceBatch
from fastrec.engines.capabilities import name_of
from fastrec.engines.minibatch.steps import Options, hardest, stop
from fastrec.errors import ConfigError
from fastrec.models.parts.base import Model
from fastrec.models.parts.dropout import AddressedDropout
from fastrec.optim.groups import set_lr


class CudaStep:
    """MF, GMF, MLP or NeuMF, a loss with a Triton form, fp32 or bf16.

    Gradients are added to buffers, and Adam zeroes them as it goes.

    Parameters
    ----------
    model : Model
        On the device.
    options : Options
    lr : float or Tensor
        A tensor on the device where a CUDA graph is to read it.
    dropout : AddressedDropout, optional
        After each layer of the MLP.
    """

    scaler = None

    def __init__(
        self, model: Model, options: Options, lr: float | Tensor, *, dropout: AddressedDropout | None = None
    ) -> None:
        self.model, self._options, self.lr = model, options, lr
        self._kernels: Any = cuda_kernels(model)(model, precision=options.precision, dropout=dropout)
        self._l2, self._output_l2 = options.decays
        self._device = next(model.parameters()).device
        self.optimizer = options.optimizer_of(model, lr, added_to=True, copies=self._kernels.copies)
        self._zeroed = getattr(self.optimizer, "zeroes_gradients", False)
        self._parameters, self._still = list(model.parameters()), options.still(model)
        self.dtype = self._kernels.dtype

    def accumulate(self, batch: DeviceBatch, fraction: float, epoch: Any, lr: float) -> Tensor:  # noqa: ARG002
        """Add the gradient of ``fraction`` times the batch's mean loss; returns that mean."""
        users, items = batch.users, batch.items
        if not isinstance(epoch, Tensor):
            epoch = torch.full((1,), epoch, dtype=torch.int64, device=self._device)
        if self._options.n_hard:
            with torch.no_grad():
                items = hardest(items, self.model(users, items), self._options.n_hard)
        loss: Tensor = self._kernels.gradients(
            users,
            items,
            batch.positions,
            epoch,
            loss=self._options.form,
            fraction=fraction,
            l2=self._l2,
            output_l2=self._output_l2,
        )
        return loss

    def update(self, lr: float | None) -> None:
        """One step of the optimiser; gradients are zero after it. ``None`` leaves the rate that ``self.lr`` holds."""
        set_lr(self.optimizer, self.lr if lr is None else lr)
        stop(self._still)
        self.optimizer.step()
        if not self._zeroed:
            torch._foreach_zero_([p.grad for p in self._parameters if p.grad is not None])
            self._kernels.refresh()

    def refresh(self) -> None:
        """Refresh the 16-bit copies, after the weights were restored."""
        self._kernels.refresh()


def cuda_kernels(model: Model) -> Any:
    """The class of Triton kernels that serves exactly this model.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from fastrec.engines.minibatch.cuda_factors import CudaFactors  # needs triton
    from fastrec.engines.minibatch.cuda_mlp import CudaMlp

    served = {"mf": CudaFactors, "gmf": CudaFactors, "mlp": CudaMlp, "neumf": CudaMlp}
    name = name_of(model)
    if name not in served:
        raise ConfigError(f"no Triton kernels for {type(model).__name__}; they serve {', '.join(served)}")
    return served[name]
