"""Time two commits in interleaved runs, and check that their losses, draws or arrays are bit-equal.

    python scripts/compare.py main HEAD                 # the torch engine, on the synthetic set
    python scripts/compare.py HEAD~3 . --engine fused --options '{"model": "mf", "optimizer": "sgd", "lr": 0.02}'
    python scripts/compare.py HEAD~3 . --engine sampler --data ml-1m --options '{"order": "shuffled"}'
    python scripts/compare.py HEAD~3 . --engine load --data ratings.dat --steps 3

``.`` is the working tree. Each commit is checked out into a git worktree of its own and trains, samples or loads in a
process of its own; the two take turns, so that both run under the same load. A refactor proves itself by "losses:
bit-equal" (sampler and load: the bytes of the draws and of the arrays) and a ratio whose interval contains 1. Exits
with 1 if the losses differ (unless --losses-may-differ) or the second is slower, else 0.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).with_name("compare_worker.py")
"""Always the one of this tree: it runs with the package of either commit."""
DEFAULTS: dict[str, dict[str, Any]] = {
    "torch": {"engine": "torch", "model": "gmf", "optimizer": "adam", "lr": 1e-3},
    "fused": {"engine": "fused", "model": "mf", "optimizer": "sgd", "lr": 0.02, "fused_mode": "deterministic"},
    "sampler": {},
    "load": {},
}


class Side:
    """One commit: its tree, and the process that trains in it."""

    def __init__(self, name: str, folder: Path, settings: dict[str, Any]) -> None:
        self.name, self.tree = name, ROOT
        if name != ".":
            self.tree = folder / f"{len(list(folder.iterdir()))}-{git('rev-parse', '--short', name)}"
            git("worktree", "add", "--detach", "--quiet", str(self.tree), name)
        environment = {**os.environ, "PYTHONPATH": str(self.tree)}
        environment["NUMBA_CACHE_DIR"] = str(folder / f"numba-{self.tree.name}")  # never a kernel of the other
        self.process = subprocess.Popen(
            [sys.executable, str(WORKER), json.dumps(settings)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=self.tree,
            env=environment,
        )
        self.rates: list[float] = []
        self.losses: list[str] = []

    def go(self, steps: int, *, timed: bool) -> None:
        """Some steps; the losses are kept, the rate only if ``timed``."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        print(steps, file=self.process.stdin, flush=True)
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name}: its process ended with {self.process.wait()}")
        answer = json.loads(line)
        self.losses.append(f"{answer['loss']} at {tuple(answer['cursor'])}")
        if timed:
            self.rates.append(answer["samples"] / answer["seconds"])

    def close(self) -> None:
        """End the process and remove the tree."""
        if self.process.stdin:
            self.process.stdin.close()
        self.process.wait()
        if self.tree != ROOT:
            git("worktree", "remove", "--force", str(self.tree))


def git(*args: str) -> str:
    """Run git in the project; its output."""
    done = subprocess.run(["git", "-C", str(ROOT), *args], capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"git {' '.join(args)}: {done.stderr.strip()}")
    return done.stdout.strip()


def main() -> int:
    """Compare and print; the exit code says whether the second may replace the first."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", help="a commit")
    parser.add_argument("after", help="a commit, or . for the working tree")
    parser.add_argument("--engine", choices=sorted(DEFAULTS), default="torch")
    parser.add_argument("--options", type=json.loads, default={}, help="Config fields as JSON, over the engine's own")
    parser.add_argument("--data", default="synthetic-100k", help="a data set or file (default: %(default)s)")
    parser.add_argument("--steps", type=int, default=20, help="steps a turn (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=9, help="turns each (default: %(default)s)")
    parser.add_argument("--losses-may-differ", action="store_true", help="compare only speed")
    args = parser.parse_args()
    options = {**DEFAULTS[args.engine], "seed": 42, "device": "cpu", **args.options}
    settings = {"engine": args.engine, "data": args.data, "options": options}
    folder = Path(tempfile.mkdtemp(prefix="fastrec-compare-"))
    sides: list[Side] = []
    try:
        for name in (args.before, args.after):
            sides.append(Side(name, folder, settings))
        for turn in range(args.rounds + 1):  # the first turn compiles
            for side in sides if turn % 2 == 0 else sides[::-1]:
                side.go(args.steps, timed=turn > 0)
    finally:
        for side in sides:
            side.close()
        shutil.rmtree(folder, ignore_errors=True)
    before, after = sides
    for side in sides:
        print(f"{side.name:<24} {statistics.median(side.rates):>14,.0f} samples/s  (lowest {min(side.rates):,.0f})")
    ratios = [b / a for a, b in zip(before.rates, after.rates)]
    print(f"after / before: {statistics.median(ratios):.3f}x, from {min(ratios):.3f}x to {max(ratios):.3f}x")
    differing = [turn for turn, (a, b) in enumerate(zip(before.losses, after.losses)) if a != b]
    if differing:
        turn = differing[0]
        print(f"losses: DIFFER from turn {turn} on: {before.losses[turn]} against {after.losses[turn]}")
    else:
        print(f"losses: bit-equal over {len(before.losses)} turns")
    slower = max(ratios) < 0.97
    return int(slower or (bool(differing) and not args.losses_may_differ))


if __name__ == "__main__":
    sys.exit(main())
