"""``evaluate_scores``: anybody's scores, function or lists, measured as ``evaluate`` measures a run.

U users, I items, B rows, C candidates.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import unmasked
from fastrec.data.split import Split
from fastrec.errors import ConfigError, DataError, shown
from fastrec.evaluation.metrics import CUTOFFS, check_scores
from fastrec.evaluation.score import FULL, Wanted, score_split

PROTOCOLS = ("both", "full", "candidates")
UNLISTED = np.float32(-3.0e38)
"""Score of an item that a frame does not list: below every other, and tied with its like."""


def evaluate_scores(
    scores: Any,
    split: Split,
    *,
    protocol: str = "both",
    cutoffs: Sequence[int] = CUTOFFS,
    beyond: bool = False,
    by: Sequence[str] | None = (),
    **options: Any,
) -> dict[str, dict[str, Any]]:
    """Measure scores from anywhere on the test part of a split, as ``evaluate`` measures a run.

    Parameters
    ----------
    scores : array, callable or frame
        float32[U, I] or float64[U, I], a score for each pair of contiguous ids. Or a function that takes contiguous
        users int32[B] and gives [B, I]. Or a frame (Polars, pandas, a mapping of columns) with ``user`` (or
        ``user_id``), ``item`` (or ``item_id``) by the ids of the source, and ``score`` (higher is better) or ``rank``
        (1 is best), one row per pair: items that a user's rows leave out come after those listed, all tied.
    split : Split
        Its test part is ranked, its train and validation parts are what users have seen.
    protocol : {"both", "full", "candidates"}
    cutoffs : sequence of int
    beyond, by
        See ``evaluate``; columns are those of the catalogue of ``split.train``.
    **options
        ``n_candidates``, ``candidate_seed`` and ``threads`` of ``score_split``.

    Returns
    -------
    dict of str to dict
        What ``evaluate`` returns; with one protocol only that one.

    Raises
    ------
    ConfigError
        For another protocol, shape, or frame without the columns.
    DataError
        If a score is NaN or infinite, a test user is missing, a pair comes twice, or an id is unknown: the first is
        named.

    Guarantee
    ---------
    Ties count against the positive.
    """
    if protocol not in PROTOCOLS:
        raise ConfigError(f"protocol={protocol!r}: must be one of {', '.join(PROTOCOLS)}")
    if not split.test.n_interactions:
        raise DataError(f"{split.test.name}: there is no test part, so there is nothing to evaluate on")
    model = _Scores(_function(scores, split), split.n_items)
    if unknown := set(options) - {"n_candidates", "candidate_seed", "threads"}:
        raise TypeError(f"evaluate_scores() has no argument {min(unknown)!r}")
    found = score_split(
        model, split, cutoffs=cutoffs, wanted=Wanted(beyond, by, lambda: split.train.catalog), **options
    )
    if protocol == "both":
        return found
    return {name: row for name, row in found.items() if name.startswith(FULL) == (protocol == "full")}


def _function(scores: Any, split: Split) -> Callable[[NDArray[np.int32]], NDArray[Any]]:
    if isinstance(scores, np.ndarray) or hasattr(scores, "detach"):
        table = _host(scores)
        if table.shape != (split.n_users, split.n_items):
            raise ConfigError(f"scores are {list(table.shape)}, the split has [{split.n_users}, {split.n_items}] pairs")
        check_scores(table)  # also those of users without a test item
        return lambda users: table[users]
    if isinstance(scores, Mapping) or hasattr(scores, "columns"):
        return _of_frame(scores, split)
    if callable(scores):
        return _checked(scores, split.n_items)
    raise ConfigError(f"scores is a {type(scores).__name__}: give an array [U, I], a function of users, or a frame")


def _host(scores: Any) -> NDArray[Any]:
    return unmasked("scores", scores.detach().cpu().numpy() if hasattr(scores, "detach") else scores)


def _checked(function: Callable[..., Any], n_items: int) -> Callable[[NDArray[np.int32]], NDArray[Any]]:
    def call(users: NDArray[np.int32]) -> NDArray[Any]:
        given = function(users)
        table = _host(given)
        if table.shape != (users.size, n_items):
            raise ConfigError(f"the function gave {list(table.shape)} for {users.size} users, not [B, {n_items}]")
        return table

    return call


def _of_frame(frame: Any, split: Split) -> Callable[[NDArray[np.int32]], NDArray[Any]]:
    names = [str(c) for c in (frame.columns if hasattr(frame, "columns") else frame)]
    users = _codes(_column(frame, names, ("user", "user_id")), split.train.user_ids, "user")
    items = _codes(_column(frame, names, ("item", "item_id")), split.train.item_ids, "item")
    measure = next((name for name in ("score", "rank") if name in names), None)
    if measure is None:
        raise ConfigError(f"the frame has {', '.join(names)}: it needs a column score or rank")
    values = np.asarray(_column(frame, names, (measure,)))
    if values.dtype.kind not in "iuf":
        raise ConfigError(f"the column {measure} is {values.dtype}; it must hold numbers")
    values = values.astype(np.float64) * (1.0 if measure == "score" else -1.0)
    if not users.size == items.size == values.size:
        raise ConfigError(f"the columns differ in length: {users.size}, {items.size} and {values.size}")
    ids = split.train.user_ids.tolist(), split.train.item_ids.tolist()
    bad = np.flatnonzero(~np.isfinite(values))
    if bad.size:
        k = bad[0]
        raise DataError(
            f"{measure} of user {shown(ids[0][users[k]])}, item {shown(ids[1][items[k]])} is {values[k]} ({bad.size} "
            f"of {values.size} are not finite): such a value has no place in a list"
        )
    order = np.lexsort((items, users))
    users, items, values = users[order], items[order], values[order]
    twice = np.flatnonzero((users[1:] == users[:-1]) & (items[1:] == items[:-1]))
    if twice.size:
        k = twice[0]
        raise DataError(
            f"user {shown(ids[0][users[k]])} has item {shown(ids[1][items[k]])} more than once ({twice.size} rows too "
            "many); keep one of them"
        )
    absent = np.setdiff1d(np.flatnonzero(split.test.degrees), users)
    if absent.size:
        raise DataError(
            f"user {shown(ids[0][absent[0]])} of the test part has no row ({absent.size} are missing); give every test "
            "user a list"
        )
    # places among all values are exact in float64: equal values stay tied, different ones stay apart
    place = np.unique(values, return_inverse=True)[1].astype(np.float64)
    bounds = np.searchsorted(users, np.arange(split.n_users + 1))

    def rows(wanted: NDArray[np.int32]) -> NDArray[Any]:
        table = np.full((wanted.size, split.n_items), np.float64(UNLISTED))
        for row, user in enumerate(wanted.tolist()):
            own = slice(bounds[user], bounds[user + 1])
            table[row, items[own]] = place[own]
        return table

    return rows


def _column(frame: Any, names: Sequence[str], wanted: Sequence[str]) -> NDArray[Any]:
    for name in wanted:
        if name in names:
            column = frame[name]
            return unmasked(f"column {name}", column.to_numpy() if hasattr(column, "to_numpy") else column)
    raise ConfigError(f"the frame has {', '.join(names)}: it needs a column {' or '.join(wanted)}")


def _codes(values: NDArray[Any], ids: NDArray[Any], what: str) -> NDArray[np.int64]:
    known = {one: code for code, one in enumerate(ids.tolist())}
    codes = np.fromiter((known.get(one, -1) for one in values.tolist()), np.int64, values.size)
    unknown = np.flatnonzero(codes < 0)
    if unknown.size:
        raise DataError(
            f"{what} {shown(values[unknown].tolist()[0])} of row {unknown[0]} is not among the {ids.size} {what}s of "
            f"the split ({unknown.size} rows); give ids of the source, of the same type"
        )
    return codes


class _Scores:
    """Scores in the form of a model without vectors."""

    training = False

    def __init__(self, function: Callable[[NDArray[np.int32]], NDArray[Any]], n_items: int) -> None:
        self._function, self._n_items = function, n_items

    def vectors(self) -> None:
        """None: there are no vectors."""
        return

    def eval(self) -> None:
        """Nothing to do."""

    def train(self, mode: bool = True) -> None:
        """Nothing to do."""

    def parameters(self) -> Any:
        """None."""
        return iter(())

    def _table(self, users: Any) -> NDArray[np.float32]:
        given = self._function(np.asarray(users, dtype=np.int32))
        check_scores(given, "scores")
        return _single(given)

    def score_all(self, users: Any) -> NDArray[np.float32]:
        """float32[B, I]."""
        return self._table(users)

    def __call__(self, users: Any, items: Any) -> NDArray[np.float32]:
        """float32[B, C]: the scores of each user's own items."""
        return np.take_along_axis(self._table(users), np.asarray(items, dtype=np.int64), axis=1)


def _single(scores: NDArray[Any]) -> NDArray[np.float32]:
    """float32 that orders each row as float64 does, ties included: float32 itself would tie what differs."""
    if scores.dtype == np.float32:
        return np.ascontiguousarray(scores)
    out = np.empty(scores.shape, np.float32)
    for row, values in enumerate(scores):
        out[row] = np.unique(values, return_inverse=True)[1]  # below 2^24 for any catalogue that fits [B, I]
    return out
