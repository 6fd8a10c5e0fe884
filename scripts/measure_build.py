"""Time `fastrec data build` on a made log of some size, and its peak memory.

    python scripts/measure_build.py 1e8 --text --folder /tmp/build     # text ids and times
    python scripts/measure_build.py 1e9 --folder /tmp/build            # integer ids, no times: 35 GB of disk

The log has a user for every 50 rows and an item for every 1,000 (at most 200,000), items drawn with a falling density.
It is made first, in a process of its own; the build follows in another, whose resident memory (``VmHWM``) is printed.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
import time
from pathlib import Path

PIECE = 4_000_000


def make(path: Path, n: int, text: bool) -> None:
    """Write the log as Parquet."""
    import numpy as np
    import polars as pl
    import pyarrow.parquet as pq

    users, items = max(1000, n // 50), min(max(500, n // 1000), 200_000)
    rng, writer = np.random.default_rng(1), None
    for start in range(0, n, PIECE):
        m = min(PIECE, n - start)
        frame = pl.DataFrame({"user": rng.integers(0, users, m), "item": (items * rng.random(m) ** 2).astype(np.int64)})
        if text:
            times = 1_500_000_000 + rng.integers(0, 10**8, m)
            frame = frame.with_columns(
                user=pl.format("user-{}", "user"), item=pl.format("B{}", "item"), timestamp=pl.Series(times)
            )
        table = frame.to_arrow()
        writer = writer or pq.ParquetWriter(path, table.schema, compression="zstd")
        writer.write_table(table, row_group_size=1_000_000)
    assert writer is not None
    writer.close()


def build(path: Path, out: Path, n: int) -> None:
    """Build, and print each stage with the memory so far."""
    from fastrec.data.building.build import build as build_log

    began = time.perf_counter()

    def say(line: str) -> None:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9
        print(f"{time.perf_counter() - began:7.1f} s {peak:5.2f} GB  {line}", flush=True)

    build_log(path, out, say=say)
    say(f"done: {n / (time.perf_counter() - began) / 1e6:.2f} M rows/s")


def main() -> None:
    """Make, build, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=float)
    parser.add_argument("--text", action="store_true", help="text ids, and times")
    parser.add_argument("--folder", type=Path, required=True, help="where the log and its CSR go; they stay there")
    args = parser.parse_args()
    args.folder.mkdir(parents=True, exist_ok=True)
    path, out = args.folder / "log.parquet", args.folder / "log.safetensors"
    context = multiprocessing.get_context("spawn")
    for work, words in ((make, (path, int(args.rows), args.text)), (build, (path, out, int(args.rows)))):
        process = context.Process(target=work, args=words)
        process.start()
        process.join()
        if process.exitcode:
            raise SystemExit(process.exitcode)


if __name__ == "__main__":
    main()
