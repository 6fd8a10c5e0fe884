"""Checks of single option values."""

from __future__ import annotations

import math
import types
import typing
from collections.abc import Mapping
from typing import Any

from fastrec.errors import ConfigError, shown


def check(name: str, value: Any, wanted: Any, metadata: Mapping[str, Any]) -> Any:
    """A value as the type of its option.

    Raises
    ------
    ConfigError
        If its type, its choice or its size is wrong; the message names the option.
    """
    value = _convert(name, value, wanted)
    if value is None:
        return None
    if isinstance(value, str):
        if metadata["choices"] and value not in metadata["choices"]:
            raise ConfigError(f"{name} = {shown(value)}: must be one of {', '.join(metadata['choices'])}")
        _check_text(name, value)
    if metadata["range"] is not None:
        low, high = metadata["range"]
        if not (math.isfinite(value) and low <= value <= high):
            ends = " to ".join(f"{end:,.0f}" if float(end).is_integer() else f"{end:g}" for end in (low, high))
            raise ConfigError(f"{name} = {value}: must be in {ends}")
    return value


def _check_text(name: str, value: str) -> None:
    """Refuse text that no file name or record can hold, before any work is done."""
    if not value.strip():
        raise ConfigError(f"{name} = {value!r}: is empty; leave it out")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ConfigError(f"{name} = {shown(value)}: holds a NUL or bytes that are not UTF-8")


def _convert(name: str, value: Any, wanted: Any) -> Any:
    """Check ``value`` against the annotation ``wanted``; integers pass for float, lists for tuples."""
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if type(value) is int and abs(value) >= 2**63 and option in (int, float):
            raise ConfigError(f"{name} = {shown(value)}: does not fit 64 bits; give a smaller number")
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option in (str, bool) and isinstance(value, option):
            return value
        if (
            typing.get_origin(option) is tuple
            and isinstance(value, (list, tuple))
            and all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**63 for v in value)
        ):
            return tuple(value)
    words = {float: "a number", int: "an integer", str: "text", bool: "true or false", type(None): "left out"}
    expected = " or ".join(words.get(o, "a list of integers") for o in options)
    raise ConfigError(f"{name} = {shown(value)}: must be {expected}")
