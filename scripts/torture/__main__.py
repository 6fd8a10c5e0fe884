"""``python -m scripts.torture [--part NAME] [--seed S] [--minutes M] [--hours H]``: each part prints JSON counts.

``--short`` is the form for the tests: some points of each part within seconds, and a writer that must be found wrong.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
PARTS = {
    "faults": (2.5, 35.0),
    "lost-power": (1.2, 15.0),
    "inputs": (1.2, 20.0),
    "csv": (0.5, 5.0),
    "integrity": (0.5, 5.0),
    "concurrency": (1.0, 5.0),
    "soak": (2.0, 30.0),
}
"""Part -> (minutes of a sample, minutes where --hours 2 asks for all)."""
CHEAP = (
    *("truncated gzip", "escaping member", "a link as member", "zip bomb", "a line without end, csv", "an open quote"),
    *("a header without end", "zeros, dat", "deep JSON", "long TOML key", "header of 2^63 bytes", "a pipe", "a device"),
)
"""Cases of the pack that take little time."""
SHIMMED = ("faults", "lost-power")


def run_part(part: str, seed: int, minutes: float) -> dict[str, Any]:
    """Run one part in this process; under the shim where it needs one."""
    if part in SHIMMED:
        from scripts.torture import shim

        if (reason := shim.why_not()) is not None:
            return {"part": part, "skipped": reason, "wrong": []}
        if not shim.active():
            command = [sys.executable, "-m", "scripts.torture", *sys.argv[1:]]
            os.execve(sys.executable, command, shim.preloaded(shim.build()))
    name = {"csv": "csv_tables"}.get(part, part.replace("-", "_"))
    module = importlib.import_module(f"scripts.torture.{name}")
    began = time.perf_counter()
    found: dict[str, Any] = module.main(seed, minutes)
    return {**found, "seed": seed, "minutes": round((time.perf_counter() - began) / 60, 2)}


def run_short(seed: int) -> dict[str, Any]:
    """Some points of every part but the soak, in one process; of each part its counts and what is wrong."""
    from scripts.torture import concurrency, csv_tables, faults, inputs, integrity, lost_power, pack, shim

    found: dict[str, Any] = {}
    if (reason := shim.why_not()) is not None:
        found["faults"] = found["lost-power"] = {"skipped": reason, "wrong": []}
    elif not shim.active():
        os.execve(
            sys.executable, [sys.executable, "-m", "scripts.torture", *sys.argv[1:]], shim.preloaded(shim.build())
        )
    else:
        found["faults"] = faults.main(seed, 1, names=["resume"], most=5)
        found["files"] = faults.main(seed, 1, names=["checkpoint", "interactions"], most=25)
        found["lost-power"] = lost_power.main(seed, 1, names=["checkpoint", "interactions"], most=12)
        found["in place"] = faults.main(seed, 1, names=["in place"])
    names = ["log.csv", "interactions", "tensors", "toml", "zip"]
    found["inputs"] = inputs.main(seed, 1, names=names, most=25, packed=False)
    found["pack"] = pack.main(1 << 20, [*CHEAP])
    found["csv"] = csv_tables.main(seed, 1, most=60)
    found["concurrency"] = concurrency.main(seed, 1, cycles=20, times=1, n_threads=4)
    found["integrity"] = integrity.main(seed, 1, most=10)  # last: it starts the threads of Polars in this process
    return found


def run_all(seed: int, hours: float | None) -> int:
    """Run every part in a process of its own; 0 if nothing was wrong."""
    worst = 0
    for part, (short, long) in PARTS.items():
        minutes = short if hours is None else long * hours / 2
        command = [sys.executable, "-m", "scripts.torture", "--part", part, "--seed", str(seed)]
        done = subprocess.run([*command, "--minutes", str(minutes)], cwd=ROOT)
        worst = max(worst, done.returncode if done.returncode >= 0 else 1)
    return worst


def main() -> int:
    """Parse the command line and run; 0 if nothing was wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--part", choices=PARTS, help="one part only")
    parser.add_argument("--seed", type=int, default=0, help="of the points and inputs that are drawn")
    parser.add_argument("--minutes", type=float, help="for the part")
    parser.add_argument("--hours", type=float, help="for all parts together; 2 covers every point")
    parser.add_argument("--short", action="store_true", help="some points of every part, within seconds")
    args = parser.parse_args()
    if args.short:
        print(json.dumps(run_short(args.seed)), flush=True)
        return 0
    if args.part is None:
        return run_all(args.seed, args.hours)
    found = run_part(args.part, args.seed, PARTS[args.part][0] if args.minutes is None else args.minutes)
    print(json.dumps(found, indent=2), flush=True)
    return 1 if found["wrong"] else 0


if __name__ == "__main__":
    sys.exit(main())
