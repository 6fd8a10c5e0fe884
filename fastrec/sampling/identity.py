"""The position of a training positive: its identity, ``user << 32 | item``, whatever other rows the data have.

B batch rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import unmasked
from fastrec.errors import DataError
from fastrec.jit import inline

_ID_LIMIT = 2**31
_32 = np.int64(32)


@inline
def packed(user, item):  # type: ignore[no-untyped-def]
    """``user << 32 | item`` as int64, in kernels."""
    return np.int64(user) << _32 | np.int64(item)


def identity(users: Any, items: Any) -> NDArray[np.int64]:
    """The positions of (user, item) pairs in stream version 2: ``user << 32 | item``.

    Parameters
    ----------
    users, items : integer[B]
        Contiguous ids, 0 to 2^31-1.

    Returns
    -------
    int64[B]
        What ``sample(users, positions=...)`` takes, and what every batch of a ``Stream`` carries.

    Raises
    ------
    DataError
        Other shapes or dtypes, masked arrays, or an id out of range: the first is named.

    Notes
    -----
    Guarantee: with ``n_items`` (and weights) fixed, the negatives of a pair depend on its user's row only: rows of
    other users may be added, removed or reordered.
    """
    vectors = []
    for name, values in (("users", users), ("items", items)):
        a = unmasked(name, values)
        if a.ndim != 1 or (a.dtype.kind not in "iu" and a.size):
            raise DataError(f"{name} must be a one-dimensional integer array, not {a.dtype}{list(a.shape)}")
        out = np.flatnonzero((a < 0) | (a >= _ID_LIMIT))
        if out.size:
            raise DataError(f"{name}[{out[0]}] = {a[out[0]]}: contiguous ids are in 0 to 2^31-1")
        vectors.append(a.astype(np.int64))
    if vectors[0].shape != vectors[1].shape:
        raise DataError(f"{vectors[0].size} users, but {vectors[1].size} items; give one item for each user")
    return vectors[0] << 32 | vectors[1]
