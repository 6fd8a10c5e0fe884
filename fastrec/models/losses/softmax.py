"""Sampled softmax with a temperature: cross-entropy of the positive against its own negatives.

Uniform negatives need no correction: all are expected equally often, so logQ is one constant. Others are corrected.
Source: Wu et al., "On the effectiveness of sampled softmax loss for item recommendation", arXiv 2201.02327, section 3;
Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019, section 3, for
logQ.

B rows, N negatives, I items.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec.jit import inline
from fastrec.lanes import WIDTH, exp_minus_abs, fma, greater, greatest, load, mul, splat, store, total
from fastrec.models.parts.loss import Loss, above_zero, register

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_FAR = np.float32(87.0)


def softmax(scores: Tensor, sharpness: float, _: float = 0.0, log_ratio: Tensor | None = None) -> Tensor:
    """Mean of ``softmax_rows``."""
    return softmax_rows(scores, sharpness, log_ratio=log_ratio).mean()


def softmax_rows(scores: Tensor, sharpness: float, _: float = 0.0, log_ratio: Tensor | None = None) -> Tensor:
    """float[B]: log sum exp(scores * sharpness) - positive * sharpness.

    Parameters
    ----------
    scores : float[B, 1+N]
        Column 0 the positive.
    sharpness : float
        1 / temperature.
    log_ratio : float[B, N], optional
        log of how much likelier each negative was drawn than by a uniform draw from its user's legal items; subtracted,
        it makes the sum over negatives what uniform ones give on average.
    """
    scaled = scores * sharpness
    if log_ratio is not None:
        scaled = torch.cat((scaled[:, :1], scaled[:, 1:] - log_ratio), 1)
    return scaled.logsumexp(1) - scaled[:, 0]


class Corrected:
    """``softmax`` over negatives of a sampler that draws by item weights, corrected by logQ.

    Parameters
    ----------
    loss : Loss
        The softmax, bound.
    sampler : NegativeSampler
        With weights w: user u draws item i with probability w_i / (sum of w over the items legal for u).
    device : torch.device
    """

    def __init__(self, loss: Loss, sampler: Any, *, device: torch.device | str = "cpu") -> None:
        self._sharpness = loss.bound[0]
        units = sampler.weights.units.astype(np.float64)
        n_rows = sampler.indptr.size - 1
        users = np.repeat(np.arange(n_rows), np.diff(sampler.indptr))
        left = units.sum() - np.bincount(users, weights=units[sampler.items], minlength=n_rows)
        legal = sampler.n_items - np.diff(sampler.indptr)
        with np.errstate(divide="ignore", invalid="ignore"):  # items and users that are never drawn
            of_item, of_user = np.log(units), np.log(legal / np.maximum(left, 1.0))
        self._of_item = torch.from_numpy(of_item).float().to(device)
        self._of_user = torch.from_numpy(of_user).float().to(device)

    def __call__(self, logits: Tensor, users: Tensor, items: Tensor, weights: Tensor | None = None) -> Tensor:
        """The mean loss of logits float32[B, 1+N] of users int32[B] and items int32[B, 1+N], rows times weights [B]."""
        ratio = self._of_item[items[:, 1:].long()] + self._of_user[users.long()].unsqueeze(1)
        rows = softmax_rows(logits, self._sharpness, log_ratio=ratio)
        return (rows if weights is None else rows * weights).mean()


@inline
def many(x, e, n, sharpness, _, product):  # type: ignore[no-untyped-def]  # noqa: ARG001
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
    value = np.float64(sharpness * (peak - positive)) + math.log(np.float64(summed)) + np.float64(faults)
    return value, product


def numbers(n_negatives: int, n_items: int, *, temperature: float) -> tuple[float, float]:  # noqa: ARG001
    """(1 / temperature, unused)."""
    return 1.0 / above_zero("temperature", temperature), 0.0


SOFTMAX = register(
    Loss(
        "softmax",
        softmax,
        rows=softmax_rows,
        many=many,
        per_row=True,
        similarities=("dot", "cosine"),
        corrected=Corrected,
        options={"temperature": 1.0},
        numbers=numbers,
    )
)
