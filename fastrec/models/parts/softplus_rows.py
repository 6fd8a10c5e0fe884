"""The Numba form that BCE and BPR share: softplus and sigmoid of one positive's logits, 16 at a time.

N negatives; x float32[at least 1+N, a multiple of 16], column 0 the positive.
"""

from __future__ import annotations

import math

import numpy as np

from fastrec.jit import inline
from fastrec.lanes import WIDTH, exp_minus_abs, load, sigmoid, store

_ZERO = np.float32(0.0)


@inline
def softplus_sigmoid(x, e, first, n, value, product):  # type: ignore[no-untyped-def]
    """Replace x[:n] by their sigmoids; returns ``value`` plus the softplus of x[first:n], and ``product``.

    The sum of softplus is the first result plus the log of the second (float64, from 1.0): log terms are gathered
    there, each a factor in (1, 2], which saves a logarithm per sample. ``e`` is scratch as long as ``x``. A NaN or
    infinite logit makes the loss NaN or infinite.
    """
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
    return value, product
