"""Negatives drawn without fastrec: the notebook's loop, vectorised NumPy, torch on a device.

Each exact and in its strongest honest form. B batch rows, N negatives, U users, I items.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fastrec.bench.harness import Refused
from fastrec.data.interactions import Interactions

CHUNK_ROWS = 65_536
"""Rows that NumPy draws at once: its temporaries stay in the cache."""


def notebook_loop(train: Interactions, users: NDArray[np.int32], n_negatives: int) -> Callable[[int], Any]:
    """The notebook's way: ``random.randint`` against a dict of sets, built here, one negative at a time."""
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


def dense_negatives(seen: NDArray[np.bool_], n_items: int, n_negatives: int, seed: int) -> Callable[..., Any]:
    """Vectorised NumPy over a dense boolean users x items matrix: int32 draws, flat ``take``, 64k rows at a time.

    Exact: draws that hit a positive are repeated. Memory: U * I bytes.
    """
    generator = np.random.default_rng(seed)
    flat = seen.reshape(-1)

    def draw(users: NDArray[np.int32], out: NDArray[np.int32]) -> NDArray[np.int32]:
        for lo in range(0, users.size, CHUNK_ROWS):
            rows = slice(lo, min(lo + CHUNK_ROWS, users.size))
            base = users[rows].astype(np.int64)[:, None] * n_items
            block = generator.integers(0, n_items, (base.shape[0], n_negatives), dtype=np.int32)
            redo = np.flatnonzero(flat.take(base + block))
            spots, bases = block.reshape(-1), np.broadcast_to(base, block.shape).reshape(-1)
            while redo.size:
                spots[redo] = generator.integers(0, n_items, redo.size, dtype=np.int32)
                redo = redo[flat.take(bases[redo] + spots[redo])]
            out[rows] = block
        return out

    return draw


def device_negatives(seen: NDArray[np.bool_], n_negatives: int, device: str) -> Callable[[Tensor], Tensor]:
    """The same in torch on a CUDA device, all rows at once: int32[B, N] of int32[B]. One sync a round of redraws."""
    flat, n_items = torch.from_numpy(seen).to(device).reshape(-1), seen.shape[1]

    def draw(users: Tensor) -> Tensor:
        base = users.long()[:, None] * n_items
        drawn = torch.randint(n_items, (users.numel(), n_negatives), device=device)
        hit = flat[base + drawn]
        while hit.any():
            drawn = torch.where(hit, torch.randint_like(drawn, n_items), drawn)
            hit = flat[base + drawn]
        return drawn.int()

    return draw


def searched_negatives(train: Interactions, n_negatives: int, seed: int) -> Callable[..., Any]:
    """Vectorised NumPy without a matrix: (user, item) keys searched by ``searchsorted``, 64k rows at a time.

    Exact; memory: 8 bytes per interaction, whatever the catalogue.
    """
    generator = np.random.default_rng(seed)
    n_items = train.n_items
    keys = train.users.astype(np.int64) * n_items + train.items

    def hits(wanted: NDArray[np.int64]) -> NDArray[np.bool_]:
        at = np.searchsorted(keys, wanted)
        found: NDArray[np.bool_] = keys[np.minimum(at, keys.size - 1)] == wanted
        return found

    def draw(users: NDArray[np.int32], out: NDArray[np.int32]) -> NDArray[np.int32]:
        for lo in range(0, users.size, CHUNK_ROWS):
            rows = slice(lo, min(lo + CHUNK_ROWS, users.size))
            base = users[rows].astype(np.int64)[:, None] * n_items
            block = generator.integers(0, n_items, (base.shape[0], n_negatives), dtype=np.int32)
            spots, bases = block.reshape(-1), np.broadcast_to(base, block.shape).reshape(-1)
            redo = np.flatnonzero(hits(bases + spots))
            while redo.size:
                spots[redo] = generator.integers(0, n_items, redo.size, dtype=np.int32)
                redo = redo[hits(bases[redo] + spots[redo])]
            out[rows] = block
        return out

    return draw


def dense_seen(train: Interactions) -> NDArray[np.bool_]:
    """bool[U, I]: which user has interacted with which item.

    Raises
    ------
    Refused
        If the matrix would need more than 4 GB: this baseline cannot run there.
    """
    if train.n_users * train.n_items > 4e9:
        raise Refused(f"a dense {train.n_users} x {train.n_items} boolean matrix needs more than 4 GB")
    seen = np.zeros((train.n_users, train.n_items), dtype=np.bool_)
    seen[train.users, train.items] = True
    return seen
