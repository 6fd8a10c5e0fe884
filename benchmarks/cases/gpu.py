"""Large batches on a CUDA device: every engine against its ceiling and against a careful PyTorch loop.

B batch rows (positives), N negatives, D dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from benchmarks.baselines import pytorch
from fastrec.bench import engines
from fastrec.bench.checks import check_loss, known
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused
from fastrec.data.split import Split
from fastrec.data.synthetic import generator as synthetic

LARGER = "synthetic-20m"
BATCH_THERE = 65_536
NVIDIA_NEUMF = {"model": "neumf", "dim": 64, "layers": (256, 256, 128, 64), "dropout": 0.5}
ENGINES: dict[str, dict[str, Any]] = {
    "gmf-b209715": {**engines.TORCH, "batch_size": 209_715},
    "gmf-b65536": {**engines.TORCH, "batch_size": 65_536},
    "gmf-b8192": {**engines.TORCH, "batch_size": 8192},
    "neumf-b209715": {**engines.TORCH, **NVIDIA_NEUMF, "batch_size": 209_715},
}
"""The batch of NVIDIA's NCF is 1,048,576 rows, 209,715 positives; the last is its NeuMF."""
FUSED_CUDA = {
    "engine": "fused",
    "optimizer": "row-adagrad",
    "lr": 0.1,
    "model": "gmf",
    "init_std": 0.1,
    "precision": "fp32",
}
FUSED: dict[str, dict[str, Any]] = {
    "fused-gmf-b8192": {**FUSED_CUDA, "batch_size": 8192},
    "fused-gmf-b65536": {**FUSED_CUDA, "batch_size": 65_536},
    "fused-gmf-b209715": {**FUSED_CUDA, "batch_size": 209_715},
    "fused-gmf-bf16-b209715": {**FUSED_CUDA, "precision": "bf16", "batch_size": 209_715},
    "fused-mf-b65536": {**FUSED_CUDA, "model": "mf", "batch_size": 65_536},
}
"""The fused engine on the device: row-wise Adagrad, because SGD hardly learns a GMF at such batches."""
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
}


def gpu(context: Context) -> Bench:
    """Large batches on a CUDA device: GMF, and NeuMF as NVIDIA's NCF has it, each against its ceiling; fused GMF.

    Raises
    ------
    Refused
        Without a CUDA device.
    """
    if not context.device.startswith("cuda"):
        raise Refused(f"this case needs a CUDA device, and the device is {context.device}")
    bench = Bench()
    for name in ENGINES:
        bench.entries.append(device_entry(context, name))
        ceiling = device_entry(context, name, fixed=True)
        ceiling.name, ceiling.role = f"{name}-ceiling", "ceiling"
        bench.entries.append(ceiling)
    bench.pairs = [(name, f"{name}-ceiling") for name in ENGINES]
    bench.entries += [device_entry(context, name) for name in FUSED]
    bench.entries.append(careful_there(context, BATCH_THERE, compiled=False))
    bench.pairs.append((f"gmf-b{BATCH_THERE}", bench.entries[-1].name))
    if not context.quick:
        bench.entries.append(careful_there(context, BATCH_THERE, compiled=True))
        bench.pairs.append((f"gmf-b{BATCH_THERE}", bench.entries[-1].name))
        bench.entries += larger(context)
        bench.notes.append(f"rows that begin with {LARGER} train on all of that generated log, NOT real data")
    return bench


def device_entry(context: Context, name: str, *, fixed: bool = False, split: Split | None = None) -> Entry:
    """One of ``ENGINES`` or ``FUSED`` on the context's device."""
    return engines.entry(context, name, fixed=fixed, split=split, recipe=({**ENGINES, **FUSED}[name], WHAT[name]))


def careful_there(context: Context, batch_size: int, *, compiled: bool) -> Entry:
    """The careful PyTorch loop, its data and its draws on the device."""
    loop = pytorch.Careful(
        context.train,
        dim=context.dim,
        n_negatives=context.n_negatives,
        batch_size=batch_size,
        compiled=compiled,
        seed=context.seed,
        device=context.device,
    )
    kind, train = "compiled" if compiled else "eager", context.train
    users = np.resize(train.users, 10_000)

    def check(loss: float) -> dict[str, Any]:
        drawn = loop.draw_there(torch.from_numpy(users).to(context.device)).cpu().numpy()
        if known(train.indptr, train.items, users, drawn, train.n_items).any():
            raise Refused("it draws positives")
        return check_loss(engines.UNTRAINED, loss)

    return Entry(
        f"careful-{kind}-b{batch_size}",
        lambda _k: loop.epoch(),
        context.train.n_interactions * (1 + context.n_negatives),
        check,
        what=f"PyTorch on [B, 1+N], an epoch's negatives drawn on the device, fused Adam, {kind}, batch {batch_size:,}",
        role="baseline",
        sync=engines.sync_of(context.device),
    )


def larger(context: Context) -> list[Entry]:
    """Both engines on a log of MovieLens-20M's shape."""
    log = synthetic.generate(*synthetic.SHAPES[LARGER], timestamps=False, threads=context.threads)
    empty = log.keep(np.zeros(log.n_interactions, np.bool_))
    split = Split(log, empty, empty, how="all of it is train")
    entries = []
    for name in ("gmf-b65536", "gmf-b209715", *FUSED):
        made = device_entry(context, name, split=split)
        made.name = f"{LARGER}-{name}"
        entries.append(made)
    return entries
