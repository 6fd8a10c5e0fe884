"""Frames in memory: Polars, pandas, PyArrow, or a mapping of arrays."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl

from fastrec.data.csr_build import as_array
from fastrec.data.readers.parts.columns import Table, first_line, named, plan, readable, settled
from fastrec.data.source import Columns, Source
from fastrec.errors import DataError

KIND = "frame in memory"


def read_frame(frame: Any, columns: Columns, name: str) -> Source:
    """A frame in memory: Polars, eager or lazy, or anything with named columns that NumPy can read (pandas, a dict).

    Raises
    ------
    DataError
        Naming the row at fault.
    """
    if hasattr(frame, "column_names") and hasattr(frame, "to_batches"):  # PyArrow
        with readable(name, "not a readable Arrow table"):
            frame = pl.from_arrow(frame)
    if isinstance(frame, (pl.DataFrame, pl.LazyFrame)):
        first = frame.head(1) if isinstance(frame, pl.DataFrame) else None
        return settled(name, named(name, frame.lazy(), columns, None, first), columns, KIND)
    try:
        keys = {str(column): column for column in (frame.columns if hasattr(frame, "columns") else frame)}
    except TypeError:
        raise DataError(f"{name}: {type(frame).__name__} has no named columns; pass a frame or a mapping") from None
    chosen, needed, rest = plan(name, list(keys), columns)
    arrays = {column: _series(name, column, frame[keys[column]]) for column in needed}
    lengths = {column: series.len() for column, series in arrays.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{name}: the columns differ in length ({lengths}); each row needs all of them")
    unused = {
        column: "time" if str(getattr(frame[keys[column]], "dtype", "")).startswith("datetime") else ""
        for column in rest
    }
    return settled(name, Table(pl.LazyFrame(arrays), chosen, unused, needed), columns, KIND)


def _series(where: str, column: str, values: Any) -> pl.Series:
    if isinstance(values, pl.Series):
        return values.alias(column)
    values = as_array(values, f"{where}: the values of column {column!r}")
    try:
        array = values if isinstance(values, (list, tuple)) else np.asarray(values)
        if isinstance(array, np.ndarray) and array.dtype.kind in "OT":
            array = array.tolist()
        return pl.Series(column, array)
    except (TypeError, ValueError, OverflowError, pl.exceptions.PolarsError) as error:
        raise DataError(
            f"{where}: column {column!r} mixes types or holds none of them ({first_line(error)}); ids are integers of "
            "64 bits or text, times and ratings numbers"
        ) from None
