"""What a run drew as negatives, counted from addresses; and what drawing a held-out item did to its rank.

H held-out pairs, I items, U users, N negatives.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.interactions import Interactions
from fastrec.data.split import Split
from fastrec.jit import njit
from fastrec.sampling import ExistingSampler, NegativeSampler, identity

Sampler = NegativeSampler | ExistingSampler
BLOCK = 1 << 20
"""Positives whose negatives are in memory at a time."""
FEWEST = 100
"""Exposed pairs below which no effect is estimated."""


@dataclass(frozen=True, eq=False)
class Counts:
    """Draws of some epochs."""

    of_item: NDArray[np.int64]
    """int64[I]"""
    of_pair: dict[str, NDArray[np.int64]]
    """int64[H] of "validation" and "test": how often each held-out pair was drawn as a negative of its own user."""
    draws: list[int]
    """Of each epoch."""
    held_out: list[int]
    """Draws of each epoch that are held-out items of their own user."""


@njit
def _count(indptr, first, last, negatives, held_indptr, held_items, mark, of_item, of_pair):  # type: ignore[no-untyped-def]
    """Count the negatives of the positives of users [first, last); returns (draws, draws of held-out items)."""
    base, draws, hits = indptr[first], 0, 0
    for u in range(first, last):
        lo, hi = held_indptr[u], held_indptr[u + 1]
        for h in range(lo, hi):
            mark[held_items[h]] = h + 1
        for p in range(indptr[u] - base, indptr[u + 1] - base):
            for s in range(negatives.shape[1]):
                item = negatives[p, s]
                if item >= 0:
                    draws += 1
                    of_item[item] += 1
                    if mark[item]:
                        of_pair[mark[item] - 1] += 1
                        hits += 1
        for h in range(lo, hi):
            mark[held_items[h]] = 0
    return draws, hits


def blocks(train: Interactions, most: int = BLOCK) -> list[tuple[int, int]]:
    """Ranges of users with about ``most`` positives each, at least one user."""
    found, first = [], 0
    while first < train.n_users:
        last = int(np.searchsorted(train.indptr, train.indptr[first] + most, side="right")) - 1
        last = min(max(last, first + 1), train.n_users)
        found.append((first, last))
        first = last
    return found


def negatives_of(
    train: Interactions,
    sampler: Sampler,
    epoch: int,
    first: int,
    last: int,
    threads: int | None = None,
) -> NDArray[np.int32]:
    """int32[B, N]: negatives of the positives of users [first, last) in an epoch, in CSR order; -1 where skipped."""
    part = slice(train.indptr[first], train.indptr[last])
    users, items = train.users[part], train.items[part]
    return sampler.sample(users, epoch=epoch, positions=identity(users, items), threads=threads)


def count_draws(split: Split, sampler: Sampler, epochs: range, *, threads: int | None = None) -> Counts:
    """Count the negatives of some epochs.

    Parameters
    ----------
    split : Split
    sampler : NegativeSampler or ExistingSampler
        That of the training.
    epochs : range
        From 0.
    threads : int, optional
        CPU threads of the sampler; None means all.
    """
    train, of_item = split.train, np.zeros(split.n_items, np.int64)
    held = {name: getattr(split, name) for name in ("validation", "test")}
    joined = np.concatenate([part.users.astype(np.int64) * split.n_items + part.items for part in held.values()])
    order = np.argsort(joined, kind="stable")
    degrees = sum(part.degrees for part in held.values())
    held_indptr = np.concatenate(([0], np.cumsum(degrees))).astype(np.int64)
    held_items = np.concatenate([part.items for part in held.values()])[order]
    of_pair, mark = np.zeros(joined.size, np.int64), np.zeros(split.n_items, np.int64)
    draws, held_out = [], []
    for epoch in epochs:
        total = hits = 0
        for first, last in blocks(train):
            drawn = negatives_of(train, sampler, epoch, first, last, threads)
            n, m = _count(train.indptr, first, last, drawn, held_indptr, held_items, mark, of_item, of_pair)
            total, hits = total + int(n), hits + int(m)
        draws.append(total)
        held_out.append(hits)
    back = np.empty_like(of_pair)
    back[order] = of_pair
    cut = held["validation"].n_interactions
    return Counts(of_item, {"validation": back[:cut], "test": back[cut:]}, draws, held_out)


def expected_draws(split: Split, sampler: NegativeSampler, part: Interactions, n_epochs: int) -> NDArray[np.float64]:
    """float64[H]: how often each pair of a part is drawn on average in so many epochs, given its user's row."""
    users, items = part.users, part.items
    rows = np.diff(sampler.indptr)
    slots = split.train.degrees[users].astype(np.float64) * sampler.n_negatives * n_epochs
    if sampler.weights is None:
        chance = 1.0 / np.maximum(split.n_items - rows[users], 1)
    else:
        units = sampler.weights.units.astype(np.float64)
        taken = np.concatenate(([0.0], np.cumsum(units[sampler.items])))[sampler.indptr]
        legal = units.sum() - np.diff(taken)
        chance = units[items] / np.maximum(legal[users], 1.0)
    keys = np.repeat(np.arange(rows.size, dtype=np.int64), rows) * split.n_items + sampler.items
    never = np.isin(users.astype(np.int64) * split.n_items + items, keys)  # ``exclude`` may hold the held-out pairs
    return np.where(never, 0.0, slots * chance)


def exposure_effect(
    hits: NDArray[np.float64], drawn: NDArray[np.int64], expected: NDArray[np.float64], split: Split
) -> dict[str, Any]:
    """The effect on the hit of a test pair of one more draw of it as a negative: the natural experiment of a run.

    Given its user's row, how often a pair is drawn depends on nothing but the address. So draws less their expectation
    are as good as assigned by lot: the regression of hits on them, with the expectation and the user's degree as
    covariates, estimates what a draw does.

    Parameters
    ----------
    hits, drawn, expected : [E]
        Of the test pairs in CSR order: 1 where the pair is in the top K; draws, and their expectation.
    split : Split

    Returns
    -------
    dict
        ``exposed`` (pairs drawn at least once), ``pairs``, and ``effect`` with ``standard_error`` (clustered by user);
        both None below 100 exposed pairs.
    """
    users = split.test.users
    used = (split.train.degrees[users] > 0) & (split.train.item_counts()[split.test.items] > 0)
    y, x, mean, who = hits[used], drawn[used], expected[used], users[used]
    found: dict[str, Any] = {"pairs": int(used.sum()), "exposed": int((x > 0).sum())}
    found |= {"effect": None, "standard_error": None}
    if found["exposed"] < FEWEST:
        return found
    degree = np.log(split.train.degrees[who].astype(np.float64))
    design = np.column_stack((x - mean, np.ones(y.size), mean, degree, degree**2))
    design = design / np.maximum(np.abs(design).max(axis=0), 1e-12)
    scale = max(float(np.abs(x - mean).max()), 1e-12)
    inverse = np.linalg.pinv(design.T @ design)
    weights = inverse @ (design.T @ y)
    scores = design * (y - design @ weights)[:, None]
    starts = np.flatnonzero(np.append(True, who[1:] != who[:-1]))
    clusters = np.add.reduceat(scores, starts)
    n = starts.size
    variance = (inverse @ (clusters.T @ clusters) @ inverse)[0, 0] * n / max(1, n - 1)
    return found | {"effect": float(weights[0] / scale), "standard_error": math.sqrt(variance) / scale}
