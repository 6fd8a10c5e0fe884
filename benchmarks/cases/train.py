"""Baselines of training end to end: a careful PyTorch loop, other projects, and the notebook.

B batch rows (positives), N negatives, D dim.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch

from benchmarks.baselines import pytorch
from benchmarks.baselines.external import Baselines
from fastrec.bench import engines
from fastrec.bench.cases.train import positives_per_call
from fastrec.bench.checks import check_batch, check_loss
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused

SMALL_BATCH = 1024
NOTEBOOK_POSITIVES = 20_000


def extend(context: Context, bench: Bench) -> None:
    """Add the eager loop and the notebook; in a full run also the compiled loop, a small batch and other projects."""
    some = positives_per_call(context)
    bench.entries.append(careful(context, context.batch_size, some, compiled=False))
    if not context.quick:
        bench.entries.append(careful(context, context.batch_size, some, compiled=True))
        bench.entries.append(careful(context, SMALL_BATCH, some, compiled=False))
        bench.entries.append(careful(context, SMALL_BATCH, some, compiled=True))
        others = Baselines(
            context.train, threads=(1, context.threads), dim=context.dim, n_negatives=context.n_negatives
        )
        for entry in others.entries:
            entry.repeats = 3
        bench.entries += others.entries
        bench.notes += others.notes
        bench.close = others.close
    bench.entries.append(notebook(context))


def _check_rows(loss: float) -> dict[str, Any]:
    return check_loss(engines.UNTRAINED, loss)


def careful(context: Context, batch_size: int, n_positives: int, *, compiled: bool) -> Entry:
    """The careful PyTorch loop at this batch size, eager or compiled, with whichever number of threads is fastest."""
    train = context.train
    best: tuple[float, pytorch.Careful] | None = None
    for threads in dict.fromkeys((1, context.threads)):
        made = pytorch.Careful(
            train,
            dim=context.dim,
            n_negatives=context.n_negatives,
            batch_size=batch_size,
            threads=threads,
            compiled=compiled,
            seed=context.seed,
        )
        made.epoch(2 * batch_size)  # compiled here
        started = time.perf_counter()
        made.epoch(20 * batch_size)
        seconds = time.perf_counter() - started
        if best is None or seconds < best[0]:
            best = seconds, made
    assert best is not None
    loop = best[1]
    total = min(n_positives, train.n_interactions)
    kind = "compiled" if compiled else "eager"
    return Entry(
        f"careful-{kind}" + ("" if batch_size == context.batch_size else f"-b{batch_size}"),
        lambda _k: loop.epoch(total),
        total * (1 + context.n_negatives),
        _check_rows,
        what=f"PyTorch on [B, 1+N], NumPy negatives per epoch, fused Adam, {kind}, batch {batch_size:,}",
        role="baseline",
        threads=loop.threads,
    )


def notebook(context: Context) -> Entry:
    """The notebook's path on 20,000 positives: every positive costs the same, and start-up is timed apart."""
    train = context.train
    options = {"dim": context.dim, "n_negatives": context.n_negatives}
    path = pytorch.fastest_notebook(train, threads=context.threads, **options)
    some = min(NOTEBOOK_POSITIVES, train.n_interactions)

    def run(_k: int) -> Any:
        return path.train(some)

    def check(loss: float) -> dict[str, Any]:
        if not 0.0 < loss < 1.0:
            raise Refused(f"its loss is {loss}")
        users, items, labels = next(path.batches(64))
        shape = (64, 1 + context.n_negatives)
        owners, drawn = users.reshape(shape)[:, 0], items.reshape(shape)
        check_batch(
            owners.numpy().astype(np.int32),
            drawn.numpy().astype(np.int32),
            indptr=train.indptr,
            positives=train.items,
            n_items=train.n_items,
            n_negatives=context.n_negatives,
        )
        if not torch.equal(labels.reshape(shape)[:, 0], torch.ones(64)):
            raise Refused("column 0 is not labelled as the positive")
        return {}

    return Entry(
        "notebook",
        run,
        some * (1 + context.n_negatives),
        check,
        what="Dataset item by item, DataLoader, GMF, BCE, Adam 1e-3, batch 256",
        role="baseline",
        threads=path.threads,
        extrapolated=f"from {some:,} positives",
        half=lambda _k: path.train(some // 2),
        repeats=2 if context.quick else 3,
    )
