"""MRR@K: Voorhees, "The TREC-8 question answering track report", 1999."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastrec.evaluation.metrics import Lists, metric


@metric("MRR", order=3)
def reciprocal_rank(lists: Lists, k: int) -> NDArray[np.float64]:
    """1 / the best rank if that is in the top K."""
    best = lists.best()
    return np.where(best <= k, 1.0 / best, 0.0)
