"""Arrow IPC: files (Feather version 2) and streams, with named columns."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fastrec.data.content import require_file
from fastrec.data.readers.base import Probe, Reader, register
from fastrec.data.readers.parts.columns import Table, named, readable, settled
from fastrec.data.source import Columns, Source

FILE, STREAM = b"ARROW1\x00\x00", b"\xff\xff\xff\xff"


def _head(path: Path) -> bytes:
    with require_file(path).open("rb") as f:
        return f.read(8)


def sniff(probe: Probe) -> bool:
    """Whether name and first bytes agree that it is Arrow IPC."""
    return probe.path.suffix.lower() in ARROW.suffixes and _head(probe.path).startswith((FILE, STREAM))


def scan(path: Path, columns: Columns, extra: Mapping[str, str] | None = None) -> Table:
    """The table of a file or stream, in memory.

    Raises
    ------
    DataError
        If it is damaged.
    """
    with readable(str(path), "not a readable Arrow file"):
        content = path.read_bytes()
        frame = pl.read_ipc(content) if content.startswith(FILE) else pl.read_ipc_stream(content)
        return named(str(path), frame.lazy(), columns, extra, frame.head(1))


def read(path: Path, columns: Columns) -> Source:
    """Read an Arrow file or stream.

    Raises
    ------
    DataError
        Naming the row at fault, or the damage.
    """
    return settled(str(path), scan(path, columns), columns)


ARROW = register(
    Reader(
        name="Arrow IPC",
        about="an Arrow IPC (Feather) file with named columns",
        sniff=sniff,
        read=read,
        order=11,
        scan=scan,
        suffixes=(".arrow", ".feather", ".ipc"),
    )
)
