"""Binary cross-entropy, the loss of NCF.

B batch rows, N negatives. Source: He et al., "Neural Collaborative Filtering", WWW 2017, equation 7.
"""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from fastrec.jit import inline
from fastrec.models.parts.loss import Loss, register
from fastrec.models.parts.softplus_rows import softplus_sigmoid

_ONE_THREAD = 1 << 14  # elements
_ONE = np.float32(1.0)


def bce(logits: Tensor) -> Tensor:
    """Mean binary cross-entropy over all B * (1+N) samples, on logits.

    softplus(x) - x * label, so that no sigmoid overflows.
    """
    return (F.softplus(logits).sum() - logits[:, 0].sum()) / logits.numel()


def rows(logits: Tensor) -> Tensor:
    """Summed binary cross-entropy of each row's samples."""
    return F.softplus(logits).sum(1) - logits[:, 0]


def bce_with_gradient(logits: Tensor) -> tuple[Tensor, Tensor]:
    """``bce`` and its gradient by the logits, which are written over. Cost: four passes, no autograd.

    Done in blocks that torch works on with one thread: above 32,768 elements it calls its OpenMP team, which stalls for
    as long as another thread, such as the feed's, has the second core (10 times the step at 8,192 positives).
    """
    total, n = torch.zeros((), dtype=logits.dtype), logits.numel()
    for part in logits.split(max(1, _ONE_THREAD // logits.shape[1])):  # type: ignore[no-untyped-call]
        total += F.softplus(part).sum() - part[:, 0].sum()
        part.sigmoid_()
        part[:, 0] -= 1.0
        part /= n
    return total / n, logits


@inline
def row(x, e, n, product):  # type: ignore[no-untyped-def]
    """Replace the logits x[:n] of one positive by the gradients of their summed loss; returns (loss, product)."""
    value, product = softplus_sigmoid(x, e, 0, n, -np.float64(x[0]), product)
    x[0] -= _ONE
    return value, product


@inline
def many(x, e, n, a, b, product):  # type: ignore[no-untyped-def]  # noqa: ARG001
    """``row`` as the pass for many negatives calls it."""
    return row(x, e, n, product)


BCE = register(Loss("bce", bce, mean_and_gradient=bce_with_gradient, rows=rows, row=row, many=many, triton="bce"))
