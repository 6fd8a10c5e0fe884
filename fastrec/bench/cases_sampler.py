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
from fastrec.data import load_split, synthetic
from fastrec.data.interactions import Interactions
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Order

LOOP_ROWS = 2_000
SHAPE_ROWS = 2_000_000


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
    if not context.quick:
        searched = rivals.searched_negatives(train, n, context.seed)
        bench.contenders.append(
            Contender(
                "numpy-searchsorted",
                lambda _k: searched(users, theirs),
                out.size,
                check,
                unit=unit,
                what="vectorised NumPy, keys searched, no matrix",
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


def _rows(log: Interactions, name: str, what: str, context: Context, **options: Any) -> Contender:
    """The sampler over the first positives of a log, in CSR order."""
    n = context.n_negatives
    users = log.users[:SHAPE_ROWS]
    drawn = NegativeSampler(log.indptr, log.items, n_items=log.n_items, n_negatives=n, seed=context.seed)
    out = np.empty((users.size, n), np.int32)
    check = partial(
        check_negatives, indptr=log.indptr, items=log.items, users=users, n_items=log.n_items, n_negatives=n, **options
    )
    return Contender(
        name,
        lambda k: drawn.sample(users, epoch=k, start=0, out=out, threads=context.threads),
        out.size,
        check,
        unit="negatives/s",
        what=what,
        threads=context.threads,
        details=lambda _rate: {"membership": drawn.describe()["membership"]},
    )


def _searched(log: Interactions, name: str, context: Context) -> Contender:
    users, n = log.users[:SHAPE_ROWS], context.n_negatives
    draw = rivals.searched_negatives(log, n, context.seed)
    out = np.empty((users.size, n), np.int32)
    check = partial(
        check_negatives, indptr=log.indptr, items=log.items, users=users, n_items=log.n_items, n_negatives=n
    )
    return Contender(
        name,
        lambda _k: draw(users, out),
        out.size,
        check,
        unit="negatives/s",
        what="NumPy by searchsorted",
        role="rival",
    )


def _one_legal_item(n_users: int, n_items: int) -> Interactions:
    """Users who have every item but one, each another."""
    items = np.concatenate([np.delete(np.arange(n_items, dtype=np.int32), u % n_items) for u in range(n_users)])
    indptr = np.arange(n_users + 1, dtype=np.int64) * (n_items - 1)
    return Interactions(indptr, items, np.arange(n_users), np.arange(n_items), name="one legal item")


def shapes(context: Context) -> Bench:
    """The sampler where it is hard: Gowalla's shape, a catalogue no bitmap fits, users with one legal item."""
    from fastrec.data import registry

    scale = 20 if context.quick else 1
    bench = Bench()
    there = registry.find("gowalla")
    if there is not None:
        gowalla = load_split(there).train
    else:
        gowalla = synthetic.generate(29_858, 40_981, 1_027_370, seed=1, timestamps=False)
        bench.notes.append("gowalla was not found: a synthetic log of its shape stands in its place")
    wide = synthetic.generate(100_000 // scale, 10_000_000 // scale, 10_000_000 // scale, seed=1, timestamps=False)
    single = _one_legal_item(500 // scale, 3706)
    train = context.train
    bench.contenders = [
        _rows(gowalla, "gowalla", f"{gowalla.n_users:,} users x {gowalla.n_items:,} items", context),
        _searched(gowalla, "gowalla-searchsorted", context),
        _rows(wide, "wide", f"{wide.n_users:,} users x {wide.n_items:,} items", context),
        _rows(single, "one-legal-item", "every user has one legal item of 3,706", context, distinct_share=0.0),
        Contender(
            "construction",
            lambda _k: NegativeSampler(train.indptr, train.items, n_items=train.n_items, seed=context.seed),
            train.n_interactions,
            lambda made: {"membership": made.describe()["membership"]},
            unit="positives/s",
            what="a sampler from a CSR, checked, with its bitmap",
            role="cost",
            details=lambda rate: {"construction_s": train.n_interactions / rate},
        ),
    ]
    bench.pairs = [("gowalla", "gowalla-searchsorted")]
    return bench
