"""The Triton twin of ``dropout.fill_kept``: same addresses, same mask."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrec.sampling.philox import TAG_DROPOUT

BLOCK = 256


@triton.jit
def kept_kernel(out, positions, epoch, seed, tag, limit, layer, columns, width, n_blocks, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """One element of the grid is SIZE Philox blocks, each four neighbouring units of one (row, column)."""
    n = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    per_row = (width + 3) // 4
    inside = n < n_blocks
    block = n % per_row
    pair = n // per_row
    row, column = pair // columns, pair % columns
    position = tl.load(positions + row, mask=inside, other=0)
    c0 = position.to(tl.uint32)
    c1 = (position >> 32).to(tl.uint32)
    c2 = (tl.load(epoch) + row * 0).to(tl.uint32)
    c3 = (((layer * columns + column) << 16) | block).to(tl.uint32)
    k0 = (seed + row * 0).to(tl.uint32)
    k1 = (tag + row * 0).to(tl.uint32)
    w0, w1, w2, w3 = tl.philox_impl(c0, c1, c2, c3, k0, k1)
    start = out + pair * width + block * 4
    unit = block * 4
    tl.store(start, (w0.to(tl.int64) >= limit).to(tl.int8), mask=inside)
    tl.store(start + 1, (w1.to(tl.int64) >= limit).to(tl.int8), mask=inside & (unit + 1 < width))
    tl.store(start + 2, (w2.to(tl.int64) >= limit).to(tl.int8), mask=inside & (unit + 2 < width))
    tl.store(start + 3, (w3.to(tl.int64) >= limit).to(tl.int8), mask=inside & (unit + 3 < width))


def kept(
    seed: int, epoch: Tensor | int, layer: int, positions: Tensor, limit: int, shape: tuple[int, int, int]
) -> Tensor:
    """bool[B, K, W] on the device of ``positions``; ``epoch`` int64[1] is there too, so that a graph can hold it."""
    rows, columns, width = shape
    if not isinstance(epoch, Tensor):
        epoch = torch.full((1,), epoch, dtype=torch.int64, device=positions.device)
    out = torch.empty(shape, dtype=torch.int8, device=positions.device)
    n_blocks = rows * columns * ((width + 3) // 4)
    grid = (triton.cdiv(n_blocks, BLOCK),)
    kept_kernel[grid](out, positions, epoch, seed, TAG_DROPOUT, limit, layer, columns, width, n_blocks, SIZE=BLOCK)
    return out.view(torch.bool)
