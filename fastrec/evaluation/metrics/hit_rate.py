"""HR@K: whether any positive of the user is in the top K."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from fastrec.evaluation.metrics import Lists, metric


@metric("HR", order=1)
def hit_rate(lists: Lists, k: int) -> NDArray[np.float64]:
    """1 if any positive is in the top K."""
    return (lists.best() <= k).astype(np.float64)
