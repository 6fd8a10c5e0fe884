"""Part "soak": one long run, killed every minute and resumed; memory, checkpoints and logs are watched."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.runs import open_run
from fastrec.training.fit import fit, resume
from scripts.torture import worlds
from scripts.torture.children import in_child, resident_bytes

KILL_S = 60.0
WARM_S = 10.0
"""Seconds after a start that the slope leaves out: caches and pools fill."""
STEEPEST = 64e6
"""Bytes a minute of growth that count as a leak, for a segment of a minute; noise of the allocator is far below."""


def start(folder: Path) -> int:
    """Train or resume in a forked process; its pid."""
    pid = os.fork()
    if pid:
        return pid
    try:
        void = os.open(os.devnull, os.O_RDWR)
        for k in range(3):
            os.dup2(void, k)
        if (folder / "run" / "manifest.json").exists():
            resume(folder / "run")
        else:
            shutil.rmtree(folder / "run", ignore_errors=True)
            options = worlds.config(epochs=1_000_000, patience=0, checkpoint_every=200, log_every=50, keep=2)
            fit(worlds.split(), options, out=folder / "run")
    except BaseException:
        os._exit(1)
    os._exit(0)


def slope(samples: list[tuple[float, int]]) -> float | None:
    """Bytes a minute by least squares; None for too few samples."""
    kept = [(t, b) for t, b in samples if t >= WARM_S]
    if len(kept) < 10:
        return None
    t, b = np.array(kept, float).T
    return float(np.polyfit(t / 60, b, 1)[0])


def sizes(folder: Path) -> dict[str, int]:
    """Files and bytes of the parts of a run that may grow."""
    checkpoints = list((folder / "run" / "checkpoints").glob("step-*.json"))
    events = [p.stat().st_size for p in (folder / "run").glob("events*")]
    metrics = folder / "run" / "metrics.jsonl"
    return {
        "checkpoints": len(checkpoints),
        "event_files": len(events),
        "event_bytes": sum(events),
        "metrics_bytes": metrics.stat().st_size if metrics.exists() else 0,
        "steps": max((int(p.stem.partition("-")[2]) for p in checkpoints), default=0),
    }


def segment(folder: Path, seconds: float) -> tuple[list[tuple[float, int]], int | None]:
    """Train for a while, then kill: (seconds, resident bytes) twice a second, and the exit status of an early end."""
    pid, began = start(folder), time.monotonic()
    samples: list[tuple[float, int]] = []
    while (passed := time.monotonic() - began) < seconds:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return samples, os.waitstatus_to_exitcode(status)
        with contextlib.suppress(OSError):
            samples.append((passed, resident_bytes(pid)))
        time.sleep(0.5)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return samples, None


def finish(folder: Path) -> dict[str, Any]:
    """Resume once more, stop it with SIGTERM as a cluster does, and read the run."""

    def work() -> dict[str, Any]:
        signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGTERM))
        signal.alarm(5)
        stopped = resume(folder / "run").stopped
        run = open_run(folder / "run")
        run.split()
        lines = [json.loads(x) for x in (folder / "run" / "metrics.jsonl").read_bytes().splitlines()]
        steps = [x["step"] for x in lines if x["kind"] == "train"]
        return {"stopped": stopped, "in order": steps == sorted(set(steps)), "lines": len(lines)}

    end = in_child(work)
    return end.value if end.how == "returned" else {"stopped": f"{end.how}: {end.value}", "in order": False}


def main(seed: int, minutes: float, *, kill_s: float = KILL_S) -> dict[str, Any]:  # noqa: ARG001
    """Kill every ``kill_s`` seconds until the time is used up; the last segment is as long as the first."""
    import torch

    torch.set_num_threads(1)
    base = Path(tempfile.mkdtemp(prefix="fastrec-soak-"))
    slopes, wrong, kills, most = [], [], 0, 0
    steps: list[int] = []
    try:
        worlds.learn_reference(base)
        deadline = time.monotonic() + 60 * minutes
        while time.monotonic() < deadline or not kills:
            samples, ended = segment(base, kill_s)
            if ended is not None:
                wrong.append(f"the run ended by itself with status {ended}")
                break
            kills += 1
            most = max([most, *(b for _, b in samples)])
            if (found := slope(samples)) is not None:
                slopes.append(found)
            seen = sizes(base)
            steps.append(seen["steps"])
            if seen["checkpoints"] > 3:
                wrong.append(f"{seen['checkpoints']} checkpoints are kept")
        end = finish(base)
        seen = sizes(base)
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if end["stopped"] != "interrupted" or not end["in order"]:
        wrong.append(f"the end: {end}")
    if steps != sorted(steps) or (len(steps) > 1 and len(set(steps)) == 1):
        wrong.append(f"the run does not get on: {steps}")
    median = float(np.median(slopes)) if slopes else None
    if median is not None and median > STEEPEST:
        wrong.append(f"memory grows by {median / 1e6:.1f} MB a minute")
    return {
        "part": "soak",
        "kills": kills,
        "steps": seen["steps"],
        "slope_mb_per_minute": None if median is None else round(median / 1e6, 3),
        "slopes_mb_per_minute": [round(s / 1e6, 3) for s in slopes],
        "peak_bytes": most,
        "event_bytes_per_step": round(seen["event_bytes"] / max(1, seen["steps"]), 1),
        "sizes": seen,
        "end": end,
        "wrong": wrong,
    }
