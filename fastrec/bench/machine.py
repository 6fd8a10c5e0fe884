"""Origin of a figure: machine, versions, commit, copy bandwidth, peak memory of a process."""

from __future__ import annotations

import statistics
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.calibration import REFERENCE_RATE, calibration_rate
from fastrec.errors import FastrecError
from fastrec.jit import run_ranges
from fastrec.runs.provenance import environment


def _first(path: str, key: str) -> str | None:
    try:
        for line in Path(path).read_text().splitlines():
            if line.startswith(key):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return None


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


def bandwidth(threads: int, device: str = "cpu") -> dict[str, float]:
    """Copy bandwidth in bytes a second: of one thread, of ``threads``, and of the device's own memory on CUDA."""
    found = {"1": copy_bandwidth(1), str(threads): copy_bandwidth(threads)}
    return found | ({device: device_bandwidth(device)} if device.startswith("cuda") else {})


def describe(threads: int, device: str, copy_bytes_per_s: dict[str, float]) -> dict[str, Any]:
    """Everything a reader needs to know what a figure was measured on."""
    calibration = [calibration_rate() for _ in range(9)]
    memory = _first("/proc/meminfo", "MemTotal")
    gpu = None
    if device.startswith("cuda"):
        import torch

        gpu = torch.cuda.get_device_name(device)
    found = environment()
    commit = found["commit"]
    return {
        "cpu": found["processor"],
        "cores": found["usable_processors"],
        "threads": threads,
        "memory_bytes": int(memory.split()[0]) * 1024 if memory else None,
        "os": found["platform"],
        "gpu": gpu,
        "device": device,
        "versions": {"fastrec": found["fastrec"], "python": found["python"], **found["packages"]},
        "copy_bytes_per_s": copy_bytes_per_s,
        "calibration": {
            "rate": statistics.median(calibration),
            "low": min(calibration),
            "high": max(calibration),
            "reference_rate": REFERENCE_RATE,
        },
        "commit": commit.removesuffix("-dirty") if commit else None,
        "dirty": commit.endswith("-dirty") if commit else None,
    }


def peak_bytes() -> int:
    """Most memory this process has held, in bytes (VmHWM).

    ``getrusage`` will not do: after an exec its ru_maxrss still holds the parent's peak.
    """
    line = _first("/proc/self/status", "VmHWM")
    if line is None:
        raise FastrecError("peak memory is read from /proc/self/status, which this system does not have")
    return int(line.split()[0]) * 1024
