"""The step as a CUDA graph: one launch instead of some sixty. Full batches replay it; an epoch's tail runs eagerly."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fastrec.training.device import HostDevice
from fastrec.training.feed import DeviceBatch
from fastrec.training.steps import AutogradStep, Options

WARM_UP = 3  # eager steps on a side stream before capture, as torch.cuda.graphs asks; they are training steps too


class GraphedStep:
    """An ``AutogradStep`` of fixed shape, captured at its fourth full batch.

    Parameters
    ----------
    step : AutogradStep
        Its learning rate is a tensor on the device: a graph bakes plain numbers in.
    rows, columns : int
        Shape of a full batch's items.

    Notes
    -----
    Guarantee: the same kernels on the same numbers as eager steps.
    """

    def __init__(self, step: AutogradStep, rows: int, columns: int) -> None:
        self._eager, self._rows = step, rows
        device = next(step.model.parameters()).device
        self._static = DeviceBatch(
            torch.zeros(rows, dtype=torch.int32, device=device),
            torch.zeros((rows, columns), dtype=torch.int32, device=device),
            torch.zeros(rows, dtype=torch.int64, device=device),
        )
        self._epoch = torch.zeros(1, dtype=torch.int64, device=device)
        self._graph: Any = None
        self._loss = torch.zeros((), device=device)
        self._warm = 0
        self._done = False
        assert isinstance(step.lr, Tensor)
        self._rate = step.lr
        self.optimizer, self.scaler, self.mixed = step.optimizer, step.scaler, step.mixed

    @staticmethod
    def serves(device: HostDevice, options: Options) -> bool:
        """CUDA; not fp16, whose scaler reads back overflows; not Adagrad, which counts steps on the host."""
        return device.kind == "cuda" and options.precision != "fp16" and options.optimizer != "adagrad"

    def accumulate(self, batch: DeviceBatch, share: float, epoch: int, lr: float) -> Tensor:
        """Backward pass of an odd shape, eagerly; of a full batch, the whole step: replayed, warmed up or captured."""
        self._done = batch.users.shape[0] == self._rows
        self._epoch.fill_(epoch)
        if not self._done:
            return self._eager.accumulate(batch, share, self._epoch, lr)
        for source, target in zip(batch, self._static):
            target.copy_(source)
        self._rate.fill_(lr)
        if self._graph is not None:
            self._graph.replay()
        elif self._warm < WARM_UP:
            self._warm += 1
            side, main = torch.cuda.Stream(self._rate.device), torch.cuda.current_stream(self._rate.device)
            side.wait_stream(main)
            with torch.cuda.stream(side):
                self._whole()
            main.wait_stream(side)
        else:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                self._whole()
            self._graph = graph
            graph.replay()
        return self._loss

    def update(self, lr: float) -> None:
        """After an odd shape; a full batch was updated with its backward pass."""
        if not self._done:
            self._eager.update(lr)

    def forget(self) -> None:
        """Drop the graph: the optimiser's tensors have been replaced."""
        self._graph, self._warm = None, 0

    def _whole(self) -> None:
        """Forward, backward and update on the static batch, at the rate on the device."""
        self._loss.copy_(self._eager.accumulate(self._static, 1.0, self._epoch, 0.0))
        self._eager.update(None)
