"""Which cases of a product ``make test`` runs: enough that every pair of values occurs; the others are slow tests."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest


def pairwise(*axes: Sequence[Any], kinds: Sequence[int] | None = None) -> list[Any]:
    """Parameters for the product of the axes, those off a Latin square marked slow.

    The square holds the cases whose indices add up to a multiple of the longest axis, so that every pair of values of
    two axes occurs in it if at most one axis is longer than 3.

    Parameters
    ----------
    axes : sequences
        An element that is a tuple counts as several parameters.
    kinds : sequence of int, optional
        Index to take for each element of the first axis. Elements of one index share their kernels.
    """
    kinds = kinds or range(len(axes[0]))
    size = max(len(set(kinds)), *map(len, axes[1:]))
    found = []
    for indices in itertools.product(*(range(len(axis)) for axis in axes)):
        values: list[Any] = []
        for axis, k in zip(axes, indices):
            values += axis[k] if isinstance(axis[k], tuple) else [axis[k]]
        on_square = (kinds[indices[0]] + sum(indices[1:])) % size == 0
        found.append(pytest.param(*values, marks=() if on_square else pytest.mark.slow))
    return found
