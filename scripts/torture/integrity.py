"""Part "integrity": bits flipped in everything that fastrec writes; each is found before use, or changes nothing."""

from __future__ import annotations

import collections
import json
import random
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.data.interactions import Interactions
from fastrec.errors import FastrecError
from fastrec.evaluation.results import read_results
from fastrec.runs import open_run, open_split, save_split
from fastrec.runs.checkpoint import Checkpoints
from fastrec.runs.folder import CONFIG, DATA, MODEL, RESULTS
from fastrec.runs.manifest import MANIFEST
from scripts.torture import worlds

Read = Callable[[Path], Any]


def everything_of_a_run(path: Path) -> str:
    """What a reader of a run sees, as text."""
    run = open_run(path)
    weights = {name: value.tolist() for name, value in run.model().state_dict().items()}
    parts, kept = run.split(), read_results(run)
    results = [v.tolist() for v in (kept.user_ids, kept.item_ids, kept.in_train, *kept.ranks.values())]
    tables = run.catalog().movies.rows()
    prints = parts.train.fingerprint(), parts.test.fingerprint()
    return repr((run.config, run.manifest, weights, prints, results, tables))


def of_a_checkpoint(path: Path) -> str:
    """Tensors, state and best weights of the last checkpoint, as text."""
    kept = Checkpoints(path)
    tensors, meta = kept.load()
    best = kept.load_best(meta["best"]) if meta.get("best") else {}
    return repr(({k: v.tolist() for k, v in tensors.items()}, meta, {k: v.tolist() for k, v in best.items()}))


def of_interactions(path: Path) -> str:
    """Every array of saved Interactions, and the name, as text."""
    found = Interactions.open(path)
    arrays = (found.indptr, found.items, found.user_ids, found.item_ids, found.titles, found.timestamps)
    return repr((*(None if a is None else a.tolist() for a in arrays), found.name, found.notes))


def of_a_split(path: Path) -> str:
    """Every part of a split file, as text."""
    found = open_split(path)
    parts = [(p.indptr.tolist(), p.items.tolist(), p.user_ids.tolist(), p.item_ids.tolist(), p.name) for p in
             (found.train, found.validation, found.test)]  # fmt: skip
    return repr((parts, found.how, found.notes, found.comparable, found.train.titles))


def targets(base: Path) -> dict[str, tuple[Path, Path, Read]]:
    """Name -> (file to damage, what to read, reader)."""
    worlds.cut(base)
    checkpoints = base / "run" / "checkpoints"
    shutil.copytree(checkpoints, base / "checkpoints")
    shutil.rmtree(base / "run")
    worlds.train_with_tables(base)
    titled = replace(worlds.data(), titles=np.array([f"Film {k}" for k in range(30)]), notes=("a note",))
    titled.save(base / "saved.safetensors")
    save_split(base / "split.safetensors", worlds.split())
    last = max((base / "checkpoints").glob("step-*.json"))
    best = json.loads(json.loads(last.read_text())["body"])["best"]["file"]
    run = base / "run"
    return {
        "checkpoint tensors": (last.with_suffix(".safetensors"), base / "checkpoints", of_a_checkpoint),
        "checkpoint state": (last, base / "checkpoints", of_a_checkpoint),
        "best weights": (base / "checkpoints" / best, base / "checkpoints", of_a_checkpoint),
        "saved interactions": (base / "saved.safetensors",) * 2 + (of_interactions,),
        "split file": (base / "split.safetensors",) * 2 + (of_a_split,),
        **{
            f"run, {name}": (run / name, run, everything_of_a_run)
            for name in (MANIFEST, CONFIG, DATA, MODEL, RESULTS, "items.parquet")
        },
    }


def flip(file: Path, what: Path, read: Read, place: int, good: str) -> tuple[str, str | None]:
    """(outcome, what is wrong or None) of one flipped bit."""
    before = file.read_bytes()
    bad = bytearray(before)
    bad[place // 8] ^= 1 << place % 8
    file.write_bytes(bad)
    try:
        seen = read(what)
    except FastrecError:
        return "found", None
    except Exception as error:
        return "raised", f"bit {place} of {file.name}: {type(error).__name__}: {error}"
    finally:
        file.write_bytes(before)
    return ("no difference", None) if seen == good else ("missed", f"bit {place} of {file.name} changes what is read")


def moved(base: Path) -> list[str]:
    """A run that is moved, copied, or in a folder that cannot be written to still reads the same."""
    wrong, good = [], everything_of_a_run(base / "run")
    shutil.copytree(base / "run", base / "copy of a run")
    shutil.move(base / "copy of a run", base / "elsewhere")
    if everything_of_a_run(base / "elsewhere") != good:
        wrong.append("a moved run reads otherwise")
    for p in (base / "elsewhere").rglob("*"):
        p.chmod(0o500 if p.is_dir() else 0o400)
    (base / "elsewhere").chmod(0o500)
    if everything_of_a_run(base / "elsewhere") != good:
        wrong.append("a read-only run reads otherwise")
    (base / "elsewhere").chmod(0o700)
    for p in (base / "elsewhere").rglob("*"):
        p.chmod(0o700)
    return wrong


def main(seed: int, minutes: float, *, most: int | None = None) -> dict[str, Any]:
    """Flip bits drawn by seed until the time is used up, in each file in turn."""
    base = Path(tempfile.mkdtemp(prefix="fastrec-bits-"))
    counts: dict[str, collections.Counter[str]] = collections.defaultdict(collections.Counter)
    try:
        files = targets(base)
        good = {name: read(what) for name, (_, what, read) in files.items()}
        wrong, n = moved(base), 0
        deadline = time.monotonic() + 60 * minutes
        while time.monotonic() < deadline and (most is None or n < most):
            for name, (file, what, read) in files.items():
                place = random.Random(f"bits {seed} {name} {n}").randrange(8 * file.stat().st_size)
                outcome, fault = flip(file, what, read, place, good[name])
                counts[name][outcome] += 1
                if fault:
                    wrong.append(f"{name}: {fault}")
            n += 1
        bits = {name: 8 * file.stat().st_size for name, (file, _, _) in files.items()}
    finally:
        shutil.rmtree(base, ignore_errors=True)
    flipped = sum(sum(c.values()) for c in counts.values())
    return {
        "part": "integrity",
        "bits": bits,
        "flipped": flipped,
        "found": sum(c["found"] for c in counts.values()),
        "no_difference": sum(c["no difference"] for c in counts.values()),
        "by_file": {name: dict(c) for name, c in counts.items()},
        "wrong": wrong,
    }
