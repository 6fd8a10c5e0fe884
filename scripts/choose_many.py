#!/usr/bin/env python3
"""Score recipes around a preset by both protocols on a validation part; the test part is never read.

A fraction of each user's training interactions (--validation, .1 unless given), drawn by address as a run draws it, is
held out, and the test part is taken away. A recipe trains on the rest for its fixed epochs and is scored on what was
held out as a run is on its test part. Settings are options of `fastrec train`, and every combination is trained:

    FASTREC_DATA=FOLDER python scripts/choose_many.py gowalla margin=.7,.8 negatives=256,800
    FASTREC_DATA=FOLDER python scripts/choose_many.py fast --data ml-1m dim=64,128 --k 10 --baselines ease

What is chosen is scored on the test part once, by `fastrec train --preset NAME`.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

from fastrec.config import preset, presets
from fastrec.data.split import Split
from fastrec.errors import FastrecError
from fastrec.evaluation.baseline_runs import run_baselines
from fastrec.training.fit import fit
from fastrec.training.resolve import SPLITTING

sys.path.insert(0, str(Path(__file__).resolve().parent))
from choose_default import untested
from choose_ncf import recipes


def held_out(split: Split) -> Split:
    """The validation part in the place of a test part, so that a fit scores it; no validation part is left."""
    return replace(split, validation=split.test, test=split.validation, candidates=None)


def row(name: str, found: list[dict[str, Any]], k: int, seconds: float, *, each: bool) -> str:
    """One line of the table: means over runs of both protocols, and NDCG@K by full ranking of each."""
    protocols = sorted(found[0], key=lambda p: p != "full ranking")[:2]
    cells = []
    for protocol in protocols:
        for metric in ("Recall", "HR", "NDCG"):
            cells.append(f"{statistics.mean(f[protocol][f'{metric}@{k}'] for f in found):.4f}")
    runs = " ".join(f"{f['full ranking'][f'NDCG@{k}']:.4f}" for f in found) if each else ""
    return f"| {name} | {' | '.join(cells)} | {seconds:.0f} | {runs} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=presets(), help="the recipe to start from")
    parser.add_argument("settings", nargs="*", metavar="key=value[,value]", help="options of fastrec train to vary")
    parser.add_argument("--data", help="in place of the preset's")
    parser.add_argument("--validation", type=float, default=0.1, help="fraction of train held out (default .1)")
    parser.add_argument("--k", type=int, default=20, help="cutoff of the metrics (default 20)")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each recipe")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--baselines", default="", metavar="NAME,NAME", help="baselines in the same table")
    args = parser.parse_intermixed_args()  # settings may come after options too
    try:
        base = preset(args.preset).override(
            validation=args.validation, patience=0, cutoffs=(args.k,), progress=False, tensorboard=False
        )
        base = base.override(threads=args.threads, **({"data": args.data} if args.data else {}))
        split = held_out(untested(base))
        print(f"# {base.data.data}: {split.train.n_interactions:,} to train on, {split.test.n_interactions:,} held out")
        heads = [
            f"{metric}@{args.k} {where}" for where in ("full", "candidates") for metric in ("Recall", "HR", "NDCG")
        ]
        print(f"| recipe | {' | '.join(heads)} | s | each |\n|{'---|' * (len(heads) + 3)}", flush=True)
        names = [name for name in args.baselines.split(",") if name]
        for name, found in run_baselines(split, names, cutoffs=(args.k,), threads=args.threads).items():
            if reason := found.get("left_out"):
                print(f"| {name}: {reason} |")
                continue
            print(row(f"{name}, first setting", [found["metrics"]], args.k, found["seconds"], each=False), flush=True)
        for recipe in recipes(args.settings):
            metrics, seconds = [], []
            for seed in range(args.seeds):
                config = base.override(**recipe, seed=seed)
                kept = {k: v for k, v in config.origins.items() if k not in SPLITTING}  # the split is made
                with tempfile.TemporaryDirectory(prefix="fastrec-choose-") as folder:
                    result = fit(split, config.settled({}, origins=kept), out=Path(folder) / "run")
                if result.stopped == "interrupted":
                    sys.exit("interrupted: the recipe in hand has no row")
                metrics.append(result.metrics)
                seconds.append(result.seconds)
            text = " ".join(f"{k}={v}" for k, v in recipe.items()) or "as it is"
            print(row(text, metrics, args.k, statistics.mean(seconds), each=args.seeds > 1), flush=True)
    except FastrecError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
