"""Cases of the data wing: loading a log and splitting it."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Contender, Refused
from fastrec.data.interactions import Interactions


def _written_as_csv(data: Interactions, folder: Path) -> Path:
    """The log as a CSV of user, item and time, in the order of time within users."""
    path = folder / f"{data.name}.csv"
    times = data.timestamps if data.timestamps is not None else np.zeros(data.n_interactions, np.int64)
    lines = map(",".join, zip(*(map(str, column.tolist()) for column in (data.users, data.items, times))))
    path.write_text("user,item,timestamp\n" + "\n".join(lines) + "\n")
    return path


def load(context: Context) -> Bench:
    """From the file on disk to a CSR; a synthetic log is written as CSV first."""
    from fastrec.data import load as load_log

    bench = Bench()
    source = Path(context.source)
    columns: dict[str, Any] = {}
    if not source.exists() or source.suffix == ".safetensors":
        folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-")
        bench.close = folder.cleanup
        source = _written_as_csv(context.data, Path(folder.name))
        columns = {"user_col": "user", "item_col": "item", "time_col": "timestamp"}
        bench.notes.append("the log was written as CSV for this case")
    files = [source] if source.is_file() else [f for f in source.iterdir() if f.is_file()]
    want = context.data.n_interactions

    def check(loaded: Interactions) -> None:
        if loaded.n_interactions != want or loaded.timestamps is None:
            raise Refused(f"{loaded.n_interactions} interactions were loaded; the log holds {want} with their times")
        if not np.array_equal(np.sort(loaded.degrees), np.sort(context.data.degrees[context.data.degrees > 0])):
            raise Refused("the users' degrees are not those of the log")

    def run(_k: int) -> Any:
        return load_log(source, **columns)

    bench.facts["file_bytes"] = max(f.stat().st_size for f in files)
    bench.contenders.append(
        Contender(
            "fastrec",
            run,
            want,
            check,
            unit="interactions/s",
            what="Polars scan to a CSR with id maps and times",
            role="cost",
            threads=context.threads,
        )
    )
    return bench


def split(context: Context) -> Bench:
    """Leave-one-out with a validation part carved out of train."""
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
            Contender(
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
