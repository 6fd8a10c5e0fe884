"""NDCG@K: Järvelin and Kekäläinen, ACM TOIS 20(4), 2002."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastrec.evaluation.metrics import Lists, metric


@metric("NDCG", order=2)
def ndcg(lists: Lists, k: int) -> NDArray[np.float64]:
    """The gain of a user's lists over that of ideal ones; an ideal shared list has min(K, positives) at the top."""
    gain = lists.sums(np.where(lists.ranks <= k, 1.0 / np.log2(lists.ranks + 1.0), 0.0))
    if not lists.shared:
        return gain / lists.counts
    # no list has more positives than the largest count: cutoffs beyond it add nothing
    ideal = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(2, int(lists.counts.max()) + 2)))))
    return gain / ideal[np.minimum(lists.counts, k)]
