"""``fastrec train --set KEY=VALUE --seeds K``: a grid, and its table."""

from __future__ import annotations

import argparse
import re
import statistics
import time
from pathlib import Path
from typing import Any

from fastrec.cli.exits import EXIT_INTERRUPTED
from fastrec.config import Config
from fastrec.errors import ConfigError
from fastrec.terminal import say, table

SHOWN = ("HR@10", "NDCG@10")


def add_options(train: Any) -> None:
    """Add the options of a grid to ``train``."""
    train.add_argument(
        "--set",
        action="append",
        metavar="KEY=VALUE",
        help="a grid: values of one key are alternatives, different keys multiply; runs go to OUT/NAME-seedN, and the "
        "same command with the same --out goes on with an interrupted grid",
    )
    train.add_argument("--seeds", type=int, metavar="K", help="train each with K seeds, from --seed on")


def run_grid(args: argparse.Namespace, config: Config) -> int:
    """Train a grid; the exit code."""
    from fastrec.engines.processes import refuse_several
    from fastrec.training.grid import parse_sets, train_grid
    from fastrec.training.job import prepare
    from fastrec.training.resolve import resolve

    refuse_several("a grid (--set, --seeds)")
    sets = parse_sets(args.set or [])
    if twice := [name for name in sets[0] if config.origins.get(name) == ""]:
        raise ConfigError(f"{', '.join(twice)}: given both as an option and by --set; leave one out")
    shown = config.run.progress
    out = Path(config.run.out or Path("runs", _stem(config)))
    config = config.given({"progress": False, "out": None})
    for values in sets:
        resolve(config.given(values))  # before minutes of loading
    split = prepare(resolve(config.given(sets[0])))
    seeds = 1 if args.seeds is None else args.seeds
    grid = train_grid(split, config, sets, seeds=seeds, out=out, say=_note if shown else lambda _: None)
    if grid.picked is None:
        say(f"interrupted; go on: the same command with --out {out}", keep="")
        return EXIT_INTERRUPTED
    rows = [("row", f"validation {grid.select}", "deviation", "seeds")]
    for row in sorted(grid.rows, key=lambda row: -row.mean):
        mark = " *" if row is grid.picked else ""
        rows.append((row.name + mark, f"{row.mean:.4f}", _deviation(row.validation), str(len(row.validation))))
    say(table(rows))
    say("\n* picked by validation; its test part, and no other, was scored:", keep="\n")
    scores = [("test", "mean", "deviation")]
    for name, found in grid.picked.test.items():
        if name.rsplit(" ", 1)[1] in SHOWN:
            scores.append((name, f"{statistics.fmean(found):.4f}", _deviation(found)))
    say(table(scores))
    say(f"runs: {out}", keep="")
    return 0


def _note(line: str) -> None:
    """A line for each run, on standard error."""
    say(line, err=True, flush=True, keep="")


def _deviation(values: list[float]) -> str:
    return f"{statistics.stdev(values):.4f}" if len(values) > 1 else "-"


def _stem(config: Config) -> str:
    name = f"{time.strftime('%Y%m%d-%H%M%S')}-grid-{Path(config.data.data).name}"
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name)
