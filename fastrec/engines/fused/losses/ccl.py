"""Cosine contrastive loss: pull the positive, and push only negatives whose cosine exceeds a margin.

Source: Mao et al., "SimpleX: A simple and strong baseline for collaborative filtering", CIKM 2021, section 3.2.

B rows, N negatives.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrec.jit import inline

_ONE = np.float32(1.0)


def ccl(cosines: Any, margin: float, negative_weight: float) -> Any:
    """Mean over rows of 1 - positive + negative_weight / N * sum of max(0, negative - margin).

    Parameters
    ----------
    cosines : float[B, 1+N] tensor
        Column 0 the positive.
    margin, negative_weight : float
    """
    pushed = (cosines[:, 1:] - margin).clamp_min(0).mean(1)
    return (1 - cosines[:, 0] + negative_weight * pushed).mean()


@inline
def ccl_row(x, n, margin, weight):  # type: ignore[no-untyped-def]
    """The loss of scores x[:n], of which those from 1 on are above the margin; they become the gradients.

    ``weight`` is negative_weight / N.
    """
    excess = np.float32(0.0)
    for k in range(1, n):
        excess += x[k] - margin
        x[k] = weight
    value = np.float64(_ONE - x[0]) + np.float64(excess * weight)
    x[0] = -_ONE
    return value
