"""Numbered rows to ``Interactions``, and closing the gaps that a filter leaves in the ids. Needs no Polars.

U users, I items, E interactions, R rows of the source.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.arrays import frozen
from fastrec.data.csr_build import as_array, group
from fastrec.data.interactions import Interactions
from fastrec.errors import DataError


def from_codes(
    users: NDArray[np.int32],
    user_ids: NDArray[Any],
    items: NDArray[np.int32],
    item_ids: NDArray[Any],
    timestamps: Any = None,
    ratings: Any = None,
    *,
    min_rating: float | None = None,
    k_core: int = 0,
    name: str = "interactions",
) -> Interactions:
    """``Interactions.from_arrays`` for rows that are numbered already: int32[R] contiguous ids and the id maps."""
    if users.size == 0:
        raise DataError(f"{name}: no interactions; there is nothing to build from")
    columns = {"items": items, "timestamps": timestamps, "ratings": ratings}
    for what, values in columns.items():
        if values is not None and np.shape(values) != users.shape:
            raise DataError(f"{name}: {what} has shape {np.shape(values)}, users {users.shape}; they must agree")
    times = None if timestamps is None else as_int64(timestamps, f"{name}: timestamps")
    csr = group(users, items, user_ids.shape[0], item_ids.shape[0], times)
    notes = []
    if csr.items.size < users.size:
        notes.append(f"{users.size - csr.items.size} duplicate (user, item) rows merged, the latest kept")
    made = Interactions(
        indptr=frozen(csr.indptr),
        items=frozen(csr.items),
        user_ids=user_ids,
        item_ids=item_ids,
        timestamps=None if times is None else frozen(times[csr.rows]),
        file_order=frozen(csr.rows),
        name=name,
    )
    if min_rating is not None:
        if ratings is None:
            raise DataError(f"{name}: min_rating={min_rating} needs ratings, and there are none; leave it out")
        scores = as_array(ratings, f"{name}: ratings")
        if np.isnan(scores).any():
            raise DataError(f"{name}: rating of row {int(np.isnan(scores).argmax())} is nan; mend or remove the row")
        mask = scores[csr.rows] >= min_rating
        notes.append(f"{mask.size - int(mask.sum())} interactions rated below {min_rating} left out")
        made = dense(made.keep(mask), f"min_rating={min_rating}")
    return replace(made, notes=tuple(notes)).core(k_core)


def dense(interactions: Interactions, why: str) -> Interactions:
    """Drop users and items without interactions and close the gaps in the ids; ``why`` names the cause in errors."""
    has_user, has_item = interactions.degrees > 0, interactions.item_counts() > 0
    if not interactions.n_interactions:
        raise DataError(f"{interactions.name}: no interaction is left with {why}; choose a weaker one")
    if has_user.all() and has_item.all():
        return interactions
    new_item = np.cumsum(has_item, dtype=np.int64) - 1
    return replace(
        interactions,
        indptr=np.concatenate((interactions.indptr[:-1][has_user], interactions.indptr[-1:])),
        items=frozen(new_item.astype(np.int32)[interactions.items]),
        user_ids=interactions.user_ids[has_user],
        item_ids=interactions.item_ids[has_item],
        titles=None if interactions.titles is None else interactions.titles[has_item],
    )


def as_int64(values: Any, what: str) -> NDArray[np.int64]:
    """One-dimensional integers as int64; floats are refused, because they round."""
    values = as_array(values, what)
    if values.dtype.kind not in "iu":
        raise DataError(f"{what} are {values.dtype}; they must be integers (seconds since 1970 UTC)")
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        row = int(values.argmax())
        raise DataError(f"{what}: {values[row]} in row {row} does not fit 64 bits with sign; no date is that far away")
    return np.ascontiguousarray(values, dtype=np.int64)
