"""Load, split, sample an epoch, train an epoch.

Options: ``folder``, ``positives``, ``threads``, ``dim``, ``negatives``.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np

from benchmarks.workers.stages import Stages
from fastrec.bench import engines
from fastrec.data import leave_one_out, load
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor


def use_log(folder: str, positives: int, threads: int, dim: int, negatives: int) -> None:
    """What a user's process does with ``folder/log.parquet``."""
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
    stages.end("train", n_train=progress.n_positives, loss=progress.loss_sum / progress.n_samples)
    stages.print()


if __name__ == "__main__":
    use_log(**json.loads(sys.argv[1]))
