"""The sampler among its rivals: exact negatives for every positive of the train part.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import random
from functools import partial
from typing import Any

import numpy as np

from fastrec.bench import rivals
from fastrec.bench.checks import check_negatives
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Contender
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Order

LOOP_ROWS = 2_000


def _loop(train: Any, users: Any, n_negatives: int) -> Any:
    """The notebook's way: ``random.randint`` against a dict of sets, one negative at a time."""
    seen = {user: set(train.row(user).tolist()) for user in np.unique(users).tolist()}
    owners, n_items = users.tolist(), train.n_items

    def run(_k: int) -> Any:
        drawn = []
        for user in owners:
            row = []
            for _ in range(n_negatives):
                item = random.randint(0, n_items - 1)
                while item in seen[user]:
                    item = random.randint(0, n_items - 1)
                row.append(item)
            drawn.append(row)
        return np.array(drawn, dtype=np.int32)

    return run


def sampler(context: Context) -> Bench:
    """Whole epochs in CSR order, and in shuffled order, against NumPy and the notebook's loop."""
    train, n = context.train, context.n_negatives
    users = train.users
    drawn = NegativeSampler(train.indptr, train.items, n_items=train.n_items, n_negatives=n, seed=context.seed)
    out = np.empty((users.size, n), np.int32)
    positions = Order(users.size, context.seed).positions(0, 0, users.size)
    shuffled = users[positions]
    facts: dict[str, Any] = {"indptr": train.indptr, "items": train.items, "n_items": train.n_items, "n_negatives": n}
    check = partial(check_negatives, users=users, **facts)
    unit = "negatives/s"

    def in_order(threads: int) -> Any:
        return lambda k: drawn.sample(users, epoch=k, start=0, out=out, threads=threads)

    head = Contender("fastrec", in_order(context.threads), out.size, check, unit=unit, threads=context.threads)
    head.what = f"exact, addressed, {context.threads} threads"
    bench = Bench([head], facts={"n_negatives": n})
    if context.threads > 1:
        bench.contenders.append(
            Contender(
                "fastrec-1-thread", in_order(1), out.size, check, unit=unit, what="the same bytes from one thread"
            )
        )
    bench.contenders.append(
        Contender(
            "fastrec-shuffled",
            lambda k: drawn.sample(shuffled, epoch=k, positions=positions, out=out, threads=context.threads),
            out.size,
            partial(check_negatives, users=shuffled, **facts),
            unit=unit,
            what="positions in shuffled order",
            threads=context.threads,
        )
    )
    dense = rivals.dense_negatives(rivals.dense_seen(train), train.n_items, n, context.seed)
    theirs = np.empty_like(out)
    bench.contenders.append(
        Contender(
            "numpy-dense",
            lambda _k: dense(users, theirs),
            out.size,
            check,
            unit=unit,
            what="vectorised NumPy on a dense boolean matrix, 64k rows at a time",
            role="rival",
        )
    )
    some = users[np.linspace(0, users.size - 1, LOOP_ROWS).astype(np.int64)]
    bench.contenders.append(
        Contender(
            "notebook-loop",
            _loop(train, some, n),
            some.size * n,
            partial(check_negatives, users=some, **facts),
            unit=unit,
            what="random.randint against a dict of sets",
            role="rival",
            extrapolated=f"from {LOOP_ROWS:,} positives",
        )
    )
    return bench
