"""Parquet: one file with named columns. Its sizes are checked before Polars reads it."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fastrec.data.content import is_parquet
from fastrec.data.readers.base import Probe, Reader, register
from fastrec.data.readers.parts.columns import Table, named, readable, settled
from fastrec.data.readers.parts.parquet_check import check_parquet
from fastrec.data.source import Columns, Source


def sniff(probe: Probe) -> bool:
    """Whether name and first bytes agree that it is Parquet."""
    return probe.path.suffix.lower() == ".parquet" and is_parquet(probe.path)


def scan(path: Path, columns: Columns, extra: Mapping[str, str] | None = None) -> Table:
    """A lazy scan of a file whose sizes are checked.

    Raises
    ------
    DataError
        If it is damaged.
    """
    with readable(str(path), "not a readable Parquet file"):
        table = named(str(path), pl.scan_parquet(path, glob=False, hive_partitioning=False), columns, extra)
        check_parquet(path, table.needed)
    return table


def read(path: Path, columns: Columns) -> Source:
    """Read a Parquet file.

    Raises
    ------
    DataError
        Naming the file and row at fault, or the damage.
    """
    return settled(str(path), scan(path, columns), columns)


PARQUET = register(
    Reader(
        name="Parquet",
        about="a Parquet file with named columns",
        sniff=sniff,
        read=read,
        order=10,
        scan=scan,
        main_files=("ratings.parquet",),
        suffixes=(".parquet",),
    )
)
