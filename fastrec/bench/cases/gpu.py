"""Large batches on a CUDA device: every engine beside its ceiling and a careful PyTorch loop.

B batch rows (positives), N negatives, D dim.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastrec.bench import engines, rivals
from fastrec.bench.checks import check_loss, known
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Contender, Refused
from fastrec.data.split import Split
from fastrec.data.synthetic import generator as synthetic

LARGER = "synthetic-20m"
BATCH_THERE = 65_536


def gpu(context: Context) -> Bench:
    """Large batches on a CUDA device: GMF, and NeuMF as NVIDIA's NCF has it, each beside its ceiling; fused GMF.

    Raises
    ------
    Refused
        Without a CUDA device: a figure from a CPU has no place here.
    """
    if not context.device.startswith("cuda"):
        raise Refused(f"this case is of CUDA devices, and the device is {context.device}")
    bench = Bench()
    for name in engines.GPU_ENGINES:
        bench.contenders.append(engines.contender(context, name))
        ceiling = engines.contender(context, name, fixed=True)
        ceiling.name, ceiling.role = f"{name}-ceiling", "ceiling"
        bench.contenders.append(ceiling)
    bench.pairs = [(name, f"{name}-ceiling") for name in engines.GPU_ENGINES]
    bench.contenders += [engines.contender(context, name) for name in engines.GPU_FUSED]
    bench.contenders.append(careful_there(context, BATCH_THERE, compiled=False))
    bench.pairs.append((f"gmf-b{BATCH_THERE}", bench.contenders[-1].name))
    if not context.quick:
        bench.contenders.append(careful_there(context, BATCH_THERE, compiled=True))
        bench.pairs.append((f"gmf-b{BATCH_THERE}", bench.contenders[-1].name))
        bench.contenders += larger(context)
        bench.notes.append(f"rows that begin with {LARGER} are of that generated log, whole, NOT real data")
    return bench


def careful_there(context: Context, batch_size: int, *, compiled: bool) -> Contender:
    """The careful PyTorch loop on the device, where its data lie and its negatives are drawn."""
    loop = rivals.Careful(
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

    return Contender(
        f"careful-{kind}-b{batch_size}",
        lambda _k: loop.epoch(),
        context.train.n_interactions * (1 + context.n_negatives),
        check,
        what=f"PyTorch on [B, 1+N], an epoch's negatives drawn on the device, fused Adam, {kind}, batch {batch_size:,}",
        role="rival",
        sync=engines.sync_of(context.device),
    )


def larger(context: Context) -> list[Contender]:
    """Both engines on a log of MovieLens-20M's shape."""
    log = synthetic.generate(*synthetic.SHAPES[LARGER], timestamps=False, threads=context.threads)
    empty = log.keep(np.zeros(log.n_interactions, np.bool_))
    split = Split(log, empty, empty, how="all of it is train")
    contenders = []
    for name in ("gmf-b65536", "gmf-b209715", *engines.GPU_FUSED):
        made = engines.contender(context, name, split=split)
        made.name = f"{LARGER}-{name}"
        contenders.append(made)
    return contenders
