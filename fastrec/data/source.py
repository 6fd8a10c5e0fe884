"""What every reader makes (``Source``), and what the readers share."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

import polars as pl

from fastrec.data.catalog import Catalog
from fastrec.data.content import PACKED
from fastrec.errors import ConfigError, DataError


@dataclass(frozen=True)
class Columns:
    """Names of the columns of a table, None where they are to be recognised; its times and the rows that are kept."""

    user: str | None = None
    item: str | None = None
    rating: str | None = None
    time: str | None = None
    time_format: str | None = None
    where: str | None = None
    weight: str | None = None

    def refuse(self, where: str) -> None:
        """For formats without names.

        Raises
        ------
        ConfigError
            If a column is named.
        """
        options = {what: f"--{what}-col" for what in ("user", "item", "rating", "time", "weight")} | {
            "time_format": "--time-format",
            "where": "--where",
        }
        named = [f"{option} {value}" for what, option in options.items() if (value := getattr(self, what)) is not None]
        if named:
            raise ConfigError(f"{', '.join(named)}: {where} has no named columns; leave it out")


@dataclass(frozen=True)
class Source:
    """What a reader makes of a source.

    Parameters
    ----------
    frame : polars.DataFrame
        ``user`` and ``item`` (Int64 or String), ``rating`` (Float32) and ``timestamp`` (Int64, seconds since 1970 UTC)
        where the source has them, ``weight`` (Float32) where it was asked for; one row per line, in the order of the
        file; no nulls.
    catalog : Catalog
        Titles, user fields and the lazy ratings.
    format : str
        What the source was taken for.
    notes : tuple of str
        What the reader changed, with counts.
    """

    frame: pl.DataFrame
    catalog: Catalog
    format: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        tables = ((self.catalog.movies, "item"), (self.catalog.users, "user"))
        for table, what in tables:
            if table is not None and table.schema[what] != self.frame.schema[what]:
                raise DataError(
                    f"the {what} ids of the log are {self.frame.schema[what]}, those of its catalogue "
                    f"{table.schema[what]}, so they can never meet; write both alike"
                )


def suffix_of(path: Path) -> str:
    """The suffix in lower case, looking through ``.gz`` and ``.zst``: ``.csv`` for ``ratings.csv.gz``."""
    return Path(plain_name(path.name)).suffix.lower()


def plain_name(name: str) -> str:
    """The name without ``.gz`` or ``.zst``."""
    return next((name.removesuffix(end) for end in PACKED if name.endswith(end)), name)


def present(folder: Path, name: str) -> Path | None:
    """``folder/name``, or the same packed as ``.gz`` or ``.zst``, if there is one."""
    return next((p for p in (folder / f"{name}{end}" for end in ("", *PACKED)) if p.is_file()), None)


def is_number(text: str) -> bool:
    """Whether the text reads as a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


_INTEGER = re.compile(r"0|-?[1-9][0-9]{0,18}")


def is_integer(text: str) -> bool:
    """Whether the text is an integer that fits 64 bits, in its plain spelling (no leading zero, no plus sign)."""
    return _INTEGER.fullmatch(text) is not None and -(2**63) <= int(text) < 2**63
