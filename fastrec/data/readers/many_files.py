"""Tables in many files: the parts that Spark, dbt or BigQuery write into a folder, hive layouts and globs."""

from __future__ import annotations

import glob
import re
from collections.abc import Sequence
from pathlib import Path

import polars as pl

from fastrec.data.readers.base import Probe, Reader, by_suffix, register
from fastrec.data.readers.parts.columns import Table, listed, settled
from fastrec.data.source import Columns, Source, suffix_of
from fastrec.errors import DataError

VARYING = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\d+")
"""What differs between the names of parts: numbers and UUIDs."""


def find_parts(folder: Path) -> list[Path]:
    """The files of a folder that are parts of one table, in the order of their names; none if it is something else.

    Parts are in folders called ``key=value``, or are several files whose names differ in numbers only. Names that start
    with ``.`` or ``_`` are skipped, as everywhere in that world.
    """
    found: list[Path] = []
    hive = False
    for path in sorted(folder.iterdir()):
        if path.name.startswith((".", "_")):
            continue
        if path.is_dir() and "=" in path.name:
            below = find_parts(path) or [p for p in sorted(path.iterdir()) if p.is_file() and _is_table(p)]
            found += below
            hive = hive or bool(below)
        elif path.is_file() and _is_table(path):
            found.append(path)
    if not hive and (len(found) < 2 or len({VARYING.sub("#", path.name) for path in found}) > 1):
        return []
    return found


def _is_table(path: Path) -> bool:
    reader = by_suffix(suffix_of(path))
    return reader is not None and reader.scan is not None and not path.name.startswith((".", "_"))


def glob_files(pattern: str) -> list[Path] | None:
    """The files that a glob matches, None for a path that exists or is not a glob.

    Raises
    ------
    DataError
        If nothing matches.
    """
    if not glob.has_magic(pattern) or Path(pattern).exists():
        return None
    files = [Path(name) for name in sorted(glob.glob(pattern, recursive=True))]
    files = [path for path in files if path.is_file() and not path.name.startswith(("_", "."))]
    if not files:
        raise DataError(f"{pattern}: no file matches; check the pattern, and quote it so that the shell leaves it")
    return files


def scan_files(where: str, files: Sequence[Path], columns: Columns, root: Path | None = None) -> Table:
    """Files with the same columns as one table, in the given order; ``key=value`` in their paths are columns too.

    Raises
    ------
    DataError
        If a file is in no format of tables, or the files differ in their columns.
    """
    tables: list[Table] = []
    for file in files:
        reader = by_suffix(suffix_of(file))
        if reader is None or reader.scan is None:
            raise DataError(f"{file}: is not a table with named columns, so it cannot be joined with others")
        folders = (file if root is None else file.relative_to(root)).parent.parts
        extra = dict(part.split("=", 1) for part in folders if "=" in part)
        tables.append(reader.scan(file, columns, extra))
    first = tables[0]
    for file, table in zip(files, tables):
        if table.chosen != first.chosen or set(table.needed) != set(first.needed):
            raise DataError(
                f"{file}: its columns are read as {listed(sorted(table.needed))}, those of {files[0].name} as "
                f"{listed(sorted(first.needed))}; the parts of a table must have the same columns"
            )
    try:
        lazies = [table.lazy.select(first.needed) for table in tables]
        lazy = pl.concat(lazies, how="vertical_relaxed")
        lazy.collect_schema()
    except pl.exceptions.PolarsError as error:
        raise DataError(
            f"{where}: the parts differ in the types of their columns ({error}); write them alike"
        ) from None
    notes = tuple(dict.fromkeys(note for table in tables for note in table.notes))
    return first._replace(lazy=lazy, again=None, notes=notes)


def counted(files: Sequence[Path]) -> str:
    """The note on files that are read as one table."""
    return f"{len(files)} files read as one table, in the order of their names"


def read_files(where: str, files: Sequence[Path], columns: Columns, root: Path | None = None) -> Source:
    """The table of ``scan_files`` in memory.

    Raises
    ------
    DataError
        As ``scan_files``, and for values that are missing or of the wrong type.
    """
    source = settled(where, scan_files(where, files, columns, root), columns)
    return Source(source.frame, source.catalog, "table in many files", (counted(files), *source.notes))


def sniff(probe: Probe) -> bool:
    """Whether the folder holds the parts of one table."""
    return bool(find_parts(probe.path))


def read(path: Path, columns: Columns) -> Source:
    """Read the parts of a folder.

    Raises
    ------
    DataError
        As ``read_files``.
    """
    return read_files(str(path), find_parts(path), columns, path)


PARTS = register(
    Reader(
        name="table in many files",
        about="a folder or glob of such tables (part-0.parquet, day=1/...)",
        sniff=sniff,
        read=read,
        order=15,
        folder=True,
    )
)
