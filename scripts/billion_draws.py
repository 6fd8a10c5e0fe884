"""A billion negatives on real MovieLens-1M: not one is a positive of its user, whatever the path.

Usage: python scripts/billion_draws.py RATINGS.DAT [--draws 1000000000] [--out RECORD.json]

Every epoch is drawn in CSR order and checked against a dense boolean matrix built from the ratings by NumPy only.
Every eighth epoch is drawn again without the bitmap, by search or by filter, in another order and on other threads, and
must give the same bytes.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import platform
import time
from pathlib import Path

import numpy as np

from fastrec.sampling import STREAM_VERSION, NegativeSampler


def ratings(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """(users, items) of ``UserID::MovieID::...`` lines as contiguous ids."""
    fields = [line.split(b"::", 2)[:2] for line in path.read_bytes().splitlines()]
    pairs = np.array(fields, dtype="S10").astype(np.int64)
    return tuple(np.unique(pairs[:, k], return_inverse=True)[1] for k in (0, 1))  # type: ignore[return-value]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("ratings", type=Path)
    parser.add_argument("--draws", type=int, default=10**9)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    users, items = ratings(args.ratings)
    order = np.lexsort((items, users))
    users, items = users[order].astype(np.int32), items[order].astype(np.int32)
    n_users, n_items = int(users.max()) + 1, int(items.max()) + 1
    indptr = np.concatenate(([0], np.cumsum(np.bincount(users))))
    seen = np.zeros((n_users, n_items), bool)
    seen[users, items] = True
    sampler = NegativeSampler(indptr, items, n_items=n_items, seed=42)
    budgets = (0, 2 * items.size + 64)  # only binary search; room for the filter and for no bitmap
    others = [NegativeSampler(indptr, items, n_items=n_items, seed=42, memory_budget=budget) for budget in budgets]
    assert [bool(other.describe()["filter_bytes"]) for other in others] == [False, True]
    out, digest, draws, epoch, positives = np.empty((users.size, 4), np.int32), hashlib.sha256(), 0, 0, 0
    counts = np.zeros(n_items, np.int64)
    started = time.perf_counter()
    while draws < args.draws:
        sampler.sample(users, epoch=epoch, start=0, out=out, threads=None)
        assert out.min() >= 0
        assert out.max() < n_items
        positives += int(np.count_nonzero(seen[users[:, None], out]))
        counts += np.bincount(out.reshape(-1), minlength=n_items)
        digest.update(out.tobytes())
        if epoch % 8 == 0:
            mixed = np.random.default_rng(epoch).permutation(users.size)
            again = others[epoch // 8 % 2].sample(users[mixed], epoch=epoch, positions=mixed, threads=3)
            assert np.array_equal(again, out[mixed]), f"epoch {epoch}: another path, other bytes"
        draws, epoch = draws + out.size, epoch + 1
    expected = epoch * 4 * np.bincount(users, minlength=n_users) / (n_items - np.diff(indptr)) @ ~seen
    z = (counts - expected) / np.sqrt(expected)
    result = {
        "what": "negatives drawn on MovieLens-1M and checked against a dense matrix",
        "draws": draws,
        "positives_drawn": positives,
        "epochs": epoch,
        "largest_item_deviation_in_standard_errors": round(float(np.abs(z).max()), 3),
        "stats": sampler.stats,
        "sha256_of_all": digest.hexdigest(),
        "stream_version": STREAM_VERSION,
        "seconds_with_checks": round(time.perf_counter() - started, 1),
        "machine": platform.processor() or platform.machine(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    text = json.dumps(result, indent=1)
    print(text)
    if args.out:
        args.out.write_text(text + "\n")
    if positives:
        raise SystemExit(f"{positives} positives were drawn as negatives")


if __name__ == "__main__":
    main()
