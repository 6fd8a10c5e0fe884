"""Generate a log and write it as Parquet. Options: ``folder``, ``users``, ``items``, ``positives``, ``threads``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from benchmarks.workers.stages import Stages
from fastrec.data.synthetic import generator as synthetic
from fastrec.data.tables import write_parquet


def write_log(folder: str, users: int, items: int, positives: int, threads: int) -> None:
    """``folder/log.parquet``: user, item, timestamp."""
    stages = Stages()
    log = synthetic.generate(users, items, positives, threads=threads)
    stages.end("generate")
    assert log.timestamps is not None
    path = Path(folder) / "log.parquet"
    write_parquet(path, {"user": log.users, "item": log.items, "timestamp": log.timestamps})
    stages.end("write", file_bytes=path.stat().st_size)
    stages.print()


if __name__ == "__main__":
    write_log(**json.loads(sys.argv[1]))
