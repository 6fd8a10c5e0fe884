"""HR, NDCG, MRR and Recall at K, from ranks. Rank 1 is the best; ties count against the positive.

B rows (one positive each), C candidates, K cutoff.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError

CUTOFFS = (5, 10, 20)


@dataclass(frozen=True)
class Metrics(Mapping[str, float]):
    """Means over cases, read as a mapping: ``metrics["NDCG@10"]``.

    Parameters
    ----------
    means : dict of str to float
        ``HR@K``, ``NDCG@K``, ``MRR@K`` for each K; ``Recall@K`` too where a user has several positives in one list.
    standard_errors : dict of str to float
        The standard error of each mean, with users as the independent units; empty for a single user.
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

    def as_dict(self) -> dict[str, Any]:
        """The means and what stands behind them, ready for JSON."""
        return {
            **self.means,
            "standard_errors": dict(self.standard_errors),
            "n_users": self.n_users,
            "n_positives": self.n_positives,
        }


def check_cutoffs(ks: Sequence[int]) -> tuple[int, ...]:
    """The cutoffs, ascending and without duplicates.

    Raises
    ------
    ConfigError
        If there is none, or one below 1.
    """
    if not len(ks) or min(ks) < 1:
        raise ConfigError(f"cutoffs {list(ks)}: give at least one K, each at least 1")
    return tuple(sorted({int(k) for k in ks}))


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
    return 1 + np.count_nonzero(ahead, axis=1).astype(np.int64)


def single(ranks: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]], ks: Sequence[int] = CUTOFFS) -> Metrics:
    """Metrics where every positive has a list of its own (leave-one-out, or frozen candidates for each positive).

    Each positive is a case: HR@K is whether its rank is at most K, NDCG@K 1 / log2(rank + 1) and MRR@K 1 / rank
    where it is, else 0. The values are means over positives; Recall@K would equal HR@K and is left out.

    Parameters
    ----------
    ranks : int[B]
        Rank of each positive, from 1.
    users : int[B]
        Its user: the unit of the standard errors (positives of one user are not independent).
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
    ks = check_cutoffs(ks)
    r = np.asarray(ranks, dtype=np.float64)
    cases: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        hit = r <= k
        cases[f"HR@{k}"] = hit.astype(np.float64)
        cases[f"NDCG@{k}"] = np.where(hit, 1.0 / np.log2(r + 1.0), 0.0)
        cases[f"MRR@{k}"] = np.where(hit, 1.0 / r, 0.0)
    return _summary(cases, np.asarray(users), n_positives=r.size)


def grouped(ranks: NDArray[np.integer[Any]], users: NDArray[np.integer[Any]], ks: Sequence[int] = CUTOFFS) -> Metrics:
    """Metrics where all positives of a user stand in one list (full ranking).

    Each user is a case: HR@K is whether any positive has a rank of at most K, Recall@K the share of positives that
    have, MRR@K 1 / the best rank, and NDCG@K the gain divided by that of the best possible list, which holds
    min(K, positives) of them at the top. With one positive a user this equals ``single``, and Recall@K, which then
    is HR@K, is left out.

    Parameters
    ----------
    ranks : int[B]
        Rank of each positive in its user's list, from 1, all different within a user.
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
    ks = check_cutoffs(ks)
    users = np.asarray(users)
    starts = np.flatnonzero(np.diff(users, prepend=-1))
    counts = np.diff(np.append(starts, users.size))
    if users.size == starts.size:
        return single(ranks, users, ks)
    r = np.asarray(ranks, dtype=np.float64)
    best = np.minimum.reduceat(r, starts)
    ideal = np.concatenate(([0.0], np.cumsum(1.0 / np.log2(np.arange(2, max(ks) + 2)))))
    cases: dict[str, NDArray[np.float64]] = {}
    for k in ks:
        hit = r <= k
        cases[f"HR@{k}"] = (best <= k).astype(np.float64)
        gain = np.add.reduceat(np.where(hit, 1.0 / np.log2(r + 1.0), 0.0), starts)
        cases[f"NDCG@{k}"] = gain / ideal[np.minimum(counts, k)]
        cases[f"MRR@{k}"] = np.where(best <= k, 1.0 / best, 0.0)
        cases[f"Recall@{k}"] = np.add.reduceat(hit.astype(np.float64), starts) / counts
    return _summary(cases, users[starts], n_positives=r.size)


def _summary(cases: dict[str, NDArray[np.float64]], users: NDArray[Any], n_positives: int) -> Metrics:
    """Means over cases; the standard error sums each user's deviations first (users are the independent units)."""
    _, unit = np.unique(users, return_inverse=True)
    if not users.size:
        raise DataError("there is no positive to rank: give a test or validation part that has some")
    _, unit = np.unique(users, return_inverse=True)
    n_units = int(unit.max()) + 1
    means, errors = {}, {}
    for name, case in cases.items():
        means[name] = float(case.mean())
        if n_units > 1:
            deviations = np.bincount(unit, weights=case - means[name])
            errors[name] = math.sqrt(float(deviations @ deviations) * n_units / (n_units - 1)) / users.size
    return Metrics(means, errors, n_users=n_units, n_positives=n_positives)
