"""Cases of training: the stream of batches, the step on a fixed batch (the ceiling), and everything together.

B batch rows (positives), N negatives, U users, I items, E interactions, D dim.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import torch

from fastrec.bench import engines, rivals
from fastrec.bench.checks import check_batch, check_loss
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Contender, Refused
from fastrec.bench.rivals.external import Rivals
from fastrec.sampling.order import Cursor

SMALL_BATCH = 1024
QUICK_POSITIVES = 200_000
PYTORCH_POSITIVES = 300_000
"""Positives of one timed call: what PyTorch trains is slow enough without whole epochs; the next call goes on there."""
NOTEBOOK_POSITIVES = 20_000
QUICK_NOTEBOOK_POSITIVES = 2_000


def make_stream(context: Context) -> Any:
    """The stream over the train part, as a run has it."""
    from fastrec.batches.stream import Stream
    from fastrec.sampling import NegativeSampler

    train = context.train
    sampler = NegativeSampler(
        train.indptr,
        train.items,
        n_items=train.n_items,
        n_negatives=context.n_negatives,
        seed=context.seed,
        on_full="skip",
    )
    return Stream(train.indptr, train.items, sampler, seed=context.seed)


def stream(context: Context) -> Bench:
    """Batches on the host: shuffled positions, users, positives, negatives."""
    source = make_stream(context)
    size = context.batch_size
    n = min(source.n_positives, QUICK_POSITIVES) if context.quick else source.n_positives

    def run(k: int) -> Any:
        first = None
        for lo in range(0, n, size):
            batch = source.read(k, lo, min(lo + size, n), threads=context.threads)
            first = first or batch
        return first

    train = context.train
    check = partial(
        check_batch,
        indptr=train.indptr,
        positives=train.items,
        n_items=train.n_items,
        n_negatives=context.n_negatives,
    )
    return Bench(
        [
            Contender(
                "fastrec",
                run,
                n * (1 + context.n_negatives),
                lambda batch: check(batch.users, batch.items),
                what=f"users[B] and items[B, 1+N] in shuffled order, B = {size:,}",
                threads=context.threads,
            )
        ],
        facts={"batch_size": size, "n_negatives": context.n_negatives},
    )


def feed(context: Context) -> Bench:
    """Batches as the step gets them: drawn ahead by the feed's thread, copied to the device, nothing trained."""
    from fastrec.batches.feed import Feed

    source = make_stream(context)
    size = context.batch_size
    n = min(source.n_positives, QUICK_POSITIVES) if context.quick else source.n_positives
    train, device = context.train, None
    if context.device.startswith("cuda"):
        from fastrec.batches.device import open_device

        device = open_device(context.device)
    made = Feed(source, batch_size=size, device=device)
    n = n // size * size

    def run(k: int) -> Any:
        cursor, first = Cursor(k, 0), None
        while cursor.position < n:
            batch, cursor = made.next(cursor)
            first = first or [batch.users.cpu().clone(), batch.items.cpu().clone()]
        return first

    def check(first: Any) -> dict[str, Any]:
        return check_batch(
            first[0].numpy(),
            first[1].numpy(),
            indptr=train.indptr,
            positives=train.items,
            n_items=train.n_items,
            n_negatives=context.n_negatives,
        )

    return Bench(
        [
            Contender(
                "fastrec",
                run,
                n * (1 + context.n_negatives),
                check,
                what=f"drawn ahead by one thread, tensors on {context.device}, batch {size:,} positives",
                threads=1,
                sync=engines.sync_of(context.device),
            )
        ],
        facts={"batch_size": size, "n_negatives": context.n_negatives},
        close=made.close,
    )


WHOLE = "-end-to-end"
STEP_ROUNDS = 21
"""A machine that others share changes its speed by the second: the median of so many ratios says what five do not."""


def step(context: Context) -> Bench:
    """The step alone, on one batch drawn beforehand: no data path can be faster. End to end beside it, in turn."""
    some = QUICK_POSITIVES if context.quick else PYTORCH_POSITIVES
    bench = Bench(pairs=[], rounds=None if context.quick else STEP_ROUNDS)
    assert bench.pairs is not None
    for name in ["torch"] if context.quick else ["torch", "torch-b1024"]:
        ceiling = engines.contender(context, name, n_positives=some, fixed=True)
        ceiling.role = "ceiling"
        whole = engines.contender(context, name, n_positives=some)
        whole.name = name + WHOLE
        bench.contenders += [ceiling, whole]
        bench.pairs.append((whole.name, name))
    return bench


def _check_rows(loss: float) -> dict[str, Any]:
    return check_loss(engines.UNTRAINED, loss)


def careful(context: Context, batch_size: int, n_positives: int, *, compiled: bool) -> Contender:
    """The careful PyTorch loop at this batch size, eager or compiled, with whichever number of threads is fastest."""
    import time

    train = context.train
    best: tuple[float, rivals.Careful] | None = None
    for threads in dict.fromkeys((1, context.threads)):
        made = rivals.Careful(
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
    return Contender(
        f"careful-{kind}" + ("" if batch_size == context.batch_size else f"-b{batch_size}"),
        lambda _k: loop.epoch(total),
        total * (1 + context.n_negatives),
        _check_rows,
        what=f"PyTorch on [B, 1+N], whole-epoch NumPy negatives, fused Adam, {kind}, batch {batch_size:,}",
        role="rival",
        threads=loop.threads,
    )


def notebook(context: Context) -> Contender:
    """The notebook's path on some thousand positives; its cost is the same for each."""
    path = rivals.Notebook(context.train, dim=context.dim, n_negatives=context.n_negatives)
    some = QUICK_NOTEBOOK_POSITIVES if context.quick else NOTEBOOK_POSITIVES
    train = context.train

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

    return Contender(
        "notebook",
        run,
        some * (1 + context.n_negatives),
        check,
        what="Dataset item by item, DataLoader, GMF, BCE, Adam 1e-3, batch 256",
        role="rival",
        threads=torch.get_num_threads(),
        extrapolated=f"from {some:,} positives",
        repeats=3,
    )


def end_to_end(context: Context) -> Bench:
    """Training as a run does it, every engine and every rival in turn; the torch engine first, for it has the feed."""
    some = QUICK_POSITIVES if context.quick else PYTORCH_POSITIVES
    bench = Bench()
    names = ["torch", "fused-lock-free"] if context.quick else list(engines.ENGINES)
    for name in names:
        whole = name.startswith("fused") and not context.quick
        bench.contenders.append(engines.contender(context, name, n_positives=None if whole else some))
    bench.contenders.append(careful(context, context.batch_size, some, compiled=False))
    if not context.quick:
        bench.contenders.append(careful(context, context.batch_size, some, compiled=True))
        bench.contenders.append(careful(context, SMALL_BATCH, some, compiled=False))
        bench.contenders.append(careful(context, SMALL_BATCH, some, compiled=True))
        others = Rivals(context.train, threads=(1, context.threads), dim=context.dim, n_negatives=context.n_negatives)
        for contender in others.contenders:
            contender.repeats = 3
        bench.contenders += others.contenders
        bench.notes += others.notes
        bench.close = others.close
    bench.contenders.append(notebook(context))
    return bench
