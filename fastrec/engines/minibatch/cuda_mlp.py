"""CUDA kernels of MLP and NeuMF: loss and gradients of a batch, without autograd, ready for a CUDA graph.

Matrix products are cuBLAS's; between two of them one Triton kernel does all the rest in place. At hundreds of thousands
of positives per step is bound by memory: bf16 halves it, and nothing but activations and their gradients is written.

B batch rows, K = 1 + N columns, M = B * K samples, W width of a layer, U users, I items, D dim of the GMF part.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from fastrec.engines.minibatch.cuda_mlp_half import Half, product
from fastrec.engines.minibatch.cuda_mlp_kernels import (
    bend_kernel,
    first_kernel,
    last_kernel,
    scatter_kernel,
    unbend_kernel,
)
from fastrec.errors import ConfigError
from fastrec.models.neumf import NeuMF
from fastrec.models.parts.dropout import AddressedDropout
from fastrec.models.parts.loss import Loss
from fastrec.sampling.philox import TAG_DROPOUT

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}

PARTS = 2048
"""Programs of a kernel that sums over samples, at most: a constant, so that sums are cut alike on every device."""

BLOCKS = 512
"""Philox blocks of a program, at least."""

TILES = {"last": 1024, "unbend": 2048}
"""Elements of a tile of the wide kernels."""


def wide(width: int) -> int:
    """The power of two that holds a row."""
    power: int = triton.next_power_of_2(max(width, 16))
    return power


class CudaMlp:
    """Loss and gradients of an MLP or NeuMF on a CUDA device; gradients are added to ``parameter.grad``.

    Parameters
    ----------
    model : MLP or NeuMF
        Its parameters, float32 on the device, keep their memory from now on, and so do the gradients made here.
    precision : {"fp32", "bf16"}
        Of activations, their gradients and gathered rows; weights, loss, sums and gradients of weights are float32.
    dropout : AddressedDropout, optional
        After each layer.

    Raises
    ------
    ConfigError
        For an unsupported precision.

    Notes
    -----
    Guarantee: two runs agree to float32 rounding (atomic additions come in any order). Nothing waits for the device, so
    that a call can be captured as a CUDA graph once one of its shape has run.
    Cost: memory for M times twice the sum of layer widths.
    """

    def __init__(
        self,
        model: Any,
        *,
        precision: str,
        dropout: AddressedDropout | None = None,
    ) -> None:
        if precision not in DTYPES:
            raise ConfigError(f"precision = {precision!r}: the kernels of MLP and NeuMF have {' and '.join(DTYPES)}")
        self.dtype = DTYPES[precision]
        self._drop = dropout if dropout is not None and dropout.rate > 0 else None
        self._scale = 1.0 / (1.0 - self._drop.rate) if self._drop is not None else 1.0
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        self._gmf = isinstance(model, NeuMF)
        self._dim = model.dim if self._gmf else 0
        self._widths = model.widths[1:]
        self._ready = len(self._widths) == 1
        """Whether the first layer's gradient comes through its ReLU."""
        self._device = model.bias.device
        self._named = {name: p.detach() for name, p in model.named_parameters()}
        self._grads: dict[str, Tensor] = {name: p.grad for name, p in model.named_parameters()}
        wide = {name: p for name, p in model.named_parameters() if p.dim() == 2 and self.dtype != torch.float32}
        self.copies = {p: p.detach().to(self.dtype) for p in wide.values()}
        """16-bit copies of tables and layers by the weights that they follow."""
        self._rows = {**self._named, **{name: self.copies[p] for name, p in wide.items()}}
        self._weights = [self._rows[f"weights.{k}"] for k in range(len(self._widths))]
        half = model.widths[0] // 2
        self._user, self._item = (
            Half(
                (self._rows[f"{name}_mlp"], self._grads[f"{name}_mlp"]),
                (self._weights[0][:, part], self._grads["weights.0"][:, part]),
            )
            for name, part in (("user", slice(half)), ("item", slice(half, None)))
        )
        self._capacity, self._columns = 0, 0

    @torch.no_grad()
    def refresh(self) -> None:
        """Refresh the 16-bit copies, after each update that does not."""
        if self.copies:
            torch._foreach_copy_(list(self.copies.values()), list(self.copies))

    def _reserve(self, rows: int, columns: int) -> None:
        """Memory for up to ``rows`` rows of ``columns``; it stays, so that a graph can hold it."""
        if rows <= self._capacity and columns == self._columns:
            return
        if self._drop is not None:
            for k, width in enumerate(self._widths):
                self._drop.check(k + 1, columns, width)
        self._capacity, self._columns = rows, columns
        n = rows * columns

        def make(*shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
            return torch.empty(shape, dtype=dtype, device=self._device)

        self._x = [make(n, width, dtype=self.dtype) for width in self._widths]
        self._dx = [make(n, width, dtype=self.dtype) for width in self._widths[:-1]]
        self._sums = make(2, PARTS, dtype=torch.float64)
        self._parts = [make(PARTS, width) for width in self._widths[:-1]]
        self._parts.append(make(PARTS, self._dim + 2 * self._widths[-1]))
        self._user.reserve(rows)
        self._item.reserve(n)

    @torch.no_grad()
    def gradients(
        self,
        users: Tensor,
        items: Tensor,
        positions: Tensor,
        epoch: Tensor,
        *,
        loss: Loss,
        fraction: float,
        l2: float,
        output_l2: float,
    ) -> Tensor:
        """Add the gradient of ``fraction`` times the mean loss and L2 term; returns the mean loss.

        Parameters
        ----------
        users, items, positions : int32[B], int32[B, K], int64[B]
        epoch : int64[1]
            On the device: a graph that holds this call reads it again.
        loss : Loss
            One with a Triton form.
        fraction : float
            Of the batch in the update.
        l2 : float
            Each sample adds ``l2 / 2`` times the squares of its rows and of the bias.
        output_l2 : float
            The same of h and the layers.

        Returns
        -------
        float32[]
            On the device.
        """
        n_rows, columns = items.shape
        self._reserve(n_rows, columns)
        n = n_rows * columns
        at = (positions, epoch)
        x, dx = [a[:n] for a in self._x], [a[:n] for a in self._dx]
        users, items = users.contiguous(), items.contiguous()
        self._user.forward(users)
        self._item.forward(items.view(-1))
        self._forward(n_rows, columns, x, at)
        mean = self._last(users, items, x[-1], loss, fraction)
        dz = x[-1]
        for k in range(len(x) - 1, 0, -1):
            self._grads[f"weights.{k}"].add_(product(dz.T, x[k - 1]))
            dz = torch.mm(dz, self._weights[k], out=dx[k - 1])
            if k > 1:
                self._grads[f"biases.{k - 1}"].add_(self._unbend(k - 1, x[k - 1], dz))
        self._first_back(n_rows, columns, x[0], dz)
        if l2 or output_l2:
            self._decay(n_rows, columns, l2 * fraction, output_l2 * fraction)
        return mean

    def _random(self) -> dict[str, Any]:
        """Arguments of kernels that draw dropout."""
        drop = self._drop
        return {
            "seed": drop.seed if drop is not None else 0,
            "limit": int(drop.limit) if drop is not None else 0,
            "scale": self._scale,
            "TAG": TAG_DROPOUT,
            "DROP": drop is not None,
        }

    @staticmethod
    def _blocks(width: int) -> dict[str, int]:
        """A tile of full rows of Philox blocks, and how many blocks hold a row."""
        blocks = triton.next_power_of_2(-(-width // 4))
        return {"WIDTH": width, "BLOCKS": blocks, "SIZE": max(BLOCKS, blocks)}

    def _forward(self, n_rows: int, columns: int, x: list[Tensor], at: tuple[Tensor, Tensor]) -> None:
        random, n = self._random(), n_rows * columns
        tile = self._blocks(self._widths[0])
        first_kernel[(triton.cdiv(n_rows * tile["BLOCKS"], tile["SIZE"]),)](
            self._user.first, self._item.first, self._named["biases.0"], self._user.ids, self._item.ids, *at, x[0],
            n_rows, **random, COLUMNS=columns, **tile,
        )  # fmt: skip
        for k in range(1, len(x)):
            torch.mm(x[k - 1], self._weights[k].T, out=x[k])
            tile = self._blocks(self._widths[k])
            bend_kernel[(triton.cdiv(n * tile["BLOCKS"], tile["SIZE"]),)](
                x[k], self._named[f"biases.{k}"], *at, n, **random, LAYER=k + 1, COLUMNS=columns, **tile,
            )  # fmt: skip

    def _last(self, users: Tensor, items: Tensor, x: Tensor, loss: Loss, fraction: float) -> Tensor:
        """The mean loss; ``x`` becomes its gradient before the last ReLU. Adds what the last layer and h get."""
        n_rows, columns = items.shape
        n_losses = loss.terms(n_rows, columns)
        rows, grads, gmf, width = self._rows, self._grads, self._gmf, self._widths[-1]
        h = self._named["h"]
        p, q, dp, dq = (
            (rows["user_factors"], rows["item_factors"], grads["user_factors"], grads["item_factors"])
            if gmf
            else (h, h, h, h)
        )
        size = max(1, TILES["last"] // wide(max(width, self._dim)))
        per_program = triton.cdiv(n_rows, PARTS * size) * size
        n_parts = triton.cdiv(n_rows, per_program)
        last_kernel[(n_parts,)](
            users, items, x, h[self._dim :], self._named["bias"], p, q, h, dp, dq, self._parts[-1],
            self._sums, n_rows, per_program, fraction / n_losses, self._scale, BPR=loss.triton == "bpr", GMF=gmf,
            COLUMNS=columns, WIDTH=width, WIDE=wide(width), DIM=self._dim, DEEP=wide(self._dim), PARTS=PARTS,
            SIZE=size,
        )  # fmt: skip
        parts = self._parts[-1][:n_parts].sum(0)
        grads["h"].add_(parts[: h.numel()])
        grads[f"biases.{len(self._widths) - 1}"].add_(parts[h.numel() :])
        total = self._sums[:, :n_parts].sum(1)
        grads["bias"].add_(total[1:])
        return (total[0] / n_losses).float()

    def _unbend(self, k: int, x: Tensor, dx: Tensor) -> Tensor:
        """dx of layer ``k`` before its ReLU, in place; returns its bias's gradient."""
        n, width = x.shape
        size = max(1, TILES["unbend"] // wide(width))
        per_program = triton.cdiv(n, PARTS * size) * size
        n_parts = triton.cdiv(n, per_program)
        unbend_kernel[(n_parts,)](
            x, dx, self._parts[k], n, per_program, self._scale, WIDTH=width, WIDE=wide(width), SIZE=size,
        )  # fmt: skip
        return self._parts[k][:n_parts].sum(0)

    def _first_back(self, n_rows: int, columns: int, x: Tensor, dx: Tensor) -> None:
        """From dx of the first layer: rows' gradients, and those of the first weights and bias."""
        user, item, tile = self._user, self._item, self._blocks(x.shape[1])
        scatter_kernel[(triton.cdiv(n_rows * tile["BLOCKS"], tile["SIZE"]),)](
            user.ids, item.ids, x, dx, user.sums, item.sums, n_rows, self._scale, READY=self._ready,
            COLUMNS=columns, **tile,
        )  # fmt: skip
        if not self._ready:  # what takes dx through the ReLU sums the bias's
            fewer = min(user.sums, item.sums, key=len)
            self._grads["biases.0"].add_(fewer.sum(0))
        user.backward()
        item.backward()

    def _decay(self, n_rows: int, columns: int, l2: float, output_l2: float) -> None:
        """The gradient of the L2 term; weights that every sample shares count once."""
        for name, half, n in (("user", self._user, n_rows), ("item", self._item, n_rows * columns)):
            tables = [key for key, p in self._named.items() if key.startswith(f"{name}_")]
            half.decay(l2 / n, [self._named[key] for key in tables], [self._grads[key] for key in tables])
        for key, p in self._named.items():
            if not key.startswith(("user_", "item_")):
                self._grads[key].add_(p, alpha=l2 if key == "bias" else output_l2)
