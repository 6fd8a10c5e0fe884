"""The arrays of one call of ``sample``: users and positions in, negatives out."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import memory, unmasked
from fastrec.errors import ConfigError, DataError


def vector(name: str, values: Any, dtype: type, bound: int) -> NDArray[Any]:
    """``values`` as a contiguous vector of ``dtype``; values that the dtype cannot hold are refused here."""
    a = unmasked(name, values)
    if a.ndim != 1 or (a.dtype.kind not in "iu" and a.size):
        raise DataError(f"{name} must be a one-dimensional integer array, not {described(a)}")
    if a.dtype != dtype and a.size and not np.can_cast(a.dtype, dtype, "safe"):
        limits = np.iinfo(dtype)
        bad = np.flatnonzero((a > limits.max) | (a < limits.min))
        if bad.size:
            raise DataError(f"{name}[{bad[0]}] = {a[bad[0]]} is not in [0, {bound})")
    return np.ascontiguousarray(a, dtype=dtype)


def output(out: Any, shape: tuple[int, int]) -> NDArray[np.int32]:
    """The memory to fill: ``out``, or that of a torch tensor or another DLPack object.

    Raises
    ------
    ConfigError
        For another shape, dtype or layout, or memory that the host cannot write to.
    """
    array: Any = memory("out", out)
    fits = isinstance(array, np.ndarray) and not isinstance(array, np.ma.MaskedArray)
    if not fits or array.dtype != np.int32 or array.shape != shape:
        raise ConfigError(f"out is {described(array)}; must be a NumPy array or CPU tensor, int32{list(shape)}")
    if not array.flags.c_contiguous or not array.flags.writeable:
        raise ConfigError("out must be C-contiguous and writeable; pass a complete array, not a slice of columns")
    checked: NDArray[np.int32] = array
    return checked


def read_only(array: NDArray[Any]) -> NDArray[Any]:
    """A view that cannot be made writeable. The array itself stays so: Numba dispatches read-only arrays slower."""
    return np.asarray(array.data.toreadonly())


def described(value: Any) -> str:
    """dtype and shape of an array, or the type of anything else."""
    return f"{value.dtype}{list(value.shape)}" if type(value) is np.ndarray else type(value).__name__
