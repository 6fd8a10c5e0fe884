"""Each user's last interaction to test."""

from __future__ import annotations

from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, leave_one_out
from fastrec.data.splits.parts.base import SplitRule, register


def cut(interactions: Interactions, test: float, validation: float, seed: int) -> Split:  # noqa: ARG001
    """See ``fastrec.data.split.leave_one_out``."""
    return leave_one_out(interactions, validation=validation, seed=seed)


LEAVE_ONE_OUT = register(
    SplitRule(
        "leave-one-out",
        cut,
        ("a random sample of each user's earlier interactions", "each user's last interaction"),
        needs_times=True,
        draws_validation=True,
    )
)
