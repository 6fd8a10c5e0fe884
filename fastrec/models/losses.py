"""Losses over logits float32[B, 1+N] whose column 0 is the positive: no label array exists.

B batch rows, N negatives, I items.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def bce(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy over all B * (1+N) samples, on logits.

    softplus(x) - x * label, so that no sigmoid overflows. Source: NCF, equation 7.
    """
    return (F.softplus(logits).sum() - logits[:, 0].sum()) / logits.numel()


def bce_with_gradient(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``bce`` and its gradient by the logits, which are written over. Cost: four passes, no autograd."""
    loss = bce(logits)
    gradient = logits.sigmoid_()
    gradient[:, 0] -= 1.0
    gradient /= gradient.numel()
    return loss, gradient


def bpr(logits: Tensor) -> Tensor:
    """Mean of -log sigmoid(positive - negative) over all B * N pairs.

    Source: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009, section 4.
    """
    return F.softplus(logits[:, 1:] - logits[:, :1]).mean()


def sampled_softmax(logits: Tensor, log_expected: Tensor | None = None, masked: Tensor | None = None) -> Tensor:
    """Mean cross-entropy of the positive against sampled items.

    Parameters
    ----------
    logits : float32[B, C]
        Column 0 the positive, the others sampled items.
    log_expected : float32[B, C-1], optional
        log of the number of times each sampled item is expected among the row's samples. Subtracted, it makes the sum
        over samples an unbiased estimate of the sum over all the user's negatives.
    masked : bool[B, C-1], optional
        Samples to leave out: those that are positives of the row's user.

    Notes
    -----
    Source: Yi et al., "Sampling-bias-corrected neural modeling for large corpus item recommendations", RecSys 2019,
    section 3 (logQ); the balance heuristic for two proposals is Veach and Guibas, SIGGRAPH 1995.
    """
    others = logits[:, 1:]
    if log_expected is not None:
        others = others - log_expected
    if masked is not None:
        others = others.masked_fill(masked, float("-inf"))
    return (torch.logsumexp(torch.cat((logits[:, :1], others), 1), 1) - logits[:, 0]).mean()
