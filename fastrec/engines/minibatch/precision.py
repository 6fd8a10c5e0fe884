"""Mixed precision that is real: rows gathered from 16-bit copies of the tables, fp32 masters, fp32 sums.

Autocast does not touch gather, product and sum, so that wrapping a GMF in it changes nothing.
"""

from __future__ import annotations

import contextlib
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrec.models.parts.base import Model

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


class _Gather(torch.autograd.Function):
    """Rows of the 16-bit copy forward; backward adds their gradients in float32, as the master is."""

    @staticmethod
    def forward(ctx: Any, master: Tensor, copy: Tensor, indices: Tensor) -> Tensor:
        ctx.save_for_backward(indices)
        ctx.like = master.shape
        return F.embedding(indices, copy)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (indices,) = ctx.saved_tensors
        rows = gradients[0].reshape(-1, ctx.like[1]).float()
        total = torch.zeros(ctx.like, dtype=torch.float32, device=rows.device)
        return total.index_add_(0, indices.reshape(-1), rows), None, None


class MixedPrecision:
    """16-bit copies of a model's factor tables, kept next to their fp32 masters, and autocast for its matrix products.

    Parameters
    ----------
    model : Model
        Its ``gather`` is replaced.
    precision : {"bf16", "fp16"}

    Cost
    ----
    2 bytes a weight more, 2 bytes a weight read for each gathered element instead of 4; ``refresh`` reads 4 and writes
    2 bytes a weight of the tables each step.
    """

    def __init__(self, model: Model, precision: str) -> None:
        self.dtype = DTYPES[precision]
        self._device = next(model.parameters()).device
        self._autocast = model.multiplies
        rows = [p for n, p in model.named_parameters() if model.role_of(n) in ("user", "item")]
        self._tables: list[nn.Parameter] = [p for p in rows if p.dim() == 2]
        self._copies = [p.detach().to(self.dtype) for p in self._tables]
        self._copy_of = {id(p): copy for p, copy in zip(self._tables, self._copies)}
        model.gather = self.gather

    def gather(self, indices: Tensor, table: Tensor) -> Tensor:
        """16-bit rows of a table while gradients are wanted; float32 rows for evaluation, where ties would cost."""
        if torch.is_grad_enabled():
            rows: Tensor = _Gather.apply(table, self._copy_of[id(table)], indices)  # type: ignore[no-untyped-call]
            return rows
        return F.embedding(indices, table)

    @torch.no_grad()
    def refresh(self) -> None:
        """Refresh the copies from their masters, after each update."""
        torch._foreach_copy_(self._copies, [p.detach() for p in self._tables])

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """For the forward pass: MLP and NeuMF multiply matrices in 16 bits; MF and GMF have none."""
        if self._autocast:
            return torch.autocast(self._device.type, dtype=self.dtype)
        return contextlib.nullcontext()
