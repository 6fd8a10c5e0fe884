"""Sampled softmax with a temperature: cross-entropy of the positive against its own uniform negatives.

No correction for the sampling is needed: uniform negatives are all expected equally often, so logQ is one constant.
Source: Wu et al., "On the effectiveness of sampled softmax loss for item recommendation", arXiv 2201.02327, section 3.

B rows, N negatives.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastrec.engines.fused.rows import greater, greatest
from fastrec.jit import inline
from fastrec.lanes import WIDTH, exp_minus_abs, fma, load, mul, splat, store, total

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FAR = np.float32(87.0)


def softmax(scores: Any, temperature: float) -> Any:
    """Mean over rows of log sum exp(scores / temperature) - positive / temperature.

    Parameters
    ----------
    scores : float[B, 1+N] tensor
        Column 0 the positive.
    temperature : float
    """
    scaled = scores / temperature
    return (scaled.logsumexp(1) - scaled[:, 0]).mean()


@inline
def softmax_row(x, n, sharpness):  # type: ignore[no-untyped-def]
    """The loss of scores x[:n], which become the gradients; ``sharpness`` is 1 / temperature.

    x has room for full vectors. A NaN or infinite score makes the loss NaN.
    """
    wide = -(-n // WIDTH) * WIDTH
    positive, faults = x[0], _ZERO
    for k in range(n, wide):
        x[k] = positive
    top = load(x, 0, 0, WIDTH)
    seen = splat(_ZERO)
    for k in range(0, wide, WIDTH):
        v = load(x, 0, k, WIDTH)
        top = greater(top, v)
        seen = fma(v, splat(_ZERO), seen)
    peak = greatest(top)
    faults = total(seen)
    for k in range(n, wide):
        x[k] = peak - _FAR / sharpness
    scale, shift = splat(sharpness), splat(-peak * sharpness)
    mass = splat(_ZERO)
    for k in range(0, wide, WIDTH):
        v = exp_minus_abs(fma(load(x, 0, k, WIDTH), scale, shift))
        mass = fma(v, splat(_ONE), mass)
        store(x, 0, k, WIDTH, v)
    summed = total(mass)
    factor = splat(sharpness / summed)
    for k in range(0, wide, WIDTH):
        store(x, 0, k, WIDTH, mul(load(x, 0, k, WIDTH), factor))
    x[0] -= sharpness
    return np.float64(sharpness * (peak - positive)) + math.log(np.float64(summed)) + np.float64(faults)
