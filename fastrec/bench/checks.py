"""Checks of an output before its rate may be printed. Each raises ``Refused`` with the first offender.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.bench.harness import Refused


def known(indptr: NDArray[np.int64], items: NDArray[np.int32], users: Any, candidates: Any, n_items: int) -> Any:
    """bool, shaped as ``candidates``: whether user ``users[b]`` has ``candidates[b, ...]`` as a positive.

    A plain search over (user, item) keys: it shares no code with the sampler that it checks.
    """
    keys = np.repeat(np.arange(indptr.size - 1, dtype=np.int64), np.diff(indptr)) * n_items + items
    wanted = np.asarray(users, dtype=np.int64).reshape(-1, *[1] * (candidates.ndim - 1)) * n_items + candidates
    at = np.searchsorted(keys, wanted)
    return keys[np.minimum(at, keys.size - 1)] == wanted


def check_negatives(
    output: Any,
    *,
    indptr: NDArray[np.int64],
    items: NDArray[np.int32],
    users: NDArray[Any],
    n_items: int,
    n_negatives: int,
    exact: bool = True,
    dtype: Any = np.int32,
    sample_rows: int = 200_000,
    distinct_fraction: float = 0.5,
) -> dict[str, Any]:
    """An array of negatives: shape ``[B, N]``, dtype, range, no positive, and more than a handful of items drawn.

    Parameters
    ----------
    output : integer[B, N]
        What the sampler returned for ``users``.
    exact : bool
        False for a baseline that may draw positives: their rate is then reported instead of refused.
    sample_rows : int
        Rows looked up in the CSR (the first, the last, and evenly between); shape and range are checked on all.

    distinct_fraction : float
        Different items that must occur, as a fraction of what uniform draws would give; 0 for draws from a
        few items, or by popularity.

    Returns
    -------
    dict
        ``false_negative_rate``.
    """
    output = np.asarray(output)
    want = (len(users), n_negatives)
    if output.shape != want:
        raise Refused(f"negatives have shape {output.shape}; {want} was asked for")
    if output.dtype != np.dtype(dtype):
        raise Refused(f"negatives have dtype {output.dtype}; {np.dtype(dtype)} was asked for")
    low, high = int(output.min()), int(output.max())
    if low < 0 or high >= n_items:
        raise Refused(f"negatives run from {low} to {high}; items are 0 to {n_items - 1}")
    rows = np.arange(len(users))
    if len(users) > sample_rows:
        rows = np.unique(np.linspace(0, len(users) - 1, sample_rows).astype(np.int64))
    hit = known(indptr, items, users[rows], output[rows], n_items)
    if exact and hit.any():
        b, s = (int(x) for x in np.argwhere(hit)[0])
        row = int(rows[b])
        raise Refused(f"row {row} slot {s}: item {output[row, s]} is a positive of user {users[row]}")
    some = output.reshape(-1)[: 1 << 20]
    distinct, expected = np.unique(some).size, n_items * -math.expm1(-some.size / n_items)
    if distinct < distinct_fraction * expected:
        raise Refused(
            f"only {distinct} different items among {some.size} negatives; about {expected:.0f} were expected"
        )
    return {"false_negative_rate": float(hit.mean())}


def check_batch(
    users: Any, items: Any, *, indptr: NDArray[np.int64], positives: NDArray[np.int32], n_items: int, n_negatives: int
) -> dict[str, Any]:
    """A training batch: ``users int32[B]``, ``items int32[B, 1+N]``, column 0 a positive, the others not."""
    users, items = np.asarray(users), np.asarray(items)
    if items.shape != (users.size, 1 + n_negatives):
        raise Refused(f"items have shape {items.shape}; {(users.size, 1 + n_negatives)} was asked for")
    if users.dtype != np.int32 or items.dtype != np.int32:
        raise Refused(f"users are {users.dtype} and items {items.dtype}; both must be int32")
    hit = known(indptr, positives, users, items, n_items)
    if not hit[:, 0].all():
        row = int(np.flatnonzero(~hit[:, 0])[0])
        raise Refused(f"row {row}: item {items[row, 0]} in column 0 is not a positive of user {users[row]}")
    return check_negatives(
        np.ascontiguousarray(items[:, 1:]),
        indptr=indptr,
        items=positives,
        users=users,
        n_items=n_items,
        n_negatives=n_negatives,
    )


def check_loss(before: float, after: float) -> dict[str, Any]:
    """The model learned: both losses finite, the second below the first."""
    if not (math.isfinite(before) and math.isfinite(after)):
        raise Refused(f"loss went from {before} to {after}: not finite")
    if not after < before:
        raise Refused(f"loss went from {before:.5f} to {after:.5f}: it did not fall")
    return {"loss_before": before, "loss_after": after}
