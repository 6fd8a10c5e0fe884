"""Cost against size: positives, catalogue, negatives, dimensions, batch, threads; one axis at a time, synthetic logs.

N negatives, U users, I items, E interactions, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from fastrec.bench import engines
from fastrec.bench.checks import check_negatives
from fastrec.bench.context import Context
from fastrec.bench.harness import Entry, measure
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split
from fastrec.data.synthetic import generator as synthetic
from fastrec.engines.base import Progress
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor

BASE = {"positives": 1_000_000, "items": 10_000, "negatives": 4, "dim": 64, "batch": 8192}
PER_USER = 100
SAMPLES_AT_ONCE = 10_000_000
TRAINED_AT_ONCE = 5_000_000
"""Samples drawn or trained in one timed call at most, so that every point takes about as long."""

AXES: dict[str, tuple[int, ...]] = {
    "positives": (10**5, 10**6, 10**7, 10**8),
    "items": (10**3, 10**4, 10**5, 10**6, 10**7),
    "negatives": (1, 4, 16, 64),
    "dim": (8, 16, 32, 64, 128, 256),
    "batch": (256, 1024, 8192, 65536),
}
QUICK_AXES: dict[str, tuple[int, ...]] = {"positives": (10**4, 10**5), "items": (10**3, 10**4), "dim": (8, 16)}


def axes(context: Context) -> dict[str, tuple[int, ...]]:
    """The values of each axis; threads from 1 to all."""
    counts = {2**k for k in range(context.threads.bit_length())} | {context.threads}
    threads = tuple(sorted(n for n in counts if n <= context.threads))
    return {**(QUICK_AXES if context.quick else AXES), "threads": threads}


def points(context: Context) -> Iterator[tuple[str, int, dict[str, int]]]:
    """Axis, value, and the complete setting; settings that share a log are next to each other."""
    base = {**BASE, "threads": context.threads, **({"positives": 100_000} if context.quick else {})}
    for axis, values in axes(context).items():
        for value in values:
            yield axis, value, {**base, axis: value}


def make_log(positives: int, items: int, threads: int) -> Interactions:
    """A synthetic log of 100 positives per user (fewer where the catalogue is small)."""
    users = max(1, positives // min(PER_USER, items // 5))
    return synthetic.generate(users, items, positives, seed=1, timestamps=False, threads=threads)


def sampler_entry(log: Interactions, setting: dict[str, int], seed: int) -> Entry:
    """The sampler over the first positives of a log, in CSR order, in samples per second."""
    n, threads = setting["negatives"], setting["threads"]
    sampler = NegativeSampler(log.indptr, log.items, n_items=log.n_items, n_negatives=n, seed=seed, on_full="skip")
    rows = max(1, min(log.n_interactions, SAMPLES_AT_ONCE // n))
    users = log.users[:rows]
    out = np.empty((rows, n), np.int32)
    last = int(users[-1]) + 1
    check = partial(
        check_negatives,
        indptr=log.indptr[: last + 1],
        items=log.items[: log.indptr[last]],
        users=users,
        n_items=log.n_items,
        n_negatives=n,
    )
    return Entry(
        "sampler",
        lambda k: sampler.sample(users, epoch=k, start=0, out=out, threads=threads),
        rows * (1 + n),
        check,
        role="cost",
        threads=threads,
        details=lambda _rate: {"bitmap_bytes": sampler.describe()["bitmap_bytes"]},
    )


def train_entry(log: Interactions, setting: dict[str, int], seed: int) -> Entry:
    """The fused engine, lock-free, on a log, in samples per second."""
    empty = log.keep(np.zeros(log.n_interactions, np.bool_))
    options = {
        **engines.ENGINES["fused-lock-free"],
        "dim": setting["dim"],
        "negatives": setting["negatives"],
        "batch_size": setting["batch"],
    }
    split = Split(log, empty, empty, how="all of it is train")
    engine = engines.build(split, threads=setting["threads"], device="cpu", seed=seed, **options)
    each = 1 + setting["negatives"]
    steps = max(1, min(TRAINED_AT_ONCE // each, engine.n_positives) // engine.batch_size)
    visited = min(steps * engine.batch_size, engine.n_positives)

    def check(done: Progress) -> None:
        assert done.n_positives == visited, f"it trained {done.n_positives} positives of {visited}"
        assert math.isfinite(done.loss_sum), "its loss is not finite"

    return Entry(
        "train",
        lambda k: engine.advance(Cursor(k, 0), steps),
        visited * each,
        check,
        role="cost",
        threads=setting["threads"],
    )


def exponent(curve: Sequence[tuple[float, float]]) -> float:
    """The least-squares slope of log(seconds per sample) over log(size): 0 if samples cost the same at any size."""
    x = np.log([point[0] for point in curve])
    y = -np.log([point[1] for point in curve])
    return float(np.polyfit(x, y, 1)[0])


def memory(context: Context) -> dict[str, Any]:
    """Bytes of each part at a size of 1, and where it stops fitting."""
    sampler = NegativeSampler(np.array([0, 1]), np.array([0], np.int32), n_items=2)
    return {
        "csr_bytes_per_positive": 4.0,
        "csr_bytes_per_user": 8.0,
        "bitmap_bytes_per_user_and_item": 0.125,
        "bitmap_budget_bytes": sampler.memory_budget,
        "table_bytes_per_row_and_dim": 4.0,
        "table_bytes_per_row": 4.0 * context.dim,
    }


def scaling(context: Context) -> dict[str, Any]:
    """Every axis, every value: the sampler and the fused engine, the growth exponent of each curve."""
    rows: list[dict[str, Any]] = []
    curves: dict[str, dict[str, list[tuple[float, float]]]] = {}
    held: tuple[tuple[int, int], Interactions] | None = None
    for axis, value, setting in points(context):
        key = setting["positives"], setting["items"]
        if held is None or held[0] != key:
            held = None  # the log before is freed first: the largest holds 400 MB
            held = key, make_log(*key, context.threads)
        wanted = [] if axis in ("dim", "batch") else [sampler_entry]
        for make in (*wanted, train_entry):
            (row,) = measure([make(held[1], setting, context.seed)], repeats=3, min_s=context.min_s)
            curves.setdefault(axis, {}).setdefault(row["name"], []).append((value, row["rate"]))
            rows.append({**row, "name": f"{axis}-{value}-{row['name']}", "what": f"{axis} = {value:,}"})
    slopes = {
        axis: {what: exponent(points_) for what, points_ in by.items() if len(points_) > 2}
        for axis, by in curves.items()
    }
    facts: dict[str, Any] = {"curves": curves, "exponents": slopes, "memory": memory(context), "base": BASE}
    for axis, by in slopes.items():
        for what, slope in by.items():
            facts[f"{what} cost a sample grows with {axis} as"] = f"{axis}^{slope:+.2f}"
    notes = [f"synthetic logs of {PER_USER} positives per user; what is not on the axis: {BASE}"]
    return {"rows": rows, "facts": facts, "notes": notes}
