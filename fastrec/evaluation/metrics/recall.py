"""Recall@K: the fraction of a user's positives in the top K."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastrec.evaluation.metrics import Lists, metric


@metric("Recall", order=4)
def recall(lists: Lists, k: int) -> NDArray[np.float64]:
    """The fraction of a user's positives in the top K."""
    return lists.sums((lists.ranks <= k).astype(np.float64)) / lists.counts
