"""Splits of everything that ``load`` takes: interactions, a frame, a path or a name."""

from __future__ import annotations

from typing import Any

from fastrec.data import split
from fastrec.data.interactions import Interactions
from fastrec.data.loading import load
from fastrec.data.split import Split


def _loaded(data: Any) -> Interactions:
    return data if isinstance(data, Interactions) else load(data)


def leave_one_out(interactions: Any, validation: float = 0.1, seed: int = 42) -> Split:
    """``fastrec.data.split.leave_one_out`` of interactions, or of what ``load`` makes of a frame, path or name."""
    return split.leave_one_out(_loaded(interactions), validation, seed)


def ratio_split(interactions: Any, test: float = 0.2, validation: float = 0.1, seed: int = 42) -> Split:
    """``fastrec.data.split.ratio_split`` of interactions, or of what ``load`` makes of a frame, path or name."""
    return split.ratio_split(_loaded(interactions), test, validation, seed)


def time_split(interactions: Any, test: float = 0.2, validation: float = 0.1) -> Split:
    """``fastrec.data.split.time_split`` of interactions, or of what ``load`` makes of a frame, path or name."""
    return split.time_split(_loaded(interactions), test, validation)
