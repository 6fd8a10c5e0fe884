"""Immutable arrays, which a sampler or a model reads without a copy."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from fastrec.data.csr_build import as_array, refuse_masked, text_array
from fastrec.errors import DataError

MAX_SECONDS = 10**11
"""The year 5138; every date in milliseconds from 1973 on is larger."""

Array = TypeVar("Array", bound=NDArray[Any])


def frozen(array: Array) -> Array:
    """Make an array read-only, with the memory under it. For new arrays, which no caller holds.

    Cost: none, where ``immutable`` would copy.
    """
    at: Any = array
    while isinstance(at, np.ndarray):
        at.flags.writeable = False
        at = at.base
    return array


def immutable(array: NDArray[Any]) -> NDArray[Any]:
    """A read-only view that cannot be made writable again; a copy if the memory is writable elsewhere.

    Cost: a copy of an array that is writable, or a view of one that is; none for mapped files and ``frozen`` arrays.
    """
    if _writable(array):
        array = frozen(array.copy())
    # the owner of memory may be made writable again, a view of a read-only owner may not
    return array.view(np.ndarray) if array.flags.owndata or type(array) is not np.ndarray else array


def _writable(array: NDArray[Any]) -> bool:
    """Whether the array, or anything that it is a view of, may be written to."""
    at: Any = array
    while isinstance(at, np.ndarray):
        if at.flags.writeable:
            return True
        at = at.base
    try:
        return at is not None and not memoryview(at).readonly
    except TypeError:  # not a buffer: its owner is unknown
        return True


def plain(values: Any, what: str) -> NDArray[Any]:
    """``values`` as a one-dimensional array.

    Raises
    ------
    DataError
        For masked rows, another number of dimensions, or what is not an array.
    """
    refuse_masked(values, what)
    try:
        array = np.asarray(values)
    except (ValueError, TypeError, OverflowError) as error:
        raise DataError(f"{what} is not an array ({error}); pass one value per entry") from None
    if array.ndim != 1:
        raise DataError(f"{what} has shape {array.shape}; it must be one-dimensional")
    return array


def texts(values: Any, what: str) -> NDArray[Any]:
    """One-dimensional text: of fixed width, or objects where one long text would widen all the others."""
    array = plain(values, what)
    if array.dtype.kind == "U":
        return array
    if not all(isinstance(v, str) for v in array.tolist()):
        raise DataError(f"{what} are {array.dtype}; they must be text")
    return text_array(array.tolist())


def integers(values: Any, size: int, name: str, what: str) -> NDArray[Any]:
    """A column of integers, one for each interaction; ``name`` and ``what`` name it in messages."""
    values = plain(values, f"{name}: {what}")
    if values.shape != (size,):
        raise DataError(f"{name}: {what} has shape {values.shape}, items ({size},); they must agree")
    wide = what == "timestamps" or values.dtype != np.int32
    if values.dtype.kind not in "iu" or (values.dtype == np.uint64 and size and values.max() > np.iinfo(np.int64).max):
        raise DataError(f"{name}: {what} are {values.dtype}; they must be integers of 64 bits with sign")
    return immutable(values.astype(np.int64 if wide else np.int32, copy=False))


def weights_of(values: Any, size: int, name: str) -> NDArray[np.float32]:
    """A column of weights as float32, one for each interaction: finite and at least 0."""
    values = plain(values, f"{name}: weights")
    if values.shape != (size,):
        raise DataError(f"{name}: weights has shape {values.shape}, items ({size},); they must agree")
    if values.dtype.kind not in "iufb":
        raise DataError(f"{name}: weights are {values.dtype}; they must be numbers")
    with np.errstate(over="ignore"):
        found = values.astype(np.float32, copy=False)
    wrong = ~(np.isfinite(found) & (found >= 0))
    if wrong.any():
        row = int(wrong.argmax())
        raise DataError(
            f"{name}: weight {values[row]} in row {row}; weights are finite and at least 0: fix or leave out the row"
        )
    return immutable(found)


def as_int64(values: Any, what: str) -> NDArray[np.int64]:
    """One-dimensional integers as int64; floats are refused, because they round."""
    values = as_array(values, what)
    if values.dtype.kind not in "iu":
        raise DataError(f"{what} are {values.dtype}; they must be integers (seconds since 1970 UTC)")
    if values.dtype == np.uint64 and values.size and values.max() > np.iinfo(np.int64).max:
        row = int(values.argmax())
        raise DataError(f"{what}: {values[row]} in row {row} does not fit 64 bits with sign; no date is that far away")
    return np.ascontiguousarray(values, dtype=np.int64)


def seconds(values: Any, what: str) -> NDArray[np.int64]:
    """One-dimensional times as int64; those that milliseconds and finer units since 1970 would be are refused.

    Raises
    ------
    DataError
        Naming the first time of 10^11 and more, before or after 1970.
    """
    times = as_int64(values, what)
    if times.size and (times.max() >= MAX_SECONDS or times.min() <= -MAX_SECONDS):
        row = int(np.flatnonzero((times >= MAX_SECONDS) | (times <= -MAX_SECONDS))[0])
        raise DataError(
            f"{what}: {times[row]} in row {row} is too large for seconds since 1970; divide milliseconds by 1000, "
            "microseconds by 10^6, nanoseconds by 10^9"
        )
    return times
