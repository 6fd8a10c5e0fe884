"""HR, NDCG, MRR and Recall at K, from ranks. Rank 1 is the best; ties count against the positive.

One definition serves both protocols. The user is the unit, and every figure is a mean over users:

- HR@K: 1 if any test positive of the user is in the top K, else 0.
- MRR@K: 1 / the best rank among the user's positives if that is at most K, else 0.
- Recall@K: the fraction of the user's positives in the top K; with one positive per user it equals HR@K.
- NDCG@K: the gain of the user's lists over that of ideal lists, a positive at rank r gaining 1 / log2(r + 1).

A metric is one file of this folder with a function registered by ``metric``: every protocol, record, table and
``--select`` then knows it.

In full ranking all positives of a user are in one list (``grouped``); with candidates each positive has a list of its
own (``single``). With one positive per user both are the leave-one-out metrics of the NCF paper.

B rows (one positive each), C candidates, K cutoff.
Sources: He et al., "Neural collaborative filtering", WWW 2017, section 4.1 (HR and NDCG of leave-one-out); Deshpande
and Karypis, "Item-based top-N recommendation algorithms", ACM TOIS 22(1), 2004 (hit rate over users); Järvelin and
Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002 (NDCG); Voorhees, "The TREC-8
question answering track report", 1999 (reciprocal rank of the first hit).
"""

from __future__ import annotations

import math
import pkgutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int
from fastrec.errors import ConfigError, DataError
from fastrec.terminal import html_table

CUTOFFS = (5, 10, 20)
MISS = 2**62
"""The rank of a positive that counts as a miss at every K."""


@dataclass(frozen=True, repr=False)
class Metrics(Mapping[str, float]):
    """Means over users, read as a mapping: ``metrics["NDCG@10"]``.

    Parameters
    ----------
    means : dict of str to float
        ``HR@K``, ``NDCG@K``, ``MRR@K``, ``Recall@K`` and any other registered metric, for each K.
    standard_errors : dict of str to float
        The standard error of each mean over users; empty for a single user.
    n_users, n_positives : int
        Users and positives ranked.
    """

    means: dict[str, float]
    standard_errors: dict[str, float] = field(default_factory=dict)
    n_users: int = 0
    n_positives: int = 0

    def __getitem__(self, name: str) -> float:
        return self.means[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.means)

    def __len__(self) -> int:
        return len(self.means)

    def __repr__(self) -> str:
        shown = ", ".join(f"{name} {value:.4f}" for name, value in self.means.items())
        return f"Metrics({shown or 'none'}; {self.n_users:,} users, {self.n_positives:,} positives)"

    def _repr_html_(self) -> str:
        rows = [(n, f"{v:.4f}", f"{self.standard_errors.get(n, math.nan):.4f}") for n, v in self.means.items()]
        return html_table(
            [("metric", "mean", "standard error"), *rows], f"{self.n_users:,} users, {self.n_positives:,} positives"
        )

    def as_dict(self) -> dict[str, Any]:
        """The means and the counts behind them, ready for JSON."""
        return {
            **self.means,
            "standard_errors": dict(self.standard_errors),
            "n_users": self.n_users,
            "n_positives": self.n_positives,
        }


@dataclass(frozen=True)
class Lists:
    """Ranks by user: what a metric is computed from.

    Parameters
    ----------
    ranks : float64[B]
        Rank of each positive from 1, the positives of a user next to each other.
    starts, counts : int64[U]
        Where each user's ranks start, and how many there are.
    shared : bool
        Whether the positives of a user are in one list (full ranking) or each in its own (candidates).
    """

    ranks: NDArray[np.float64]
    starts: NDArray[np.int64]
    counts: NDArray[np.int64]
    shared: bool

    @staticmethod
    def of(ranks: NDArray[Any], users: NDArray[Any], *, shared: bool) -> Lists:
        """Group ranks by ``users``, which ascend."""
        return Lists(ranks.astype(np.float64), *_runs(users), shared)

    def sums(self, values: NDArray[np.float64]) -> NDArray[np.float64]:
        """float64[U]: the sum of each user's values, one value per positive."""
        return np.add.reduceat(values, self.starts)

    def best(self) -> NDArray[np.float64]:
        """float64[U]: the best rank of each user."""
        return np.minimum.reduceat(self.ranks, self.starts)


Computed = Callable[[Lists, int], NDArray[np.float64]]
"""(lists, k) -> float64[U]: one value per user, of which the mean is reported."""
_REGISTERED: dict[str, Computed] = {}
_ORDER: dict[str, int] = {}


def metric(name: str, order: int = 100) -> Callable[[Computed], Computed]:
    """Register a function as the metric ``NAME@K``.

    Parameters
    ----------
    name : str
    order : int
        Place in records and tables; metrics of equal ``order`` are sorted by name.

    Raises
    ------
    ConfigError
        If another function has the name, in whatever case, or it holds ``@`` or ``:``.
    """

    def register(compute: Computed) -> Computed:
        taken = {known.lower(): function for known, function in _REGISTERED.items()}.get(name.lower())
        if taken is not None and taken.__module__ != compute.__module__:
            raise ConfigError(f"metric {name!r} is registered by {taken.__module__} already")
        if not name or set(name) & set("@: "):
            raise ConfigError(f"metric {name!r}: a name has no '@', ':' or space")
        _REGISTERED[name], _ORDER[name] = compute, order
        return compute

    return register


def metric_names() -> list[str]:
    """Names of the metrics, in the order of records and tables; the modules of the folder are imported on first use."""
    _import_files()
    return sorted(_REGISTERED, key=lambda name: (_ORDER[name], name))


@cache
def _import_files() -> None:
    for module in pkgutil.iter_modules(__path__):
        import_module(f"{__name__}.{module.name}")


def per_user(name: str, lists: Lists, k: int) -> NDArray[np.float64]:
    """float64[U]: one value per user of the registered metric ``NAME@K``, of which the mean is reported."""
    _import_files()
    return _REGISTERED[name](lists, k)


def check_cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    """The cutoffs, ascending and without duplicates.

    Raises
    ------
    ConfigError
        If there is none, one below 1, or one that is not an integer.
    """
    if isinstance(ks, str) or not isinstance(ks, Iterable):
        raise ConfigError(f"cutoffs={ks!r}: must be a sequence of integers, such as (5, 10)")
    found = sorted({as_int("cutoffs", k) for k in ks})
    if not found or found[0] < 1:
        raise ConfigError(f"cutoffs {found}: give at least one K, each at least 1")
    return tuple(found)


def check_scores(scores: NDArray[Any], what: str = "scores") -> None:
    """Refuse scores that cannot be ranked.

    Raises
    ------
    ConfigError
        If the dtype is not float32 or float64: coarser scores tie, and ties count against the positive (bfloat16
        ties 281 of 6,040 users of MovieLens-1M).
    DataError
        If a score is NaN or infinite: the first one is named.
    """
    if scores.dtype not in (np.float32, np.float64):
        raise ConfigError(f"{what} are {scores.dtype}; rank on float32 or float64, coarser scores tie")
    bad = ~np.isfinite(scores)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"{what}{list(at)} = {scores[at]} ({int(bad.sum())} of {scores.size} are not finite): such scores have no "
            "rank; the weights have probably diverged, so train again with a smaller lr"
        )


def ranks(positives: NDArray[Any], others: NDArray[Any], valid: NDArray[np.bool_] | None = None) -> NDArray[np.int64]:
    """Rank of each positive among the others: 1 + how many score as high or higher.

    Parameters
    ----------
    positives : float32[B] or float64[B]
        Score of each positive.
    others : float32[B, C] or float64[B, C]
        Scores it is ranked against.
    valid : bool[B, C], optional
        False where ``others`` is padding, which is not counted (its score must still be finite).

    Returns
    -------
    int64[B]
        1 to C + 1. Constant scores give C + 1.

    Raises
    ------
    ConfigError, DataError
        See ``check_scores``.
    """
    check_scores(positives, "positive scores")
    check_scores(others)
    ahead = others >= positives[:, None]
    if valid is not None:
        ahead &= valid
    ranks: NDArray[np.int64] = 1 + np.count_nonzero(ahead, axis=1).astype(np.int64)
    return ranks


def single(ranks: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]], ks: Sequence[int] = CUTOFFS) -> Metrics:
    """Metrics where each positive has a list of its own: leave-one-out, or frozen candidates of each positive.

    A user's NDCG@K is the mean over its lists, each of which has one positive and so an ideal gain of 1. HR@K and MRR@K
    take the best of the user's ranks, Recall@K the fraction of its positives with a rank of at most K (see the module).

    Parameters
    ----------
    ranks : int[B]
        Rank of each positive in its list, from 1; ``MISS`` counts as a miss.
    users : int[B]
        Its user, in any order.
    ks : sequence of int
        Cutoffs.

    Raises
    ------
    ConfigError
        A cutoff below 1.
    DataError
        No positive at all.

    Source
    ------
    He et al., "Neural collaborative filtering", WWW 2017, section 4.1.
    """
    users = np.asarray(users)
    order = np.argsort(users, kind="stable")
    return _of_lists(Lists.of(np.asarray(ranks)[order], users[order], shared=False), check_cutoffs(ks))


def grouped(ranks: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]], ks: Sequence[int] = CUTOFFS) -> Metrics:
    """Metrics where all positives of a user are in one list: full ranking.

    A user's NDCG@K is the gain of its list divided by that of the ideal list, which has min(K, positives) of them at
    the top. HR@K, MRR@K and Recall@K are those of ``single``. With one positive per user this equals ``single``.

    Parameters
    ----------
    ranks : int[B]
        Rank of each positive in its user's list, from 1, all different within a user; ``MISS`` counts as a miss.
    users : int[B]
        User of each positive, ascending.
    ks : sequence of int
        Cutoffs.

    Raises
    ------
    ConfigError
        A cutoff below 1.
    DataError
        No positive at all.

    Source
    ------
    Järvelin and Kekäläinen, "Cumulated gain-based evaluation of IR techniques", ACM TOIS 20(4), 2002.
    """
    return _of_lists(Lists.of(np.asarray(ranks), np.asarray(users), shared=True), check_cutoffs(ks))


def _runs(users: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The start and number of each user's rows; ``users`` ascend."""
    if not users.size:
        raise DataError("there is no positive to rank: give a test or validation part that has some")
    starts = np.flatnonzero(np.append(True, users[1:] != users[:-1]))
    return starts, np.diff(np.append(starts, users.size))


def _of_lists(lists: Lists, ks: Sequence[int]) -> Metrics:
    """Every registered metric at every K."""
    cases = {f"{name}@{k}": per_user(name, lists, k) for k in ks for name in metric_names()}
    return _summary(cases, n_positives=lists.ranks.size)


def _summary(cases: dict[str, NDArray[np.float64]], n_positives: int) -> Metrics:
    """Means over users and their standard errors."""
    means, errors, n = {}, {}, 0
    for name, case in cases.items():
        n = case.size
        means[name] = float(case.mean())
        if n > 1:
            errors[name] = float(case.std(ddof=1)) / math.sqrt(n)
    return Metrics(means, errors, n_users=n, n_positives=n_positives)
