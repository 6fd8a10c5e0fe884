"""MAP, Precision and AUC from ranks; coverage, novelty, Gini and popularity bias from lists; metrics by group.

The user is the unit: every figure of accuracy is a mean over users. Rank 1 is the best, ``MISS`` is not a rank.

U users, I items, B positives, K cutoff.
Sources: Voorhees, "The TREC-8 question answering track report", 1999, and Manning et al., "Introduction to information
retrieval", 2008, chapter 8 (precision, average precision); Rendle et al., "BPR", UAI 2009 (AUC); Vargas and Castells,
"Rank and relevance in novelty and diversity metrics for recommender systems", RecSys 2011 (novelty as
self-information); Ge et al., "Beyond accuracy: evaluating recommender systems by coverage and serendipity", RecSys 2010
(catalogue coverage); Abdollahpouri et al., "Managing popularity bias in recommender systems", FLAIRS 2019 (ARP).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError
from fastrec.evaluation.metrics import CUTOFFS, MISS, Metrics, check_cutoffs

Ranks = NDArray[np.integer[Any]]


def accuracy(
    ranks: Ranks, users: NDArray[np.integer[Any]], n_others: Ranks | None = None, ks: Sequence[int] = CUTOFFS
) -> Metrics:
    """MAP@K, Precision@K and, where the length of the lists is known, AUC, where a user's positives share one list.

    MAP@K is the mean over users of (sum of precision at each hit in the top K) / min(K, positives of the user).
    Precision@K is hits / K, also where a list is shorter. AUC is the fraction of (positive, other) pairs that are in
    the right order; a tie is in the wrong one, as everywhere here.

    Parameters
    ----------
    ranks : int[B]
        Rank of each positive in its user's list, all different within a user; ``MISS`` is a miss at every K.
    users : int[B]
        User of each positive, in any order.
    n_others : int[B], optional
        Items of the list that are not positives; a user whose list has none, or a positive that is a miss, has AUC 0.
    ks : sequence of int

    Raises
    ------
    ConfigError
        For a cutoff below 1.
    DataError
        If there is no positive.
    """
    ks = check_cutoffs(ks)
    users, r = np.asarray(users), np.asarray(ranks, dtype=np.float64)
    if not r.size:
        raise DataError("there is no positive to rank: give a test part that has some")
    order = np.lexsort((r, users))
    users, r = users[order], r[order]
    starts = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
    counts = np.diff(np.append(starts, users.size))
    nth = np.arange(r.size) - np.repeat(starts, counts) + 1
    cases: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        hit = r <= k
        cases[f"MAP@{k}"] = np.add.reduceat(np.where(hit, nth / r, 0.0), starts) / np.minimum(counts, k)
        cases[f"Precision@{k}"] = np.add.reduceat(hit.astype(np.float64), starts) / k
    if n_others is not None:
        others = np.asarray(n_others, dtype=np.float64)[order]
        behind = others - (r - nth)  # others below it: all less those ahead
        right = np.where((others > 0) & (r < MISS), behind / np.maximum(others, 1), 0.0)
        cases["AUC"] = np.add.reduceat(right, starts) / counts
    n = starts.size
    means = {name: float(case.mean()) for name, case in cases.items()}
    errors = {name: float(case.std(ddof=1)) / math.sqrt(n) for name, case in cases.items()} if n > 1 else {}
    return Metrics(means, errors, n_users=n, n_positives=r.size)


def of_lists(
    items: NDArray[np.integer[Any]],
    lengths: NDArray[np.integer[Any]],
    train_counts: NDArray[np.integer[Any]],
    n_users: int,
) -> dict[str, float]:
    """Properties of lists that need no positives: coverage, novelty, Gini, popularity.

    Parameters
    ----------
    items : int[U, K]
        Contiguous items of each list; beyond its length anything.
    lengths : int[U]
        Items of each list.
    train_counts : int[I]
        Interactions of each item in train.
    n_users : int
        Users of train, over which popularity is a probability.

    Returns
    -------
    dict of str to float
        ``coverage``: fraction of the I items in any list. ``gini``: 0 where every item is listed as often, towards 1
        where few fill all lists. ``novelty``: mean over listed items of -log2 p, p the fraction of train's users that
        have the item; an item that nobody has counts as one that a single user has. ``popularity``: mean of p over the
        lists' items (ARP). ``popularity_bias``: that, over the mean popularity of train's interactions; above 1 the
        lists are more popular than what people chose.

    Raises
    ------
    DataError
        If every list is empty.
    """
    listed = np.asarray(items)[np.arange(items.shape[1]) < np.asarray(lengths)[:, None]]
    if not listed.size:
        raise DataError("every list is empty: there is nothing to measure")
    counts = np.asarray(train_counts, dtype=np.float64)
    times = np.sort(np.bincount(listed, minlength=counts.size).astype(np.float64))
    n = times.size
    gini = float(((2 * np.arange(1, n + 1) - n - 1) * times).sum() / (n * times.sum()))
    popularity = counts / max(1, n_users)
    mean, chosen = float(popularity[listed].mean()), float((popularity * counts).sum() / max(1.0, counts.sum()))
    return {
        "coverage": float(np.count_nonzero(times) / n),
        "gini": gini,
        "novelty": float(-np.log2(np.maximum(counts[listed], 1.0) / max(1, n_users)).mean()),
        "popularity": mean,
        "popularity_bias": mean / chosen if chosen else math.nan,
    }


def quantile_groups(values: NDArray[Any], n: int = 10) -> tuple[NDArray[np.int64], list[str]]:
    """Number of the group of each value and the groups' names: up to ``n`` ranges that hold equally many values.

    Equal values are never parted, so that there may be fewer groups.
    """
    if n < 1:
        raise ConfigError(f"n = {n}: ask for at least 1 group")
    values = np.asarray(values)
    if not values.size:
        return np.empty(0, np.int64), []
    last = -(-values.size * np.arange(1, n + 1) // n) - 1  # in integers: a rounded quantile moves a border
    ends = np.unique(np.sort(values)[last[last >= 0]])
    group = np.searchsorted(ends, values)
    names = []
    for k in range(ends.size):
        own = values[group == k]
        names.append(f"{own.min():,}" if own.min() == own.max() else f"{own.min():,} to {own.max():,}")
    return group, names


def by_group(
    measure: Callable[[Ranks, NDArray[Any]], Metrics],
    ranks: Ranks,
    users: NDArray[np.integer[Any]],
    groups: NDArray[np.integer[Any]],
    names: Sequence[str],
) -> dict[str, Metrics]:
    """Metrics of the positives of each group, in the order of ``names``; a group without any is left out.

    Parameters
    ----------
    measure : callable
        Such as ``metrics.grouped`` or ``metrics.single``: takes ranks and users.
    ranks, users : int[B]
    groups : int[B]
        Number of each positive's group; -1 is in none. A group by items takes a part of a user's positives, whose
        places in the list stay as they are.
    names : sequence of str
    """
    found = {}
    for k, name in enumerate(names):
        mine = np.asarray(groups) == k
        if mine.any():
            found[name] = measure(np.asarray(ranks)[mine], np.asarray(users)[mine])
    return found


def breakdowns(
    split: Any,
    ranks: Ranks,
    measure: Callable[[Ranks, NDArray[Any]], Metrics],
    *,
    labels: Mapping[str, Sequence[Sequence[str]]] | None = None,
    n: int = 10,
) -> dict[str, dict[str, Metrics]]:
    """Metrics of the test positives by the activity of their users, the popularity of their items, and labels of items.

    Parameters
    ----------
    split : Split
        Activity and popularity are interactions in its train part.
    ranks : int[B]
        Of each test positive, in CSR order.
    measure : callable
        See ``by_group``.
    labels : mapping of str to sequence, optional
        Such as ``{"genre": [["Drama", "War"], [], ...]}``: for each contiguous item its labels. An item counts in each
        of its labels.
    n : int
        Most groups of activity and popularity.

    Returns
    -------
    dict of str to dict of str to Metrics
        "activity", "popularity" and the names of ``labels``.
    """
    users, items = split.test.users, split.test.items
    found = {}
    for name, values in (("activity", split.train.degrees[users]), ("popularity", split.train.item_counts()[items])):
        found[name] = by_group(measure, ranks, users, *quantile_groups(values, n))
    for name, lists in (labels or {}).items():
        if len(lists) != split.n_items:
            raise ConfigError(f"labels[{name!r}] has {len(lists)} entries for {split.n_items} items")
        of_item = [set(own or ()) for own in lists]
        every = sorted(set().union(*of_item))
        chosen = {label: np.array([label in of_item[i] for i in items.tolist()], np.bool_) for label in every}
        found[name] = {
            label: measure(np.asarray(ranks)[mine], users[mine]) for label, mine in chosen.items() if mine.any()
        }
    return found
