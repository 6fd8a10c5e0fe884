"""Contiguous ids of a Polars column."""

from __future__ import annotations

import numpy as np
import polars as pl

from fastrec.data.csr_build import MAX_IDS, factorize, holds_nul, text_array
from fastrec.errors import DataError, shown


def encode_ids(ids: pl.Series, *, max_ids: int = MAX_IDS) -> tuple[np.ndarray, np.ndarray]:
    """``factorize`` for a Polars column; Polars encodes text, since NumPy would widen it to UTF-32 first."""
    if ids.dtype.is_integer():
        return factorize(ids.to_numpy(), ids.name, max_ids=max_ids)
    distinct = ids.unique().sort()
    if distinct.len() > max_ids:
        raise DataError(
            f"{distinct.len()} distinct {ids.name} ids, but contiguous ids are int32: at most {max_ids}; leave some out"
        )
    if distinct.str.contains("\0", literal=True).any():
        row = int(ids.str.contains("\0", literal=True).arg_max() or 0)
        raise holds_nul(f"{ids.name} id {shown(ids[row])} in row {row}")
    codes = ids.cast(pl.Enum(distinct)).to_physical().cast(pl.Int32)
    return codes.to_numpy(), text_array(distinct.to_list())
