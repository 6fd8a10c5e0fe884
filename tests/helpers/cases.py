"""How much of a large test ``make test`` runs. ``make test-all`` sets FASTREC_TESTS=all and runs it in full."""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import pytest

THOROUGH = os.environ.get("FASTREC_TESTS") == "all"
"""Whether everything runs."""


def sampled(n: int) -> int:
    """How many of ``n`` random cases run: a fifth in make test, at least 10."""
    return n if THOROUGH else min(n, max(10, n // 5))


def examples(n: int) -> Any:
    """Hypothesis' settings for ``sampled(n)`` examples, which are others in each run, however long each takes."""
    from hypothesis import settings  # not where scripts/gpu_check.sh runs

    return settings(max_examples=sampled(n), deadline=None)


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


def alternating(names: Sequence[Any], modes: Sequence[Any]) -> list[Any]:
    """Parameters for names x modes, one mode per name in turn; the others are marked slow."""
    return [
        pytest.param(name, mode, marks=() if k % len(modes) == m else pytest.mark.slow)
        for k, name in enumerate(names)
        for m, mode in enumerate(modes)
    ]
