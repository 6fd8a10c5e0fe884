"""The only writer of Parquet, and the reader of the tables that a run keeps."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.errors import DataError
from fastrec.files import atomic_write, reason, sha256_file


def system_error(error: Exception) -> OSError | None:
    """The system's refusal to write (a full disk, say) behind an error of Polars, which hides it in its message."""
    found = re.search(r"\(os error (\d+)\)", str(error))
    return OSError(int(found[1]), os.strerror(int(found[1]))) if found else None


def write_parquet(
    path: str | os.PathLike[str], columns: Mapping[str, NDArray[Any]], metadata: Mapping[str, str] | None = None
) -> None:
    """Write arrays of equal length as the columns of one Parquet file.

    Parameters
    ----------
    path : path
        The file to make or replace.
    columns : mapping of str to array
        Numbers [n] as they are; numbers [n, d] as lists of d; text [n] as strings, in object arrays with None for null.
    metadata : mapping of str to str, optional
        Key-value metadata of the file.

    Raises
    ------
    DataError
        If the columns differ in length, or are float16 and this Polars cannot write it.
    OSError
        If the file cannot be written.
    """
    lengths = {name: values.shape[0] for name, values in columns.items()}
    if len(set(lengths.values())) > 1:
        raise DataError(f"{path}: columns differ in length ({lengths}); a table has one value of each per row")
    if not hasattr(pl, "Float16") and any(values.dtype == np.float16 for values in columns.values()):
        raise DataError(f"{path}: Polars {pl.__version__} writes no float16; use a newer one, or float32")
    series = []
    for name, values in columns.items():
        if values.dtype.kind in "UO":
            series.append(pl.Series(name, values.tolist(), dtype=pl.String))
        elif values.ndim == 2:
            series.append(pl.Series(name, values).cast(pl.List(pl.Series(values[:0, 0]).dtype)))
        else:
            series.append(pl.Series(name, values))
    try:
        pl.DataFrame(series).write_parquet(Path(path), metadata=None if metadata is None else dict(metadata))
    except pl.exceptions.PolarsError as error:
        raise system_error(error) or DataError(f"{path}: Polars cannot write it ({error})") from None


def write_frame(path: str | os.PathLike[str], frame: pl.DataFrame) -> str:
    """Write a frame as one Parquet file, atomically, and return its sha256.

    Raises
    ------
    DataError
        If a column has a type that Parquet does not hold.
    FastrecError
        If the file cannot be written.
    """
    with atomic_write(path) as part:
        try:
            frame.write_parquet(part, statistics=False)
        except (pl.exceptions.PolarsError, TypeError, ValueError) as error:
            if refused := system_error(error):
                raise refused from None
            raise DataError(f"{path}: the table cannot be kept as Parquet ({error}); drop that column") from None
        return sha256_file(part)


def read_frame_file(path: str | os.PathLike[str], key: str) -> pl.DataFrame:
    """Read what ``write_frame`` wrote; ``key`` names the column of ids that it must have, each id once.

    Raises
    ------
    DataError
        If the file is missing, damaged or another table.
    """
    try:
        frame = pl.read_parquet(Path(path), glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({reason(error)}); copy it again") from None
    except BaseException as error:  # Rust panics derive from BaseException
        if type(error).__name__ != "PanicException":
            raise
        raise DataError(f"{path}: not a readable Parquet file ({error}); copy it again") from None
    if (
        key not in frame.columns
        or frame[key].dtype not in (pl.Int64, pl.String)
        or frame[key].n_unique() < frame.height
    ):
        raise DataError(f"{path}: has no column {key!r} of distinct ids; copy it again")
    return frame


def read_columns(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read a table of numbers, booleans and text that ``write_parquet`` wrote, as arrays by name.

    Raises
    ------
    DataError
        If the file is missing or damaged.
    """
    try:
        frame = pl.read_parquet(Path(path), glob=False)
    except (OSError, pl.exceptions.PolarsError) as error:
        raise DataError(f"{path}: not a readable Parquet file ({reason(error)}); copy it again") from None
    return {
        c.name: np.array(c.to_list(), dtype=str) if c.dtype == pl.String else c.to_numpy() for c in frame.get_columns()
    }
