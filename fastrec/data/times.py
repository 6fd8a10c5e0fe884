"""Times of every reader to full seconds since 1970 UTC, by one rule."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import polars as pl

from fastrec.errors import DataError, shown

UNITS = {1: "seconds", 10**3: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
"""Values of ``time_format`` that name a unit; any other is a strptime pattern."""

LARGEST_S = 9.2e12
"""Most seconds before or after 1970: what int64 microseconds hold."""

ISO = (
    r"^(\d{4}[-/]\d{2}[-/]\d{2})(?:[T ](\d{2}):(\d{2})(?::(\d{2})(?:[.,](\d{1,9}))?)?"
    r"(?: ?(?:Z|UTC|([+-])([01]\d|2[0-3]):?([0-5]\d)?))?)?$"
)
"""Year first; then perhaps hours and minutes, seconds, a fraction and a zone. UTC where no zone is given."""

NUMBER = r"^\s*[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"


def settle_time(
    frame: pl.DataFrame, at: Callable[[int], str], time_format: str | None = None
) -> tuple[pl.DataFrame, pl.Expr | None, tuple[str, ...]]:
    """Convert ``timestamp`` to full seconds since 1970 UTC; also the expression that does so.

    The unit of numbers, integers and floats alike, follows from their size (``unit_of``); text is read as ISO dates,
    UTC where no zone is given. ``time_format`` replaces both: a unit, or a strptime pattern. Where fractions of a
    second are cut, the rows are put in order of time first, so that ties still fall the right way; a note reports it.

    Parameters
    ----------
    frame : polars.DataFrame
        No nulls, no NaN; ``timestamp`` may be missing.
    at : callable
        Names the place of a row: "ratings.csv, data row 3".
    time_format : str, optional
        "s", "ms", "us", "ns", or a strptime pattern.

    Raises
    ------
    DataError
        Naming the row whose time is not a date, is out of range, or is in another unit than the others.
    """
    if "timestamp" not in frame.columns:
        return frame, None, ()
    time, notes = pl.col("timestamp"), []
    dtype = frame.schema["timestamp"]
    pattern = time_format is not None and time_format not in PER_SECOND
    if pattern and (dtype == pl.String or dtype.is_integer()):
        time = time.cast(pl.String).str.to_datetime(time_format, time_unit="us", strict=False).dt.epoch("us")
        _require_all(frame, time, at, f"does not match --time-format {time_format}")
        per_second = 10**6
    elif dtype.is_numeric() and not pattern and (dtype.is_integer() or dtype.is_float()):
        per_second = unit_of(frame["timestamp"], at, PER_SECOND.get(time_format or ""))
        if per_second > 1 and time_format is None:
            notes.append(f"times taken for {UNITS[per_second]}, by their size")
        if dtype.is_float():
            time, per_second = (time / (per_second / 1e6)).round(), 10**6
    elif time_format is not None:
        raise DataError(f"{at(0)}: --time-format {time_format} cannot read a time column of {dtype}; leave it out")
    elif dtype == pl.String:
        time = _iso(time)
        _require_all(frame, time, at, "is neither a number nor an ISO date (2024-01-05 10:00:00)")
        per_second = 10**6
    elif dtype == pl.Date or dtype == pl.Datetime:
        time, per_second = time.cast(pl.Datetime("us", getattr(dtype, "time_zone", None))).dt.epoch("us"), 10**6
    else:
        raise DataError(f"{at(0)}: the time column is {dtype}; it must hold numbers, dates or text")
    fine = frame.select(time.cast(pl.Int64)).to_series()
    seconds = time.cast(pl.Int64) // per_second
    frame = frame.with_columns(timestamp=fine // per_second)
    if per_second > 1 and ((fine % per_second) != 0).any():
        frame = frame[np.argsort(fine.to_numpy(), kind="stable")]
        notes.append("times cut to full seconds, after their order was taken")
    return frame, seconds, tuple(notes)


def as_numbers(times: pl.Series, at: Callable[[int], str]) -> pl.Series:
    """Times that were read as text, as integers or floats where every one of them is a number, else unchanged.

    Raises
    ------
    DataError
        Naming the first integer that does not fit 64 bits with sign.
    """
    long = times.str.len_bytes() > 19
    if long.any():
        long &= times.str.contains(r"^[+-]?[0-9]+$") & times.cast(pl.Int64, strict=False).is_null()
        if long.any():
            row = int(long.arg_max() or 0)
            raise DataError(
                f"{at(row)}: time {shown(times[row])} does not fit 64 bits and is out of range for any date. Fix or "
                "remove it"
            )
    if not times.str.contains(NUMBER).all():
        return times
    plain = times.str.strip_chars().str.strip_prefix("+")
    whole = plain.cast(pl.Int64, strict=False)
    return whole if not whole.null_count() else plain.cast(pl.Float64)


def _require_all(frame: pl.DataFrame, parsed: pl.Expr, at: Callable[[int], str], why: str) -> None:
    missing = frame.select(parsed.is_null()).to_series()
    if missing.any():
        row = int(missing.arg_max() or 0)
        raise DataError(
            f"{at(row)}: time {shown(str(frame['timestamp'][row]))} {why}. Fix or remove it, or describe the times by "
            "--time-format, such as '%d/%m/%Y %H:%M'"
        )


def _iso(text: pl.Expr) -> pl.Expr:
    """Microseconds since 1970 of ISO dates, null where the text is none."""
    part = text.str.strip_chars().str.extract_groups(ISO).struct
    clock = [part.field(str(k)).fill_null("00") for k in (2, 3, 4)]
    whole = pl.concat_str(part.field("1").str.replace_all("/", "-", literal=True), *clock, separator=" ")
    fraction = part.field("5").str.pad_end(6, "0").str.slice(0, 6).cast(pl.Int64).fill_null(0)
    minutes = part.field("7").cast(pl.Int64).fill_null(0) * 60 + part.field("8").cast(pl.Int64).fill_null(0)
    offset = pl.when(part.field("6") == "-").then(-minutes).otherwise(minutes) * 60_000_000
    return whole.str.to_datetime("%Y-%m-%d %H %M %S", time_unit="us", strict=False).dt.epoch("us") + fraction - offset


def unit_of(values: pl.Series, at: Callable[[int], str], given: int | None = None) -> int:
    """How many of the unit make a second: 1, 10^3, 10^6 or 10^9, by the size of the values.

    Below 10^11 they are seconds (the year 5138), and each further unit begins a factor of 1000 higher, so that every
    date from 1973 to 5138 has one unit only. Zero fits every unit.

    Raises
    ------
    DataError
        Naming the row that is out of range, or in another unit than most.
    """
    size = values.cast(pl.Float64).abs()
    largest = float(size.max() or 0)  # type: ignore[arg-type]
    if given is None and largest < 1e11:
        return 1
    if largest >= min(LARGEST_S * given if given else np.inf, 2.0**63):
        row = int(size.arg_max() or 0)
        raise DataError(f"{at(row)}: time {values[row]} is out of range for any date. Fix or remove it")
    if given is not None:
        return given
    power = sum((size >= limit).cast(pl.Int8) for limit in (1e11, 1e14, 1e17))
    assert isinstance(power, pl.Series)
    present = power.filter(size > 0)
    powers = sorted(
        present.unique().to_list(), key=lambda p: (-int((present == p).sum()), p)
    )  # the most frequent first
    if len(powers) > 1:
        rows = [int(((power == p) & (size > 0)).arg_max() or 0) for p in powers]
        row, other = rows[-1], rows[0]
        raise DataError(
            f"{at(row)}: time {values[row]} reads as {UNITS[1000 ** powers[-1]]}, but {values[other]} in {at(other)} "
            f"as {UNITS[1000 ** powers[0]]}; write all in one unit, or name it with --time-format (s, ms, us, ns)"
        )
    return int(1000 ** powers[0])
