"""Units of the learning rate and of L2, one for every engine, mode, loss and batch.

An epoch descends the sum, over positives, of the loss terms of the positive and its N negatives, plus ``l2 / 2`` times
the squares of what they use: the user's rows and every shared weight once, the rows of the 1+N items ``1 / (1+N)``
each. So in an epoch a user of degree d is shrunk d times by ``l2`` times the learning rate, whatever N, the loss or
the batch.

- **SGD** takes the gradient of the batch's sum: ``lr`` is the step of one sample (of a pair under BPR, of a row's
  softmax). Adaptive rules divide by the gradient's own size and take the mean.
- Weights that every sample moves (global bias, h, the layers of an MLP) would overshoot by the sum over a batch. Their
  rate is bounded by ``SETTLED`` times the mean gradient, with which they settle within a few steps.
- Rows have no such bound. ``largest_lr`` is the lr up to which the busiest row settles, too, instead of oscillating.

B batch rows, N negatives, U users.

Translations, at N negatives and a linear rule:

- torch's ``weight_decay = w`` decays every row at every step of the mean gradient: on average l2 = w * (1+N) * U.
- implicit's BPR ``regularization = r`` is per pair: l2 = r for users (N = 1). That of its ALS is not a per-sample term.
- Rendle's per-sample ``reg``, the user's row at each of the 1+N samples: l2 = reg * (1+N).
"""

from __future__ import annotations

from typing import Any

from fastrec import optim
from fastrec.models.parts.loss import Loss

SETTLED = 1.0
"""Largest rate, of the mean gradient, of weights that all samples share: the curvature of a logistic loss is at most
1/4, so that a step goes at most a quarter of the way and never oscillates."""

STABLE = 4.0
"""Largest lr times samples of one row in a step. Descent oscillates beyond 2 / (1/4) = 8 where logits move by 1."""


class Units:
    """Rates and decays as kernels take them, which work on the mean over a batch's loss terms.

    Parameters
    ----------
    loss : Loss
    optimizer : str
    columns : int
        1+N.
    """

    def __init__(self, loss: Loss, optimizer: str, columns: int) -> None:
        self._loss, self._columns = loss, columns
        self._sums = optim.get(optimizer).sums

    def step_lr(self, lr: float, rows: int) -> float:
        """Learning rate of the mean gradient over a batch of ``rows`` positives."""
        return lr * self._loss.terms(rows, self._columns) if self._sums else lr

    def l2(self, l2: float) -> float:
        """L2 of a sample in the mean over a batch's samples, next to the mean over its loss terms."""
        return l2 / self._loss.terms(1, self._columns)

    def l2_of_sample(self, l2: float) -> float:
        """L2 of a single sample, next to its loss."""
        return l2 / self._columns


def largest_lr(stream: Any, rows: int, loss: Loss) -> float:
    """The largest lr of summed mini-batches of ``rows`` positives with which the busiest row settles.

    Parameters
    ----------
    stream : Stream
        Its positives say how often a step meets one user or one item.
    rows : int
        Positives of an update.
    loss : Loss
    """
    import numpy as np

    if loss.sparse:  # piecewise linear in cosines: no curvature to overshoot
        return float("inf")
    columns, n = 1 + stream.n_negatives, max(1, stream.n_positives)
    n_items = stream.sampler.n_items
    of_item = np.bincount(stream.items_of, minlength=n_items).max() / n
    of_user = np.diff(stream.indptr).max() / n
    rows = min(rows, n)
    # what a row's 1+N samples sum to: a softmax's slopes add up to 1 at most, a sigmoid's to the number of terms
    per_row = loss.terms(1, columns)
    of_positive = per_row if loss.pairs else 1
    drawn = getattr(stream.sampler, "busiest", 1 / n_items)  # of time-aware negatives the oldest items are most
    samples = rows * max(of_user * per_row, of_item * of_positive + (columns - 1) * drawn)
    sharpness = loss.bound[0] if loss.per_row and loss.bound[0] else 1.0  # logits are scores / temperature
    return float(STABLE / max(samples, 1.0) / sharpness**2)
