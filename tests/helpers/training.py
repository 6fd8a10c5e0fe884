"""A small world to train in: synthetic positives, a stream over them, an engine. No file, no Polars."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastrec import models
from fastrec.batches.stream import Stream
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor

N_USERS, N_ITEMS = 23, 31
DOT = [name for name in models.names() if models.model_class(name).similarity == "dot"]
"""Models that BCE and BPR are for."""


def positives(seed: int = 5, n_users: int = N_USERS, n_items: int = N_ITEMS) -> tuple[np.ndarray, np.ndarray]:
    """A CSR with an empty user, a user of one item, and learnable structure: users like items of their own parity."""
    rng = np.random.default_rng(seed)
    rows = []
    for user in range(n_users):
        liked = np.arange(user % 2, n_items, 2)
        n = 0 if user == 3 else 1 if user == 4 else int(rng.integers(3, 10))
        rows.append(np.sort(rng.choice(liked, n, replace=False)))
    indptr = np.concatenate(([0], np.cumsum([len(r) for r in rows]))).astype(np.int64)
    return indptr, np.concatenate(rows).astype(np.int32)


def make_stream(n_negatives: int = 4, seed: int = 1, weights: Any = None) -> Stream:
    indptr, items = positives()
    sampler = NegativeSampler(indptr, items, n_items=N_ITEMS, n_negatives=n_negatives, seed=seed)
    return Stream(indptr, items, sampler, seed=seed, weights=weights)


def make_model(model: str = "gmf", dim: int = 4, seed: int = 2, init_std: float = 0.1, **options: Any) -> Any:
    return models.build(model, n_users=N_USERS, n_items=N_ITEMS, dim=dim, seed=seed, init_std=init_std, **options)


def make_engine(model: str = "gmf", batch_size: int = 16, **options: Any) -> TorchEngine:
    options.setdefault("lr", lambda step: 0.01 / (1 + 0.1 * step))
    if model not in DOT and "loss" not in options:
        options |= {"loss": "softmax", "loss_options": {"temperature": 0.2}}
    stream = make_stream(options.pop("n_negatives", 4))
    return TorchEngine(make_model(model), stream, batch_size=batch_size, **options)


def masters_keep_small_updates(engine: TorchEngine) -> None:
    """At 1.0 bf16 steps by 2^-8: updates far below it must add up in the fp32 masters, and nothing passes it."""
    for p in engine.model.parameters():
        p.data.fill_(1.0)
    engine._step.refresh()
    engine.advance(Cursor(0, 0), 3)
    moved = engine.model.user_factors[engine.model.user_factors != 1.0]
    assert moved.numel()
    assert (moved - 1.0).abs().max() < 2**-8
    engine.close()
