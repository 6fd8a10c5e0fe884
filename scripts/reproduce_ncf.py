#!/usr/bin/env python3
"""Train the presets of the NCF benchmark and print their test scores next to the published ones.

Each run is a fresh process, as a user starts it: its wall time counts imports, loading, compilation, training and
evaluation. ``ncf-mf-fast`` starts with an empty Numba cache too. The test part is scored once per run, at its end.

    python scripts/reproduce_ncf.py --rows ncf-mf ncf-mf-fast --seeds 5
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Row:
    """A preset and what it is compared with.

    Parameters
    ----------
    published : str
        "HR@10 / NDCG@10 (source)".
    seeds : int
        Seeds of a full reproduction.
    cold : bool
        Start with an empty Numba cache.
    needs : dict
        Option of ``fastrec train`` -> preset whose run folder of the same seed it takes.
    """

    published: str
    seeds: int = 1
    cold: bool = False
    needs: tuple[tuple[str, str], ...] = ()


ROWS = {
    "ncf-mf": Row(".7294 / .4523 (Rendle 2020, dot product, d=192, mean of 8)", seeds=5),
    "ncf-mf-fast": Row(".7294 / .4523 (Rendle 2020)", seeds=3, cold=True),
    "ncf-gmf-fused-64": Row(".706 / .433 (GMF 32, guoyang9/NCF)", seeds=5),
    "ncf-gmf-8": Row(".6368 / .3691 (GMF 8, the authors' published weights)"),
    "ncf-gmf-64": Row(".706 / .433 (GMF 32, guoyang9/NCF)"),
    "ncf-mlp-64": Row(".702 / .426 (MLP-3 64, NCF paper)"),
    "ncf-neumf-64": Row(".705 / .426 (NeuMF 64 from scratch, NCF paper)"),
    "ncf-neumf-64-pretrained": Row(
        ".730 / .447 (NeuMF 64 pretrained, NCF paper)",
        needs=(("pretrained-gmf", "ncf-gmf-fused-64"), ("pretrained-mlp", "ncf-mlp-64")),
    ),
}


def train(preset: str, seed: int, folder: Path, row: Row, extra: list[str]) -> dict[str, Any]:
    """One run in a process of its own; its scores and wall time in seconds."""
    out = folder / f"{preset}-seed-{seed}"
    command = [sys.executable, "-m", "fastrec", "train", "--preset", preset, "--seed", str(seed), "--out", str(out)]
    for option, other in row.needs:
        part = folder / f"{other}-seed-{seed}"
        if not part.exists():
            train(other, seed, folder, ROWS[other], extra)
        command += [f"--{option}", str(part)]
    environment = dict(os.environ)
    with tempfile.TemporaryDirectory(prefix="fastrec-numba-") as cache:
        if row.cold:
            environment["NUMBA_CACHE_DIR"] = cache
        began = time.perf_counter()
        done = subprocess.run([*command, "--no-progress", *extra], env=environment, capture_output=True, text=True)
        wall_s = time.perf_counter() - began
    if done.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}")
    result = json.loads((out / "manifest.json").read_text())["result"]
    scores = next(values for name, values in result["metrics"].items() if name.endswith("candidates"))
    return {
        "HR@10": scores["HR@10"],
        "NDCG@10": scores["NDCG@10"],
        "errors": scores["standard_errors"],
        "wall_s": wall_s,
        "train_s": result["seconds"],
        "samples_per_s": result["samples_per_s"],
    }


def line(preset: str, runs: list[dict[str, Any]]) -> str:
    """A row of the table: means over the seeds, their spread, and the standard error over users."""
    cells = [preset, str(len(runs))]
    for name in ("HR@10", "NDCG@10"):
        values = [r[name] for r in runs]
        between = f" (seeds {min(values):.4f} to {max(values):.4f})" if len(values) > 1 else ""
        cells.append(f"{statistics.mean(values):.4f} ± {runs[0]['errors'][name]:.4f}{between}")
    cells += [ROWS[preset].published, f"{statistics.median(r['wall_s'] for r in runs):.1f} s"]
    cells.append(f"{statistics.median(r['samples_per_s'] for r in runs) / 1e6:.1f} M/s")
    return "| " + " | ".join(cells) + " |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), help="presets (default: all)")
    parser.add_argument("--seeds", type=int, help="seeds 0, 1, ... of each row (default: the row's own number)")
    parser.add_argument("--keep", metavar="FOLDER", help="keep the run folders here (default: a temporary folder)")
    parser.add_argument("options", nargs="*", help="after --: further options of fastrec train, such as --threads 1")
    args = parser.parse_args()
    print(
        "| preset | seeds | HR@10 | NDCG@10 | published | wall | training |\n|---|---|---|---|---|---|---|", flush=True
    )
    with tempfile.TemporaryDirectory(prefix="fastrec-ncf-") as temporary:
        folder = Path(args.keep or temporary)
        folder.mkdir(parents=True, exist_ok=True)
        for preset in args.rows:
            row = ROWS[preset]
            runs = [train(preset, seed, folder, row, args.options) for seed in range(args.seeds or row.seeds)]
            print(line(preset, runs), flush=True)
    print("\n± standard error over users of one run; wall: median of entire processes; training: samples per second.")


if __name__ == "__main__":
    main()
