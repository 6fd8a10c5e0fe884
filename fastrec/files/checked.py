"""JSON that may be damaged or hostile: parsed within limits, and checked against a schema before it is used."""

from __future__ import annotations

import json
import math
import re
from typing import Any

from fastrec.errors import shown


def parse_json(data: bytes | str, *, allow_nan: bool = False, depth: int = 64) -> Any:
    """Parse JSON that may be damaged or hostile: UTF-8, no key twice, at most ``depth`` levels, finite numbers.

    Raises
    ------
    ValueError
        With the reason, whatever is wrong.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) != len(pairs):
            raise ValueError("a key comes twice")
        return made

    def number(text: str) -> float:
        if not allow_nan and not math.isfinite(float(text)):
            raise ValueError(f"{text} is not a finite number")
        return float(text)

    try:
        text = data.decode() if isinstance(data, bytes) else data
        value = json.loads(text, object_pairs_hook=unique, parse_float=number, parse_constant=number)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    level = [value]
    for _ in range(depth):
        level = [v for x in level if isinstance(x, (dict, list)) for v in (x.values() if isinstance(x, dict) else x)]
        if not level:
            return value
    raise ValueError("nested too deeply")


SHA256 = re.compile("[0-9a-f]{64}")
"""In a schema: text that is a sha256 in hexadecimal."""
COUNT = range(2**63)
"""In a schema: an integer from 0 on."""


def expect(value: Any, schema: Any, where: str) -> None:
    """Check JSON against a schema made of Python values.

    Parameters
    ----------
    value : JSON
    schema
        A type (``float`` takes integers too, ``object`` anything); None; a range; a compiled regular expression
        for text; ``[x]`` for a list; ``{str: x}`` for any keys; ``{"key": x, "key?": y}`` for these keys, those with
        a question mark optional and others free; a tuple for alternatives.
    where : str
        What the value is called.

    Raises
    ------
    ValueError
        Naming the first value at fault.
    """
    if isinstance(schema, tuple):
        for k, option in enumerate(schema):
            try:
                return expect(value, option, where)
            except ValueError:
                if k == len(schema) - 1:
                    raise
    if isinstance(schema, list) and isinstance(value, list):
        for k, one in enumerate(value):
            expect(one, schema[0], f"{where}[{k}]")
        return None
    if isinstance(schema, dict) and isinstance(value, dict):
        for key, inner in schema.items():
            if key is str:
                for name, one in value.items():
                    expect(one, inner, f"{where}.{shown(name)}")
            elif key.removesuffix("?") in value:
                expect(value[key.removesuffix("?")], inner, f"{where}.{key.removesuffix('?')}")
            elif not key.endswith("?"):
                raise ValueError(f"{where} has no {key}")
        return None
    if not _fits(value, schema):
        words = {list: "a list", dict: "an object", re.Pattern: "a sha256", range: "an integer from 0 on"}
        expected = words.get(type(schema), getattr(schema, "__name__", str(schema)))
        raise ValueError(f"{where} is {shown(value)}, not {expected}")
    return None


def _fits(value: Any, schema: Any) -> bool:
    if isinstance(schema, range):
        return type(value) is int and value in schema
    if isinstance(schema, re.Pattern):
        return isinstance(value, str) and schema.fullmatch(value) is not None
    if schema is int:
        return type(value) is int and -(2**63) <= value < 2**63
    if schema is float:
        return type(value) is float or (type(value) is int and abs(value) < 2**63)
    return value is None if schema is None else isinstance(schema, type) and isinstance(value, schema)
