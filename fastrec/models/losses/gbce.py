"""Generalised BCE: the positive's probability is raised to a power below 1, which undoes the few negatives sampled.

BCE with N of I items as negatives sees positives (I / N) times too often, and its scores saturate. With the sampling
rate a = N / (I - 1), beta = a (t (1 - 1 / a) + 1 / a): t = 0 is BCE (beta 1), t = 1 is beta = a.
Source: Petrov and Macdonald, "gSASRec", RecSys 2023, sections 4 and 5.

B rows, N negatives, I items.
"""

from __future__ import annotations

import math

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fastrec.errors import ConfigError
from fastrec.jit import inline
from fastrec.models.losses.bce import row as bce_row
from fastrec.models.parts.loss import Loss, register


def beta(calibration: float, n_negatives: int, n_items: int) -> float:
    """The power of the positive's probability; a sampling rate above 1 counts as 1."""
    rate = min(1.0, n_negatives / max(1, n_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


def gbce(logits: Tensor, power: float, _: float = 0.0) -> Tensor:
    """Mean over all B * (1+N) samples of BCE, the positives' terms times ``power``.

    Parameters
    ----------
    logits : float[B, 1+N]
        Column 0 the positive.
    power : float
        See ``beta``.
    """
    positive = F.softplus(-logits[:, 0]).sum() * power
    return (positive + F.softplus(logits[:, 1:]).sum()) / logits.numel()


def gbce_rows(logits: Tensor, power: float, _: float = 0.0) -> Tensor:
    """float[B]: summed loss of each row's samples, whose mean over all samples is ``gbce``."""
    return F.softplus(-logits[:, 0]) * power + F.softplus(logits[:, 1:]).sum(1)


@inline
def many(x, e, n, power, _, product):  # type: ignore[no-untyped-def]
    """``bce.row`` with the positive's part times ``power``; returns (loss, product)."""
    positive = np.float64(x[0])
    softplus = max(-positive, 0.0) + math.log1p(math.exp(-abs(positive)))
    value, product = bce_row(x, e, n, product)
    x[0] *= power
    return value + (np.float64(power) - 1.0) * softplus, product


def numbers(n_negatives: int, n_items: int, *, calibration: float) -> tuple[float, float]:
    """(beta, unused)."""
    if not 0.0 <= calibration <= 1.0:
        raise ConfigError(f"calibration = {calibration}: must be in [0, 1]")
    return beta(calibration, n_negatives, n_items), 0.0


def without_effect(n_negatives: int, n_items: int) -> str | None:
    """With as many negatives as other items, the sampling rate is 1 and there is nothing to calibrate."""
    if n_negatives < n_items - 1:
        return None
    return f"{n_negatives} negatives of {n_items} items leave nothing to calibrate; use loss = bce, or fewer negatives"


GBCE = register(
    Loss(
        "gbce",
        gbce,
        rows=gbce_rows,
        many=many,
        distributions=("uniform",),
        options={"calibration": 0.75},
        numbers=numbers,
        without_effect=without_effect,
    )
)
"""For uniform negatives: what it undoes is their sampling rate."""
