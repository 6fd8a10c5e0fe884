"""Loss and dLoss/dlogit of one positive's row of logits, for every fused kernel.

N negatives; x float32[at least 1+N, a multiple of 16], column 0 the positive.
"""

from __future__ import annotations

import math

import numpy as np

from fastrec.engines.fused.simd import WIDTH, exp_minus_abs, load, sigmoid, store
from fastrec.errors import ConfigError
from fastrec.jit import inline

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)
BCE, BPR = 0, 1


def loss_of(name: str, *, gmf: bool) -> int:
    """BCE or BPR by name.

    Raises
    ------
    ConfigError
        For a loss that the fused engine has not for the model.
    """
    if name not in ("bce", "bpr") or (name == "bpr" and gmf):
        raise ConfigError(
            f"loss = {name!r}: the fused engine has bce for MF and GMF, and bpr for MF; use engine = torch"
        )
    return BPR if name == "bpr" else BCE


@inline
def scratch(n):  # type: ignore[no-untyped-def]
    """float32 zeros for ``n`` and up to the next multiple of 16, beginning on a cache line."""
    wide = -(-n // WIDTH) * WIDTH
    memory = np.zeros(wide + WIDTH, np.float32)
    start = (-(memory.ctypes.data >> 2)) & (WIDTH - 1)
    return memory[start : start + wide]


@inline
def loss_gradient(x, e, n, loss, product):  # type: ignore[no-untyped-def]
    """Replace the logits x[:n] by the gradients of their summed loss; returns (loss, product).

    The row's summed loss, and that of the rows before, is the sum of the first results plus the log of the last
    ``product`` (float64, from 1.0): the log terms of softplus are gathered there, each a factor in (1, 2], which saves
    a logarithm a sample. ``e`` is scratch as long as ``x``. A NaN or infinite logit makes the loss NaN or infinite.
    """
    first = 0
    value = 0.0
    if loss == BPR:  # softplus(negative - positive) for each pair
        first = 1
        for k in range(1, n):
            x[k] -= x[0]
    else:
        value = -np.float64(x[0])
    for start in range(0, n, WIDTH):
        v = load(x, 0, start, WIDTH)
        ev = exp_minus_abs(v)
        store(e, 0, start, WIDTH, ev)
        for k in range(max(start, first), min(n, start + WIDTH)):
            value += np.float64(x[k] if x[k] > _ZERO else x[k] * _ZERO)
            product *= 1.0 + np.float64(e[k])
        if product > 1e300:  # a block multiplies by 2^16 at most: no overflow before this looks again
            value += math.log(product)
            product = 1.0
        store(x, 0, start, WIDTH, sigmoid(v, ev))
    if loss == BPR:
        x[0] = _ZERO
        for k in range(1, n):
            x[0] -= x[k]
    else:
        x[0] -= _ONE
    return value, product
