"""The step as a CUDA graph: one launch instead of some sixty. Full batches replay it; an epoch's tail runs eagerly."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from fastrec import optim
from fastrec.batches.device import HostDevice
from fastrec.batches.feed import DeviceBatch
from fastrec.engines.minibatch.cuda_step import CudaStep
from fastrec.engines.minibatch.steps import AutogradStep, Options

WARM_UP = 3  # eager steps on a side stream before capture, as torch.cuda.graphs asks; they are training steps too


class GraphedStep:
    """A step of fixed shape, captured at its fourth full batch.

    Parameters
    ----------
    step : AutogradStep or CudaStep
        Its learning rate is a tensor on the device: a graph bakes plain numbers in.
    seam : HostDevice
    rows, columns : int
        Shape of a full batch's items.

    Notes
    -----
    Guarantee: the same kernels on the same numbers as eager steps.
    """

    def __init__(self, step: AutogradStep | CudaStep, seam: HostDevice, rows: int, columns: int) -> None:
        self._eager, self._device, self._rows = step, seam, rows
        device = seam.device
        self._static = DeviceBatch(
            torch.zeros(rows, dtype=torch.int32, device=device),
            torch.zeros((rows, columns), dtype=torch.int32, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )
        self._epoch = torch.zeros(1, dtype=torch.int64, device=device)
        self._graph: Callable[[], None] | None = None
        self._loss = torch.zeros((), device=device)
        self._warm = 0
        self._done = False
        assert isinstance(step.lr, Tensor)
        self._lr = step.lr
        self.optimizer, self.scaler, self.dtype = step.optimizer, step.scaler, step.dtype

    @staticmethod
    def serves(device: HostDevice, options: Options) -> bool:
        """Where the device captures; not fp16 (its scaler reads overflows back), nor a rule that counts on the host."""
        return device.captures and options.precision != "fp16" and optim.get(options.optimizer).captures

    def accumulate(self, batch: DeviceBatch, fraction: float, epoch: int, lr: float) -> Tensor:
        """Backward pass of an odd shape, eagerly; of a full batch, the entire step: replayed, warmed up or captured."""
        self._done = batch.users.shape[0] == self._rows
        self._epoch.fill_(epoch)
        if not self._done:
            return self._eager.accumulate(batch, fraction, self._epoch, lr)
        for source, target in zip(batch[:3], self._static[:3]):  # batches with weights are not captured
            target.copy_(source)
        self._lr.fill_(lr)
        if self._graph is not None:
            self._graph()
        elif self._warm < WARM_UP:
            self._warm += 1
            self._device.warm_up(self._whole)
        else:
            self._graph = self._device.capture(self._whole)
            self._graph()
        return self._loss

    def update(self, lr: float) -> None:
        """After an odd shape; a full batch was updated with its backward pass."""
        if not self._done:
            self._eager.update(lr)

    def refresh(self) -> None:
        """Weights were put back: copies follow, and the graph goes, for the optimiser has other tensors."""
        self._eager.refresh()
        self._graph, self._warm = None, 0

    def _whole(self) -> None:
        """Forward, backward and update on the static batch, at the rate on the device."""
        self._loss.copy_(self._eager.accumulate(self._static, 1.0, self._epoch, 0.0))
        self._eager.update(None)
