"""Helpers that the Triton kernels of models share: rows in 16 or 32 bits, and the logistic loss."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def read_row(table, at, inside, BF16: tl.constexpr):  # type: ignore[no-untyped-def]
    """float32 elements of a table, which holds float32, or bfloat16 as int16."""
    if BF16:
        bits = tl.load(table + at, mask=inside, other=0).to(tl.int32) << 16
        return bits.to(tl.float32, bitcast=True)
    else:  # Triton would compile what follows a return
        return tl.load(table + at, mask=inside, other=0.0)


@triton.jit
def softplus_sigmoid(z):  # type: ignore[no-untyped-def]
    """log(1 + e^z) and its derivative; neither overflows."""
    e = tl.exp(-tl.abs(z))
    return tl.maximum(z, 0.0) + tl.log(1.0 + e), tl.where(z >= 0.0, 1.0, e) / (1.0 + e)
