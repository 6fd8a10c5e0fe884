#!/usr/bin/env python3
"""Train every combination of model, loss, optimiser, engine and mode at its defaults and compare it with popularity.

Each is a default run of `fastrec train` on the CPU with uniform negatives: early stopping on validation, then both
protocols. A table of all goes to --out, rewritten after each run, so that a run that was cut goes on where it was. The
exit status is 1 where a combination is not above popularity by HR@10 and NDCG@10 in both protocols.

    FASTREC_DATA=FOLDER python scripts/learn.py --out benchmarks/learn.md
    FASTREC_DATA=FOLDER python scripts/learn.py --only model=mf optimizer=sgd --epochs 10
"""

from __future__ import annotations

import argparse
import functools
import itertools
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from fastrec import models, optim
from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.capabilities import Wish, choose
from fastrec.errors import ConfigError
from fastrec.evaluation.baseline_runs import remarks, run_baselines
from fastrec.models import losses
from fastrec.training.fit import fit
from fastrec.training.job import prepare
from fastrec.training.resolve import resolve

COLUMNS = ("model", "loss", "optimizer", "engine", "fused_mode")
HEADER = (*COLUMNS, "lr", "HR@10 / NDCG@10, candidates", "HR@10 / NDCG@10, full ranking", "best epoch", "s", "learns")


def combinations() -> Iterator[dict[str, str]]:
    """Every combination that the capability table takes on the CPU."""
    modes = (("torch", ""), ("fused", "deterministic"), ("fused", "lock_free"))
    for model, loss, optimizer, (engine, mode) in itertools.product(
        models.names(), losses.names(), optim.names(), modes
    ):
        wish = Wish(model, loss, optimizer, engine=engine, fused_mode=mode or "deterministic")
        try:
            choose(wish)
        except ConfigError:
            continue
        yield dict(zip(COLUMNS, (model, loss, optimizer, engine, mode)))


def learned(split: Split, config: Config, **combination: str) -> tuple[str, ...]:
    """A row of the table."""
    options = {name: value for name, value in combination.items() if value}
    asked, start = config.override(**options), time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        result = fit(split, asked, out=Path(folder) / "run", loaded=True)
    if result.stopped == "interrupted":  # a signal; what is done is in the table
        raise SystemExit(130)
    seconds = time.perf_counter() - start
    pairs = [f"{m['HR@10']:.4f} / {m['NDCG@10']:.4f}" for m in list(result.metrics.values())[:2]]
    learns = "no" if remarks("it", result.metrics, popularity(split, config)) else "yes"
    found = (f"{resolve(asked).optim.lr:g}", *pairs, str(result.best_epoch or "last"), f"{seconds:.0f}", learns)
    return (*combination.values(), *found)


@functools.cache
def popularity(split: Split, config: Config) -> dict[str, dict[str, Any]]:
    """Popularity by the split and candidates of the runs."""
    options = {"n_candidates": config.evaluation.candidates, "candidate_seed": config.evaluation.candidate_seed}
    return run_baselines(split, ["popularity"], **options, threads=config.training.threads)


def popularity_row(split: Split, config: Config) -> tuple[str, ...]:
    """The row to beat."""
    scores = popularity(split, config)["popularity"]["metrics"]
    pairs = [f"{m['HR@10']:.4f} / {m['NDCG@10']:.4f}" for m in list(scores.values())[:2]]
    return ("popularity", *[""] * 5, *pairs, "", "", "")


def read(path: Path) -> dict[tuple[str, ...], tuple[str, ...]]:
    """Rows of an earlier table by combination."""
    lines = path.read_text().splitlines() if path.exists() else []
    rows = [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines if line.startswith("|")]
    return {row[:5]: row for row in rows[2:] if row[0] != "popularity"}


def write(path: Path, about: str, rows: list[tuple[str, ...]]) -> None:
    """The table as Markdown."""
    lines = [HEADER, ("---",) * len(HEADER), *rows]
    text = "\n".join("| " + " | ".join(line) + " |" for line in lines)
    path.write_text(f"# What learns at its defaults\n\n{about}\n\n{text}\n")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-100k", help="as in fastrec train")
    parser.add_argument("--out", type=Path, help="the table; its rows are kept")
    parser.add_argument("--only", nargs="*", default=[], metavar="key=value", help="combinations with these values")
    parser.add_argument("--epochs", type=int, help="in place of the default")
    parser.add_argument("--threads", type=int)
    args = parser.parse_args()
    given = {"epochs": args.epochs} if args.epochs else {}
    config = Config(data=args.data, device="cpu", threads=args.threads, progress=False, tensorboard=False, **given)
    split = prepare(config)
    wanted = dict(text.split("=", 1) for text in args.only)
    chosen = [c for c in combinations() if all(c[name] == value for name, value in wanted.items())]
    done = read(args.out) if args.out else {}
    first = popularity_row(split, config)
    about = (
        f"`python scripts/learn.py`: {args.data}, {config.training.epochs} epochs at most, one seed, "
        f"{config.evaluation.candidates} candidates and full ranking, all other options at their defaults."
    )
    print(" | ".join(first), flush=True)
    for combination in chosen:
        key = tuple(combination.values())
        if key not in done:
            done[key] = learned(split, config, **combination)
            print(" | ".join(done[key]), flush=True)
        if args.out:
            write(args.out, about, [first, *done.values()])
    return int(any(done[tuple(c.values())][-1] != "yes" for c in chosen))


if __name__ == "__main__":
    sys.exit(main())
