"""iALS: matrix factorisation by alternating least squares over all user-item pairs.

U users, I items, D dim, B rows of a block.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from fastrec.data.interactions import Interactions
from fastrec.evaluation.baseline import Baseline, FactorScores, register
from fastrec.evaluation.baselines.ease import by_item
from fastrec.jit import njit_float, resolve_threads, run_ranges
from fastrec.models.parts import init

BLOCK = 2048
"""Rows whose D x D systems are held at a time."""


@njit_float
def _systems(indptr, items, table, base, a, b, first, lo, hi):  # type: ignore[no-untyped-def]
    """a[r] = base + sum of q q' and b[r] = sum of q over the items of row first + r, for r in [lo, hi)."""
    d = table.shape[1]
    for r in range(lo, hi):
        left, right = a[r], b[r]
        left[:] = base
        right[:] = 0
        for k in range(indptr[first + r], indptr[first + r + 1]):
            q = table[items[k]]
            for x in range(d):
                right[x] += q[x]
                for y in range(d):
                    left[x, y] += q[x] * q[y]


def half_step(
    indptr: NDArray[np.int64],
    items: NDArray[np.int32],
    table: NDArray[np.float32],
    out: NDArray[np.float32],
    *,
    alpha: float,
    reg: float,
    threads: int,
) -> None:
    """out[r] = argmin of sum (w.q - 1)^2 over the row's items + alpha * sum (w.q)^2 over all + reg_r |w|^2.

    reg_r = reg * (row's count + alpha * number of items): frequency-scaled.
    """
    n, d = out.shape
    base = (alpha * (table.T @ table)).astype(np.float32)
    for first in range(0, n, BLOCK):
        rows = min(BLOCK, n - first)
        a, b = np.empty((rows, d, d), np.float32), np.empty((rows, d), np.float32)
        args = (indptr, items, table, base, a, b, first)

        def work(lo: int, hi: int, args: tuple[Any, ...] = args) -> None:
            _systems(*args, lo, hi)

        run_ranges(work, rows, threads, grain=16)
        counts = np.diff(indptr[first : first + rows + 1])
        scale = (reg * (counts + alpha * len(table))).astype(np.float32)
        a[:, np.arange(d), np.arange(d)] += scale[:, None]
        solved = torch.cholesky_solve(torch.from_numpy(b).unsqueeze(2), torch.linalg.cholesky(torch.from_numpy(a)))
        out[first : first + rows] = solved.squeeze(2).numpy()


def fit(
    train: Interactions,
    threads: int | None = None,
    *,
    dim: int = 64,
    alpha: float = 0.1,
    reg: float = 0.003,
    epochs: int = 10,
    seed: int = 0,
) -> FactorScores:
    """Alternates exact solutions for users and items, from addressed normal weights of std .1 / sqrt(dim)."""
    n_threads = resolve_threads(threads)
    users = init.normal("user_factors", (train.n_users, dim), 0.1 / dim**0.5, seed)
    items = init.normal("item_factors", (train.n_items, dim), 0.1 / dim**0.5, seed)
    item_indptr, item_users = by_item(train)
    for _ in range(epochs):
        half_step(train.indptr, train.items, items, users, alpha=alpha, reg=reg, threads=n_threads)
        half_step(item_indptr, item_users, users, items, alpha=alpha, reg=reg, threads=n_threads)
    return FactorScores(users, items)


IALS = register(
    Baseline(
        "ials",
        "matrix factorisation by alternating least squares, dim 64",
        fit,
        tuple({"alpha": a, "reg": r} for a in (0.1, 0.4) for r in (0.003, 0.001, 0.01)),
        lambda u, i, e: 4 * (64 * (u + i) + 2 * BLOCK * 64 * 64) + 16 * e,
        "Hu et al., Collaborative filtering for implicit feedback datasets, ICDM 2008; Rendle et al., Revisiting the "
        "performance of iALS on item recommendation benchmarks, RecSys 2022, sections 3 and 4",
    )
)
