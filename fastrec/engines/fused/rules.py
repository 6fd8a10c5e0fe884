"""Optimiser rules for one weight or one accumulator, shared by the deterministic and the lock-free kernels.

Scalars in, scalars out where rows are updated: an array passed to a helper has its references counted at each call.
"""

from __future__ import annotations

import math

import numpy as np

from fastrec.engines.fused.weights import EPS
from fastrec.jit import inline

SGD, ADAGRAD, ADAM = range(3)
_B1, _B2 = np.float32(0.9), np.float32(0.999)
_C1, _C2 = np.float32(1 - 0.9), np.float32(1 - 0.999)
_ADAM_EPS = np.float32(1e-8)


@inline
def adam(value, gradient, first, second, size):  # type: ignore[no-untyped-def]
    """A weight and its two moments after one step; ``size`` is the rate times both bias corrections."""
    first = _B1 * first + _C1 * gradient
    second = _B2 * second + _C2 * gradient * gradient
    return value - size * first / (np.float32(math.sqrt(second)) + _ADAM_EPS), first, second


@inline
def adagrad(accumulated, square):  # type: ignore[no-untyped-def]
    """(the accumulator after one step, what the rate is divided by); ``square``: the gradient's, or a row's mean."""
    accumulated += square
    return accumulated, np.float32(math.sqrt(accumulated)) + EPS


@inline
def move_scalar(value, gradient, a, b, at, lr, kind):  # type: ignore[no-untyped-def]
    """A weight that is a row of its own, after one step; a[at] and b[at] hold its state, where ``kind`` has any."""
    if kind == ADAGRAD:
        a[at], divisor = adagrad(a[at], gradient * gradient)
        return value - gradient / divisor * lr
    if kind == ADAM:
        value, a[at], b[at] = adam(value, gradient, a[at], b[at], lr)
        return value
    return value - lr * gradient
