"""CPU kernels of MLP and NeuMF: logits and gradients of a block of rows whose activations stay in cache.

Matrix products are torch's; everything between two of them (gather, sum of halves, bias, ReLU, dropout and their
gradients) is one pass.

B batch rows, K items a row, S = B * K samples, W width of a layer, I items.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec.engines.minibatch.cpu_factors import _gradients, _logits
from fastrec.jit import njit, njit_float
from fastrec.models.neumf import NeuMF
from fastrec.models.parts.dropout import AddressedDropout, fill_kept

BLOCK_BYTES = 4 << 20
"""Activations and their gradients of a block: well inside the last cache. Smaller blocks pay more for torch's calls."""


@njit_float
def _first(u, v, rows, x):  # type: ignore[no-untyped-def]
    """x[r * K + k] = ReLU(u[r] + v[rows[r, k]]); a NaN stays one."""
    columns, width = rows.shape[1], u.shape[1]
    zero = u.dtype.type(0)
    for r in range(rows.shape[0]):
        own = u[r]
        for k in range(columns):
            item, out = v[rows[r, k]], x[r * columns + k]
            for d in range(width):
                s = own[d] + item[d]
                out[d] = zero if s < zero else s


@njit_float
def _bend(bias, x):  # type: ignore[no-untyped-def]
    """x = ReLU(x + bias), in place."""
    zero = x.dtype.type(0)
    for s in range(x.shape[0]):
        row = x[s]
        for d in range(x.shape[1]):
            a = row[d] + bias[d]
            row[d] = zero if a < zero else a


@njit
def _drop(kept, scale, x):  # type: ignore[no-untyped-def]
    """x = scale * x where kept, else 0, in place."""
    for s in range(x.shape[0]):
        row, mask = x[s], kept[s]
        for d in range(x.shape[1]):
            row[d] = row[d] * (scale if mask[d] else x.dtype.type(0))


@njit_float
def _last_back(g, h, scale, x, dx, dh, db):  # type: ignore[no-untyped-def]
    """Of the logits x . h: dx before the ReLU (and dropout by ``scale``), dh and the bias's gradient added to."""
    zero = x.dtype.type(0)
    for s in range(x.shape[0]):
        a, row, out = g[s], x[s], dx[s]
        b = a * scale
        for d in range(x.shape[1]):
            dh[d] += a * row[d]
            t = b * h[d] if row[d] > zero else zero
            out[d] = t
            db[d] += t


@njit_float
def _unbend(scale, x, dx, db):  # type: ignore[no-untyped-def]
    """dx through ReLU and dropout, in place; the bias's gradient added to."""
    zero = x.dtype.type(0)
    for s in range(x.shape[0]):
        row, out = x[s], dx[s]
        for d in range(x.shape[1]):
            t = scale * out[d] if row[d] > zero else zero
            out[d] = t
            db[d] += t


@njit_float
def _first_back(scale, rows, x, dx, du, dv):  # type: ignore[no-untyped-def]
    """dx through the first ReLU and dropout: summed over a row's items into du, added to dv[rows[r, k]]."""
    columns, width = rows.shape[1], x.shape[1]
    zero = x.dtype.type(0)
    for r in range(rows.shape[0]):
        own = du[r]
        own[:] = zero
        for k in range(columns):
            s = r * columns + k
            row, out, item = x[s], dx[s], dv[rows[r, k]]
            for d in range(width):
                t = scale * out[d] if row[d] > zero else zero
                own[d] += t
                item[d] += t


@njit
def _count(rows, uses):  # type: ignore[no-untyped-def]
    """uses[i] += the number of times that i occurs in rows."""
    for r in range(rows.shape[0]):
        for k in range(rows.shape[1]):
            uses[rows[r, k], 0] += 1


class CpuMlp:
    """Logits and gradients of an MLP or NeuMF whose parameters are on the CPU; gradients go to ``parameter.grad``.

    ``begin`` sets a batch's items, ``logits`` and ``backward`` take one of its ``blocks`` after the other, and
    ``finish`` adds the gradients that they share.

    Parameters
    ----------
    model : MLP or NeuMF
        Its parameters keep their memory from now on: they are changed in place only.
    dropout : AddressedDropout, optional
        After each layer, while training.

    Guarantee: blocks are cut at fixed rows, and kernels run in order on the calling thread.
    """

    def __init__(self, model: Any, dropout: AddressedDropout | None = None) -> None:
        self._model, self._drop = model, dropout
        self._parameters = list(model.parameters())
        for p in self._parameters:
            p.grad = torch.zeros_like(p)
        self._half = model.widths[0] // 2
        self._weights = [p.detach() for p in model.weights]
        self._biases = [p.detach().numpy() for p in model.biases]
        self._kind = model.bias.detach().numpy().dtype.type
        self._scale = self._kind(1.0 / (1.0 - dropout.rate) if dropout is not None else 1.0)
        self._gmf = isinstance(model, NeuMF)
        self._h = model.h.detach()[model.dim if self._gmf else 0 :]
        self._dh = model.h.grad[model.dim if self._gmf else 0 :]
        self._x: list[Tensor] = []

    def zero(self) -> None:
        """Set every gradient to zero."""
        torch._foreach_zero_([p.grad for p in self._parameters])

    @torch.no_grad()
    def begin(self, items: np.ndarray) -> None:
        """The item half of the first layer: of the entire table, or of the batch's rows where those are fewer."""
        table = self._model.item_mlp.detach()
        self._items, self._whole = items, items.size >= table.shape[0]
        self._rows = items if self._whole else np.arange(items.size, dtype=np.int32).reshape(items.shape)
        self._item_rows = table if self._whole else table[torch.from_numpy(items.reshape(-1)).long()]
        self._v = self._item_rows @ self._weights[0][:, self._half :].T
        self._dv = torch.zeros_like(self._v)

    def blocks(self) -> list[tuple[int, int]]:
        """Rows [lo, hi) of the batch to take at a time: a constant number, whatever the threads."""
        n, columns = self._items.shape
        rows = max(1, BLOCK_BYTES // (8 * columns * sum(self._model.widths[1:])))
        return [(lo, min(lo + rows, n)) for lo in range(0, n, rows)]

    @torch.no_grad()
    def logits(
        self, users: np.ndarray, lo: int, hi: int, epoch: int | None = None, positions: np.ndarray | None = None
    ) -> Tensor:
        """float32[B, K] of rows [lo, hi) of the batch, whose users are given; dropout where an epoch is."""
        model, rows = self._model, self._rows[lo:hi]
        self._user_rows = model.user_mlp.detach()[torch.from_numpy(users).long()]
        u = torch.addmm(model.biases[0], self._user_rows, self._weights[0][:, : self._half].T)
        x = u.new_empty((rows.size, model.widths[1]))
        _first(u.numpy(), self._v.numpy(), rows, x.numpy())
        self._x = [self._dropped(x, 1, rows.shape, epoch, positions)]
        for k in range(1, len(self._weights)):
            x = x @ self._weights[k].T
            _bend(self._biases[k], x.numpy())
            self._x.append(self._dropped(x, k + 1, rows.shape, epoch, positions))
        out: Tensor = (x @ self._h).view(rows.shape)
        if not self._gmf:
            return out.add_(model.bias)
        part = np.empty(rows.shape, self._kind)
        _logits(*self._factors()[0], users, self._items[lo:hi], part)
        return out.add_(torch.from_numpy(part))

    def _dropped(
        self, x: Tensor, layer: int, shape: tuple[int, ...], epoch: int | None, positions: np.ndarray | None
    ) -> Tensor:
        if self._drop is not None and epoch is not None:
            kept = np.empty((*shape, x.shape[1]), np.bool_)
            seed, limit = np.uint64(self._drop.seed), self._drop.limit
            fill_kept(seed, np.uint64(epoch), layer, positions, limit, kept, 0, shape[0])
            _drop(kept.reshape(x.shape), self._scale, x.numpy())
        return x

    def _factors(self) -> tuple[list[Any], list[Any]]:
        """Weights and gradients of the GMF part as ``factor_step`` takes them."""
        model, none = self._model, np.empty(0, self._kind)
        ps = [model.user_factors, model.item_factors, model.h[: model.dim]]
        gs = [model.user_factors.grad, model.item_factors.grad, model.h.grad[: model.dim]]
        weights = [*(p.detach().numpy() for p in ps), none, none, model.bias.detach().numpy()]
        return weights, [*(g.numpy() for g in gs), none, none, np.zeros(1, self._kind)]

    @torch.no_grad()
    def backward(self, users: np.ndarray, lo: int, hi: int, g: Tensor, l2: float, output_l2: float) -> None:
        """Add the gradient of sum(g * logits) of the rows of the last ``logits``, and ``l2 / 2`` times the squares.

        Each sample counts its user's rows, and those of NeuMF's GMF part; ``finish`` counts the rest.
        """
        model, rows, scale = self._model, self._rows[lo:hi], self._scale
        model.bias.grad.add_(g.sum())
        flat = g.reshape(-1)
        x, grads = self._x[-1], [p.grad.numpy() for p in model.biases]
        dx = torch.empty_like(x)
        last = grads[-1] if len(grads) > 1 else np.empty_like(grads[0])
        _last_back(flat.numpy(), self._h.numpy(), scale, x.numpy(), dx.numpy(), self._dh.numpy(), last)
        for k in range(len(self._weights) - 1, 0, -1):
            below = self._x[k - 1]
            model.weights[k].grad.addmm_(dx.T, below)
            dx = dx @ self._weights[k]
            if k > 1:
                _unbend(scale, below.numpy(), dx.numpy(), grads[k - 1])
        if len(self._weights) == 1:
            scale = self._kind(1)  # _last_back has taken dx through the ReLU and the dropout
        du = dx.new_empty((hi - lo, dx.shape[1]))
        _first_back(scale, rows, self._x[0].numpy(), dx.numpy(), du.numpy(), self._dv.numpy())
        model.biases[0].grad.add_(du.sum(0))
        first = model.weights[0]
        first.grad[:, : self._half].addmm_(du.T, self._user_rows)
        own = torch.addmm(self._user_rows, du, self._weights[0][:, : self._half], beta=l2 * rows.shape[1])
        model.user_mlp.grad.index_add_(0, torch.from_numpy(users), own)
        if self._gmf:
            weights, factor_grads = self._factors()
            _gradients(
                *weights, users, self._items[lo:hi], g.numpy(), self._kind(l2), self._kind(output_l2), *factor_grads
            )

    @torch.no_grad()
    def finish(self, l2: float, output_l2: float) -> None:
        """Add the gradients of the item half, and the rest of the L2 term."""
        model, half = self._model, self._half
        table = model.item_mlp.grad
        model.weights[0].grad[:, half:].addmm_(self._dv.T, self._item_rows)
        if self._whole:
            table.addmm_(self._dv, self._weights[0][:, half:])
        else:
            table.index_add_(0, torch.from_numpy(self._items.reshape(-1)), self._dv @ self._weights[0][:, half:])
        if not (l2 or output_l2):
            return
        uses = torch.zeros((table.shape[0], 1), dtype=table.dtype)
        _count(self._items, uses.numpy())
        table.addcmul_(model.item_mlp, uses, value=l2)
        model.bias.grad.add_(model.bias, alpha=l2 * self._items.size)
        for p in (*model.weights, *model.biases):
            p.grad.add_(p, alpha=output_l2 * self._items.size)
        self._dh.add_(self._h, alpha=output_l2 * self._items.size)
