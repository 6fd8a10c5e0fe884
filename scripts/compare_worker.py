"""Train, sample or load in the tree of one commit, some steps for each number read; ``compare.py`` starts it."""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections.abc import Generator
from typing import Any

import numpy as np

from fastrec.config import Config
from fastrec.data import leave_one_out, load
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor

try:
    from fastrec.training.build import build_engine
    from fastrec.training.resolve import resolve
except ImportError:  # a commit before those modules
    from fastrec.training.fit import build_engine, resolve
try:
    from fastrec.data.synthetic import generator as synthetic
except ImportError:  # a commit before data/synthetic/ was a folder
    from fastrec.data import synthetic


def trainer(settings: dict[str, Any]) -> Generator[dict[str, Any], int, None]:
    """Train as many steps as each sent number says."""
    split = leave_one_out(read(settings["data"]), validation=0.1, seed=42)
    engine = build_engine(split, resolve(Config().override(**settings["options"])))
    cursor = Cursor(0, 0)
    steps = yield {}
    while steps:
        if cursor.position >= engine.n_positives:
            cursor = Cursor(cursor.epoch + 1, 0)
        started = time.perf_counter()
        done = engine.advance(cursor, steps)
        seconds = time.perf_counter() - started
        cursor = done.cursor
        loss = float(done.loss_sum).hex()
        steps = yield {"seconds": seconds, "samples": done.n_samples, "cursor": list(cursor), "loss": loss}
    engine.close()


def sampler(settings: dict[str, Any]) -> Generator[dict[str, Any], int, None]:
    """Draw 4 negatives for 32,768 positives, as many times as asked; ``order``: "csr" or "shuffled"."""
    log = read(settings["data"])
    negatives = NegativeSampler(log.indptr, log.items, n_items=log.n_items, seed=42)
    users = np.repeat(np.arange(log.n_users, dtype=np.int32), np.diff(log.indptr))
    positions = np.arange(users.size, dtype=np.int64)
    if settings["options"].get("order") == "shuffled":
        positions = np.random.default_rng(0).permutation(positions)
    positions = positions[:32768].copy()
    users = users[positions].copy()
    out = np.empty((users.size, 4), np.int32)
    calls = yield {}
    while calls:
        seconds = []
        for _ in range(calls):
            started = time.perf_counter()
            negatives.sample(users, epoch=0, positions=positions, out=out)
            seconds.append(time.perf_counter() - started)
        # The fastest call: on a shared machine the rest measure the neighbours.
        digest = hashlib.sha256(out.tobytes()).hexdigest()
        calls = yield {"seconds": min(seconds), "samples": out.size, "cursor": [0, 0], "loss": digest}


def loader(settings: dict[str, Any]) -> Generator[dict[str, Any], int, None]:
    """Load the data, as many times as asked."""
    times = yield {}
    while times:
        seconds = []
        for _ in range(times):
            started = time.perf_counter()
            log = read(settings["data"])
            seconds.append(time.perf_counter() - started)
        digest = hashlib.sha256(log.indptr.tobytes() + log.items.tobytes()).hexdigest()
        times = yield {"seconds": min(seconds), "samples": len(log.items), "cursor": [0, 0], "loss": digest}


def read(name: str) -> Any:
    """The data set or file."""
    return synthetic.make(name) if name in synthetic.SHAPES else load(name)


def main() -> None:
    """Answer each line with a line of JSON until the input ends."""
    settings = json.loads(sys.argv[1])
    work = {"sampler": sampler, "load": loader}.get(settings["engine"], trainer)(settings)
    next(work)
    for line in sys.stdin:
        print(json.dumps(work.send(int(line))), flush=True)
    work.close()


if __name__ == "__main__":
    main()
