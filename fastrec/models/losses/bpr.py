"""BPR: the positive above each negative.

B batch rows, N negatives.
Source: Rendle et al., "BPR: Bayesian personalized ranking from implicit feedback", UAI 2009, section 4.
"""

from __future__ import annotations

import numpy as np
import torch.nn.functional as F
from torch import Tensor

from fastrec.jit import inline
from fastrec.models.parts.loss import Loss, register
from fastrec.models.parts.softplus_rows import softplus_sigmoid

_ZERO = np.float32(0.0)


def bpr(logits: Tensor) -> Tensor:
    """Mean of -log sigmoid(positive - negative) over all B * N pairs."""
    return F.softplus(logits[:, 1:] - logits[:, :1]).mean()


def rows(logits: Tensor) -> Tensor:
    """Summed -log sigmoid(positive - negative) of each row's pairs."""
    return F.softplus(logits[:, 1:] - logits[:, :1]).sum(1)


@inline
def row(x, e, n, product):  # type: ignore[no-untyped-def]
    """Replace the logits x[:n] of one positive by the gradients of their summed loss; returns (loss, product)."""
    for k in range(1, n):
        x[k] -= x[0]
    value, product = softplus_sigmoid(x, e, 1, n, 0.0, product)
    x[0] = _ZERO
    for k in range(1, n):
        x[0] -= x[k]
    return value, product


@inline
def many(x, e, n, a, b, product):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """``row`` as the pass for many negatives calls it."""
    return row(x, e, n, product)


BPR = register(Loss("bpr", bpr, rows=rows, row=row, many=many, triton="bpr", pairs=True))
