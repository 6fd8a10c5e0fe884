"""Provenance of a run: the data's fingerprints, and the machine and packages."""

from __future__ import annotations

import hashlib
import json
import os
import platform
import subprocess
import sys
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import fastrec
from fastrec.data.split import Split
from fastrec.jit import available_threads

PACKAGES = ("numpy", "numba", "polars", "torch", "triton", "safetensors")


def fingerprints(split: Split) -> dict[str, str]:
    """sha256 of each part's CSR and id maps, and ``split`` over the three and the rule that cut them.

    Times are left out: nothing after the split sees them, and a run folder does not keep them.
    """
    parts = {
        name: replace(getattr(split, name), timestamps=None, file_order=None).fingerprint()
        for name in ("train", "validation", "test")
    }
    whole = hashlib.sha256(json.dumps([split.how, parts], sort_keys=True).encode()).hexdigest()
    return {**parts, "split": whole}


def describe(split: Split) -> dict[str, Any]:
    """Description of a split for records: name, rule, counts, fingerprints, notes."""
    counts = {f"n_{name}": getattr(split, name).n_interactions for name in ("train", "validation", "test")}
    return {
        "name": split_name(split),
        "split": split.how,
        "n_users": split.n_users,
        "n_items": split.n_items,
        **counts,
        "fingerprints": fingerprints(split),
        "comparable": split.comparable,
        "notes": [*split.train.notes, *split.notes],
    }


def split_name(split: Split) -> str:
    """Name of the data that were split."""
    return split.train.name.removesuffix(" train")


def environment() -> dict[str, Any]:
    """Python, packages, machine, processors, the device torch would pick, the commit, and the command."""
    packages: dict[str, str | None] = {}
    for name in PACKAGES:
        try:
            packages[name] = version(name)
        except PackageNotFoundError:
            packages[name] = None
    return {
        "fastrec": fastrec.__version__,
        "commit": commit(),
        "python": platform.python_version(),
        "packages": packages,
        "platform": platform.platform(),
        "processor": _processor(),
        "processors": os.cpu_count(),
        "usable_processors": available_threads(),
        "cuda": _cuda(),
        "command": sys.argv,
    }


def commit() -> str | None:
    """The git commit fastrec itself was run from, with ``-dirty`` where its files differ; None where not in git."""
    folder = Path(fastrec.__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", "-C", folder, *arguments], capture_output=True, text=True, timeout=10)
        except (OSError, subprocess.TimeoutExpired):
            return None
        return done.stdout.strip() if done.returncode == 0 else None

    # an environment inside somebody else's repository must not be given that repository's commit
    if git("ls-files", "--error-unmatch", "__init__.py") is None:
        return None
    head = git("rev-parse", "HEAD")
    return f"{head}-dirty" if head and git("status", "--porcelain", "--", ".") else head


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()


def _cuda() -> list[str]:
    """Names of the CUDA devices; torch is asked only where it is loaded already, for it takes seconds to load."""
    torch = sys.modules.get("torch")
    if torch is None or not torch.cuda.is_available():
        return []
    return [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
