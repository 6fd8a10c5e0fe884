"""The latest interactions of all to test."""

from __future__ import annotations

from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, time_split
from fastrec.data.splits.parts.base import SplitRule, register


def cut(interactions: Interactions, test: float, validation: float, seed: int) -> Split:  # noqa: ARG001
    """See ``fastrec.data.split.time_split``."""
    return time_split(interactions, test=test, validation=validation)


TIME = register(
    SplitRule(
        "time",
        cut,
        ("the latest interactions before test", "the latest interactions of all"),
        needs_times=True,
        takes_fraction=True,
    )
)
