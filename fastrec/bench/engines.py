"""fastrec's engines as entries: built as a run builds them; the check is the work done and a falling loss."""

from __future__ import annotations

import math
import time
from typing import Any

from fastrec.bench.checks import check_loss
from fastrec.bench.context import Context
from fastrec.bench.harness import Entry, Refused
from fastrec.bench.traffic import bandwidth_details, bytes_per_sample, dense_bytes_per_sample
from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split
from fastrec.engines.base import Engine, Progress
from fastrec.sampling.order import Cursor

TORCH = {"engine": "torch", "model": "gmf", "optimizer": "adam", "lr": 1e-3}
FUSED = {"engine": "fused", "optimizer": "sgd"}
LOCK_FREE = {**FUSED, "fused_mode": "lock_free", "batch_size": 65_536}  # what is prepared at once; updates are single
DETERMINISTIC = {**FUSED, "fused_mode": "deterministic", "batch_size": 8192}
ENGINES: dict[str, dict[str, Any]] = {
    "torch": {**TORCH, "batch_size": 8192},
    "torch-b1024": {**TORCH, "batch_size": 1024},
    "fused-lock-free": {**LOCK_FREE, "model": "mf", "lr": 0.02},
    "fused-deterministic": {**DETERMINISTIC, "model": "mf", "lr": 1e-4},
    "fused-gmf-lock-free": {**LOCK_FREE, "model": "gmf", "lr": 0.05, "init_std": 0.1},
    "fused-gmf-deterministic": {**DETERMINISTIC, "model": "gmf", "lr": 1e-4, "init_std": 0.1},
}
WHAT = {
    "torch": "GMF, Adam",
    "fused-lock-free": "MF with biases, SGD, Hogwild",
    "fused-deterministic": "MF with biases, SGD, the same bytes for any threads",
    "fused-gmf-lock-free": "GMF, SGD, Hogwild",
    "fused-gmf-deterministic": "GMF, SGD, the same bytes for any threads",
}
UNTRAINED = math.log(2)
"""The BCE of an untrained model."""


def build(split: Split, *, threads: int, device: str, seed: int, **options: Any) -> Engine:
    """An engine with the options of a run."""
    from fastrec.training.build import build_engine
    from fastrec.training.resolve import resolve

    return build_engine(split, resolve(Config().override(threads=threads, device=device, seed=seed, **options)))


def options_of(context: Context, name: str) -> dict[str, Any]:
    """The Config fields of a named engine at the context's D and N."""
    return {"dim": context.dim, "negatives": context.n_negatives, **ENGINES[name]}


def moved_per_sample(context: Context, options: dict[str, Any], train: Interactions) -> float:
    """Bytes that a sample moves under these options (``roofline``)."""
    if options["engine"] == "torch":
        rows = train.n_users + train.n_items
        copy = 2 * (options["precision"] == "bf16")
        return dense_bytes_per_sample(context.dim, context.n_negatives, rows, options["batch_size"], copy=copy)
    weight, row_state = 2 if options["precision"] == "bf16" else 4, 4 * (options["optimizer"] == "row-adagrad")
    return bytes_per_sample(context.dim, context.n_negatives, weight=weight, row_state=row_state)


def sync_of(device: str) -> Any:
    """The call before a clock is read: nothing on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)


def entry(
    context: Context,
    name: str,
    *,
    n_positives: int | None = None,
    fixed: bool = False,
    split: Split | None = None,
    recipe: tuple[dict[str, Any], str] | None = None,
) -> Entry:
    """An engine that trains epoch after epoch, each complete or ``n_positives`` at a time.

    Its check: it trained all the positives asked for, and its mean loss is finite and below that of an untrained model.

    Parameters
    ----------
    fixed : bool
        Train on one batch, drawn beforehand: only the step, the ceiling of any data path.
    split : Split, optional
        Instead of the context's.
    recipe : (dict, str), optional
        Config fields and a description of an engine that runs on the context's device; left out: ``name`` is a key of
        ``ENGINES``, whose fused engines run on the CPU.
    """
    fields, what = recipe or (ENGINES[name], WHAT[name.removesuffix("-b1024")])
    options = {"dim": context.dim, "negatives": context.n_negatives, **fields}
    split = split or context.split
    on_gpu = (recipe is not None or options["engine"] == "torch") and context.device.startswith("cuda")
    device = context.device if on_gpu else "cpu"
    engine = build(split, threads=context.threads, device=device, seed=context.seed, **options)
    options = {**options, "precision": engine.describe().get("precision", "fp32")}
    if fixed:
        torch_engine: Any = engine
        torch_engine.feed = FixedFeed(torch_engine.feed)
    total = engine.n_positives if n_positives is None else min(n_positives, engine.n_positives)
    steps = max(1, total // engine.batch_size) if fixed else -(-total // engine.batch_size)
    visited = min(steps * engine.batch_size, engine.n_positives)
    work = visited * (1 + context.n_negatives)
    copy = context.bandwidth[device if on_gpu else str(context.threads)]

    def check(done: Progress) -> dict[str, Any]:
        if (done.n_positives, done.n_samples) != (visited, work):
            raise Refused(f"it trained {done.n_positives} positives, {done.n_samples} samples, not {visited}, {work}")
        return check_loss(UNTRAINED, done.loss_sum / done.n_samples)

    waited = Waited(engine)
    at = [Cursor(0, 0)]

    def run(_k: int) -> Progress:
        if engine.n_positives - at[0].position < visited:  # else continue where it was: the feed need not restart
            at[0] = Cursor(at[0].epoch + 1, 0)
        with waited:
            done = engine.advance(at[0], steps)
        at[0] = done.cursor
        return done

    def details(rate: float) -> dict[str, Any]:
        found = waited.details()
        if options["model"] in ("mf", "gmf"):  # the bytes of an MLP are not those of its tables
            found |= bandwidth_details(rate, moved_per_sample(context, options, split.train), copy)
        return found

    return Entry(
        name,
        run,
        work,
        check,
        what=f"{what}, batch {options['batch_size']:,} positives, D = {options['dim']}",
        threads=context.threads,
        sync=sync_of(device),
        details=details,
    )


class Waited:
    """The fraction of time that an engine waited for its feed; nothing for an engine without one."""

    def __init__(self, engine: Any) -> None:
        self.feed = getattr(engine, "feed", None)
        self.wait_s = self.wall_s = self._began = self._before = 0.0

    def __enter__(self) -> None:
        self._before, self._began = getattr(self.feed, "wait_s", 0.0), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.wall_s += time.perf_counter() - self._began
        self.wait_s += getattr(self.feed, "wait_s", 0.0) - self._before

    def details(self) -> dict[str, Any]:
        """``data_wait_pct`` over all calls so far."""
        if not hasattr(self.feed, "wait_s"):
            return {}
        return {"data_wait_pct": 100.0 * self.wait_s / max(self.wall_s, 1e-9)}


class FixedFeed:
    """Replaces a torch engine's feed and returns the same batch each time: the step without any data path."""

    def __init__(self, feed: Any) -> None:
        batch, _ = feed.next(Cursor(0, 0))
        self.batch = type(batch)(*(tensor.clone() for tensor in batch if tensor is not None))
        feed.close()

    def next(self, cursor: Cursor) -> Any:
        """The batch, and the cursor after it."""
        return self.batch, Cursor(cursor.epoch, cursor.position + self.batch.users.shape[0])

    def close(self) -> None:
        """Nothing to stop."""
