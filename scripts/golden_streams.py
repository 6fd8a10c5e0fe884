"""Write tests/golden/streams.json: drawn bytes of this STREAM_VERSION, which must never change without a new version.

Usage: python scripts/golden_streams.py
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.sampling import STREAM_VERSION, NegativeSampler
from fastrec.sampling.order import Order

PATH = Path(__file__).resolve().parent.parent / "tests" / "golden" / "streams.json"


def positives() -> tuple[np.ndarray, np.ndarray]:
    """A fixed CSR of 64 users by 1000 items, degrees 0 to 999."""
    rows = [np.sort(np.arange(u * 999 // 63) * 7919 % 1000) for u in range(64)]
    return np.cumsum([0] + [r.size for r in rows]), np.concatenate(rows).astype(np.int32)


def streams() -> dict[str, Any]:
    """For every kind of draw: its first rows, and the sha256 of all of it (little-endian bytes)."""
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
    drawn: dict[str, np.ndarray] = {}
    for name, kwargs in options.items():
        sampler = NegativeSampler(*positives(), n_items=1000, **kwargs)
        drawn[name] = sampler.sample(users, epoch=3, start=2**33).astype("<i4")
    for n in (10, 5000, 1_000_209):
        drawn[f"order of {n}"] = Order(n, 42).positions(3, 0, n).astype("<i8")
    return {
        name: {"first": a.reshape(-1)[:12].tolist(), "sha256": hashlib.sha256(a.tobytes()).hexdigest()}
        for name, a in drawn.items()
    }


def main() -> None:
    PATH.parent.mkdir(exist_ok=True)
    golden = json.loads(PATH.read_text()) if PATH.exists() else {}
    golden[str(STREAM_VERSION)] = streams()
    PATH.write_text(json.dumps(golden, indent=1) + "\n")
    print(f"wrote version {STREAM_VERSION} to {PATH}")


if __name__ == "__main__":
    main()
