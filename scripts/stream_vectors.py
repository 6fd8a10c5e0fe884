"""Write docs/stream-vectors.json: the test vectors of docs/stream.md, drawn by this library.

Usage: python scripts/stream_vectors.py
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.data.split_kernels import draw_keys
from fastrec.models.parts import init
from fastrec.models.parts.dropout import fill_kept
from fastrec.sampling import STREAM_VERSION, ExistingSampler, NegativeSampler, identity
from fastrec.sampling.order import Order
from fastrec.sampling.philox import TAG_CANDIDATES, TAG_ROUNDING, TAG_VALIDATION, philox4x32
from fastrec.sampling.weights import popularity

PATH = Path(__file__).resolve().parent.parent / "docs" / "stream-vectors.json"
SEED, EPOCH, USER, ITEM = 42, 3, 2, 5
ROW = [1, 5, 8]
NEARLY_FULL = [i for i in range(30) if i not in (7, 19, 22)]
WEIGHTS = [0.0, 1.0, 2.5, 0.25, 4.0, 1.0, 0.0, 3.0, 9.0, 1.0]
COUNTS = [0, 1, 5, 2, 40, 1, 0, 3, 7, 1]


def words(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """The four words of a counter and key."""
    return [int(w) for w in philox4x32(*map(np.uint64, (*counter, *key)))]


def negatives(row: list[int], n_items: int, n_negatives: int, **options: Any) -> dict[str, Any]:
    """One row of negatives at the identity (USER, ITEM)."""
    indptr = np.array([0] * (USER + 1) + [len(row)])
    options = {"seed": SEED, **options}
    sampler = NegativeSampler(
        indptr, np.array(row, np.int32), n_items=n_items, n_negatives=n_negatives, on_full="skip", **options
    )
    drawn = sampler.sample([USER], epoch=EPOCH, positions=identity([USER], [ITEM]))
    case = {"row": row, "n_items": n_items, "user": USER, "item": ITEM, "epoch": EPOCH, **options}
    if sampler._weights is not None:
        table = sampler._weights
        case |= {"units": [str(u) for u in table.units], "cut": table.cut.tolist(), "alias": table.alias.tolist()}
    return {**case, "negatives": drawn[0].tolist()}


def existing(first: list[int | None], row: list[int], time: int) -> dict[str, Any]:
    """One row of time-aware negatives at the identity (USER, ITEM); user 0 is the first to have every item."""
    seen = [i for i, t in enumerate(first) if t is not None]
    indptr, items = np.array([0, len(seen), len(seen), len(seen) + len(row)]), np.array([*seen, *row], np.int32)
    times = [*(first[i] for i in seen), *(time if i == ITEM else max(time, first[i] or 0) for i in row)]
    sampler = ExistingSampler(indptr, items, np.array(times), n_items=len(first), n_negatives=6, seed=SEED)
    drawn = sampler.sample([USER], epoch=EPOCH, positions=identity([USER], [ITEM]))
    case = {"first_times": first, "row": row, "time": time, "user": USER, "item": ITEM, "epoch": EPOCH, "seed": SEED}
    return {**case, "negatives": drawn[0].tolist()}


def vectors() -> dict[str, Any]:
    """All test vectors, JSON-able; numbers beyond 2^53 are text."""
    wide = 2**32 - 1
    counters = (((0, 0, 0, 0), (0, 0)), ((wide,) * 4, (wide,) * 2), ((ITEM, USER, EPOCH, 1 << 16 | 2), (SEED, 1)))
    keys = np.empty(len(ROW), np.uint64)
    draw_keys(np.array([0, 0, 0, 3]), np.array(ROW, np.int32), keys, 1, SEED, TAG_VALIDATION, 2, 3)
    kept = np.empty((1, 2, 6), np.bool_)
    position = identity([USER], [ITEM])
    fill_kept(np.uint64(SEED), np.uint64(EPOCH), 1, position, np.uint64(round(0.3 * 2**32)), kept, 0, 1)
    step = 2**33 + 7
    rounding = [words((step & wide, step >> 32, row, 0), (SEED, TAG_ROUNDING)) for row in (USER, 2**31 + ITEM)]
    return {
        "stream_version": STREAM_VERSION,
        "philox": [{"counter": c, "key": k, "words": words(c, k)} for c, k in counters],
        "identity": [
            {"user": u, "item": i, "position": str(identity([u], [i])[0])} for u, i in ((2, 5), (2**31 - 1, 0))
        ],
        "uniform": [
            negatives(ROW, 10, 6),
            negatives(NEARLY_FULL, 30, 5),
            negatives(ROW, 10, 6, distinct=True),
            negatives(ROW, 2**31 - 1, 4, seed=2**32 - 1),
            negatives(ROW, 3706, 9),
        ],
        "existing": [
            existing([30, 10, None, 10, 50, 20, 90, 5, 40], [1, 5], 40),
            existing([*range(20), None], [i for i in range(20) if i not in (3, 11)], 15),
            existing([7, 7, 7, 7, 7, 3], [0, 1, 2, 3, 4, 5], 7),
        ],
        "candidates": [negatives(ROW, 60, 9, distinct=True, tag=TAG_CANDIDATES)],
        "weighted": [
            negatives(ROW, 10, 5, distribution="weights", weights=WEIGHTS),
            negatives(ROW, 10, 4, distribution="weights", weights=WEIGHTS, distinct=True),
        ],
        "popularity": {
            "counts": COUNTS,
            "alpha": 0.75,
            "weights": popularity(np.array(COUNTS), 0.75).tolist(),
        },
        "order": [
            {"n": n, "seed": SEED, "epoch": EPOCH, "first": Order(n, SEED).positions(EPOCH, 0, min(n, 12)).tolist()}
            for n in (10, 5000, 1_000_209)
        ],
        "split": {"seed": SEED, "draw": 1, "user": USER, "items": ROW, "keys": [str(k) for k in keys]},
        "weights": {
            "name": "user_factors",
            "seed": SEED,
            "uniform": init.uniform("user_factors", (3, 6), 1.0, SEED).tolist(),
            "normal": init.normal("user_factors", (3, 6), 1.0, SEED).tolist(),
        },
        "dropout": {
            "seed": SEED, "epoch": EPOCH, "user": USER, "item": ITEM, "layer": 1, "rate": 0.3, "kept": kept[0].tolist(),
        },
        "rounding": {"seed": SEED, "step": str(step), "user": USER, "item": ITEM,
                     "bits": [[w & 0xFFFF for w in row] for row in rounding]},
    }  # fmt: skip


def main() -> None:
    PATH.write_text(json.dumps(vectors(), indent=1) + "\n")
    print(f"wrote {PATH}")


if __name__ == "__main__":
    main()
