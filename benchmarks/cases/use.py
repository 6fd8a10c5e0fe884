"""Cases of using a trained model: lists of everyone, written to a file.

U users, I items, D dim, K items a list.
"""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.baselines.external import Baseline, interpreter
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused

K = 10
TOLERANCE = 1e-5


def recommend_all(context: Context) -> Bench:
    """The best items of every user, seen ones left out, as Parquet; next to implicit's ``recommend``."""
    from fastrec import Recommender, runs
    from fastrec.data.split import everything
    from fastrec.models import build

    split, threads = (
        everything(context.data),
        context.threads,
    )  # what is hidden is every interaction, whatever the split
    folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-")
    run = runs.create(Path(folder.name) / "run", config={"model": "gmf", "dim": context.dim}, split=split)
    model = build("gmf", n_users=split.n_users, n_items=split.n_items, dim=context.dim, seed=context.seed, init_std=0.1)
    run.save_model(model)
    rec = Recommender(run, threads=threads)
    vectors, seen = (rec.user_vectors, rec.item_vectors), _seen(split)
    files = (Path(folder.name) / f"{k}.parquet" for k in itertools.count())

    def check(out: Path) -> dict[str, Any]:
        import hashlib

        found = rec.recommend_all(K, output="arrays", ids="contiguous")
        _check_lists(found, vectors, seen)
        return {"file_bytes": out.stat().st_size, "sha256": hashlib.sha256(out.read_bytes()).hexdigest()[:12]}

    entries = [
        Entry(
            "fastrec",
            lambda _k: rec.recommend_all(K, out=next(files)),
            split.n_users,
            check,
            unit="users/s",
            what=f"top {K} of {split.n_items:,} items, D = {context.dim}, seen items left out, to Parquet",
            role="fastrec",
            threads=threads,
        )
    ]
    notes, open_now = [], list[Baseline]()
    if interpreter() is None:
        notes.append("implicit is not in the table: make bench-baselines installs it")
    else:
        try:
            entry, baseline = _implicit(Path(folder.name), vectors, seen, threads)
            entries.append(entry)
            open_now.append(baseline)
        except Refused as error:
            notes.append(f"implicit is not in the table: {error}")

    def close() -> None:
        for one in open_now:
            one.close()
        folder.cleanup()

    return Bench(entries, notes=notes, close=close)


def _seen(split: Any) -> tuple[np.ndarray, np.ndarray]:
    """The CSR of all parts."""
    parts = (split.train, split.validation, split.test)
    keys = np.sort(np.concatenate([p.users.astype(np.int64) * split.n_items + p.items for p in parts]))
    users = keys // split.n_items
    return np.searchsorted(users, np.arange(split.n_users + 1)), (keys % split.n_items).astype(np.int32)


def _check_lists(found: dict[str, Any], vectors: Any, seen: Any) -> None:
    """Refuse lists of some users that are not the best unseen items, but for ties within ``TOLERANCE``."""
    starts = np.flatnonzero(found["rank"] == 1)
    for start in starts[:: max(1, starts.size // 50)].tolist():
        user = int(found["user_id"][start])
        scores = vectors[1] @ vectors[0][user]
        scores[seen[1][seen[0][user] : seen[0][user + 1]]] = -np.inf
        own = found["item_id"][start : start + K][found["user_id"][start : start + K] == user]
        if not np.allclose(scores[own], np.sort(scores)[::-1][: own.size], atol=TOLERANCE):
            raise Refused(f"the list of user {user} is not its best {K} items")


def _implicit(folder: Path, vectors: Any, seen: Any, threads: int) -> tuple[Entry, Baseline]:
    """implicit's ``recommend`` of everyone, by the same vectors, in the baselines' environment; it writes no file."""
    csr = folder / "vectors.npz"
    arrays = {"indptr": seen[0], "items": seen[1], "users": vectors[0], "vectors": vectors[1]}
    np.savez(csr, **arrays)
    baseline = Baseline("implicit-recommend", csr, threads=threads, dim=vectors[0].shape[1], n_negatives=0)
    n_users = len(vectors[0])

    def check(answer: dict[str, Any]) -> None:
        with np.load(f"{csr}.lists.npz", allow_pickle=False) as file:
            items, scores = file["items"], file["scores"]
        if answer["n"] != items.size:
            raise Refused(f"implicit gave {answer['n']} items, then {items.size}")
        found = {
            "user_id": np.repeat(np.arange(n_users), K),
            "rank": np.tile(np.arange(1, K + 1), n_users),
            "item_id": items.ravel(),
        }
        _check_lists({name: values[scores.ravel() > -1e30] for name, values in found.items()}, vectors, seen)

    entry = Entry(
        "implicit",
        lambda _k: baseline.run(),
        n_users,
        check,
        unit="users/s",
        what=baseline.facts["what"],
        role="baseline",
        threads=threads,
    )
    return entry, baseline
