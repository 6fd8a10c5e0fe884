"""Three of the four rates: the feed without training, the step on one fixed batch (the ceiling), and both together.

B batch rows (positives), N negatives, U users, I items, E interactions, D dim.
"""

from __future__ import annotations

from typing import Any

from fastrec.bench import engines
from fastrec.bench.checks import check_batch
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry
from fastrec.sampling.order import Cursor

QUICK_POSITIVES = 200_000
POSITIVES = 300_000
"""Positives of one timed call of what PyTorch trains: slow enough without complete epochs; the next call continues."""


def make_stream(context: Context) -> Any:
    """The stream over the train part, as a run builds it."""
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


def feed(context: Context) -> Bench:
    """Batches as the step receives them: drawn ahead by the feed's thread, copied to the device, nothing trained."""
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
            Entry(
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
"""The speed of a shared machine changes by the second: a ratio near 1 needs the median of more than five rounds."""


def step(context: Context) -> Bench:
    """The step on one batch drawn beforehand: no data path can be faster. Timed in turn with training end to end."""
    some = positives_per_call(context)
    bench = Bench(pairs=[], rounds=None if context.quick else STEP_ROUNDS)
    assert bench.pairs is not None
    for name in ["torch"] if context.quick else ["torch", "torch-b1024"]:
        ceiling = engines.entry(context, name, n_positives=some, fixed=True)
        ceiling.role = "ceiling"
        complete = engines.entry(context, name, n_positives=some)
        complete.name = name + WHOLE
        bench.entries += [ceiling, complete]
        bench.pairs.append((complete.name, name))
    return bench


def positives_per_call(context: Context) -> int:
    """Positives that one timed call of a PyTorch engine trains."""
    return QUICK_POSITIVES if context.quick else POSITIVES


def end_to_end(context: Context) -> Bench:
    """Training as a run does it, the engines in turn; the torch engine first, because it has the feed."""
    some = positives_per_call(context)
    bench = Bench()
    for name in ["torch", "fused-lock-free"] if context.quick else list(engines.ENGINES):
        complete = name.startswith("fused") and not context.quick
        bench.entries.append(engines.entry(context, name, n_positives=None if complete else some))
    return bench
