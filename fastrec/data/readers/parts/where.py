"""``--where``: one SQL expression over the columns of a table."""

from __future__ import annotations

import re

import polars as pl

from fastrec.errors import ConfigError, shown

FORBIDDEN = re.compile(r";|--|/\*|\b(select|with|values|read_\w+|scan_\w+)\b", re.IGNORECASE)
"""What no expression over one row needs: further statements, comments, queries, functions that read files."""


def condition(where: str, header: list[str]) -> tuple[pl.Expr, list[str]]:
    """The expression and the columns that it reads.

    Raises
    ------
    ConfigError
        If it is not one expression, queries anything but the row, or names a column that is not there.
    """
    example = "give one condition on columns, such as \"event = 'purchase'\""
    if FORBIDDEN.search(re.sub(r"'[^']*'|\"[^\"]*\"", "''", where)):
        raise ConfigError(f"--where {shown(where)}: only the columns of the table can be used, no queries; {example}")
    try:
        expression = pl.sql_expr(where)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        cause = (str(error).splitlines() or [""])[0][:200]
        raise ConfigError(f"--where {shown(where)}: {cause}; {example}") from None
    names = list(dict.fromkeys(expression.meta.root_names()))
    absent = [name for name in names if name not in header]
    if absent:
        there = ", ".join(shown(name, 40)[1:-1] for name in header[:20])
        raise ConfigError(f"--where {shown(where)}: no column {shown(absent[0])}; the columns are {there}")
    if not names:
        raise ConfigError(f"--where {shown(where)}: names no column; {example}")
    return expression, names


def kept_by(where: str, frame: pl.DataFrame) -> tuple[pl.DataFrame, str]:
    """The rows of a frame for which the expression is true, and a note that counts them.

    Raises
    ------
    ConfigError
        If the expression cannot be computed, is not a condition, or keeps no row.
    """
    expression, _ = condition(where, frame.columns)
    try:
        if frame.head(0).select(expression).dtypes != [pl.Boolean]:
            raise ConfigError(f"--where {shown(where)}: is not a condition (true or false for each row)")
        kept = frame.filter(expression)
    except pl.exceptions.PolarsError as error:
        cause = (str(error).splitlines() or [""])[0][:200]
        raise ConfigError(f"--where {shown(where)}: {cause}") from None
    if not kept.height:
        raise ConfigError(f"--where {shown(where)}: none of the {frame.height:,} rows fits; check the values it names")
    return kept, f"{kept.height} of {frame.height} rows kept, where {where}"
