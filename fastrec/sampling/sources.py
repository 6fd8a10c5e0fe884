"""CSR arrays out of the objects users hold, by their shape: nothing is imported for it."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrec.errors import ConfigError, DataError


def csr_of(
    source: Any, n_items: int | None = None, *, user_col: str | None = None, item_col: str | None = None
) -> tuple[Any, Any, int]:
    """(indptr, items, n_items) of an Interactions, scipy CSR, Arrow list array or Polars frame.

    Parameters
    ----------
    source : Interactions, scipy.sparse CSR, pyarrow list array, polars.DataFrame or (indptr, items)
        A scipy matrix contributes its stored entries that are not 0; each row's items are sorted, duplicates summed
        into one. A list array has a row a user, its values the items. A frame has a user and an item column of ids
        from 0 (the first two columns unless named), in any order, duplicates allowed.
    n_items : int, optional
        Number of items; needed where the source does not know it (list array, frame, pair).
    user_col, item_col : str, optional
        Columns of a frame.

    Raises
    ------
    ConfigError
        For another kind of object, or a missing or contradicting ``n_items``.
    DataError
        For null or negative ids.
    """
    if hasattr(source, "indptr") and hasattr(source, "items") and not hasattr(source, "indices"):
        return source.indptr, source.items, _agreed(n_items, getattr(source, "n_items", None), "the interactions have")
    if hasattr(source, "indptr") and hasattr(source, "indices") and hasattr(source, "shape"):
        if getattr(source, "format", "csr") != "csr":
            raise ConfigError(f"a scipy matrix in {source.format!r} format: convert it with .tocsr() first")
        tidy = source.copy()
        tidy.sum_duplicates()  # sorts, too
        tidy.eliminate_zeros()
        return tidy.indptr, tidy.indices, _agreed(n_items, source.shape[1], "the matrix has (its columns)")
    if hasattr(source, "get_column") and hasattr(source, "columns"):
        return _frame(source, n_items, user_col, item_col)
    if hasattr(source, "flatten") and hasattr(source, "offsets") and hasattr(source, "null_count"):
        return _lists(source, n_items)
    if isinstance(source, tuple) and len(source) == 2:
        return source[0], source[1], _agreed(n_items, None, "")
    raise ConfigError(
        f"cannot read positives from a {type(source).__module__}.{type(source).__qualname__}: pass Interactions, a "
        "scipy CSR, an Arrow list array, a Polars frame, or (indptr, items)"
    )


def _agreed(given: int | None, known: int | None, what: str) -> int:
    if given is None and known is None:
        raise ConfigError("n_items is required: this source does not say how many items there are")
    if given is not None and known is not None and given != known:
        raise ConfigError(f"n_items={given}, but {what} {known}")
    return int(given if given is not None else known)  # type: ignore[arg-type]


def _lists(array: Any, n_items: int | None) -> tuple[Any, Any, int]:
    if array.null_count:
        raise DataError(f"the list array has {array.null_count} null rows: a user without positives is an empty list")
    offsets = np.asarray(array.offsets).astype(np.int64)
    values = array.flatten()
    if values.null_count:
        raise DataError(f"the list array holds {values.null_count} null items: drop them first")
    indptr, items = offsets - offsets[0], np.asarray(values)
    return indptr, items, _agreed(n_items, None, "")


def _frame(frame: Any, n_items: int | None, user_col: str | None, item_col: str | None) -> tuple[Any, Any, int]:
    columns = list(frame.columns)
    names = [user_col or columns[0], item_col or (columns + [""])[1]]
    ids = []
    for name in names:
        if name not in columns:
            raise ConfigError(f"no column {name!r} in the frame; it has {columns}")
        column = frame.get_column(name)
        if column.null_count():
            raise DataError(f"column {name!r} holds {column.null_count()} nulls: drop them first")
        values = column.to_numpy()
        if values.dtype.kind not in "iu":
            raise DataError(f"column {name!r} is {values.dtype}: ids must be integers from 0")
        if values.size and int(values.min()) < 0:
            raise DataError(f"column {name!r} holds {int(values.min())}: ids must be integers from 0")
        ids.append(values)
    users, items = ids
    n = _agreed(n_items, None, "")
    if items.size and int(items.max()) >= n:
        raise DataError(f"column {names[1]!r} holds {int(items.max())}, which does not lie in [0, n_items={n})")
    n_users = int(users.max()) + 1 if users.size else 0
    pairs = np.unique(users.astype(np.int64) * n + items.astype(np.int64))
    indptr = np.searchsorted(pairs, np.arange(n_users + 1, dtype=np.int64) * n)
    return indptr, (pairs % n).astype(np.int32), n
