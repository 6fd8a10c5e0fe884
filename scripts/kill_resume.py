#!/usr/bin/env python3
"""Kill a training run at random moments, resume it each time, and compare its end with that of an uninterrupted run.

    python scripts/kill_resume.py [--kills 50] [--model gmf] [--engine torch] [--seed 0] [--json FILE]

Each round starts a training run (or resumes it) in a process of its own and kills it after a random time.
When the kills are used up the run is resumed to its end. Its weights must equal those of a run nobody killed, byte for
byte. A second run is made and killed again whenever one ends before the kills are used up.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from fastrec.runs.provenance import environment

ROOT = Path(__file__).resolve().parent.parent
WORKER = Path(__file__).with_name("kill_resume_worker.py")


def start(folder: Path, model: str, engine: str) -> subprocess.Popen[str]:
    """Train or resume in a process of its own."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, str(WORKER), str(folder), model, engine]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def digest(folder: Path) -> str:
    """sha256 of the final weights."""
    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def main() -> int:
    """Run it; 0 if every end equals the uninterrupted one."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=50)
    parser.add_argument("--model", default="gmf", choices=("mf", "gmf", "mlp", "neumf"))
    parser.add_argument("--engine", default="torch", choices=("torch", "fused"), help="fused: its deterministic mode")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--json", type=Path, help="write the result here")
    args = parser.parse_args()
    moments = random.Random(args.seed)
    base = Path(tempfile.mkdtemp(prefix="fastrec-kill-"))
    began = time.perf_counter()
    whole = start(base / "uninterrupted", args.model, args.engine)
    out, err = whole.communicate()
    if whole.returncode:
        print(err, file=sys.stderr)
        return 1
    lasted = time.perf_counter() - began
    expected, stopped = digest(base / "uninterrupted"), out.strip()
    kills, ends, phases = 0, 0, {"before the folder": 0, "before a checkpoint": 0, "after a checkpoint": 0}
    while kills < args.kills or ends == 0:
        folder = base / f"run-{ends}"
        began, again = time.perf_counter(), not folder.exists()
        process = start(folder, args.model, args.engine)
        try:
            # a little beyond a complete run: some rounds end by themselves
            out, err = process.communicate(timeout=moments.uniform(0, 1.05 * lasted) if kills < args.kills else None)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.communicate()
            kills += 1
            made = (folder / "manifest.json").exists()
            kept = list((folder / "checkpoints").glob("step-*.json"))
            phases["after a checkpoint" if kept else "before a checkpoint" if made else "before the folder"] += 1
            if folder.exists() and not made:
                shutil.rmtree(folder)  # cut off while it was made: resume names it as such, nothing is lost
            print(f"\rkill {kills}/{args.kills}, runs ended {ends}", end="", file=sys.stderr, flush=True)
            continue
        if process.returncode or digest(folder) != expected or out.strip() != stopped:
            print(f"\n{folder}: {err or 'other weights than the run nobody killed'}", file=sys.stderr)
            return 1
        ends += 1
        if again:  # the first run may have waited for the machine: moments are to fall inside a run
            lasted = min(lasted, time.perf_counter() - began)
    print(file=sys.stderr)
    made_on = environment()
    result: dict[str, Any] = {
        "script": "scripts/kill_resume.py",
        "model": args.model,
        "engine": args.engine,
        "machine": made_on["processor"],
        "commit": made_on["commit"],
        "kills": kills,
        "kills_by_phase": phases,
        "runs_ended_byte_equal": ends,
        "seed": args.seed,
        "weights_sha256": expected,
        "uninterrupted_s": round(lasted, 1),
    }
    print(json.dumps(result, indent=2))
    if args.json:
        args.json.write_text(json.dumps(result, indent=2) + "\n")
    shutil.rmtree(base)
    return 0


if __name__ == "__main__":
    sys.exit(main())
