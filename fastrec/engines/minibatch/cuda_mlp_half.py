"""The first layer of an MLP acts on [user row; item row], so it is two products with entire tables, here.

B batch rows, K columns, U users, I items, W1 width of the first layer.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def product(a: Tensor, b: Tensor) -> Tensor:
    """float32 a @ b, summed in float32."""
    if a.dtype == torch.float32:
        return a @ b
    if a.device.type == "cpu":  # torch has no wider output there
        return a.float() @ b.float()
    return torch.mm(a, b, out_dtype=torch.float32)


class Half:
    """Half of the first layer, the user's or the item's: table, columns of the weights, and sums of their gradients.

    Where a batch asks for at least as many rows as the table has, the table goes through completely (``product``); else
    the batch's rows do, and are known by their place in it.
    """

    def __init__(self, table: tuple[Tensor, Tensor], weight: tuple[Tensor, Tensor]) -> None:
        (self._table, self._table_grad), (self._weight, self._weight_grad) = table, weight

    def reserve(self, n: int) -> None:
        """Memory for up to ``n`` ids a batch."""
        size, width, device = self._table.shape[0], self._weight.shape[0], self._table.device
        rows = min(n, size)
        self._first = torch.empty((rows, width), dtype=self._table.dtype, device=device)
        self._sums = torch.empty((rows, width), device=device)
        self._places = torch.arange(rows, device=device)
        self._uses = torch.empty(size, device=device)

    def forward(self, ids: Tensor) -> None:
        """``first`` [rows, W1], and ``ids`` in it."""
        self._real = ids
        self.whole = ids.numel() >= self._table.shape[0]
        self._source = self._table if self.whole else F.embedding(ids, self._table)
        self.ids = ids if self.whole else self._places[: ids.numel()]
        self.first, self.sums = self._first[: len(self._source)], self._sums[: len(self._source)]
        torch.mm(self._source, self._weight.T, out=self.first)
        self.sums.zero_()

    def backward(self) -> None:
        """Add the gradients of the table and of the weights, from ``sums``."""
        total = self.sums.to(self._source.dtype)
        self._weight_grad.add_(product(total.T, self._source))
        rows = product(total, self._weight)
        if self.whole:
            self._table_grad.add_(rows)
        else:
            self._table_grad.index_add_(0, self._real, rows)

    def decay(self, l2: float, tables: list[Tensor], grads: list[Tensor]) -> None:
        """Add ``l2`` times a row for each batch row or sample that uses it."""
        self._uses.zero_()
        self._uses.index_add_(0, self._real, torch.full(self._real.shape, l2, device=self._uses.device))
        for table, grad in zip(tables, grads):
            grad.addcmul_(table, self._uses.unsqueeze(1))
