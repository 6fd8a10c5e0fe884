"""The fused engine end to end: drawing, scoring and updating, in both modes, against the limits of the machine.

B batch rows (positives), N negatives, D dim.
"""

from __future__ import annotations

from typing import Any

from fastrec.bench.cases.train import make_stream
from fastrec.bench.checks import check_loss
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry
from fastrec.bench.traffic import bytes_per_sample
from fastrec.engines.fused.engine import FusedEngine
from fastrec.models import build
from fastrec.sampling.order import Cursor

LOCK_FREE_BATCH = 65_536
QUICK_POSITIVES = 200_000
# Learning rates under which the loss falls from the first step.
_RATES = {("lock_free", "sgd"): 0.01, ("deterministic", "sgd"): 1e-4, ("deterministic", "row-adagrad"): 0.05}


def flops_per_sample(dim: int, n_negatives: int) -> float:
    """Score 2 D, user gradient 2 D, item update 4 D (L2 included), and the user's own update 4 D over 1 + N samples."""
    return 8.0 * dim + 4.0 * dim / (1 + n_negatives)


def make_engine(context: Context, mode: str, threads: int, *, model: str = "mf", optimizer: str = "sgd") -> FusedEngine:
    """A fused engine over the train part."""
    train = context.train
    net = build(model, n_users=train.n_users, n_items=train.n_items, dim=context.dim, seed=context.seed, init_std=0.2)
    lr = _RATES[mode, optimizer]
    return FusedEngine(
        net,
        make_stream(context),
        batch_size=LOCK_FREE_BATCH if mode == "lock_free" else context.batch_size,
        lr=lambda _: lr,
        mode=mode,
        optimizer=optimizer,
        l2=5e-4,
        threads=threads,
    )


def _entry(name: str, what: str, context: Context, mode: str, threads: int, **options: Any) -> Entry:
    engine = make_engine(context, mode, threads, **options)
    n = engine.n_positives
    if context.quick:
        n = min(n, -(-QUICK_POSITIVES // engine.batch_size) * engine.batch_size)
    steps = -(-n // engine.batch_size)
    work = n * (1 + context.n_negatives)

    def run(k: int) -> Any:
        done = engine.advance(Cursor(k, 0), steps)
        assert done.n_samples == work, f"{done.n_samples} samples were trained, not {work}"
        return done

    def check(first: Any) -> dict[str, Any]:
        again = engine.advance(Cursor(1, 0), steps)
        return check_loss(first.loss_sum / first.n_samples, again.loss_sum / again.n_samples)

    return Entry(name, run, work, check, what=f"{what}, B = {engine.batch_size:,}", threads=threads)


def fused(context: Context) -> Bench:
    """MF with BCE: lock_free and deterministic, on every thread and on one; also GMF."""
    lanes = [
        ("lock_free", "Hogwild over users, SGD", "lock_free", {}),
        ("deterministic", "bit-identical for any threads, SGD", "deterministic", {}),
        ("deterministic-adagrad", "the same, row-wise Adagrad", "deterministic", {"optimizer": "row-adagrad"}),
        ("lock_free-gmf", "GMF, Hogwild over users, SGD", "lock_free", {"model": "gmf"}),
    ]
    entries, pairs = [], [(other, "lock_free") for other, *_ in lanes[1:]]
    for name, what, mode, options in lanes:
        entries.append(_entry(name, what, context, mode, context.threads, **options))
        if context.threads > 1 and not options:
            entries.append(_entry(f"{name}-1-thread", f"{what}, one thread", context, mode, 1, **options))
            pairs.append((name, f"{name}-1-thread"))
    return Bench(
        entries,
        pairs=pairs,
        rounds=None if context.quick else 11,
        facts={
            "dim": context.dim,
            "n_negatives": context.n_negatives,
            "bytes_per_sample": bytes_per_sample(context.dim, context.n_negatives),
            "flops_per_sample": flops_per_sample(context.dim, context.n_negatives),
        },
    )
