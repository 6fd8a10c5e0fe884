"""Losses of one user's row with the items frozen, as NumPy arrays: what folding a new user in needs, without torch.

With frozen items BCE and BPR are logistic regressions on the user's row. n terms, d positives, R rounds of N negatives,
D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


class Terms(NamedTuple):
    """Loss = sum of weight * (softplus(x) - label * x), where x = rows . user + offset (+ the user's bias)."""

    rows: Floats
    """float64[n, D]"""
    offsets: Floats
    """float64[n]"""
    labels: Floats
    """float64[n]: 0 or 1"""
    weights: Floats
    """float64[n]"""
    moves_bias: bool
    """Whether x holds the user's bias."""


def _bce(items: NDArray[np.int32], draws: NDArray[np.int32], table: Floats, bias: Floats) -> Terms:
    """A term for each positive, and one for each item drawn: equal draws are one term of their summed weight."""
    drawn, counts = np.unique(draws, return_counts=True)
    of = np.concatenate((items, drawn))
    labels = np.concatenate((np.ones(items.size), np.zeros(drawn.size)))
    weights = np.concatenate((np.ones(items.size), counts / len(draws)))
    return Terms(table[of], bias[of], labels, weights, True)


def _bpr(items: NDArray[np.int32], draws: NDArray[np.int32], table: Floats, bias: Floats) -> Terms:
    """A term for each pair of a positive and a negative: what all logits of a user share cancels."""
    positives = np.broadcast_to(items[:, None], draws.shape).ravel()
    negatives, n = draws.ravel(), draws.size
    rows, offsets = table[positives] - table[negatives], bias[positives] - bias[negatives]
    return Terms(rows, offsets, np.ones(n), np.full(n, 1 / len(draws)), False)


FORMS: dict[str, Callable[[NDArray[np.int32], NDArray[np.int32], Floats, Floats], Terms]] = {"bce": _bce, "bpr": _bpr}
"""Form of each loss: (items int32[d], draws int32[R, d, N], item vectors float64[I, D], item bias float64[I]) -> terms
of one round, which the rounds are averaged to."""
