"""Parquet: one file with named columns. Its sizes are checked before Polars reads it."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from fastrec.data.catalog import Catalog, with_datetime
from fastrec.data.content import is_parquet
from fastrec.data.readers.base import Probe, Reader, register
from fastrec.data.readers.parts.columns import choose, readable, settle
from fastrec.data.readers.parts.parquet_check import check_parquet
from fastrec.data.source import Columns, Source


def sniff(probe: Probe) -> bool:
    """Whether name and first bytes agree that it is Parquet."""
    return probe.path.suffix.lower() == ".parquet" and is_parquet(probe.path)


def read(path: Path, columns: Columns) -> Source:
    """Read a Parquet file.

    Raises
    ------
    DataError
        Naming the file and row at fault, or the damage.
    """
    with readable(str(path), "not a readable Parquet file"):
        lazy = pl.scan_parquet(path, glob=False)
        chosen = choose(str(path), list(lazy.collect_schema()), columns)
        check_parquet(path, chosen.values())
    frame, lazy, notes = settle(str(path), lazy, chosen, time_format=columns.time_format)
    return Source(frame, Catalog(ratings=with_datetime(lazy)), "table with named columns", notes)


PARQUET = register(
    Reader(
        name="Parquet",
        about="a Parquet file with named columns",
        sniff=sniff,
        read=read,
        order=10,
        main_files=("ratings.parquet",),
        suffixes=(".parquet",),
    )
)
