"""Cases around training: evaluation, checkpoints, and the memory of a run.

U users, I items, C candidates, D dim.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from benchmarks.process import fresh_process
from fastrec.bench import engines
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused, single_row
from fastrec.sampling.order import Cursor

N_CANDIDATES = 99


def evaluation(context: Context) -> Bench:
    """Leave-one-out metrics of an untrained model: against 99 candidates, and in full ranking."""
    from fastrec.evaluation.candidates import candidates_for
    from fastrec.evaluation.full_ranking import evaluate_full
    from fastrec.models import build

    data, split, threads = context.data, context.split, context.threads
    model = build("mf", n_users=data.n_users, n_items=data.n_items, dim=context.dim, seed=context.seed, init_std=0.1)
    frozen = candidates_for(split, "test", n=N_CANDIDATES, threads=threads)

    def check(metrics: Any, low: float, high: float) -> dict[str, Any]:
        hit, gain = metrics["HR@10"], metrics["NDCG@10"]
        if not (low <= hit <= high and 0.0 <= gain <= hit):
            raise Refused(f"HR@10 = {hit}, NDCG@10 = {gain}: random scores give HR@10 of {low} to {high}")
        return {"hr_at_10": hit}

    return Bench(
        [
            Entry(
                "candidates",
                lambda _k: frozen.evaluate(model, (10,), threads=threads),
                split.test.n_interactions,
                lambda metrics: check(metrics, 0.05, 0.15),  # a tenth, with the noise of some hundred users
                unit="users/s",
                what=f"each test item against {N_CANDIDATES} frozen candidates, D = {context.dim}",
                role="cost",
                threads=threads,
            ),
            Entry(
                "full-ranking",
                lambda _k: evaluate_full(model, (split.train, split.validation), split.test, (10,), threads=threads),
                split.test.n_interactions,
                lambda metrics: check(metrics, 0.0, 0.05),
                unit="users/s",
                what=f"each test item against all {data.n_items:,} items that its user has not interacted with",
                role="cost",
                threads=threads,
            ),
        ]
    )


def checkpoint(context: Context) -> Bench:
    """The complete state of a run, written and synced, then read back with its hashes checked."""
    import torch

    from fastrec.runs.checkpoint import Checkpoints

    engine = engines.build(
        context.split, threads=context.threads, device="cpu", seed=context.seed, **engines.options_of(context, "torch")
    )
    engine.advance(Cursor(0, 0), 1)  # the optimiser has its state only then
    tensors, meta = engine.state()
    engine.close()
    folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-")
    kept = Checkpoints(Path(folder.name), keep=2)
    size = sum(value.numel() * value.element_size() for value in tensors.values())

    def check(read: Any) -> None:
        same = read[0].keys() == tensors.keys() and all(torch.equal(read[0][k], v) for k, v in tensors.items())
        if not same:
            raise Refused("what was read back is not what was written")

    def write_and_read(k: int) -> Any:
        kept.save(k, tensors, meta | {"step": k})
        return kept.load(k)

    return Bench(
        [
            Entry(
                "write-and-read",
                write_and_read,
                size,
                check,
                unit="bytes/s",
                what="atomic write with fsync and sha256, then a checked read",
                role="cost",
            )
        ],
        facts={"checkpoint_bytes": size},
        close=folder.cleanup,
    )


def memory(context: Context) -> dict[str, Any]:
    """Peak memory of one epoch of training, in its own process, beyond what importing torch takes."""
    rows, import_torch = [], fresh_process("import_torch")["peak_bytes"]
    with tempfile.TemporaryDirectory(prefix="fastrec-bench-") as folder:
        log = context.data.save(Path(folder) / "log.safetensors")
        for name in ("torch", "fused-deterministic"):
            options = {**engines.options_of(context, name), "threads": context.threads, "device": "cpu"}
            found = fresh_process("train_epoch", log=str(log), out=str(Path(folder) / name), options=options)
            seconds = context.train.n_interactions * (1 + context.n_negatives) / found["samples_per_s"]
            rows.append(
                single_row(
                    name,
                    context.train.n_interactions * (1 + context.n_negatives),
                    seconds,
                    unit="samples/s",
                    what=f"one epoch of `train` from a fresh process, {engines.WHAT[name]}",
                    threads=context.threads,
                    peak_bytes=found["peak_bytes"],
                    beyond_torch_bytes=found["peak_bytes"] - import_torch,
                )
            )
    facts = {"import_torch_bytes": import_torch}
    return {"rows": rows, "facts": facts, "notes": ["the figure of this case is memory; its rates include compilation"]}
