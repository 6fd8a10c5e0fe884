"""fastrec's engines as contenders: built as a run builds them, checked for work done and loss fallen."""

from __future__ import annotations

import math
import time
from typing import Any

from fastrec.bench.checks import check_loss
from fastrec.bench.context import Context
from fastrec.bench.harness import Contender, Refused
from fastrec.bench.roofline import beside_bandwidth, bytes_per_sample, dense_bytes_per_sample
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
    "fused-deterministic": {**DETERMINISTIC, "model": "mf", "lr": 5.0},
    "fused-gmf-lock-free": {**LOCK_FREE, "model": "gmf", "lr": 0.05, "init_std": 0.1},
    "fused-gmf-deterministic": {**DETERMINISTIC, "model": "gmf", "lr": 5.0, "init_std": 0.1},
}
NVIDIA_NEUMF = {"model": "neumf", "dim": 64, "layers": (256, 256, 128, 64), "dropout": 0.5}
GPU_ENGINES: dict[str, dict[str, Any]] = {
    "gmf-b209715": {**TORCH, "batch_size": 209_715},
    "gmf-b65536": {**TORCH, "batch_size": 65_536},
    "gmf-b8192": {**TORCH, "batch_size": 8192},
    "neumf-b209715": {**TORCH, **NVIDIA_NEUMF, "batch_size": 209_715},
}
"""On a CUDA device: the batch of NVIDIA's NCF is 1,048,576 rows, 209,715 positives; its NeuMF is the third."""
FUSED_CUDA = {
    "engine": "fused",
    "optimizer": "row-adagrad",
    "lr": 0.1,
    "model": "gmf",
    "init_std": 0.1,
    "precision": "fp32",
}
GPU_FUSED: dict[str, dict[str, Any]] = {
    "fused-gmf-b8192": {**FUSED_CUDA, "batch_size": 8192},
    "fused-gmf-b65536": {**FUSED_CUDA, "batch_size": 65_536},
    "fused-gmf-b209715": {**FUSED_CUDA, "batch_size": 209_715},
    "fused-gmf-bf16-b209715": {**FUSED_CUDA, "precision": "bf16", "batch_size": 209_715},
    "fused-mf-b65536": {**FUSED_CUDA, "model": "mf", "batch_size": 65_536},
}
"""The fused engine on a CUDA device: row-wise Adagrad, for at such batches the mean's SGD hardly learns a GMF."""
WHAT = {
    "gmf-b8192": "GMF, Adam",
    "gmf-b65536": "GMF, Adam",
    "gmf-b209715": "GMF, Adam",
    "neumf-b209715": "NeuMF as NVIDIA's NCF has it, Adam",
    "fused-gmf-b8192": "GMF, row-wise Adagrad, fp32",
    "fused-gmf-b65536": "GMF, row-wise Adagrad, fp32",
    "fused-gmf-b209715": "GMF, row-wise Adagrad, fp32",
    "fused-gmf-bf16-b209715": "GMF, row-wise Adagrad, bf16 tables rounded stochastically",
    "fused-mf-b65536": "MF with biases, row-wise Adagrad, fp32",
    "torch": "GMF, Adam",
    "fused-lock-free": "MF with biases, SGD, Hogwild",
    "fused-deterministic": "MF with biases, SGD, the same bytes for any threads",
    "fused-gmf-lock-free": "GMF, SGD, Hogwild",
    "fused-gmf-deterministic": "GMF, SGD, the same bytes for any threads",
}
UNTRAINED = math.log(2)
"""The BCE of a model that knows nothing."""


def build(split: Split, *, threads: int, device: str, seed: int, **options: Any) -> Engine:
    """An engine by the options of a run."""
    from fastrec.training.fit import build_engine
    from fastrec.training.resolve import resolve

    return build_engine(split, resolve(Config().override(threads=threads, device=device, seed=seed, **options)))


def options_of(context: Context, name: str) -> dict[str, Any]:
    """The Config fields of a named engine at the context's D and N."""
    return {"dim": context.dim, "negatives": context.n_negatives, **{**ENGINES, **GPU_ENGINES, **GPU_FUSED}[name]}


def moved_per_sample(context: Context, options: dict[str, Any], train: Interactions) -> float:
    """Bytes that a sample moves under these options (``roofline``)."""
    if options["engine"] == "torch":
        rows = train.n_users + train.n_items
        copy = 2 * (options["precision"] == "bf16")
        return dense_bytes_per_sample(context.dim, context.n_negatives, rows, options["batch_size"], copy=copy)
    weight, row_state = 2 if options["precision"] == "bf16" else 4, 4 * (options["optimizer"] == "row-adagrad")
    return bytes_per_sample(context.dim, context.n_negatives, weight=weight, row_state=row_state)


def sync_of(device: str) -> Any:
    """What to call before a clock is read: nothing on the CPU."""
    if not device.startswith("cuda"):
        return None
    import torch

    return lambda: torch.cuda.synchronize(device)


def contender(
    context: Context, name: str, *, n_positives: int | None = None, fixed: bool = False, split: Split | None = None
) -> Contender:
    """A named engine that trains epoch after epoch, whole or ``n_positives`` at a time.

    Its check: it visited what it should, and its mean loss is finite and below that of an untrained model.

    Parameters
    ----------
    fixed : bool
        Train on one batch, drawn beforehand: the step alone, the ceiling of any data path.
    split : Split, optional
        In place of the context's.
    """
    options, split = options_of(context, name), split or context.split
    on_gpu = (options["engine"] == "torch" or name in GPU_FUSED) and context.device.startswith("cuda")
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
        if engine.n_positives - at[0].position < visited:  # goes on where it was, so that the feed need not start anew
            at[0] = Cursor(at[0].epoch + 1, 0)
        with waited:
            done = engine.advance(at[0], steps)
        at[0] = done.cursor
        return done

    def details(rate: float) -> dict[str, Any]:
        beside = waited.details()
        if options["model"] in ("mf", "gmf"):  # a tower's bytes are not those of its tables
            beside |= beside_bandwidth(rate, moved_per_sample(context, options, split.train), copy)
        return beside

    return Contender(
        name,
        run,
        work,
        check,
        what=f"{WHAT[name.removesuffix('-b1024')]}, batch {options['batch_size']:,} positives, D = {options['dim']}",
        threads=context.threads,
        sync=sync_of(device),
        details=details,
    )


class Waited:
    """The share of an engine's time that it spent waiting for its feed; nothing for an engine without one."""

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
    """Stands in for a torch engine's feed and gives one batch for ever: the step without any data path."""

    def __init__(self, feed: Any) -> None:
        batch, _ = feed.next(Cursor(0, 0))
        self.batch = type(batch)(*(tensor.clone() for tensor in batch))
        feed.close()

    def next(self, cursor: Cursor) -> Any:
        """The one batch, and the cursor after it."""
        return self.batch, Cursor(cursor.epoch, cursor.position + self.batch.users.shape[0])

    def close(self) -> None:
        """Nothing runs."""
