"""EASE: a linear autoencoder with a zero diagonal, in closed form.

U users, I items, E interactions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastrec.data.interactions import Interactions
from fastrec.evaluation.baseline import Baseline, RowScores, register
from fastrec.jit import njit, njit_float, resolve_threads, run_ranges


@njit
def co_occurrences(indptr, items, user_indptr, users, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[i, j] = number of users with items i and j, for items [lo, hi); ``users`` are those of each item."""
    for i in range(lo, hi):
        for at in range(user_indptr[i], user_indptr[i + 1]):
            u = users[at]
            for k in range(indptr[u], indptr[u + 1]):
                out[i, items[k]] += 1


@njit_float
def _sum_rows(indptr, items, weights, users, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[r] = sum of weights[i] over the items i of users[r], for rows [lo, hi)."""
    for r in range(lo, hi):
        u = users[r]
        row = out[r]
        for k in range(indptr[u], indptr[u + 1]):
            weight = weights[items[k]]
            for j in range(row.shape[0]):
                row[j] += weight[j]


def by_item(train: Interactions) -> tuple[NDArray[np.int64], NDArray[np.int32]]:
    """(indptr int64[I+1], users int32[E]): the users of each item, ascending."""
    order = np.argsort(train.items, kind="stable")
    indptr = np.concatenate(([0], np.cumsum(train.item_counts())))
    return indptr, train.users[order]


def gram_of(train: Interactions, threads: int | None = None) -> NDArray[np.float64]:
    """float64[I, I]: X'X, the same for every ridge. Cost: the sum of squared user degrees."""
    n = train.n_items
    gram = np.zeros((n, n), np.float64)
    args = (train.indptr, train.items, *by_item(train), gram)
    run_ranges(lambda lo, hi: co_occurrences(*args, lo, hi), n, resolve_threads(threads), grain=64)
    return gram


def weights_of(gram: NDArray[np.float64], ridge: float) -> NDArray[np.float32]:
    """float32[I, I]: B = I - P / diag(P) with P = (X'X + ridge)^-1, its diagonal zero.

    Cost: I^3 multiplications in float64 for the inverse.
    """
    n = len(gram)
    gram = gram.copy()
    gram[np.diag_indices(n)] += ridge
    factor = torch.linalg.cholesky(torch.from_numpy(gram))
    inverse = torch.cholesky_inverse(factor).numpy()
    b = inverse / -np.diag(inverse)
    b[np.diag_indices(n)] = 0.0
    return np.ascontiguousarray(b, dtype=np.float32)


def fit(
    train: Interactions, threads: int | None = None, *, ridge: float, prepared: NDArray[np.float64] | None = None
) -> RowScores:
    """Scores of a user: the sum of B's rows over the user's items."""
    weights = weights_of(gram_of(train, threads) if prepared is None else prepared, ridge)

    def fill(users: NDArray[np.int32], out: NDArray[np.float32]) -> None:
        def work(lo: int, hi: int) -> Any:
            _sum_rows(train.indptr, train.items, weights, users, out, lo, hi)

        run_ranges(work, users.size, resolve_threads(threads), grain=8)

    return RowScores(train, fill)


EASE = register(
    Baseline(
        "ease",
        "linear autoencoder with a zero diagonal, closed form",
        fit,
        tuple({"ridge": float(r)} for r in (500, 100, 200, 1000, 2000)),
        lambda u, i, e: 8 * 4 * i * i + 16 * e,  # noqa: ARG005
        "Steck, Embarrassingly shallow autoencoders for sparse data, WWW 2019, equations 7 and 8",
        prepare=gram_of,
    )
)
