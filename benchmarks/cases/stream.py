"""Batches on the host, without a feed: positions in shuffled order, users, positives, negatives.

B batch rows (positives), N negatives.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from fastrec.bench.cases.train import QUICK_POSITIVES, make_stream
from fastrec.bench.checks import check_batch
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry


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
            Entry(
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
