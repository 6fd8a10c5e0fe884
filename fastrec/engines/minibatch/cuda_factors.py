"""CUDA kernels of MF and GMF: loss and gradients of a batch in one kernel.

Autograd writes the gathered rows, their product and the gradients of both to memory. Here a row's factors stay in
registers from the logit to the gradient, which is added to the dense gradient by float32 atomics.

B batch rows, N negatives, U users, I items, D dim.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrec.engines.rows_cuda import read_row, softplus_sigmoid
from fastrec.models.gmf import GMF
from fastrec.models.parts.loss import Loss

PARTS = 1024
"""Programs at most; each goes on to further rows, so that h and the bias take so many atomics a batch and no more."""

ELEMENTS = 1024
"""Of a tile of rows: 8 a thread."""


@triton.jit(do_not_specialize=["n_rows", "per_program"])
def factor_kernel(  # type: ignore[no-untyped-def]
    users, items, p, q, h, user_bias, item_bias, bias, dp, dq, dh, d_user_bias, d_item_bias, d_bias, losses,
    n_rows, per_program, mean, fraction, decay, l2, output_l2,
    BPR: tl.constexpr, GMF: tl.constexpr, BF16: tl.constexpr, DIM: tl.constexpr, WIDTH: tl.constexpr,
    COLUMNS: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """Rows [0, n_rows), ``per_program`` (a multiple of SIZE) each program: adds to every d*, fills losses float64.

    ``mean`` weighs a loss in the mean, ``fraction`` the gradient of all; ``decay`` is the L2 of a row's use, ``l2`` and
    ``output_l2`` those of the bias and h.
    """
    pid = tl.program_id(0)
    d = tl.arange(0, WIDTH)
    base = tl.load(bias)
    if GMF:
        hv = tl.load(h + d, mask=d < DIM, other=0.0)
    scale = mean * fraction
    loss_sum = tl.zeros((SIZE,), tl.float64)
    slope_sum = tl.zeros((SIZE,), tl.float32)
    h_sum = tl.zeros((SIZE, WIDTH), tl.float32)
    at = pid * per_program
    stop = tl.minimum(at + per_program, n_rows)
    while at < stop:
        k = at + tl.arange(0, SIZE)
        live = k < n_rows
        cells = live[:, None] & (d < DIM)[None, :]
        row = k.to(tl.int64)
        user = tl.load(users + row, mask=live, other=0).to(tl.int64)
        p_at = user[:, None] * DIM + d[None, :]
        p_row = read_row(p, p_at, cells, BF16)
        if GMF:
            r = p_row * hv[None, :]
            offset = base + tl.zeros((SIZE,), tl.float32)
        else:
            r = p_row
            own = tl.load(user_bias + user, mask=live, other=0.0)
            offset = base + own
        first = tl.load(items + row * COLUMNS, mask=live, other=0).to(tl.int64)
        first_at = first[:, None] * DIM + d[None, :]
        q0 = read_row(q, first_at, cells, BF16)
        x0 = tl.sum(r * q0, 1) + offset
        if not GMF:
            b0 = tl.load(item_bias + first, mask=live, other=0.0)
            x0 += b0
        loss, s0 = softplus_sigmoid(-x0)
        g0 = -scale * s0
        if BPR:
            loss = tl.zeros((SIZE,), tl.float32)
            g0 = tl.zeros((SIZE,), tl.float32)
        slope = g0
        mine = g0[:, None] * q0
        for j in range(1, COLUMNS):
            item = tl.load(items + row * COLUMNS + j, mask=live, other=0).to(tl.int64)
            q_at = item[:, None] * DIM + d[None, :]
            qj = read_row(q, q_at, cells, BF16)
            z = tl.sum(r * qj, 1) + offset
            if not GMF:
                bj = tl.load(item_bias + item, mask=live, other=0.0)
                z += bj
            if BPR:
                z -= x0
            more, gj = softplus_sigmoid(z)
            loss += more
            gj = gj * scale
            if BPR:
                g0 -= gj
            else:
                slope += gj
            mine += gj[:, None] * qj
            tl.atomic_add(dq + q_at, gj[:, None] * r + decay * qj, mask=cells, sem="relaxed")
            if not GMF:
                tl.atomic_add(d_item_bias + item, gj + decay * bj, mask=live, sem="relaxed")
        if BPR:
            mine += g0[:, None] * q0
        tl.atomic_add(dq + first_at, g0[:, None] * r + decay * q0, mask=cells, sem="relaxed")
        if GMF:
            h_sum += mine * p_row
            mine = mine * hv[None, :]
        else:
            tl.atomic_add(d_item_bias + first, g0 + decay * b0, mask=live, sem="relaxed")
            tl.atomic_add(d_user_bias + user, slope + decay * COLUMNS * own, mask=live, sem="relaxed")
        tl.atomic_add(dp + p_at, mine + decay * COLUMNS * p_row, mask=cells, sem="relaxed")
        loss_sum += tl.where(live, loss * mean, 0.0).to(tl.float64)
        slope_sum += tl.where(live, slope, 0.0)
        at += SIZE
    tl.store(losses + pid, tl.sum(loss_sum, 0))
    once = tl.where(pid == 0, fraction, 0.0)  # the weights that all samples use get their L2 once
    tl.atomic_add(d_bias, tl.sum(slope_sum, 0) + once * l2 * base, sem="relaxed")
    if GMF:
        tl.atomic_add(dh + d, tl.sum(h_sum, 0) + once * output_l2 * hv, mask=d < DIM, sem="relaxed")


class CudaFactors:
    """Loss and gradients of an MF or GMF on a CUDA device; gradients are added to ``parameter.grad``.

    Parameters
    ----------
    model : MF or GMF
        On the device, or on the CPU under Triton's interpreter. Its parameters are changed in place only from now on.
    precision : {"fp32", "bf16"}
        bf16 reads the factor tables from 16-bit copies next to the fp32 masters; everything else is fp32.

    Notes
    -----
    Two runs agree to float32 rounding: atomics add in any order.
    Cost: at D=64 and N=4 a sample reads 4 * D * 1.2 bytes (bf16: half) and adds as many floats to gradients, most of it
    within the second-level cache.
    """

    def __init__(self, model: Any, *, precision: str, dropout: None = None) -> None:  # noqa: ARG002
        self._gmf, self._dim, self._bf16 = isinstance(model, GMF), model.dim, precision == "bf16"
        self.dtype = torch.bfloat16 if self._bf16 else torch.float32
        """Of the rows that are gathered."""
        named = {name: p.detach() for name, p in model.named_parameters()}
        for p in model.parameters():
            p.grad = torch.zeros_like(p)
        none = torch.zeros(1, device=model.bias.device)
        self._masters = [named["user_factors"], named["item_factors"]]
        wide = [model.user_factors, model.item_factors] if self._bf16 else []
        self.copies = {p: p.detach().to(self.dtype) for p in wide}
        """16-bit copies by the weights that they follow."""
        tables = [t.view(torch.int16) for t in self.copies.values()] or self._masters
        small = ("h", "user_bias", "item_bias", "bias")
        grads = {name: p.grad for name, p in model.named_parameters()}
        self._weights = [*tables, *(named.get(name, none) for name in small)]
        self._grads = [grads.get(name, none) for name in ("user_factors", "item_factors", *small)]
        self._losses = torch.zeros(PARTS, dtype=torch.float64, device=none.device)
        self._width = triton.next_power_of_2(max(model.dim, 16))

    def gradients(
        self, users: Tensor, items: Tensor, positions: Tensor, epoch: Tensor,  # noqa: ARG002
        *, loss: Loss, fraction: float, l2: float, output_l2: float,
    ) -> Tensor:  # fmt: skip
        """Add the gradient of ``fraction`` times the mean loss and its L2; returns the mean loss.

        Parameters
        ----------
        users : int32[B]
        items : int32[B, 1+N]
        positions, epoch : int64[B], int64[1]
            For dropout, which these models do not have.
        loss : Loss
            One with a Triton form.
        fraction : float
        l2, output_l2 : float
            Each sample adds half of them times the squares of what it uses; ``output_l2`` is for h.

        Returns
        -------
        float32 scalar on the device.
        """
        n_rows, columns = items.shape
        n_losses = loss.terms(n_rows, columns)
        size = max(1, ELEMENTS // self._width)
        per_program = triton.cdiv(triton.cdiv(n_rows, size), PARTS) * size
        n_parts = triton.cdiv(n_rows, per_program)
        factor_kernel[(n_parts,)](
            users, items, *self._weights, *self._grads, self._losses, n_rows, per_program, 1.0 / n_losses, fraction,
            l2 * fraction / (n_rows * columns), l2, output_l2,
            BPR=loss.triton == "bpr", GMF=self._gmf, BF16=self._bf16, DIM=self._dim, WIDTH=self._width, COLUMNS=columns,
            SIZE=size,
        )  # fmt: skip
        return self._losses[:n_parts].sum().float()

    def refresh(self) -> None:
        """Refresh the 16-bit copies, after each update that does not."""
        if self.copies:
            torch._foreach_copy_(list(self.copies.values()), self._masters)
