"""CSR arrays out of the objects users hold, by their shape: nothing is imported for it."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int, unmasked
from fastrec.errors import ConfigError, DataError
from fastrec.sampling.csr import MAX_ITEMS, MAX_USERS, csr_of_pairs

USER_COLUMNS = (
    *(
        "user",
        "user_id",
        "userid",
        "uid",
        "reviewerid",
        "customer_id",
        "customerid",
        "visitorid",
        "customer",
        "visitor",
    ),
    *("visitor", "visitor_id", "reviewer_id", "account_id", "accountid", "member_id", "memberid", "client_id"),
    *("profile_id", "viewer_id", "listener_id", "reader_id", "buyer_id", "person_id", "username", "user_name"),
)
ITEM_COLUMNS = (
    *("item", "item_id", "itemid", "iid", "movie", "movie_id", "movieid", "product_id", "productid", "asin"),
    *("parent_asin", "business_id", "book_id", "track_id", "song_id", "article_id", "sku", "product", "content_id"),
    *("contentid", "video_id", "videoid", "book", "track", "song", "article", "video", "artist_id", "show_id"),
    *("game_id", "app_id", "post_id", "news_id", "listing_id", "recipe_id", "title_id", "isbn", "content", "url"),
)
"""Column names recognised as users and items, by every reader of a table; spelled as ``plain_name`` gives them."""

SPARE_USERS = 2**24
"""Users that a frame of any length may have (128 MB of row bounds); beyond, a row of the frame for every 100."""


class Source(NamedTuple):
    """A CSR, not checked yet, and what was left out on the way to it."""

    indptr: Any
    items: Any
    n_items: int
    zeros: int = 0
    """Stored zeros dropped."""
    duplicates: int = 0
    """Repeats of a (user, item) pair merged."""


def plain_name(column: Any) -> str:
    """The name of a column without case, RecBole type (``:token``) and ``-`` for ``_``."""
    return str(column).split(":")[0].strip().lower().replace("-", "_")


def csr_of(
    source: Any,
    n_items: int | None = None,
    *,
    user_col: Any = None,
    item_col: Any = None,
    n_users: int | None = None,
) -> Source:
    """The CSR of an Interactions, scipy CSR or COO, Arrow list array, frame, or pair of arrays.

    Parameters
    ----------
    source : Interactions, scipy.sparse CSR or COO, pyarrow list array or table, frame, (indptr, items), (users, items)
        A scipy matrix contributes its stored entries that are not 0, whatever their sign or dtype (NaN is not 0); then
        repeats of an entry are merged. A list array has a row a user, its values the items. A frame has a user and an
        item column of ids from 0, in any order, repeats allowed; the columns are found by the names that
        ``Interactions.from_frame`` recognises, whatever their place. A mapping of columns and a PyArrow table count as
        frames. Of two arrays, the first is row bounds if it ascends from 0 to the length of the second, else the users
        of the pairs; what reads as both is refused.
    n_items : int, optional
        Number of items; needed where the source does not know it (list array, frame, pair).
    user_col, item_col : str, optional
        Columns of a frame; needed where their names are not recognised.
    n_users : int, optional
        Rows of the CSR of a frame; one more than its greatest user unless given.

    Raises
    ------
    ConfigError
        For another kind of object, columns that are not recognised, or a missing or contradicting ``n_items``.
    DataError
        For null, negative or masked ids, or arrays that are not CSR.
    """
    if hasattr(source, "indptr") and hasattr(source, "items") and not hasattr(source, "indices"):
        known = getattr(source, "n_items", None)
        return Source(source.indptr, source.items, _agreed(n_items, known, "the interactions have"))
    if hasattr(source, "indptr") and hasattr(source, "indices") and hasattr(source, "shape"):
        return _scipy(source, n_items)
    if getattr(source, "format", None) == "coo" and hasattr(source, "shape"):
        return _coo(source, n_items)
    if hasattr(source, "tocsr"):
        kind = getattr(source, "format", "?")
        raise ConfigError(f"a scipy matrix in {kind!r} format: convert it with .tocsr() first")
    if hasattr(source, "column_names") and hasattr(source, "column"):
        source = {name: source.column(name) for name in source.column_names}
    if hasattr(source, "collect_schema") and not hasattr(source, "get_column"):
        raise ConfigError("cannot read positives from a lazy frame: collect it first, with .collect()")
    if isinstance(source, dict) and not hasattr(source, "columns"):
        source = _Columns(source)
    if hasattr(source, "columns") and (hasattr(source, "get_column") or hasattr(source, "iloc")):
        return _frame(source, n_items, user_col, item_col, n_users)
    if hasattr(source, "flatten") and hasattr(source, "offsets") and hasattr(source, "null_count"):
        return _lists(source, n_items)
    if isinstance(source, tuple) and len(source) == 2:
        return _two_arrays(source[0], source[1], n_items, n_users)
    raise ConfigError(
        f"cannot read positives from a {type(source).__module__}.{type(source).__qualname__}: pass Interactions, a "
        "scipy CSR or COO, an Arrow list array or table, a Polars or pandas frame, (indptr, items) or (users, items)"
    )


class _Columns:
    """A mapping of arrays as a frame."""

    def __init__(self, columns: dict[Any, Any]) -> None:
        self._columns, self.columns = columns, list(columns)

    def get_column(self, name: Any) -> Any:
        """The column as it is."""
        return self._columns[name]


def _two_arrays(first: Any, items: Any, n_items: int | None, n_users: int | None) -> Source:
    """Row bounds and items, or the users and items of pairs: told apart by what row bounds must be.

    Raises
    ------
    DataError
        For two arrays that are both, or neither.
    """
    n = _agreed(n_items, None, "")
    bounds, values = np.asarray(first), np.asarray(items)
    whole_numbers = bounds.ndim == values.ndim == 1 and bounds.dtype.kind in "iu" and values.dtype.kind in "iu"
    if not whole_numbers or bounds.size != values.size or not bounds.size:
        return Source(first, items, n)
    if int(bounds[0]) == 0 and int(bounds[-1]) == values.size and not (bounds[1:] < bounds[:-1]).any():
        if n_users == bounds.size - 1:
            return Source(first, items, n)
        raise DataError(
            f"two arrays of {bounds.size} entries, the first ascending from 0 to {values.size}: these may be (indptr, "
            "items) or (users, items); pass a scipy CSR, or the pairs as {'user': users, 'item': items}"
        )
    return _frame(_Columns({"user": first, "item": items}), n, None, None, n_users)


def _coo(matrix: Any, n_items: int | None) -> Source:
    """The stored entries of a scipy COO that are not 0, repeats merged."""
    if len(matrix.shape) != 2:
        raise ConfigError(f"a scipy array of shape {matrix.shape}: it needs two dimensions, users by items")
    n = _agreed(n_items, int(matrix.shape[1]), "the matrix has (its columns)")
    rows, columns = unmasked("the matrix's row", matrix.row), unmasked("the matrix's col", matrix.col)
    data = unmasked("the matrix's data", matrix.data)
    if not rows.shape == columns.shape == data.shape:
        raise DataError(
            f"the matrix has {rows.size} rows, {columns.size} columns and {data.size} values of entries: rebuild it"
        )
    kept = np.asarray(data != 0, dtype=np.bool_)
    zeros = int(kept.size - kept.sum())
    pairs = _Columns({"user": rows[kept], "item": columns[kept]})
    return _frame(pairs, n, None, None, int(matrix.shape[0]))._replace(zeros=zeros)


def _agreed(given: int | None, known: int | None, what: str) -> int:
    if given is None and known is None:
        raise ConfigError("n_items is required: this source does not say how many items there are")
    if given is not None and known is not None and as_int("n_items", given) != known:
        raise ConfigError(f"n_items={given}, but {what} {known}")
    n = as_int("n_items", given if given is not None else known)
    if not 1 <= n <= MAX_ITEMS:
        raise DataError(f"n_items={n}: must be in 1 to {MAX_ITEMS} (item ids are int32)")
    return n


def _scipy(matrix: Any, n_items: int | None) -> Source:
    """Stored zeros are dropped before repeats are merged: a sum of repeats may be 0, or wrap to it."""
    if getattr(matrix, "format", "csr") != "csr":
        raise ConfigError(f"a scipy matrix in {matrix.format!r} format: convert it with .tocsr() first")
    if len(matrix.shape) != 2:
        raise ConfigError(f"a scipy array of shape {matrix.shape}: it needs two dimensions, users by items")
    n_users, n = int(matrix.shape[0]), _agreed(n_items, int(matrix.shape[1]), "the matrix has (its columns)")
    indptr, indices = unmasked("the matrix's indptr", matrix.indptr), unmasked("the matrix's indices", matrix.indices)
    data = unmasked("the matrix's data", matrix.data)
    if indptr.dtype.kind not in "iu" or indices.dtype.kind not in "iu" or indptr.ndim != 1 or indices.ndim != 1:
        raise DataError(f"the matrix's indptr is {indptr.dtype}, its indices {indices.dtype}: must be integer vectors")
    indptr = indptr.astype(np.int64)  # copies: what is checked below cannot change afterwards
    if n_users > MAX_USERS:
        raise DataError(f"the matrix has {n_users} rows: at most {MAX_USERS} users (user ids are int32)")
    if indptr.size != n_users + 1 or indptr[0] != 0:
        raise DataError(
            f"the matrix's indptr has {indptr.size} entries, the first {indptr[:1]}, for {n_users} rows: it needs one "
            "more than rows and begins at 0; rebuild the matrix"
        )
    degrees = np.diff(indptr)
    if (degrees < 0).any():
        u = int(np.flatnonzero(degrees < 0)[0])
        raise DataError(f"the matrix's row {u} runs from {indptr[u]} to {indptr[u + 1]}: indptr overflowed; rebuild it")
    stored = int(indptr[-1])
    if stored > indices.size or data.shape != indices.shape:
        raise DataError(
            f"the matrix's indptr ends at {stored}, but it has {indices.size} indices and {data.size} values; rebuild"
        )
    items, kept = indices[:stored].copy(), np.asarray(data[:stored] != 0, dtype=np.bool_)
    out = np.flatnonzero((items < 0) | (items >= n))
    if out.size:
        k = int(out[0])
        raise DataError(f"the matrix's indices[{k}] = {items[k]} is not in its {n} columns")
    users = np.repeat(np.arange(n_users, dtype=np.int32), degrees)
    zeros = stored - int(kept.sum())
    if zeros:
        users, items = users[kept], items[kept]
    made, merged, duplicates = csr_of_pairs(users, items, n_users)
    return Source(made, merged, n, zeros, duplicates)


def _lists(array: Any, n_items: int | None) -> Source:
    if hasattr(array, "sizes"):
        raise ConfigError("an Arrow list view: cast it to a list array first")
    if hasattr(array, "validate"):
        try:
            array.validate(full=True)  # offsets beyond the values end the process in flatten()
        except ValueError as error:  # ArrowInvalid is one
            raise DataError(f"the list array is damaged ({error}); make it again") from None
    if array.null_count:
        raise DataError(f"the list array has {array.null_count} null rows: a user without positives is an empty list")
    offsets = np.asarray(array.offsets).astype(np.int64)
    values = array.flatten()
    if values.null_count:
        raise DataError(f"the list array holds {values.null_count} null items: drop them first")
    return Source(offsets - offsets[0], np.asarray(values), _agreed(n_items, None, ""))


def _choose(columns: list[Any], use: str, asked: Any, known: tuple[str, ...]) -> Any:
    """The user or item column: the one asked for, or the first known spelling that a column has."""
    shown = ", ".join(map(repr, columns))
    if asked is not None:
        if asked not in columns:
            raise ConfigError(f"no column {asked!r} ({use}_col) in the frame; it has {shown}")
        return asked
    plain = {plain_name(name): name for name in reversed(columns)}
    found = next((plain[spelling] for spelling in known if spelling in plain), None)
    if found is None:
        raise ConfigError(f"no {use} column recognised among {shown}: name it with {use}_col=, or rename it to {use!r}")
    return found


def _ids(frame: Any, name: Any) -> NDArray[Any]:
    """The values of a column: integers from 0, without nulls."""
    column = frame.get_column(name) if hasattr(frame, "get_column") else frame[name]
    if hasattr(column, "null_count"):
        nulls = column.null_count() if callable(column.null_count) else column.null_count  # Polars; PyArrow
    else:
        nulls = np.asarray(column.isna()).sum() if hasattr(column, "isna") else 0
    if np.size(nulls) != 1 or int(nulls):
        raise DataError(f"column {name!r} holds {nulls} nulls: drop them first")
    values = unmasked(f"column {name!r}", column.to_numpy() if hasattr(column, "to_numpy") else column)
    if values.ndim != 1:
        raise DataError(f"column {name!r} is there {values.shape[1]} times; rename all but one")
    if values.dtype.kind not in "iu":
        raise DataError(f"column {name!r} is {values.dtype}: ids must be integers from 0")
    if values.size and int(values.min()) < 0:
        raise DataError(f"column {name!r} holds {int(values.min())}: ids must be integers from 0")
    return values


def _frame(frame: Any, n_items: int | None, user_col: Any, item_col: Any, n_users: int | None) -> Source:
    columns = list(frame.columns)
    user, item = _choose(columns, "user", user_col, USER_COLUMNS), _choose(columns, "item", item_col, ITEM_COLUMNS)
    if user == item:
        raise ConfigError(f"column {user!r} cannot be both user and item; name them with user_col= and item_col=")
    users, items = _ids(frame, user), _ids(frame, item)
    n = _agreed(n_items, None, "")
    if items.size and int(items.max()) >= n:
        raise DataError(f"column {item!r} holds {int(items.max())}, which is not in [0, n_items={n})")
    top = int(users.max()) if users.size else -1
    number = "ids are row numbers from 0: number them first, as Interactions.from_frame does"
    if n_users is not None and top >= n_users:
        raise DataError(f"column {user!r} holds {top}, which is not in [0, n_users={n_users})")
    if top >= MAX_USERS or (n_users is None and top >= SPARE_USERS + 100 * users.size):
        raise DataError(
            f"column {user!r} holds {top} in a frame of {users.size} rows, which asks for {top + 1} users; {number}"
        )
    indptr, merged, duplicates = csr_of_pairs(users, items, top + 1 if n_users is None else n_users)
    return Source(indptr, merged, n, 0, duplicates)
