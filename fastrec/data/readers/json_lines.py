"""JSON lines: one object per line, whose keys name the columns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import polars as pl

from fastrec.data.content import content_of, is_json
from fastrec.data.readers.base import Probe, Reader, register
from fastrec.data.readers.parts.columns import Table, first_line, named, settled
from fastrec.data.readers.parts.text import lines_of
from fastrec.data.source import Columns, Source
from fastrec.errors import DataError, shown

EXAMPLE = '{"user": 1, "item": 2}'


def sniff(probe: Probe) -> bool:
    """Whether name and first bytes agree that it is JSON."""
    return probe.suffix in (*JSON_LINES.suffixes, *JSON_LINES.by_path) and is_json(probe.path)


def scan(path: Path, columns: Columns, extra: Mapping[str, str] | None = None) -> Table:
    """The objects as a table; the types follow from all of them, so that their order does not matter.

    Raises
    ------
    DataError
        Naming the line that is not one JSON object.
    """
    content = content_of(path, json=True)
    source = content if isinstance(content, bytes) else content.read_bytes()
    try:
        frame = pl.read_ndjson(source, infer_schema_length=None)
    except (pl.exceptions.PolarsError, pl.exceptions.PanicException) as error:
        raise _explain(path, first_line(error)) from None
    lines = sum(1 for line in source.split(b"\n") if line.strip())
    if frame.height != lines:
        raise _explain(path, f"{lines} lines, but {frame.height} objects")
    return named(str(path), frame.lazy(), columns, extra, frame.head(1))


def read(path: Path, columns: Columns) -> Source:
    """Read JSON lines.

    Raises
    ------
    DataError
        Naming the line or row at fault.
    """
    return settled(str(path), scan(path, columns), columns)


def _explain(path: Path, cause: str) -> DataError:
    """Read line by line and name the first fault; ``cause`` is the message of Polars, if no line shows it."""
    for number, line in lines_of(path, json=True):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except (ValueError, RecursionError) as error:
            why = f"is not JSON ({first_line(error)})"
        else:
            if isinstance(value, dict):
                continue
            why = f"is JSON, but a {type(value).__name__}, not an object"
        return DataError(f"{path}, line {number}: {shown(line)} {why}; write one object per line, such as {EXAMPLE}")
    return DataError(f"{path}: not a table of JSON objects with values of one type per key ({cause})")


JSON_LINES = register(
    Reader(
        name="JSON lines",
        about="JSON lines (.jsonl, .ndjson)",
        sniff=sniff,
        read=read,
        order=12,
        scan=scan,
        suffixes=(".jsonl", ".ndjson"),
        by_path=(".json",),
    )
)
