"""Records: the JSON that a run leaves, how it is read and written; ``benchmarks/schema.json`` is its schema."""

from __future__ import annotations

import json
import math
import os
import shlex
import sys
import time
import traceback
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from fastrec.bench import machine
from fastrec.bench.cases import Case
from fastrec.bench.context import Context
from fastrec.bench.harness import refused
from fastrec.bench.table import Printer
from fastrec.errors import DataError, FastrecError, not_installed
from fastrec.files import write_bytes

FORMAT = 1
FORMER_ROLES = {"rival": "baseline"}
"""Roles in records made before the name changed."""


def plain(value: Any) -> Any:
    """NumPy scalars and arrays as Python's; NaN and infinity are errors, because JSON has neither."""
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(v) for v in value]
    if hasattr(value, "tolist"):
        return plain(value.tolist())
    if isinstance(value, float) and not math.isfinite(value):
        raise DataError(f"a record cannot hold {value}")
    if value is None or isinstance(value, (str, bool, int, float)):
        return value
    return str(value)


def write(record: dict[str, Any], path: str | os.PathLike[str]) -> None:
    """Write a record atomically: an interrupted run leaves the cases that it had finished."""
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, (json.dumps(plain(record), indent=1, allow_nan=False) + "\n").encode())


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a record, its roles as they are named now.

    Raises
    ------
    DataError
        If the file is missing, is not JSON, or is not a record of this format.
    """
    try:
        record = json.loads(Path(path).read_text())
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make one with python -m fastrec.bench --json {path}") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a record of the bench ({error})") from None
    if not isinstance(record, dict) or record.get("format") != FORMAT:
        raise DataError(f"{path}: not a record of the bench of format {FORMAT}; it was made by another version")
    for case in record.get("cases", {}).values():
        for row in case.get("rows", ()):
            row["role"] = FORMER_ROLES.get(row["role"], row["role"])
    return record


def run(
    cases: Sequence[Case],
    context: Context,
    *,
    printer: Printer,
    json_path: str | None = None,
    argv: Sequence[str] = (),
) -> dict[str, Any]:
    """Run cases one after the other, print each table as it ends, and return the record.

    A case that refuses or fails is recorded as such, with the reason and without a rate; the others still run.
    """
    started = datetime.now(UTC)
    record: dict[str, Any] = {
        "format": FORMAT,
        "date": started.isoformat(timespec="seconds"),
        "command": shlex.join(["python", "-m", "fastrec.bench", *argv]),
        "quick": context.quick,
        "machine": machine.describe(context.threads, context.device, context.bandwidth),
        "data": context.describe(),
        "cases": {},
    }
    printer.header(record)
    for case in cases:
        begun = time.perf_counter()
        try:
            result = case.run(context)
        except Exception as error:  # one broken case must not cost the record of the others
            if not isinstance(error, (FastrecError, ModuleNotFoundError)):
                traceback.print_exc(file=sys.stderr)
            why = (
                not_installed(error.name)
                if isinstance(error, ModuleNotFoundError)
                else f"{type(error).__name__}: {error}"
            )
            result = refused(case.name, case.title, "failed", why, begun)
        record["cases"][case.name] = plain(result)
        printer.case(result)
        record["seconds"] = (datetime.now(UTC) - started).total_seconds()
        if json_path:
            write(record, json_path)
    printer.four_rates(record["cases"])
    printer.line()
    printer.line(f"{record['seconds']:.0f} s in all" + (f"; record written to {json_path}" if json_path else ""))
    return record
