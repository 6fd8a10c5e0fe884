"""Checks of single arguments: whole numbers, and arrays without a mask."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError


def whole(name: str, value: Any) -> int:
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
    raise ConfigError(f"{name}={value!r} ({type(value).__name__}): must be a whole number, such as 3")


def unmasked(name: str, values: Any) -> NDArray[Any]:
    """``np.asarray(values)``, refusing a masked array: NumPy would drop the mask and keep what it hides.

    Raises
    ------
    DataError
        For a masked array.
    """
    if isinstance(values, np.ma.MaskedArray):
        raise DataError(
            f"{name} is a masked array ({int(np.ma.count_masked(values))} values masked): pass a plain array, "
            "for example its .compressed()"
        )
    return np.asarray(values)
