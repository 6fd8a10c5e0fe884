"""Where a figure comes from: machine, versions, commit, copy bandwidth, peak memory of a process."""

from __future__ import annotations

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.calibration import REFERENCE_RATE, calibration_rate
from fastrec.errors import FastrecError
from fastrec.jit import available_threads, run_ranges

ROOT = Path(__file__).resolve().parent.parent.parent
PACKAGES = ("numpy", "numba", "llvmlite", "polars", "torch", "triton", "safetensors")


def _first(path: str, key: str) -> str | None:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return None


def commit() -> dict[str, Any]:
    """``commit`` (40 hex digits, or None outside a git checkout) and ``dirty`` (tracked files differ from it)."""

    def git(*args: str) -> str | None:
        try:
            done = subprocess.run(["git", *args], cwd=ROOT, capture_output=True, text=True, check=True, timeout=20)
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    head = git("rev-parse", "HEAD")
    dirty = git("status", "--porcelain", "--untracked-files=no", "--", "fastrec")
    return {"commit": head, "dirty": None if dirty is None else bool(dirty)}


def versions() -> dict[str, str | None]:
    """Python and the packages that a figure depends on; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def copy_bandwidth(threads: int, *, size_bytes: int = 1 << 28, repeats: int = 5) -> float:
    """Bytes a second moved by a plain copy of ``size_bytes`` (read plus written: twice the size), best of ``repeats``.

    The write-allocate traffic of the cache is not counted, as in STREAM's copy.
    """
    source = np.ones(size_bytes // 8, dtype=np.float64)
    target = np.zeros_like(source)
    best = float("inf")

    def work(lo: int, hi: int) -> None:
        np.copyto(target[lo:hi], source[lo:hi])  # releases the GIL

    for _ in range(repeats + 1):
        started = time.perf_counter()
        run_ranges(work, source.size, threads)
        best = min(best, time.perf_counter() - started)
    return 2.0 * source.nbytes / best


def device_bandwidth(device: str, *, size_bytes: int = 1 << 30) -> float:
    """The same for a CUDA device's own memory, by ``torch.Tensor.copy_``."""
    import torch

    source = torch.ones(size_bytes // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(10):
        torch.cuda.synchronize(device)
        started = time.perf_counter()
        target.copy_(source)
        torch.cuda.synchronize(device)
        best = min(best, time.perf_counter() - started)
    return 2.0 * size_bytes / best


def describe(threads: int, device: str = "cpu") -> dict[str, Any]:
    """Everything a reader needs to know what a figure was measured on."""
    calibration = [calibration_rate() for _ in range(9)]
    memory = _first("/proc/meminfo", "MemTotal")
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    return {
        "cpu": _first("/proc/cpuinfo", "model name") or platform.processor() or platform.machine(),
        "cores": available_threads(),
        "threads": threads,
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "os": f"{platform.system()} {platform.release()}",
        "gpu": gpu,
        "device": device,
        "versions": versions(),
        "numba_cpu": os.environ.get("NUMBA_CPU_NAME"),
        "copy_bytes_per_s": {
            "1": copy_bandwidth(1),
            str(threads): copy_bandwidth(threads),
            **({device: device_bandwidth(device)} if gpu else {}),
        },
        "calibration": {
            "rate": statistics.median(calibration),
            "low": min(calibration),
            "high": max(calibration),
            "reference_rate": REFERENCE_RATE,
        },
        **commit(),
    }


def peak_bytes() -> int:
    """Most memory this process has held, in bytes (VmHWM).

    ``getrusage`` will not do: after an exec its ru_maxrss still holds the parent's peak.
    """
    line = _first("/proc/self/status", "VmHWM")
    if line is None:
        raise FastrecError("peak memory is read from /proc/self/status, which this system does not have")
    return int(line.split()[0]) * 1024


def fresh_process(code: str, *, timeout_s: float = 600, env: dict[str, str] | None = None) -> dict[str, Any]:
    """Run Python code in a process of its own and return the dict that it prints as its last line of JSON.

    Parameters
    ----------
    code : str
        Source; its last printed line is a JSON object.
    env : dict
        Variables added to the environment.

    Raises
    ------
    FastrecError
        If the process fails, with the end of what it said.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise FastrecError(f"a measuring process ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result


def bytes_per_sample(dim: int, n_negatives: int, *, weight: int = 4, state: int = 0, row_state: int = 0) -> float:
    """Bytes moved per sample by a pass that reads and writes each row once per use.

    Parameters
    ----------
    dim : int
        D, elements of a row.
    weight, state : int
        Bytes per element of the weights and of the optimiser's state, each read and written.
    row_state : int
        Bytes of optimiser state per row.

    Notes
    -----
    Q = 2 D (weight + state) + 2 row_state; per sample Q (item) + Q / (N+1) (user, shared by N+1 samples)
    + 4 (1 + 1/(N+1)) (the ids, int32).
    """
    row = 2.0 * dim * (weight + state) + 2.0 * row_state
    share = 1.0 / (n_negatives + 1)
    return row + row * share + 4.0 * (1.0 + share)
