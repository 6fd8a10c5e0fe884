"""The sampler among its rivals, and where it is hard: other shapes, set-up, the first call of a process.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from fastrec.bench import machine, rivals
from fastrec.bench.checks import check_negatives
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Contender, Refused
from fastrec.data import load_split
from fastrec.data.interactions import Interactions
from fastrec.data.synthetic import generator as synthetic
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Order

LOOP_ROWS = 2_000
SHAPE_ROWS = 2_000_000
GOWALLA = 29_858, 40_981, 1_027_370
"""Users, items, positives of the synthetic log that stands in where Gowalla is not found."""
WIDE = 100_000, 10_000_000, 10_000_000
FULL_BUT_ONE = 500, 3706
"""Users and items of the log in which every user has one legal item."""
UNIT = "negatives/s"


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
    """Whole epochs in CSR order and shuffled, against NumPy and the notebook's loop; then every other hard case."""
    train, n = context.train, context.n_negatives
    users = train.users
    rows = partial(_rows, train, context)
    positions = Order(users.size, context.seed).positions(0, 0, users.size)
    bench = Bench([rows("fastrec", f"exact, addressed, {context.threads} threads", users)], facts={"n_negatives": n})
    if context.threads > 1:
        bench.contenders.append(rows("fastrec-1-thread", "the same bytes from one thread", users, threads=1))
    bench.contenders.append(rows("fastrec-shuffled", "positions in shuffled order", users[positions], positions))
    dense = rivals.dense_negatives(rivals.dense_seen(train), train.n_items, n, context.seed)
    what = "vectorised NumPy on a dense boolean matrix, 64k rows at a time"
    bench.contenders.append(_rival(train, context, "numpy-dense", what, users, dense))
    if not context.quick:
        bench.contenders.append(_searched(train, context, "numpy-searchsorted", users))
    some = users[np.linspace(0, users.size - 1, LOOP_ROWS).astype(np.int64)]
    loop = _loop(train, some, n)
    slow = _rival(train, context, "notebook-loop", "random.randint against a dict of sets", some, lambda *_: loop(0))
    slow.extrapolated = f"from {LOOP_ROWS:,} positives"
    bench.contenders.append(slow)
    head = bench.contenders[0].name
    bench.pairs = [(head, other.name) for other in bench.contenders[1:]]
    bench.pairs.append(("fastrec-shuffled", head))
    bench.contenders.append(_construction(context))
    if not context.quick:
        _other_shapes(context, bench)
        _first_calls(bench)
    return bench


def _check(log: Interactions, users: Any, context: Context, **options: Any) -> Callable[[Any], dict[str, Any]]:
    return partial(
        check_negatives,
        indptr=log.indptr,
        items=log.items,
        users=users,
        n_items=log.n_items,
        n_negatives=context.n_negatives,
        **options,
    )


def _rows(
    log: Interactions,
    context: Context,
    name: str,
    what: str,
    users: Any,
    positions: Any = None,
    *,
    threads: int | None = None,
    **options: Any,
) -> Contender:
    """The sampler over rows of a log, each epoch anew: in CSR order from position 0, or at ``positions``."""
    n, threads = context.n_negatives, threads or context.threads
    drawn = NegativeSampler(log.indptr, log.items, n_items=log.n_items, n_negatives=n, seed=context.seed)
    out = np.empty((users.size, n), np.int32)
    where = {"start": 0} if positions is None else {"positions": positions}
    return Contender(
        name,
        lambda k: drawn.sample(users, epoch=k, out=out, threads=threads, **where),
        out.size,
        _check(log, users, context, **options),
        unit=UNIT,
        what=what,
        threads=threads,
        details=lambda _rate: {"membership": drawn.describe()["membership"]},
    )


def _rival(log: Interactions, context: Context, name: str, what: str, users: Any, draw: Any) -> Contender:
    out = np.empty((users.size, context.n_negatives), np.int32)
    check = _check(log, users, context)
    return Contender(name, lambda _k: draw(users, out), out.size, check, unit=UNIT, what=what, role="rival")


def _searched(log: Interactions, context: Context, name: str, users: Any) -> Contender:
    draw = rivals.searched_negatives(log, context.n_negatives, context.seed)
    return _rival(log, context, name, "vectorised NumPy, keys searched, no matrix", users, draw)


def _construction(context: Context) -> Contender:
    train = context.train
    return Contender(
        "construction",
        lambda _k: NegativeSampler(train.indptr, train.items, n_items=train.n_items, seed=context.seed),
        train.n_interactions,
        lambda made: {"membership": made.describe()["membership"]},
        unit="positives/s",
        what="a sampler from a CSR, checked, with its bitmap",
        role="cost",
        details=lambda rate: {"construction_s": train.n_interactions / rate},
    )


def _one_legal_item(n_users: int, n_items: int) -> Interactions:
    """Users who have every item but one, each another."""
    items = np.concatenate([np.delete(np.arange(n_items, dtype=np.int32), u % n_items) for u in range(n_users)])
    indptr = np.arange(n_users + 1, dtype=np.int64) * (n_items - 1)
    return Interactions(indptr, items, np.arange(n_users), np.arange(n_items), name="one legal item")


def _other_shapes(context: Context, bench: Bench) -> None:
    """Gowalla, a catalogue that no bitmap fits, and users with one legal item."""
    from fastrec.data.datasets import registry

    there = registry.find("gowalla")
    if there is not None:
        gowalla = load_split(there).train
    else:
        gowalla = synthetic.generate(*GOWALLA, seed=1, timestamps=False)
        bench.notes.append("gowalla was not found: a synthetic log of its shape stands in its place")
    wide = synthetic.generate(*WIDE, seed=1, timestamps=False)
    far = Order(wide.n_interactions, context.seed).positions(0, 0, min(SHAPE_ROWS, wide.n_interactions))
    single = _one_legal_item(*FULL_BUT_ONE)
    shape = "{:,} users x {:,} items, {:,} positives".format
    of_gowalla, of_wide = (shape(log.n_users, log.n_items, log.n_interactions) for log in (gowalla, wide))
    mine = gowalla.users[:SHAPE_ROWS]
    bench.contenders += [
        _rows(gowalla, context, "gowalla", of_gowalla, mine),
        _searched(gowalla, context, "gowalla-searchsorted", mine),
        _rows(wide, context, "wide", of_wide, wide.users[:SHAPE_ROWS]),
        _rows(wide, context, "wide-shuffled", f"{of_wide}, in shuffled order", wide.users[far], far),
        _rows(
            single,
            context,
            "one-legal-item",
            f"every user has one legal item of {single.n_items:,}",
            single.users[:SHAPE_ROWS],
            distinct_share=0.0,
        ),
    ]
    assert bench.pairs is not None
    bench.pairs += [("gowalla", "gowalla-searchsorted"), ("wide", "wide-shuffled")]


FIRST_CALL = """
import json, time
started = time.perf_counter()
import numpy as np
from fastrec.sampling import NegativeSampler, csr, kernels
imported = time.perf_counter()
indptr = np.array([0, 2, 3])
sampler = NegativeSampler(indptr, np.array([1, 4, 0]), n_items=6)
drawn = sampler.sample([0, 0, 1], epoch=0, start=0)
ended = time.perf_counter()
counts = [k.stats for k in (csr._first_fault, csr.fill_bitmap, kernels.sample_uniform)]
print(json.dumps({
    "import_s": imported - started, "sample_s": ended - imported, "drawn": drawn.tolist(),
    "compiled": sum(sum(s.cache_misses.values()) for s in counts),
    "from_disk": sum(sum(s.cache_hits.values()) for s in counts),
}))
"""
"""From the import to the first negatives, in a process that has done nothing else."""


def _first_calls(bench: Bench) -> None:
    """What a new process waits for its first negatives: everything compiled, and everything from the disk cache."""
    folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-cache-")
    bench.close = folder.cleanup

    small = NegativeSampler([0, 2, 3], [1, 4, 0], n_items=6)
    drawn = small.sample([0, 0, 1], epoch=0, start=0).tolist()

    def contender(name: str, what: str, *, compiled: bool) -> Contender:
        last: dict[str, Any] = {}

        def run(_k: int) -> dict[str, Any]:
            last.update(machine.fresh_process(FIRST_CALL, env={"NUMBA_CACHE_DIR": folder.name}))
            return last

        def check(found: dict[str, Any]) -> None:
            if (found["compiled"] > 0, found["from_disk"] > 0) != (compiled, not compiled):
                raise Refused(f"{found['compiled']} kernels were compiled, {found['from_disk']} came from the disk")
            if found["drawn"] != drawn:
                raise Refused(f"the first negatives were {found['drawn']}, not {drawn}")

        def details(rate: float) -> dict[str, Any]:
            return {"whole_s": 1 / rate, "of_it_import_s": last["import_s"], "of_it_sample_s": last["sample_s"]}

        made = Contender(name, run, 1, check, unit="processes/s", what=what, role="cost", details=details)
        made.repeats = 0 if compiled else None
        return made

    what = "a new process from its start to its first negatives, every kernel {}".format
    bench.contenders += [
        contender("first_call_empty_cache", what("compiled"), compiled=True),
        contender("first_call_disk_cache", what("taken from the disk"), compiled=False),
    ]
