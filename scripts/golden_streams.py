"""Write tests/golden/streams.json: drawn bytes of this STREAM_VERSION, which must never change without a new version.

Usage: python scripts/golden_streams.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.batches.stream import Stream
from fastrec.data.split_kernels import draw_keys
from fastrec.models.parts import init
from fastrec.models.parts.dropout import fill_kept
from fastrec.sampling import STREAM_VERSION, NegativeSampler, identity
from fastrec.sampling.order import Order
from fastrec.sampling.philox import TAG_VALIDATION

PATH = Path(__file__).resolve().parent.parent / "tests" / "golden" / "streams.json"


def positives() -> tuple[np.ndarray, np.ndarray]:
    """A fixed CSR of 64 users by 1000 items, degrees 0 to 999."""
    rows = [np.sort(np.arange(u * 999 // 63) * 7919 % 1000) for u in range(64)]
    return np.cumsum([0] + [r.size for r in rows]), np.concatenate(rows).astype(np.int32)


def streams() -> dict[str, Any]:
    """For every kind of draw: its first rows, and the sha256 of all of it (little-endian bytes).

    Normal initial weights are not here: their last bit depends on the math library.
    """
    options: dict[str, dict[str, Any]] = {
        "uniform": {"seed": 42},
        "uniform, seed 2^32-1, N=7": {"seed": 2**32 - 1, "n_negatives": 7},
        "uniform, candidates, distinct": {"seed": 42, "tag": 4, "distinct": True, "n_negatives": 99, "on_full": "skip"},
        "popularity": {"seed": 42, "distribution": "popularity", "alpha": 0.75, "on_full": "skip"},
        "weights, distinct": {
            "seed": 42, "distribution": "weights", "weights": np.arange(1000) % 17, "distinct": True, "on_full": "skip",
        },
    }  # fmt: skip
    users = np.tile(np.arange(64, dtype=np.int32), 20)
    indptr, items = positives()
    owners = np.repeat(np.arange(64, dtype=np.int32), np.diff(indptr))
    pairs = identity(owners, items)
    drawn: dict[str, np.ndarray] = {}
    for name, kwargs in options.items():
        sampler = NegativeSampler(indptr, items, n_items=1000, **kwargs)
        drawn[name] = sampler.sample(users, epoch=3, start=2**33).astype("<i4")
        drawn[f"{name}, by identity"] = sampler.sample(owners, epoch=3, positions=pairs).astype("<i4")
    batches = Stream(indptr, items, NegativeSampler(indptr, items, n_items=1000, seed=42), seed=42)
    batch = batches.read(3, 0, batches.n_positives)
    drawn["batches, positions"] = batch.positions.astype("<i8")
    drawn["batches, items"] = batch.items.astype("<i4")
    keys = np.empty(items.size, np.uint64)
    draw_keys(indptr, items, keys, 0, 42, TAG_VALIDATION, 0, 64)
    drawn["validation keys"] = keys.astype("<u8")
    kept = np.empty((pairs.size, 5, 7), np.bool_)
    fill_kept(np.uint64(42), np.uint64(3), 2, pairs, np.uint64(2**31), kept, 0, pairs.size)
    drawn["dropout, half"] = kept.astype("<u1")
    drawn["initial weights, uniform"] = init.uniform("weights.0", (99, 13), 1.0, 42).view(np.uint32).astype("<u4")
    for n in (10, 5000, 1_000_209):
        drawn[f"order of {n}"] = Order(n, 42).positions(3, 0, n).astype("<i8")
    return {
        name: {"first": a.reshape(-1)[:12].tolist(), "sha256": hashlib.sha256(a.tobytes()).hexdigest()}
        for name, a in drawn.items()
    }


def main() -> None:
    PATH.parent.mkdir(exist_ok=True)
    golden = {str(STREAM_VERSION): streams()}
    PATH.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"wrote version {STREAM_VERSION} to {PATH}")


if __name__ == "__main__":
    main()
