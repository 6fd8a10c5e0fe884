#!/usr/bin/env python3
"""Score settings around the defaults of `fastrec train` by validation only: the test part is never read.

The split is the one a default run makes of the data set, its test part taken away. One line a setting: HR@10 and
NDCG@10 of the epoch that early stopping keeps, for each seed.

    FASTREC_DATA=FOLDER python scripts/choose_default.py ml-1m l2=.0015,.0025 schedule=linear --seeds 2 --threads 1
"""

from __future__ import annotations

import argparse
import statistics
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np

from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.errors import FastrecError
from fastrec.training.job import prepare

sys.path.insert(0, str(Path(__file__).resolve().parent))
from choose_ncf import SELECT, recipes, score


def untested(config: Config) -> Split:
    """The split that the config makes, without its test pairs (and the candidates that come with them)."""
    split = prepare(config)
    return replace(split, test=split.test.keep(np.zeros(split.test.n_interactions, bool)), candidates=None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="as in fastrec train --data")
    parser.add_argument("settings", nargs="*", metavar="key=value[,value]", help="options of fastrec train to vary")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each setting")
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--threads", type=int, help="CPU threads")
    args = parser.parse_intermixed_args()  # settings may follow options too
    try:
        base = Config(data=args.data, select=SELECT, progress=False, tensorboard=False, threads=args.threads)
        split = untested(base)
        print(f"# {args.data}, {split.validation.n_interactions:,} validation positives")
        print("| setting | HR@10 | NDCG@10 | lowest NDCG@10 | best epochs | s |\n|---|---|---|---|---|---|", flush=True)
        for recipe in recipes(args.settings):
            runs = []
            for seed in range(args.first_seed, args.first_seed + args.seeds):
                epochs, seconds = score(split, base.override(**recipe, seed=seed))
                runs.append((max(epochs, key=lambda row: row[f"val {SELECT}"]), len(epochs), seconds))
            hits, ndcg = ([best[f"val candidates:{name}@10"] for best, _, _ in runs] for name in ("HR", "NDCG"))
            text = " ".join(f"{k}={v}" for k, v in recipe.items()) or "as it is"
            kept = " ".join(f"{best['epoch']}/{done}" for best, done, _ in runs)
            means = f"{statistics.mean(hits):.4f} | {statistics.mean(ndcg):.4f} | {min(ndcg):.4f}"
            print(f"| {text} | {means} | {kept} | {statistics.mean(s for _, _, s in runs):.0f} |", flush=True)
    except FastrecError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
