"""A log of 100 million positives from file to trained model: seconds and peak memory of each stage.

U users, I items, E interactions, N negatives, D dim.
"""

from __future__ import annotations

import json
import tempfile
import time
from pathlib import Path
from typing import Any

from fastrec.bench.context import Context
from fastrec.bench.harness import Refused, single_row
from fastrec.bench.machine import fresh_process, peak_bytes

POSITIVES, USERS, ITEMS = 100_000_000, 1_000_000, 100_000
DIM = 32
LIMIT_BYTES = 12 << 30


class Stages:
    """Seconds and peak memory (since the process began) after each stage."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self._at = time.perf_counter()

    def end(self, name: str, **facts: Any) -> None:
        """Close a stage that began when the one before it ended."""
        now = time.perf_counter()
        self.done.append({"name": name, "seconds": now - self._at, "peak_bytes": peak_bytes(), **facts})
        self._at = time.perf_counter()

    def print(self) -> None:
        """The last line that ``fresh_process`` reads."""
        print(json.dumps({"stages": self.done}))


def write_log(folder: str, users: int, items: int, positives: int, threads: int) -> None:
    """Generate the log and write it as Parquet: user, item, timestamp."""
    from fastrec.data.synthetic import generator as synthetic
    from fastrec.data.tables import write_parquet

    stages = Stages()
    log = synthetic.generate(users, items, positives, threads=threads)
    stages.end("generate")
    assert log.timestamps is not None
    write_parquet(Path(folder) / "log.parquet", {"user": log.users, "item": log.items, "timestamp": log.timestamps})
    stages.end("write", file_bytes=(Path(folder) / "log.parquet").stat().st_size)
    stages.print()


def use_log(folder: str, positives: int, threads: int, dim: int, negatives: int) -> None:
    """Load, split, sample an epoch, train an epoch: what a user's process does."""
    import numpy as np

    from fastrec.bench import engines
    from fastrec.data import leave_one_out, load
    from fastrec.sampling import NegativeSampler
    from fastrec.sampling.order import Cursor

    stages = Stages()
    log = load(Path(folder) / "log.parquet", user_col="user", item_col="item", time_col="timestamp")
    stages.end("load")
    if log.n_interactions != positives:
        raise SystemExit(f"{log.n_interactions} interactions were loaded of {positives}")
    split = leave_one_out(log, validation=0.0, seed=42)
    train = split.train
    del log
    stages.end("split", n_train=train.n_interactions)
    sampler = NegativeSampler(train.indptr, train.items, n_items=train.n_items, n_negatives=negatives, seed=42)
    rows, users = 1 << 20, train.users
    out = np.empty((rows, negatives), np.int32)
    for lo in range(0, users.size, rows):
        part = users[lo : lo + rows]
        sampler.sample(part, epoch=0, start=lo, out=out[: part.size], threads=threads)
    stages.end("sample", n_train=train.n_interactions)
    del sampler, users, out
    options = {**engines.ENGINES["fused-lock-free"], "dim": dim, "negatives": negatives, "batch_size": 1 << 16}
    engine = engines.build(split, threads=threads, device="cpu", seed=42, **options)
    stages.end("build", n_parameters=sum(p.numel() for p in engine.model.parameters()))
    progress = engine.advance(Cursor(0, 0), 1 << 30)
    engine.close()
    loss = progress.loss_sum / progress.n_samples
    stages.end("train", n_train=progress.n_positives, loss=loss)
    stages.print()


def hundred_million(context: Context) -> dict[str, Any]:
    """100 M positives (2 M with ``--quick``) from Parquet on disk to one trained epoch."""
    shrink = 50 if context.quick else 1
    users, items, positives = USERS // shrink, ITEMS // shrink, POSITIVES // shrink
    n, threads = context.n_negatives, context.threads
    with tempfile.TemporaryDirectory(prefix="fastrec-bench-") as folder:
        call = "from fastrec.bench.cases import big; big"
        made = fresh_process(f"{call}.write_log({folder!r}, {users}, {items}, {positives}, {threads})", timeout_s=3600)
        used = fresh_process(f"{call}.use_log({folder!r}, {positives}, {threads}, {DIM}, {n})", timeout_s=3600)
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
        raise Refused(f"the loss after an epoch is {used['stages'][-1]['loss']}: nothing was learnt")
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
