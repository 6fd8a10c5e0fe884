"""Cosine contrastive loss: pull the positive, and push only negatives whose cosine exceeds a margin.

Source: Mao et al., "SimpleX: A simple and strong baseline for collaborative filtering", CIKM 2021, section 3.2.

B rows, N negatives.
"""

from __future__ import annotations

import numpy as np
from torch import Tensor

from fastrec.errors import ConfigError
from fastrec.jit import inline
from fastrec.models.parts.loss import Loss, above_zero, register

_ONE = np.float32(1.0)


def ccl(cosines: Tensor, margin: float, weight: float) -> Tensor:
    """Mean of ``ccl_rows``."""
    return ccl_rows(cosines, margin, weight).mean()


def ccl_rows(cosines: Tensor, margin: float, weight: float) -> Tensor:
    """float[B]: 1 - positive + weight * sum of max(0, negative - margin).

    Parameters
    ----------
    cosines : float[B, 1+N]
        Column 0 the positive.
    margin : float
    weight : float
        The paper's negative weight divided by N.
    """
    pushed = (cosines[:, 1:] - margin).clamp_min(0).sum(1)
    return 1 - cosines[:, 0] + weight * pushed


@inline
def many(x, e, n, margin, weight, product):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """The loss of scores x[:n], of which those from 1 on are above the margin; they become the gradients."""
    excess = np.float32(0.0)
    for k in range(1, n):
        excess += x[k] - margin
        x[k] = weight
    value = np.float64(_ONE - x[0]) + np.float64(excess * weight)
    x[0] = -_ONE
    return value, product


def numbers(n_negatives: int, n_items: int, *, margin: float, negative_weight: float) -> tuple[float, float]:  # noqa: ARG001
    """(margin, negative_weight / N)."""
    if not -1.0 <= margin < 1.0:
        raise ConfigError(f"margin = {margin}: is compared with cosines, so it must be in [-1, 1)")
    return margin, above_zero("negative_weight", negative_weight) / n_negatives


CCL = register(
    Loss(
        "ccl",
        ccl,
        rows=ccl_rows,
        many=many,
        sparse=True,
        per_row=True,
        similarities=("cosine",),
        options={"margin": 0.8, "negative_weight": 150.0},
        numbers=numbers,
    )
)
