"""The sampler's baselines and its hard cases: other shapes, users with one legal item, the first call of a process.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

import tempfile
from typing import Any

import numpy as np

from benchmarks.baselines import draws
from benchmarks.process import fresh_process
from fastrec.bench.cases.sampler import UNIT, check_of, sampler_entry
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused
from fastrec.data import load_split
from fastrec.data.interactions import Interactions
from fastrec.data.synthetic import generator as synthetic
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Order

LOOP_ROWS = 2_000
SHAPE_ROWS = 2_000_000
GOWALLA = 29_858, 40_981, 1_027_370
"""Users, items, positives of the synthetic log that replaces Gowalla where it is not found."""
WIDE = 100_000, 10_000_000, 10_000_000
FULL_BUT_ONE = 500, 3706
"""Users and items of the log in which every user has one legal item."""


def extend(context: Context, bench: Bench) -> None:
    """Add NumPy on a dense matrix and the notebook's loop; in a full run also searched keys, shapes, first calls."""
    train, n = context.train, context.n_negatives
    users, head = train.users, bench.entries[0].name
    dense = draws.dense_negatives(draws.dense_seen(train), train.n_items, n, context.seed)
    what = "vectorised NumPy on a dense boolean matrix, 64k rows at a time"
    added = [_baseline(train, context, "numpy-dense", what, users, dense)]
    if not context.quick:
        added.append(_searched(train, context, "numpy-searchsorted", users))
    added.append(_notebook_loop(context))
    bench.entries += added
    assert bench.pairs is not None
    bench.pairs += [(head, entry.name) for entry in added]
    if not context.quick:
        _other_shapes(context, bench)
        _first_calls(bench)


def _baseline(log: Interactions, context: Context, name: str, what: str, users: Any, draw: Any) -> Entry:
    out = np.empty((users.size, context.n_negatives), np.int32)
    check = check_of(log, users, context)
    return Entry(name, lambda _k: draw(users, out), out.size, check, unit=UNIT, what=what, role="baseline")


def _searched(log: Interactions, context: Context, name: str, users: Any) -> Entry:
    draw = draws.searched_negatives(log, context.n_negatives, context.seed)
    return _baseline(log, context, name, "vectorised NumPy, keys searched, no matrix", users, draw)


def _notebook_loop(context: Context) -> Entry:
    train, n = context.train, context.n_negatives
    some = train.users[np.linspace(0, train.users.size - 1, LOOP_ROWS).astype(np.int64)]
    loop, half = (draws.notebook_loop(train, users, n) for users in (some, some[: LOOP_ROWS // 2]))
    what = "random.randint against a dict of sets"
    entry = _baseline(train, context, "notebook-loop", what, some, lambda *_: loop(0))
    entry.extrapolated, entry.half = f"from {LOOP_ROWS:,} positives", half
    return entry


def _one_legal_item(n_users: int, n_items: int) -> Interactions:
    """Users who have every item but one, each another."""
    items = np.concatenate([np.delete(np.arange(n_items, dtype=np.int32), u % n_items) for u in range(n_users)])
    indptr = np.arange(n_users + 1, dtype=np.int64) * (n_items - 1)
    return Interactions(indptr, items, np.arange(n_users), np.arange(n_items), name="one legal item")


def _other_shapes(context: Context, bench: Bench) -> None:
    """Gowalla, a catalogue too large for any bitmap, and users with one legal item."""
    from fastrec.data.datasets import registry

    there = registry.find("gowalla")
    if there is not None:
        gowalla = load_split(there).train
    else:
        gowalla = synthetic.generate(*GOWALLA, seed=1, timestamps=False)
        bench.notes.append("gowalla was not found: a synthetic log of its shape is used instead")
    wide = synthetic.generate(*WIDE, seed=1, timestamps=False)
    far = Order(wide.n_interactions, context.seed).positions(0, 0, min(SHAPE_ROWS, wide.n_interactions))
    single = _one_legal_item(*FULL_BUT_ONE)
    shape = "{:,} users x {:,} items, {:,} positives".format
    of_gowalla, of_wide = (shape(log.n_users, log.n_items, log.n_interactions) for log in (gowalla, wide))
    mine = gowalla.users[:SHAPE_ROWS]
    bench.entries += [
        sampler_entry(gowalla, context, "gowalla", of_gowalla, mine),
        _searched(gowalla, context, "gowalla-searchsorted", mine),
        sampler_entry(wide, context, "wide", of_wide, wide.users[:SHAPE_ROWS]),
        sampler_entry(wide, context, "wide-shuffled", f"{of_wide}, in shuffled order", wide.users[far], far),
        sampler_entry(
            single,
            context,
            "one-legal-item",
            f"every user has one legal item of {single.n_items:,}",
            single.users[:SHAPE_ROWS],
            distinct_fraction=0.0,
        ),
    ]
    assert bench.pairs is not None
    bench.pairs += [("gowalla", "gowalla-searchsorted"), ("wide", "wide-shuffled")]


def _first_calls(bench: Bench) -> None:
    """How long a new process waits for its first negatives: everything compiled, and everything from the disk cache."""
    folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-cache-")
    bench.close = folder.cleanup

    small = NegativeSampler([0, 2, 3], [1, 4, 0], n_items=6)
    drawn = small.sample([0, 0, 1], epoch=0, start=0).tolist()

    def entry(name: str, what: str, *, compiled: bool) -> Entry:
        last: dict[str, Any] = {}

        def run(_k: int) -> dict[str, Any]:
            last.update(fresh_process("first_call", env={"NUMBA_CACHE_DIR": folder.name}))
            return last

        def check(found: dict[str, Any]) -> None:
            if (found["compiled"] > 0, found["from_disk"] > 0) != (compiled, not compiled):
                raise Refused(f"{found['compiled']} kernels were compiled, {found['from_disk']} came from the disk")
            if found["drawn"] != drawn:
                raise Refused(f"the first negatives were {found['drawn']}, not {drawn}")

        def details(rate: float) -> dict[str, Any]:
            return {"whole_s": 1 / rate, "of_it_import_s": last["import_s"], "of_it_sample_s": last["sample_s"]}

        made = Entry(name, run, 1, check, unit="processes/s", what=what, role="cost", details=details)
        made.repeats = 0 if compiled else None
        return made

    what = "a new process from its start to its first negatives, every kernel {}".format
    bench.entries += [
        entry("first_call_empty_cache", what("compiled"), compiled=True),
        entry("first_call_disk_cache", what("taken from the disk"), compiled=False),
    ]
