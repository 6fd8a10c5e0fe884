"""Part "faults": a process killed, torn or refused by the system at each of its file calls.

After each fault the folder holds the old state or the new one, and a run resumes to equal bytes.
"""

from __future__ import annotations

import collections
import contextlib
import os
import random
import shutil
import signal
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from scripts.torture import download, shim
from scripts.torture.children import End, in_child
from scripts.torture.worlds import IN_PLACE, WORLDS, World, learn_reference

RUNS = {"train", "train with tables", "resume"}
"""Worlds whose check trains on."""


@contextlib.contextmanager
def prepared(names: list[str] | None = None) -> Iterator[dict[World, Path]]:
    """Each world with a folder of its old state; warms this process."""
    import torch

    torch.set_num_threads(1)
    base = Path(tempfile.mkdtemp(prefix="fastrec-torture-"))
    pid = 0
    try:
        if names is None or RUNS & {*names}:
            learn_reference(base)
        worlds = [w for w in WORLDS if names is None or w.name in names]
        worlds += [IN_PLACE] if names and IN_PLACE.name in names else []
        if names is None or "download" in names:
            url, pid = download.serve()
            worlds.append(download.world(url))
        olds = {}
        for world in worlds:
            olds[world] = base / world.name
            olds[world].mkdir()
            end = in_child(lambda world=world: world.prepare(olds[world]))
            assert end.how == "returned", f"{world.name}: the old state cannot be made: {end}"
        yield olds
    finally:
        if pid:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        shutil.rmtree(base, ignore_errors=True)


@contextlib.contextmanager
def copied(old: Path) -> Iterator[Path]:
    """A copy of a folder, at a path of its own."""
    folder = Path(tempfile.mkdtemp(prefix="fastrec-case-", dir=old.parent))
    try:
        shutil.copytree(old, folder, dirs_exist_ok=True)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def count_points(world: World, old: Path, fault: str) -> int:
    """Calls of the undisturbed act that this fault can strike."""
    kinds = shim.FAULTS[fault][2]

    def work() -> int:
        shim.arm(folder, shim.COUNT, kinds=kinds)
        world.act(folder)
        return shim.seen()

    with copied(old) as folder:
        end = in_child(work)
    assert end.how == "returned", f"{world.name}: {end}"
    return int(end.value)


def acted(world: World, folder: Path, fault: str, n: int) -> End:
    """The end of the act with a fault at its n-th call."""
    mode, error, kinds = shim.FAULTS[fault]

    def work() -> int:
        shim.arm(folder, mode, n, error, kinds)
        try:
            world.act(folder)
        finally:
            hits = shim.hits()
            shim.disarm()
        return hits

    return in_child(work)


def verdict(world: World, folder: Path, fault: str, end: End) -> tuple[str, str | None]:
    """(outcome, what is wrong or None) after an act with a fault has ended."""
    dies = fault in ("kill", "torn write")
    if end.how not in (("killed", "returned") if dies else ("refused", "returned")):
        return end.how, f"the act {end.how}: {end.value}"
    if end.how == "refused":
        lines = str(end.value).splitlines()
        if not lines or len(str(end.value)) > 1500:
            return "refused", f"an unclear message: {end.value!r}"
    if fault.startswith("short") and end.how != "returned":
        return end.how, f"a short write was not continued: {end.value}"
    state = in_child(lambda: world.check(folder))
    if state.how != "returned":
        return end.how, f"afterwards the check {state.how}: {state.value}"
    if end.how == "returned" and state.value not in ("new",):
        return end.how, f"it returned, but the state is {state.value}"
    return f"{end.how}, {state.value}", None


def chain(world: World, old: Path, r: random.Random, most: int) -> tuple[str, str | None]:
    """Up to three faults in a row, each in the attempt to go on after the one before."""
    with copied(old) as folder:
        for _ in range(r.randint(2, 3)):
            fault = r.choice(["kill", "torn write", "ENOSPC", "EIO from there on"])
            first = not (folder / "run" / "manifest.json").exists()
            if first:
                shutil.rmtree(folder / "run", ignore_errors=True)
            by_name = {w.name: w for w in WORLDS}
            end = acted(by_name["train" if first else "resume"], folder, fault, r.randint(1, most))
            if end.how not in ("killed", "refused", "returned"):
                return "chain", f"{fault}: {end}"
        state = in_child(lambda: world.check(folder))
        if state.how != "returned":
            return "chain", f"after the chain the check {state.how}: {state.value}"
        return f"chain, {state.value}", None


def plan(olds: dict[World, Path], seed: int) -> tuple[list[tuple[World, str, int]], dict[str, int]]:
    """Every (world, fault, n) in an order drawn by seed, and how many there are by world."""
    points, sizes = [], {}
    for world, old in olds.items():
        counts: dict[int, int] = {}
        before = len(points)
        for fault, (_, _, kinds) in shim.FAULTS.items():
            if kinds not in counts:
                counts[kinds] = count_points(world, old, fault)
            points += [(world, fault, n) for n in range(1, counts[kinds] + 1)]
        sizes[world.name] = len(points) - before
    order = random.Random(f"faults {seed}")
    order.shuffle(points)
    return points, sizes


def main(seed: int, minutes: float, *, names: list[str] | None = None, most: int | None = None) -> dict[str, Any]:
    """Try the fault points in an order drawn by seed until the time or the points are used up."""
    outcomes: collections.Counter[str] = collections.Counter()
    wrong: list[str] = []
    with prepared(names) as olds:
        points, sizes = plan(olds, seed)
        deadline = time.monotonic() + 60 * minutes  # setting up is not counted
        done: collections.Counter[str] = collections.Counter()
        chains = 0
        runs = [w for w in olds if w.name == "resume"]
        for k, (world, fault, n) in enumerate(points[:most]):
            if time.monotonic() > deadline:
                break
            with copied(olds[world]) as folder:
                what, fault_found = verdict(world, folder, fault, acted(world, folder, fault, n))
            outcomes[what] += 1
            done[world.name] += 1
            if fault_found:
                wrong.append(f"{world.name}, {fault} at call {n}: {fault_found}")
            if runs and k % 15 == 14:
                what, fault_found = chain(runs[0], olds[runs[0]], random.Random(f"chain {seed} {k}"), 200)
                outcomes[what] += 1
                chains += 1
                if fault_found:
                    wrong.append(f"chain {k} of seed {seed}: {fault_found}")
    return {
        "part": "faults",
        "points": sizes,
        "tried": dict(done),
        "injected": sum(done.values()),
        "chains": chains,
        "survived": sum(outcomes.values()) - len(wrong),
        "not_reached": sum(sizes.values()) - sum(done.values()),
        "outcomes": dict(outcomes),
        "wrong": wrong,
    }
