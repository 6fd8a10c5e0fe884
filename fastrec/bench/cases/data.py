"""Cases of reading data: loading a log and splitting it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused
from fastrec.data.interactions import Interactions


def _written_as_csv(data: Interactions, folder: Path) -> Path:
    """The log as a CSV of user, item and time, in the order of time within users."""
    path = folder / f"{data.name}.csv"
    times = data.timestamps if data.timestamps is not None else np.zeros(data.n_interactions, np.int64)
    lines = map(",".join, zip(*(map(str, column.tolist()) for column in (data.users, data.items, times))))
    path.write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    return path


def load(context: Context) -> Bench:
    """From the file on disk to its columns, to a CSR, to a split CSR; a synthetic log is written as CSV first."""
    from fastrec.data import leave_one_out
    from fastrec.data import load as load_log
    from fastrec.data.readers.base import main_file, read_source
    from fastrec.data.source import Columns

    folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-")
    bench = Bench(close=folder.cleanup)
    source = Path(context.source)
    columns: dict[str, Any] = {}
    if not source.exists() or source.suffix == ".safetensors":
        source = _written_as_csv(context.data, Path(folder.name))
        columns = {"user_col": "user", "item_col": "item", "rating_col": None, "time_col": "timestamp"}
        bench.notes.append("the log was first written as CSV")
    file = main_file(source)
    link = Path(folder.name) / "link" / file.name  # a catalogue in the folder of the file would be read too
    link.parent.mkdir()
    link.symlink_to(file.resolve())
    want = context.data.n_interactions

    def check(loaded: Interactions) -> None:
        if loaded.n_interactions != want or loaded.timestamps is None:
            raise Refused(f"{loaded.n_interactions} interactions were loaded; the log holds {want} with their times")
        if not np.array_equal(np.sort(loaded.degrees), np.sort(context.data.degrees[context.data.degrees > 0])):
            raise Refused("the users' degrees are not those of the log")

    def check_columns(frame: Any) -> None:
        if not {"user", "item", "timestamp"} <= set(frame.columns) or frame.height < want:
            raise Refused(f"{frame.height} rows of {frame.columns} were read; the log holds {want} with their times")

    def check_split(parts: Any) -> None:
        total = sum(p.n_interactions for p in (parts.train, parts.validation, parts.test))
        if total != want:
            raise Refused(f"the parts hold {total} interactions; the log holds {want}")

    def row(name: str, what: str, run: Any, check: Any) -> Entry:
        made = Entry(name, run, want, check, unit="interactions/s", what=what, role="cost", threads=context.threads)
        made.details = lambda rate: {"whole_s": want / rate}
        return made

    bench.facts["file_bytes"] = file.stat().st_size
    bench.entries = [
        row(
            "fastrec",
            "the log to a CSR with id maps and times",
            lambda _k: load_log(source, **columns),
            check,
        ),
        row(
            "columns",
            "only the file of interactions, to checked columns",
            lambda _k: read_source(link, Columns(*columns.values())).frame,
            check_columns,
        ),
        row(
            "split",
            "the log to a leave-one-out split with 10 % validation",
            lambda _k: leave_one_out(load_log(source, **columns), validation=0.1, seed=context.seed),
            check_split,
        ),
    ]
    return bench


def split(context: Context) -> Bench:
    """Leave-one-out with a validation part taken from train."""
    from fastrec.data import leave_one_out

    data = context.data

    def check(parts: Any) -> dict[str, Any]:
        total = sum(p.n_interactions for p in (parts.train, parts.validation, parts.test))
        if total != data.n_interactions:
            raise Refused(f"the parts hold {total} interactions; the log holds {data.n_interactions}")
        if int(parts.test.degrees.max()) != 1:
            raise Refused(f"a user has {parts.test.degrees.max()} test items; leave-one-out leaves one")
        return {f"n_{name}": getattr(parts, name).n_interactions for name in ("train", "validation", "test")}

    return Bench(
        [
            Entry(
                "fastrec",
                lambda _k: leave_one_out(data, validation=0.1, seed=context.seed),
                data.n_interactions,
                check,
                unit="interactions/s",
                what="leave-one-out and 10 % validation per user",
                role="cost",
                threads=context.threads,
            )
        ]
    )
