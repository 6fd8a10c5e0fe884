"""Generalised BCE: the positive's probability is raised to a power below 1, which undoes the few negatives sampled.

BCE with N of I items as negatives sees positives (I / N) times too often, and its scores saturate. With the sampling
rate a = N / (I - 1), beta = a (t (1 - 1 / a) + 1 / a): t = 0 is BCE (beta 1), t = 1 is beta = a.
Source: Petrov and Macdonald, "gSASRec", RecSys 2023, sections 4 and 5.

B rows, N negatives, I items.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from fastrec.engines.fused.losses.binary import loss_gradient
from fastrec.engines.fused.losses.spec import BCE
from fastrec.jit import inline

_ONE = np.float32(1.0)


def gbce(scores: Any, power: float) -> Any:
    """Mean over all B * (1+N) samples of BCE, the positives' terms times ``power``.

    Parameters
    ----------
    scores : float[B, 1+N] tensor
        Column 0 the positive.
    power : float
        See ``beta``.
    """
    import torch.nn.functional as F

    positive = F.softplus(-scores[:, 0]).sum() * power
    return (positive + F.softplus(scores[:, 1:]).sum()) / scores.numel()


@inline
def gbce_row(x, e, n, power, product):  # type: ignore[no-untyped-def]
    """``loss_gradient`` of BCE with the positive's part times ``power``; returns (loss, product)."""
    positive = np.float64(x[0])
    softplus = max(-positive, 0.0) + math.log1p(math.exp(-abs(positive)))
    value, product = loss_gradient(x, e, n, BCE, product)
    x[0] *= power
    return value + (np.float64(power) - 1.0) * softplus, product
