"""Popularity: every user gets the items in the order of their counts in train."""

from __future__ import annotations

import numpy as np

from fastrec.data.interactions import Interactions
from fastrec.evaluation.baseline import Baseline, FactorScores, register


def fit(train: Interactions, threads: int | None = None) -> FactorScores:  # noqa: ARG001
    """Counts as item biases of a model without factors."""
    return FactorScores(np.zeros((train.n_users, 1)), np.zeros((train.n_items, 1)), train.item_counts())


POPULARITY = register(
    Baseline(
        "popularity",
        "items by their counts in train, the same list for everybody",
        fit,
        ({},),
        lambda u, i, e: 8 * (u + 2 * i),  # noqa: ARG005
        "Cremonesi et al., Performance of recommender algorithms on top-N tasks, RecSys 2010, section 3.1",
    )
)
