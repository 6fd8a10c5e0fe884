"""Trains in the tree of one commit, some steps for each number it reads; ``compare.py`` starts it."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

from fastrec.config import Config
from fastrec.data import leave_one_out, load
from fastrec.sampling.order import Cursor
from fastrec.training.build import build_engine
from fastrec.training.resolve import resolve

try:
    from fastrec.data.synthetic import generator as synthetic
except ImportError:  # a commit before data/synthetic/ was a folder
    from fastrec.data import synthetic


def main() -> None:
    """Answer each line with a line of JSON until the input ends."""
    settings = json.loads(sys.argv[1])
    name = settings["data"]
    log = synthetic.make(name) if name in synthetic.SHAPES else load(name)
    split = leave_one_out(log, validation=0.1, seed=42)
    engine = build_engine(split, resolve(Config().override(**settings["options"])))
    cursor = Cursor(0, 0)
    for line in sys.stdin:
        if cursor.position >= engine.n_positives:
            cursor = Cursor(cursor.epoch + 1, 0)
        started = time.perf_counter()
        done = engine.advance(cursor, int(line))
        seconds = time.perf_counter() - started
        cursor = done.cursor
        answer: dict[str, Any] = {"seconds": seconds, "samples": done.n_samples, "cursor": list(cursor)}
        print(json.dumps({**answer, "loss": float(done.loss_sum).hex()}), flush=True)
    engine.close()


if __name__ == "__main__":
    main()
