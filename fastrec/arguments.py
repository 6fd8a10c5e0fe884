"""Checks of single arguments: integers, arrays without a mask, and memory to fill."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError


def as_int(name: str, value: Any) -> int:
    """``value`` as an int: an int, a NumPy integer, or a 0-d integer array or tensor.

    A float is refused even where it is integral: an epoch of ``step / steps`` cut to an integer is 0 at every step.

    Raises
    ------
    ConfigError
        For a float, bool, string, masked value or anything else.
    """
    if type(value) is int:
        return value
    flag = isinstance(value, bool | np.bool_) or "bool" in str(getattr(value, "dtype", ""))
    if not flag and not getattr(value, "shape", ()) and not isinstance(value, np.ma.MaskedArray):
        try:
            return operator.index(value)
        except TypeError:
            pass
    raise ConfigError(f"{name}={value!r} ({type(value).__name__}): must be an integer, such as 3")


def as_float(name: str, value: Any) -> float:
    """``value`` as a float: a number, of Python or NumPy, that is neither complex nor a bool.

    Raises
    ------
    ConfigError
        For anything else; NaN and infinities pass.
    """
    if isinstance(value, (int, float, np.integer, np.floating)) and not isinstance(value, bool):
        try:
            return float(value)
        except OverflowError:
            pass
    raise ConfigError(f"{name}={value!r} ({type(value).__name__}): must be a number, such as 0.5")


def as_bool(name: str, value: Any) -> bool:
    """``value`` as a bool; only bools are: the text "no" is as true as any other.

    Raises
    ------
    ConfigError
        For anything else.
    """
    if isinstance(value, (bool, np.bool_)):
        return bool(value)
    raise ConfigError(f"{name}={value!r} ({type(value).__name__}): must be True or False")


def unmasked(name: str, values: Any) -> NDArray[Any]:
    """``np.asarray(values)``, or the host memory of a DLPack object; a masked array is refused.

    NumPy would drop the mask and keep what it hides.

    Raises
    ------
    DataError
        For a masked array, or a tensor on a device or with gradients.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(
            f"{name} is a masked array ({int(np.ma.count_masked(values))} values masked): pass a plain array, "  # type: ignore[no-untyped-call]
            "for example its .compressed()"
        )
    if not hasattr(values, "__dlpack__"):
        return np.asarray(values)
    try:
        return np.asarray(values) if hasattr(values, "__array__") else np.from_dlpack(values)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"{name} is a {type(values).__name__} that the host cannot read: {error}") from None


def memory(name: str, out: Any) -> Any:
    """The memory of ``out`` as a NumPy array where it is a DLPack object, such as a torch tensor; else ``out`` itself.

    Raises
    ------
    ConfigError
        For a tensor on a device or with gradients.
    """
    if isinstance(out, np.ndarray) or not hasattr(out, "__dlpack__"):
        return out
    try:
        return np.from_dlpack(out)  # never a copy, where ``__array__`` may make one
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ConfigError(f"{name} is a {type(out).__name__} that the host cannot fill: {error}") from None
