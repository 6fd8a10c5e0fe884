"""The matrix products of ``gpu_tower`` with what follows them in one kernel: an activation is written once, read once.

B batch rows, K columns, M = B * K samples, W width of a layer, V width of the layer below.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrec.models.gpu_tower_kernels import COUNTS

TALL = 128
"""Samples of a tile."""

BROAD = 128
"""Units of a tile, at most."""

SLICE = 64
"""Units of the layer summed over that are in flight at once, at most."""

LAUNCH = {"num_warps": 8, "num_stages": 3, "maxnreg": 128}
"""128 registers: two programs fit on a multiprocessor, one loads while the other draws."""


@triton.jit
def rows_times(  # type: ignore[no-untyped-def]
    a, w, sample, there, unit, ALONG: tl.constexpr, IN: tl.constexpr, WIDTH: tl.constexpr, TALL: tl.constexpr,
    BROAD: tl.constexpr, SLICE: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """float32[TALL, BROAD] of a [M, IN] @ w, which is [IN, WIDTH], or ALONG its rows [WIDTH, IN]."""
    total = tl.zeros((TALL, BROAD), tl.float32)
    for k in range(0, IN, SLICE):
        inner = k + tl.arange(0, SLICE)
        left = there[:, None] & (inner < IN)[None, :]
        right = (inner < IN)[:, None] & (unit < WIDTH)[None, :]
        rows = tl.load(a + sample[:, None] * IN + inner[None, :], mask=left, other=0.0)
        if ALONG:
            weight = tl.load(w + unit[None, :] * IN + inner[:, None], mask=right, other=0.0)
        else:
            weight = tl.load(w + inner[:, None] * WIDTH + unit[None, :], mask=right, other=0.0)
        if WIDEN:  # Triton's interpreter multiplies no bfloat16
            rows, weight = rows.to(tl.float32), weight.to(tl.float32)
        total = tl.dot(rows, weight, total, input_precision="ieee")
    return total


@triton.jit(do_not_specialize=COUNTS)
def forward_kernel(  # type: ignore[no-untyped-def]
    x, w, bias, positions, epoch, out, n_samples, seed, limit, scale,
    TAG: tl.constexpr, LAYER: tl.constexpr, DROP: tl.constexpr, COLUMNS: tl.constexpr, IN: tl.constexpr,
    WIDTH: tl.constexpr, TALL: tl.constexpr, BROAD: tl.constexpr, SLICE: tl.constexpr, WIDEN: tl.constexpr,
):  # fmt: skip
    """out [M, W] = dropout(ReLU(x [M, V] @ w [W, V].T + bias)) of layer LAYER (from 1)."""
    across: tl.constexpr = (WIDTH + BROAD - 1) // BROAD
    sample = tl.program_id(0) // across * TALL + tl.arange(0, TALL)
    at = tl.program_id(0) % across * BROAD
    unit = at + tl.arange(0, BROAD)
    there = sample < n_samples
    wide = sample.to(tl.int64)
    s = rows_times(x, w, wide, there, unit, True, IN, WIDTH, TALL, BROAD, SLICE, WIDEN)
    s += tl.load(bias + unit, mask=unit < WIDTH, other=0.0)[None, :]
    s = tl.where(s < 0.0, 0.0, s)
    if DROP:
        block = (at // 4 + tl.arange(0, BROAD // 4)).to(tl.uint32)[None, :]
        position = tl.load(positions + sample // COLUMNS, mask=there, other=0)
        slot = (LAYER * COLUMNS + sample % COLUMNS).to(tl.uint32) << 16
        zero = slot[:, None] * 0 + block * 0
        c0, c1 = zero + position.to(tl.uint32)[:, None], zero + (position >> 32).to(tl.uint32)[:, None]
        c2, c3 = zero + tl.load(epoch).to(tl.uint32), slot[:, None] | block
        k0, k1 = zero + seed.to(tl.uint32), zero + TAG
        w0, w1, w2, w3 = tl.philox_impl(c0, c1, c2, c3, k0, k1)
        least = limit.to(tl.uint32)
        even = tl.join(tl.where(w0 >= least, scale, 0.0), tl.where(w2 >= least, scale, 0.0))
        odd = tl.join(tl.where(w1 >= least, scale, 0.0), tl.where(w3 >= least, scale, 0.0))
        s = s * tl.reshape(tl.join(even, odd), (TALL, BROAD))
    cells = there[:, None] & (unit < WIDTH)[None, :]
    tl.store(out + wide[:, None] * WIDTH + unit[None, :], s, mask=cells)


@triton.jit(do_not_specialize=COUNTS)
def backward_kernel(  # type: ignore[no-untyped-def]
    dz, w, x, out, parts, n_samples, scale,
    IN: tl.constexpr, WIDTH: tl.constexpr, TALL: tl.constexpr, BROAD: tl.constexpr, SLICE: tl.constexpr,
    WIDEN: tl.constexpr,
):  # fmt: skip
    """out [M, V] = dz [M, W] @ w [W, V] through dropout and ReLU of x [M, V], and each tile's column sums of it."""
    across: tl.constexpr = (WIDTH + BROAD - 1) // BROAD
    row = tl.program_id(0) // across
    sample = row * TALL + tl.arange(0, TALL)
    unit = tl.program_id(0) % across * BROAD + tl.arange(0, BROAD)
    there = sample < n_samples
    wide = sample.to(tl.int64)
    value = rows_times(dz, w, wide, there, unit, False, IN, WIDTH, TALL, BROAD, SLICE, WIDEN)
    cells = there[:, None] & (unit < WIDTH)[None, :]
    place = wide[:, None] * WIDTH + unit[None, :]
    active = tl.load(x + place, mask=cells, other=0.0).to(tl.float32) > 0.0
    value = tl.where(active, value * scale, 0.0)
    tl.store(out + place, value, mask=cells)
    tl.store(parts + row * WIDTH + unit, tl.sum(value, 0), mask=unit < WIDTH)


def tile(inner: int, width: int, device: torch.device) -> dict[str, Any]:
    """Constants of a product that sums over ``inner`` units and gives ``width``."""
    broad, part = (triton.next_power_of_2(max(16, size)) for size in (width, inner))
    return {
        "IN": inner,
        "WIDTH": width,
        "TALL": TALL,
        "BROAD": min(broad, BROAD),
        "SLICE": min(part, SLICE),
        "WIDEN": device.type == "cpu",
    }


def forward(
    x: Tensor, w: Tensor, bias: Tensor, at: tuple[Tensor, Tensor], out: Tensor, layer: int, columns: int, random: Any
) -> None:
    """``forward_kernel`` over all samples."""
    n, shape = len(x), tile(w.shape[1], w.shape[0], x.device)
    grid = (triton.cdiv(n, TALL) * triton.cdiv(w.shape[0], shape["BROAD"]),)
    forward_kernel[grid](x, w, bias, *at, out, n, **random, LAYER=layer, COLUMNS=columns, **shape, **LAUNCH)


def backward(dz: Tensor, w: Tensor, x: Tensor, out: Tensor, parts: Tensor, scale: float) -> Tensor:
    """``backward_kernel`` over all samples; returns the column sums float32[V]."""
    n, shape = len(x), tile(w.shape[0], w.shape[1], x.device)
    rows = triton.cdiv(n, TALL)
    grid = (rows * triton.cdiv(w.shape[1], shape["BROAD"]),)
    backward_kernel[grid](dz, w, x, out, parts, n, scale, **shape, **LAUNCH)
    return parts[:rows].sum(0)
