"""Named columns of any table to the canonical ones: which column is which, its type, and its faults."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.readers.parts.where import condition, kept_by
from fastrec.data.source import Columns, Source, is_integer
from fastrec.data.spelling import refuse_endless, refuse_nul
from fastrec.data.times import ISO, settle_time
from fastrec.errors import DataError, FastrecError
from fastrec.sampling.sources import ITEM_COLUMNS, USER_COLUMNS, plain_name

SPELLINGS = {
    "user": USER_COLUMNS,
    "item": ITEM_COLUMNS,
    "rating": ("rating", "score", "stars", "overall"),
    "weight": (),
    "timestamp": (
        *("timestamp", "time", "ts", "unixreviewtime", "unix_timestamp", "datetime", "date", "event_timestamp"),
        *("event_time", "eventtime", "event_date", "created_at", "clicked_at", "watched_at", "viewed_at", "rated_at"),
        *("played_at", "listened_at", "purchased_at", "ordered_at", "occurred_at", "reviewed_at", "time_stamp"),
        *("invoicedate", "order_date", "purchase_date"),
    ),
}
"""Column names that are recognised whatever their case, with ``-`` for ``_``, and with a RecBole type (``:token``)."""

OPTIONS = {"user": "user", "item": "item", "rating": "rating", "timestamp": "time", "weight": "weight"}
"""The option that names a column: ``--time-col`` for ``timestamp``."""

TEXT = (pl.String, pl.Categorical, pl.Enum)


def choose(where: str, header: list[str], columns: Columns) -> dict[str, str]:
    """Which column is the user, the item and, where there are such, the rating and the timestamp.

    Raises
    ------
    DataError
        If a named column is not there, user or item cannot be recognised, or one column would serve twice.
    """
    chosen = {}
    plain = {plain_name(name): name for name in reversed(header)}
    for use, spellings in SPELLINGS.items():
        option = OPTIONS[use]
        asked = getattr(columns, option)
        asked = asked if asked is None else str(asked)  # pandas numbers columns without names
        if asked is not None and asked not in header:
            raise DataError(f"{where}: no column {asked!r} (--{option}-col); the columns are {listed(header)}")
        found = asked or next((plain[s] for s in spellings if s in plain), None)
        if found is not None:
            chosen[use] = found
        elif use in ("user", "item"):
            raise DataError(
                f"{where}: no {use} column recognised among {listed(header)}; name it with --{option}-col "
                f"(from Python {option}_col=). The first line of a table must hold names"
            )
    if columns.time_format is not None and "timestamp" not in chosen:
        raise DataError(
            f"{where}: --time-format {columns.time_format} needs a column of times, and none is recognised among "
            f"{', '.join(header)}; name it with --time-col, or leave the format out"
        )
    for use, name in chosen.items():
        twice = [other for other in chosen if chosen[other] == name and other != use]
        if use in ("rating", "weight") and set(twice) <= {"rating", "weight"}:
            continue  # ratings may weigh
        if twice:
            raise DataError(
                f"{where}: column {name!r} would be both {use} and {twice[0]}; name the columns with --user-col, "
                "--item-col, --rating-col, --time-col and --weight-col"
            )
    return chosen


def listed(names: list[str]) -> str:
    """Names of columns for a message, the first 20, each cut to 40 characters."""
    some = [name if len(name) <= 40 else f"{name[:37]}..." for name in names[:20]]
    return ", ".join(some) + (f" and {len(names) - 20} more" if len(names) > 20 else "")


def first_line(error: BaseException) -> str:
    """The first line of an error's message, or its type."""
    return (str(error).splitlines() or [type(error).__name__])[0]


class Table(NamedTuple):
    """Named columns of a source, not settled yet."""

    lazy: pl.LazyFrame
    """Holds ``needed``, under the names of the source."""
    chosen: dict[str, str]
    """Column for each of "user", "item" and perhaps "rating", "timestamp", "weight"."""
    unused: dict[str, str]
    """The other columns, each with "time" where it looks like one, else with an empty text."""
    needed: list[str]
    """Columns that are chosen, or read by ``where``."""
    again: pl.LazyFrame | None = None
    """A scan that gives the same columns as ``lazy``, where that holds them in memory."""
    notes: tuple[str, ...] = ()


def plan(where: str, header: list[str], columns: Columns) -> tuple[dict[str, str], list[str], list[str]]:
    """The chosen columns, those needed in all, and the unused ones.

    Raises
    ------
    DataError
        As ``choose``.
    ConfigError
        If ``columns.where`` is not a condition on these columns.
    """
    chosen = choose(where, header, columns)
    asked = [] if columns.where is None else condition(columns.where, header)[1]
    needed = list(dict.fromkeys([*chosen.values(), *asked]))
    return chosen, needed, [name for name in header if name not in needed]


def named(
    where: str,
    lazy: pl.LazyFrame,
    columns: Columns,
    extra: Mapping[str, str] | None = None,
    first: pl.DataFrame | None = None,
) -> Table:
    """A frame that has types already as a table.

    Parameters
    ----------
    where : str
        File or name, for messages.
    lazy : polars.LazyFrame
        The frame.
    columns : Columns
        What is asked of it.
    extra : mapping of str to str, optional
        Columns of one value, from the path of the file.
    first : polars.DataFrame, optional
        Its first row, which tells texts that hold dates.
    """
    schema = lazy.collect_schema()
    single = {name: literal(text) for name, text in (extra or {}).items() if name not in schema}
    lazy = lazy.with_columns(**single) if single else lazy
    schema = lazy.collect_schema()
    chosen, needed, rest = plan(where, list(schema), columns)
    sample = {} if first is None or not first.height else first.row(0, named=True)
    unused = {
        name: "time" if schema[name] == pl.Date or schema[name] == pl.Datetime else time_like(str(sample.get(name)))
        for name in rest
    }
    return Table(lazy, chosen, unused, needed)


def literal(text: str) -> pl.Expr:
    """One value of a path, as an integer if it is one."""
    return pl.lit(int(text), pl.Int64) if is_integer(text) else pl.lit(text, pl.String)


def time_like(text: str) -> str:
    """ "time" for the text of a date, else nothing."""
    return "time" if re.match(ISO, text.strip()) else ""


def settled(where: str, table: Table, columns: Columns, kind: str = "table with named columns") -> Source:
    """Filter a table by ``columns.where`` and settle it; notes name the columns that are not used.

    Raises
    ------
    DataError, ConfigError
        As ``settle`` and ``kept_by``.
    """
    lazy, again, notes = table.lazy, table.again, table.notes
    if columns.where is not None:
        with readable(where, "cannot be read"):
            frame = lazy.select(table.needed).collect()
        kept, note = kept_by(columns.where, frame)
        lazy, again, notes = kept.lazy(), None, (*notes, note)
        where = f"{where}, kept rows"
    made, ratings, more = settle(where, lazy, table.chosen, again, columns.time_format)
    if table.unused:
        more = (*more, f"columns not used: {listed(list(table.unused))}")
    catalog = Catalog(ratings=with_datetime(ratings), unused=table.unused)
    return Source(made, catalog, kind, notes + more)


def settle(
    where: str,
    lazy: pl.LazyFrame,
    chosen: dict[str, str],
    again: pl.LazyFrame | None = None,
    time_format: str | None = None,
) -> tuple[pl.DataFrame, pl.LazyFrame, tuple[str, ...]]:
    """Convert chosen columns to the canonical names, order and types.

    Parameters
    ----------
    where : str
        File or name, for messages.
    lazy : polars.LazyFrame
        Holds the columns.
    chosen : dict
        Column for each of "user", "item" and perhaps "rating", "timestamp", "weight".
    again : polars.LazyFrame, optional
        A scan that gives the same columns as ``lazy``, for the lazy result, where ``lazy`` holds them in memory.
    time_format : str, optional
        See ``fastrec.data.times.settle_time``.

    Returns
    -------
    (polars.DataFrame, polars.LazyFrame, tuple of str)
        The canonical frame, the same rows lazily (in the order of the source), and notes.

    Raises
    ------
    DataError
        For ids that are floats or hold NUL, missing values, values that are not numbers, times that cannot be read.
    """
    schema = lazy.collect_schema()
    casts = {}
    for use, column in chosen.items():
        dtype = schema[column]
        kept = pl.col(column)
        if use in ("user", "item"):
            if not (dtype.is_integer() or dtype in TEXT):
                raise DataError(
                    f"{where}: {use} column {column!r} is {dtype}; ids are integers or text, never floats: cast them "
                    "where they are written"
                )
            kept = kept.cast(pl.Int64 if dtype.is_integer() else pl.String)
        elif use in ("rating", "weight"):
            if not dtype.is_numeric():
                raise DataError(f"{where}: {use} column {column!r} is {dtype}; {use}s are numbers")
            kept = kept.cast(pl.Float32)
        elif dtype.is_integer():
            kept = kept.cast(pl.Int64)
        elif dtype in TEXT:
            kept = kept.cast(pl.String)
        casts[use] = kept
    with readable(where, "cannot be read"):
        try:
            frame = lazy.select(**casts).collect()
        except pl.exceptions.InvalidOperationError:
            _refuse_large(where, lazy, chosen)
            raise
    if not frame.height:
        raise DataError(f"{where}: the table has no rows")
    for use, column in chosen.items():
        bad = frame[use].is_null()
        if frame[use].dtype.is_float():
            bad = bad | ~frame[use].is_finite().fill_null(False)
        if bad.any():
            raise DataError(f"{where}, data row {bad.arg_max()}: {column} is missing or no number. Fix or remove it")
        if use == "weight" and (below := frame[use] < 0).any():
            row = int(below.arg_max() or 0)
            raise DataError(f"{where}, data row {row}: {column} {frame[use][row]:g} is below 0; a weight is at least 0")
        if use in ("user", "item") and frame[use].dtype == pl.String:
            refuse_nul(frame[use], column, lambda row: f"{where}, data row {row}")
            refuse_endless(frame[use], column, lambda row: f"{where}, data row {row}")
    frame, seconds, notes = settle_time(frame, lambda row: f"{where}, data row {row}", time_format)
    lazy = (lazy if again is None else again).select(**casts)
    return frame, lazy if seconds is None else lazy.with_columns(timestamp=seconds), notes


def _refuse_large(where: str, lazy: pl.LazyFrame, chosen: dict[str, str]) -> None:
    """Name the first integer that does not fit 64 bits with sign."""
    schema = lazy.collect_schema()
    for use, column in chosen.items():
        if use not in ("rating", "weight") and schema[column].is_integer():
            values = lazy.select(column).collect().to_series()
            lost = values.cast(pl.Int64, strict=False).is_null() & values.is_not_null()
            if lost.any():
                row = int(lost.arg_max() or 0)
                advice = "write these ids as text" if use != "timestamp" else "no date is that far away"
                raise DataError(
                    f"{where}, data row {row}: {column} {values[row]} does not fit 64 bits with sign; {advice}"
                )


@contextlib.contextmanager
def readable(where: str, what: str) -> Iterator[None]:
    """Turn what Polars raises into a DataError, panics of its Rust code included (they are no ``Exception``).

    Raises
    ------
    DataError
        Instead of PolarsError, PanicException and OSError.
    """
    try:
        yield
    except FastrecError:
        raise
    except (pl.exceptions.PolarsError, OSError, ValueError) as error:
        raise DataError(f"{where}: {what} ({first_line(error)[:200]}); write it again") from None
    except pl.exceptions.PanicException as error:
        raise DataError(
            f"{where}: {what}: damaged, Polars stops with {first_line(error)[:200]!r}; write it again"
        ) from None
