"""A log of 100 million positives from file to trained model: seconds and peak memory of each stage.

U users, I items, E interactions, N negatives, D dim.
"""

from __future__ import annotations

import tempfile
from typing import Any

from benchmarks.process import fresh_process
from fastrec.bench.context import Context
from fastrec.bench.harness import Refused, single_row

POSITIVES, USERS, ITEMS = 100_000_000, 1_000_000, 100_000
DIM = 32
LIMIT_BYTES = 12 << 30


def hundred_million(context: Context) -> dict[str, Any]:
    """100 M positives (2 M with ``--quick``) from Parquet on disk to one trained epoch."""
    shrink = 50 if context.quick else 1
    users, items, positives = USERS // shrink, ITEMS // shrink, POSITIVES // shrink
    n, threads = context.n_negatives, context.threads
    with tempfile.TemporaryDirectory(prefix="fastrec-bench-") as folder:
        options: dict[str, Any] = {"folder": folder, "positives": positives, "threads": threads, "timeout_s": 3600}
        made = fresh_process("write_log", users=users, items=items, **options)
        used = fresh_process("use_log", dim=DIM, negatives=n, **options)
    stages = [*made["stages"], *used["stages"]]
    units = {"sample": ("negatives/s", n), "train": ("samples/s", 1 + n)}
    rows = []
    for stage in stages:
        name, seconds = stage.pop("name"), stage.pop("seconds")
        unit, each = units.get(name, ("interactions/s", 1))
        work = each * stage.pop("n_train", positives)
        rows.append(single_row(name, work, seconds, unit=unit, threads=threads, stage_s=seconds, **stage))
    peak = max(row["details"]["peak_bytes"] for row in rows if row["name"] not in ("generate", "write"))
    if not used["stages"][-1]["loss"] < 0.6931:
        raise Refused(f"the loss after an epoch is {used['stages'][-1]['loss']}: nothing was learned")
    if peak > LIMIT_BYTES:
        raise Refused(f"peak memory was {peak / 2**30:.1f} GiB, above the limit of {LIMIT_BYTES / 2**30:.0f} GiB")
    rows.sort(key=lambda row: row["name"] != "train")
    facts = {
        "n_users": users,
        "n_items": items,
        "n_interactions": positives,
        "dim": DIM,
        "peak_bytes": peak,
        "limit_bytes": LIMIT_BYTES,
        "load_to_trained_s": sum(
            stage["details"]["stage_s"] for stage in rows if stage["name"] not in ("generate", "write")
        ),
    }
    return {
        "rows": rows,
        "facts": facts,
        "notes": [f"a synthetic log of {positives:,} positives, written as Parquet first"],
    }
