"""Part "inputs": mutations by address over every reader; each is read or refused, within bounded time and memory.

Input k of a target is a function of (seed, target, k), so that any can be made again.
"""

from __future__ import annotations

import collections
import mmap
import random
import shutil
import signal
import struct
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

from fastrec.errors import FastrecError
from scripts.torture import pack
from scripts.torture.children import in_child
from scripts.torture.targets import Target, everything, trees
from tests.data.test_data_fuzz import try_one

CASE_S = 30
MOST_BYTES = 3 << 30
BATCH_S = 6.0
STREAM = 10**9
"""Inputs of one seed: those of the next begin there."""


def input_of(target: Target, name: str, number: int, folder: Path) -> None:
    """Write the numbered input of a target."""
    r = random.Random(f"{name} {number}")
    victim = r.choice(target.victims)
    shutil.rmtree(folder, ignore_errors=True)
    for file, content in target.tree.items():
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / file).write_bytes(target.mutate(file, content, r) if file == victim else content)


def tried(target: Target | None, name: str, number: int, folder: Path) -> str:
    """The outcome of one input: "read", "refused", or what is wrong with it."""
    if target is None:
        return try_one(name, number, folder)
    input_of(target, name, number, folder)
    try:
        target.read(folder)
        return "read"
    except FastrecError as error:
        said = str(error)
        odd = [c for c in said if c != "\n" and not c.isprintable()]
        return "refused" if said and not odd and len(said) < 1500 else f"unclear message: {said[:250]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:150]}"


def too_long(*_: Any) -> None:
    """Interrupt an input that hangs in Python."""
    raise TimeoutError(f"more than {CASE_S} s")


def batch(target: Target | None, name: str, first: int, until: float, mark: mmap.mmap, most: int | None) -> Any:
    """Inputs from ``first`` on until the time is up: (how many, counts, what is wrong); runs in a child."""
    counts: collections.Counter[str] = collections.Counter()
    wrong, number = [], first
    signal.signal(signal.SIGALRM, too_long)
    with tempfile.TemporaryDirectory(prefix="fastrec-input-") as folder:
        while time.monotonic() < until and (most is None or number - first < most):
            mark[:8] = struct.pack("<q", number)
            signal.alarm(CASE_S)
            what = tried(target, name, number, Path(folder) / "case")
            signal.alarm(0)
            counts[what if what in ("read", "refused") else "wrong"] += 1
            if what not in ("read", "refused"):
                wrong.append(f"{name}, input {number}: {what}")
            number += 1
    return number - first, dict(counts), wrong[:20]


def main(
    seed: int, minutes: float, *, names: list[str] | None = None, most: int | None = None, packed: bool = True
) -> dict[str, Any]:
    """The pack of hostile files, then inputs of every target in turn until the time is used up."""
    import torch

    torch.set_num_threads(1)
    base, mark = Path(tempfile.mkdtemp(prefix="fastrec-inputs-")), mmap.mmap(-1, 8)
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    wrong: list[str] = []
    peak = 0
    try:
        if packed:
            found = pack.main(1 << 30 if minutes >= 20 else 1 << 23)
            wrong += found["wrong"]
        end = in_child(lambda: trees(base))
        assert end.how == "returned", end
        targets = {k: t for k, t in everything(base).items() if names is None or k in names}
        deadline = time.monotonic() + 60 * minutes  # the pack and setting up are not counted
        following = dict.fromkeys(targets, seed * STREAM)
        while True:
            for name, target in targets.items():
                first, until = following[name], time.monotonic() + min(BATCH_S, 50 * minutes / len(targets))
                end = in_child(lambda t=target, n=name, f=first, u=until: batch(t, n, f, u, mark, most), 5 * CASE_S)
                peak = max(peak, end.peak_bytes)
                if end.how == "returned":
                    n, outcome, faults = end.value
                    following[name] += n
                    counts[name].update(outcome)
                    wrong += faults
                else:  # the inputs before the one that ended it were fine
                    last = struct.unpack("<q", mark[:8])[0]
                    following[name] = last + 1
                    counts[name]["wrong"] += 1
                    wrong.append(f"{name}, input {last}: the process {end.how}: {end.value}")
                if time.monotonic() > deadline:
                    break
            if time.monotonic() > deadline or most is not None:
                break
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if peak > MOST_BYTES:
        wrong.append(f"a process took {peak / 1e9:.1f} GB")
    return {
        "part": "inputs",
        "inputs": sum(following[name] - seed * STREAM for name in following),
        "targets": len(targets),
        "not_reached": [name for name in targets if not counts[name]],
        "by_target": {name: dict(c) for name, c in counts.items()},
        "pack": found if packed else None,
        "peak_bytes": peak,
        "wrong": wrong,
    }
