"""What is behind the headline: MAP, Precision and AUC, what the lists are like, and metrics by group, of full ranking.

U users, I items, B test positives, K list length.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.split import Split
from fastrec.errors import ConfigError, shown
from fastrec.evaluation.beyond import accuracy, by_group, of_lists, quantile_groups
from fastrec.evaluation.full_ranking import Vectors, score_blocks
from fastrec.evaluation.metrics import CUTOFFS, MISS, Metrics, check_cutoffs, grouped

if TYPE_CHECKING:
    from fastrec.data.catalog import Catalog

LISTED = 10
"""Items of the lists whose coverage, novelty and popularity are measured."""
MOST_LABELS = 60
"""Distinct values beyond which a field of text tells people apart more than it groups them (a zip code, a title)."""
TEN = 10
COMPUTED = ("activity", "popularity")
"""Groups that every split has: interactions in train of the user, and of the item, in tenths of the test positives."""


@dataclass(frozen=True)
class Analysis:
    """See ``analyse``."""

    accuracy: Metrics
    lists: dict[str, float]
    groups: dict[str, dict[str, Metrics]]

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON: ``accuracy``, ``lists`` and ``groups``."""
        groups = {by: {label: m.as_dict() for label, m in found.items()} for by, found in self.groups.items()}
        return {"accuracy": self.accuracy.as_dict(), "lists": self.lists, "groups": groups}


def analyse(
    model: Any,
    split: Split,
    ranks: NDArray[np.int64],
    *,
    ks: Sequence[int] = CUTOFFS,
    by: Sequence[str] | None = (),
    catalog: Callable[[], Catalog | None] = lambda: None,
) -> Analysis:
    """Look behind the means of full ranking on the test part.

    Parameters
    ----------
    model : torch.nn.Module
        What ``full_ranks`` takes.
    split : Split
    ranks : int64[B]
        ``full_ranks`` of the test part.
    ks : sequence of int
    by : sequence of str, optional
        "activity", "popularity", or a column of the catalogue: of items, such as "genres" (an item counts in each of
        its genres), or of users, such as "gender". None means every one that makes groups.
    catalog : callable
        Gives the tables; called only where ``by`` needs them.

    Returns
    -------
    Analysis
        ``accuracy`` (see ``beyond.accuracy``), ``lists`` (see ``beyond.of_lists``: over the users in train, their
        ``LISTED`` best items outside train and validation) and ``groups`` by name and label, each with the metrics of
        ``metrics.grouped``. Users who are not in train are in none of them; an item that is not in train is a miss.

    Raises
    ------
    ConfigError
        If ``by`` names no column, or one that makes no groups.
    """
    ks = check_cutoffs(ks)
    test, train = split.test, split.train
    trained = train.degrees[test.users] > 0
    ranks = np.where(train.item_counts()[test.items] == 0, MISS, ranks)[trained]
    users, items = test.users[trained], test.items[trained]
    lists, lengths = best_lists(model, split, LISTED)
    of_trained = train.degrees > 0
    measure = partial(grouped, ks=ks)
    groups = {
        name: _measured(measure, ranks, users, users if side == "users" else items, labels)
        for name, (side, labels) in _labels(split, by, catalog, (users, items)).items()
    }
    return Analysis(
        accuracy(ranks, users, _others(split)[users], ks),
        of_lists(lists[of_trained], lengths[of_trained], train.item_counts(), int(of_trained.sum())),
        groups,
    )


def best_lists(model: Any, split: Split, k: int) -> tuple[NDArray[np.int32], NDArray[np.int64]]:
    """int32[U, K]: the best items of each user outside train and validation, best first; int64[U]: how many there are.

    Cost: the scores of full ranking once more, and a partial sort of each row.
    """
    k = min(k, split.n_items)
    lists, lengths = np.zeros((split.n_users, k), np.int32), np.zeros(split.n_users, np.int64)
    vectors = Vectors.of(model)
    every = np.arange(split.n_users, dtype=np.int32)
    for users, scores in score_blocks(model, vectors, every, split.n_items):
        if vectors is not None:
            scores += vectors.bias
        for row, user in enumerate(users.tolist()):
            for part in (split.train, split.validation):
                scores[row, part.row(user)] = -np.inf
        found = np.argpartition(-scores, k - 1, axis=1)[:, :k]
        found.sort(axis=1)  # ties in the order of items
        own = np.take_along_axis(scores, found, axis=1)
        order = np.argsort(-own, axis=1, kind="stable")
        lists[users] = np.take_along_axis(found, order, axis=1)
        lengths[users] = np.isfinite(own).sum(axis=1)
    return lists, lengths


def _others(split: Split) -> NDArray[np.int64]:
    """int64[U]: items outside every part of each user; parts of a given split may overlap."""
    parts = (split.train, split.validation, split.test)
    keys = np.concatenate([p.users.astype(np.int64) * split.n_items + p.items for p in parts])
    return split.n_items - np.bincount(np.unique(keys) // max(1, split.n_items), minlength=split.n_users)


Labels = tuple[NDArray[np.int64], list[str]] | list[set[str]]
"""Number of each positive's group with the groups' names, or the labels of each contiguous user or item."""


def _measured(
    measure: Callable[..., Metrics], ranks: Any, users: Any, of: NDArray[np.int32], labels: Labels
) -> dict[str, Metrics]:
    if isinstance(labels, tuple):
        return by_group(measure, ranks, users, *labels)
    found = {}
    for label in sorted(set().union(*labels), key=_natural):
        has = np.fromiter((label in own for own in labels), np.bool_, len(labels))
        if (mine := has[of]).any():
            found[label] = measure(ranks[mine], users[mine])
    return found


def _natural(label: str) -> tuple[int, float, str]:
    """Numbers by their value, before text."""
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _labels(
    split: Split, by: Sequence[str] | None, catalog: Callable[[], Catalog | None], pairs: Any
) -> dict[str, tuple[str, Labels]]:
    train, found = split.train, dict[str, tuple[str, Labels]]()
    asked = None if by is None else list(dict.fromkeys(by))
    values = {"activity": ("users", train.degrees[pairs[0]]), "popularity": ("items", train.item_counts()[pairs[1]])}
    columns = _columns(split, catalog()) if asked is None or set(asked) - set(COMPUTED) else {}
    for name in [*COMPUTED, *columns] if asked is None else asked:
        if name in values:
            found[name] = values[name][0], quantile_groups(values[name][1], TEN)
            continue
        if name not in columns:
            known = [*COMPUTED, *columns]
            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ConfigError(f"by {shown(name)}: there is no such group or column; there are {', '.join(known)}{hint}")
        side, values_of = columns[name]
        made = _of_column(values_of, pairs[0] if side == "users" else pairs[1])
        if made is not None:
            found[name] = side, made
        elif asked is not None:
            raise ConfigError(f"by {name}: it has more than {MOST_LABELS} values, or only one, and makes no groups")
    return found


def _columns(split: Split, catalog: Catalog | None) -> dict[str, tuple[str, list[Any]]]:
    """Fields of users and items by name, one value for each contiguous id."""
    from fastrec.data.lists import aligned

    columns: dict[str, tuple[str, list[Any]]] = {}
    if catalog is None:
        return columns
    for side, key, table, ids in (
        ("items", "item", catalog.movies, split.train.item_ids),
        ("users", "user", catalog.users, split.train.user_ids),
    ):
        frame = aligned(table, key, ids, None)
        for name in frame.columns:
            if name not in (key, "title", "title_ascii"):
                columns[name] = side, frame[name].to_list()
    return columns


def _of_column(values: list[Any], of: NDArray[np.int32]) -> Labels | None:
    """Tenths of a column of many numbers, else its values; None where that makes one group or too many."""
    known = [v for v in values if v is not None]
    if not known:
        return None
    if isinstance(known[0], (int, float)) and not isinstance(known[0], bool) and len(set(known)) > 3 * TEN:
        numbers = np.array([np.nan if v is None else float(v) for v in values])[of]
        there = np.isfinite(numbers)
        group, places = np.full(of.size, -1, np.int64), np.flatnonzero(there)
        whole = np.array_equal(numbers[there], np.round(numbers[there]))
        group[places], names = quantile_groups(numbers[there].astype(np.int64) if whole else numbers[there], TEN)
        return group, [name.replace(",", "") for name in names]
    labels = [{str(one) for one in v} if isinstance(v, list) else set() if v is None else {str(v)} for v in values]
    return labels if 2 <= len(set().union(*labels)) <= MOST_LABELS else None
