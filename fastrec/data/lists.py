"""Lists of items as frames and files, and the choice of items by fields of the catalogue."""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray
from polars.io.plugins import register_io_source

from fastrec.data.tables import system_error
from fastrec.errors import ConfigError, DataError, shown
from fastrec.files import atomic_write

FORMATS = (".parquet", ".csv", ".jsonl")
"""What lists can be written as."""


def series(values: NDArray[Any]) -> pl.Series:
    """An array of ids or titles as a column."""
    return pl.Series(values.tolist(), dtype=pl.String) if values.dtype.kind in "UO" else pl.Series(values)


def aligned(table: pl.DataFrame | None, key: str, ids: NDArray[Any], titles: NDArray[Any] | None) -> pl.DataFrame:
    """A table of the catalogue with one row per contiguous id, in their order; nulls where it has no row for an id."""
    base = pl.DataFrame({key: series(ids)})
    if table is not None:
        return base.join(table, on=key, how="left", maintain_order="left")
    return base if titles is None else base.with_columns(title=series(titles))


def matching(items: pl.DataFrame, where: Any) -> NDArray[np.bool_]:
    """Which rows of the aligned table of items fit.

    Parameters
    ----------
    items : polars.DataFrame
        See ``aligned``.
    where : polars.Expr or mapping of str to value
        An expression that gives a boolean for each item; or, by column, a value, a list of values of which one must
        fit, or a tuple (low, high) of a closed range, None being open. In a column of lists one element must fit. All
        columns of a mapping must fit. A null never fits.

    Raises
    ------
    ConfigError
        For a column or value that the table does not have, or an expression that Polars refuses.
    """
    if isinstance(where, pl.Expr):
        expression = where
    elif isinstance(where, Mapping):
        parts = [_condition(items, str(name), value) for name, value in where.items()]
        expression = pl.all_horizontal(parts) if parts else pl.lit(True)
    else:
        raise ConfigError(
            f"where is a {type(where).__name__}: give a mapping of columns to values, or a Polars expression"
        )
    try:
        mask = items.select(expression).to_series()
    except pl.exceptions.PolarsError as error:
        raise ConfigError(f"where: {error}; the items have {', '.join(items.columns)}") from None
    if mask.dtype != pl.Boolean or mask.len() not in (1, items.height):
        raise ConfigError(
            f"where gives {mask.dtype}[{mask.len()}]: it must give a boolean for each of {items.height} items"
        )
    flags = mask.fill_null(False).to_numpy()
    return np.array(np.broadcast_to(flags, items.height), np.bool_)


def _condition(items: pl.DataFrame, name: str, value: Any) -> pl.Expr:
    if name not in items.columns:
        near = difflib.get_close_matches(name, items.columns, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"where: the items have no column {shown(name)}, only {', '.join(items.columns)}{hint}")
    column, dtype = pl.col(name), items.schema[name]
    if isinstance(value, tuple):
        if len(value) != 2 or not dtype.is_numeric():
            raise ConfigError(f"where: {name} = {shown(value)}: a range is (low, high), of a column of numbers")
        low, high = value
        inside = column.is_not_null()
        for bound, side in ((low, column >= pl.lit(low)), (high, column <= pl.lit(high))):
            if bound is not None:
                if isinstance(bound, bool) or not isinstance(bound, (int, float)):
                    raise ConfigError(f"where: {name} = {shown(value)}: the bounds of a range are numbers, or None")
                inside = inside & side
        return inside
    values = list(value) if isinstance(value, (list, set, frozenset)) else [value]
    listed = isinstance(dtype, pl.List)
    distinct = items[name].explode().unique() if listed else items[name].unique()
    try:
        wanted = pl.Series(values, dtype=distinct.dtype, strict=True)
    except (TypeError, OverflowError, pl.exceptions.PolarsError):
        raise ConfigError(f"where: {name} = {shown(value)}: the column holds {distinct.dtype}") from None
    absent = [one for one in values if one not in set(distinct.to_list())]
    if absent:
        known = [str(one) for one in distinct.drop_nulls().sort().to_list()]
        near = difflib.get_close_matches(str(absent[0]), known, 3, 0.4) or known[:8]
        raise ConfigError(f"where: no item has {name} {shown(absent[0])}; there are {', '.join(map(shown, near))} ...")
    if listed:
        return column.list.eval(pl.element().is_in(wanted.implode())).list.any()
    return column.is_in(wanted.implode())


def frame_of(columns: Mapping[str, Any]) -> pl.DataFrame:
    """Arrays, or ``(column, index)`` to take rows of a column by, as a frame."""
    made = []
    for name, values in columns.items():
        if isinstance(values, tuple):
            made.append(values[0].gather(values[1]).alias(name))
        else:
            made.append(pl.Series(name, values))
    return pl.DataFrame(made)


def check_format(path: str | os.PathLike[str]) -> Path:
    """The path, if lists can be written to it.

    Raises
    ------
    ConfigError
        For another suffix, a file that exists, or a folder that does not.
    """
    path = Path(path)
    if path.suffix not in FORMATS:
        raise ConfigError(f"{path}: the file name must end in {', '.join(FORMATS)}, which chooses the format")
    if os.path.lexists(path):
        raise ConfigError(f"{path}: exists and is not overwritten; name another file")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first, or name another file")
    return path


def write_frames(path: str | os.PathLike[str], frames: Iterator[pl.DataFrame]) -> int:
    """Write frames of one schema to one file, atomically, a frame at a time; returns the number of rows.

    Raises
    ------
    ConfigError
        See ``check_format``.
    DataError
        If there is no frame.
    FastrecError
        If the file cannot be written.
    """
    path, rows = check_format(path), 0
    first = next(frames, None)
    if first is None:
        raise DataError(f"{path}: there is nothing to write")
    with atomic_write(path) as part:
        try:
            if path.suffix == ".parquet":
                return _write_parquet(part, first, frames)
            with part.open("wb") as f:
                for k, frame in enumerate(_chained(first, frames)):
                    if path.suffix == ".csv":
                        frame.write_csv(f, include_header=k == 0)
                    else:
                        frame.write_ndjson(f)
                    rows += frame.height
        except pl.exceptions.PolarsError as error:
            raise system_error(error) or error from None
    return rows


def _write_parquet(part: Path, first: pl.DataFrame, frames: Iterator[pl.DataFrame]) -> int:
    """One file of several row groups: Polars asks for the frames as it writes."""
    rows, raised = 0, []

    def source(*_: Any) -> Iterator[pl.DataFrame]:
        nonlocal rows
        try:
            for frame in _chained(first, frames):
                rows += frame.height
                yield frame
        except BaseException as error:  # raised below as it is: Polars would make its own of it
            raised.append(error)
            raise

    lazy = register_io_source(source, schema=first.schema)
    try:
        lazy.sink_parquet(part, engine="streaming")
    except Exception:
        if not raised:
            raise
    if raised:
        raise raised[0]
    return rows


def _chained(first: pl.DataFrame, frames: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
    yield first
    yield from frames
