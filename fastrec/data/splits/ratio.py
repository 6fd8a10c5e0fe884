"""A drawn fraction of each user's interactions to test."""

from __future__ import annotations

from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.data.splits.parts.base import SplitRule, register


def cut(interactions: Interactions, test: float, validation: float, seed: int) -> Split:
    """See ``fastrec.data.split.ratio_split``."""
    return ratio_split(interactions, test=test, validation=validation, seed=seed)


RATIO = register(
    SplitRule(
        "ratio",
        cut,
        ("a random sample of each user's interactions", "a random sample of each user's interactions"),
        takes_fraction=True,
        draws_test=True,
        draws_validation=True,
    )
)
