"""The negative sampler over complete epochs, in CSR order and shuffled, and the cost of building it.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastrec.bench.checks import check_negatives
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry
from fastrec.data.interactions import Interactions
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Order

UNIT = "negatives/s"


def sampler(context: Context) -> Bench:
    """Complete epochs of the train part; the first entry is compared with every other that draws negatives."""
    train, threads = context.train, context.threads
    users = train.users
    rows = partial(sampler_entry, train, context)
    positions = Order(users.size, context.seed).positions(0, 0, users.size)
    drawn = [rows("fastrec", f"exact, addressed, {threads} threads", users)]
    if threads > 1:
        drawn.append(rows("fastrec-1-thread", "the same bytes from one thread", users, threads=1))
    drawn.append(rows("fastrec-shuffled", "positions in shuffled order", users[positions], positions))
    pairs = [("fastrec", other.name) for other in drawn[1:]]
    return Bench(
        [*drawn, _construction(context)],
        facts={"n_negatives": context.n_negatives},
        pairs=[*pairs, ("fastrec-shuffled", "fastrec")],
    )


def check_of(log: Interactions, users: Any, context: Context, **options: Any) -> Callable[[Any], dict[str, Any]]:
    """``check_negatives`` for draws for these users of a log."""
    return partial(
        check_negatives,
        indptr=log.indptr,
        items=log.items,
        users=users,
        n_items=log.n_items,
        n_negatives=context.n_negatives,
        **options,
    )


def sampler_entry(
    log: Interactions,
    context: Context,
    name: str,
    what: str,
    users: Any,
    positions: Any = None,
    *,
    threads: int | None = None,
    **options: Any,
) -> Entry:
    """The sampler over rows of a log, a new epoch each call: in CSR order from position 0, or at ``positions``."""
    n, threads = context.n_negatives, threads or context.threads
    drawn = NegativeSampler(log.indptr, log.items, n_items=log.n_items, n_negatives=n, seed=context.seed)
    out = np.empty((users.size, n), np.int32)
    where = {"start": 0} if positions is None else {"positions": positions}
    return Entry(
        name,
        lambda k: drawn.sample(users, epoch=k, out=out, threads=threads, **where),
        out.size,
        check_of(log, users, context, **options),
        unit=UNIT,
        what=what,
        threads=threads,
        details=lambda _rate: {"membership": drawn.describe()["membership"]},
    )


def _construction(context: Context) -> Entry:
    train = context.train
    return Entry(
        "construction",
        lambda _k: NegativeSampler(train.indptr, train.items, n_items=train.n_items, seed=context.seed),
        train.n_interactions,
        lambda made: {"membership": made.describe()["membership"]},
        unit="positives/s",
        what="a sampler from a CSR, checked, with its bitmap",
        role="cost",
        details=lambda rate: {"construction_s": train.n_interactions / rate},
    )
