"""ItemKNN: items whose nearest neighbours the user has.

I items, K neighbours, E interactions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.interactions import Interactions
from fastrec.evaluation.baseline import Baseline, RowScores, register
from fastrec.evaluation.baselines.ease import by_item
from fastrec.jit import njit, resolve_threads, run_ranges


@njit
def _neighbours(indptr, items, user_indptr, users, norms, shrink, ids, values, lo, hi):  # type: ignore[no-untyped-def]
    """For items [lo, hi): the K others of highest cosine, ids int32[I, K] and values float32[I, K]; -1 where none.

    cosine = c_ij / (|i| |j| + shrink), c_ij the users that have both. Ties go to the lower id.
    """
    n, k = norms.shape[0], ids.shape[1]
    counts = np.zeros(n, np.int32)
    touched = np.empty(n, np.int32)
    for i in range(lo, hi):
        n_touched = 0
        for at in range(user_indptr[i], user_indptr[i + 1]):
            u = users[at]
            for p in range(indptr[u], indptr[u + 1]):
                j = items[p]
                if counts[j] == 0:
                    touched[n_touched] = j
                    n_touched += 1
                counts[j] += 1
        found = np.empty(n_touched, np.float64)
        others = np.sort(touched[:n_touched])
        for t in range(n_touched):
            j = others[t]
            found[t] = -1.0 if j == i else counts[j] / (norms[i] * norms[j] + shrink)
        best = np.argsort(-found, kind="mergesort")[:k]
        for t in range(k):
            if t < best.shape[0] and found[best[t]] > 0:
                ids[i, t] = others[best[t]]
                values[i, t] = found[best[t]]
            else:
                ids[i, t] = -1
        for t in range(n_touched):
            counts[touched[t]] = 0


@njit
def _sum_lists(indptr, items, starts, targets, values, users, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[r, j] = sum of the similarity of j to the items of users[r] that are among j's neighbours."""
    for r in range(lo, hi):
        u = users[r]
        for p in range(indptr[u], indptr[u + 1]):
            i = items[p]
            for at in range(starts[i], starts[i + 1]):
                out[r, targets[at]] += values[at]


def neighbours(
    train: Interactions, k: int, shrink: float, threads: int | None = None
) -> tuple[NDArray[np.int32], NDArray[np.float32]]:
    """(ids int32[I, K], cosines float32[I, K]) of each item's K nearest others; -1 and 0 where there are fewer.

    Cost: the sum of squared user degrees.
    """
    n = train.n_items
    ids, values = np.full((n, k), -1, np.int32), np.zeros((n, k), np.float32)
    norms = np.sqrt(train.item_counts().astype(np.float64))
    args = (train.indptr, train.items, *by_item(train), norms, float(shrink), ids, values)
    run_ranges(lambda lo, hi: _neighbours(*args, lo, hi), n, resolve_threads(threads), grain=64)
    return ids, values


def fit(train: Interactions, threads: int | None = None, *, k: int, shrink: float) -> RowScores:
    """Scores of a user: for each item the summed cosine to those of its K neighbours that the user has."""
    ids, values = neighbours(train, min(k, max(1, train.n_items - 1)), shrink, threads)
    rows, columns = np.nonzero(ids >= 0)
    neighbour = ids[rows, columns]
    order = np.argsort(neighbour, kind="stable")
    starts = np.concatenate(([0], np.cumsum(np.bincount(neighbour, minlength=train.n_items))))
    targets, weights = rows[order].astype(np.int32), values[rows, columns][order]

    def fill(users: NDArray[np.int32], out: NDArray[np.float32]) -> None:
        def work(lo: int, hi: int) -> Any:
            _sum_lists(train.indptr, train.items, starts, targets, weights, users, out, lo, hi)

        run_ranges(work, users.size, resolve_threads(threads), grain=8)

    return RowScores(train, fill)


ITEM_KNN = register(
    Baseline(
        "item-knn",
        "items whose nearest neighbours, by cosine, the user has",
        fit,
        tuple({"k": k, "shrink": s} for s in (0.0, 20.0) for k in (100, 20, 50, 200)),
        lambda u, i, e: 8 * 200 * i * 3 + 16 * e,  # noqa: ARG005
        "Sarwar et al., Item-based collaborative filtering recommendation algorithms, WWW 2001, section 3",
    )
)
