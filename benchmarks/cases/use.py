"""Cases of using a trained model: lists of everyone, written to a file.

U users, I items, D dim, K items a list.
"""

from __future__ import annotations

import itertools
import tempfile
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Entry, Refused

K = 10
TOLERANCE = 1e-5


def recommend_all(context: Context) -> Bench:
    """The best items of every user, seen ones left out, as Parquet; next to implicit's ``recommend``."""
    from fastrec import Recommender, runs
    from fastrec.models import build

    split, threads = context.split, context.threads
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
    notes = []
    if find_spec("implicit") is None:
        notes.append("implicit is not installed, so there is no row of it: pip install implicit")
    else:
        entries.append(_implicit(vectors, seen, threads))
    return Bench(entries, notes=notes, close=folder.cleanup)


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


def _implicit(vectors: Any, seen: Any, threads: int) -> Entry:
    """implicit's ``recommend`` of everyone, by the same vectors; it writes no file."""
    from implicit.cpu.als import AlternatingLeastSquares  # type: ignore[import-not-found, unused-ignore]
    from scipy.sparse import csr_matrix

    model = AlternatingLeastSquares(factors=vectors[0].shape[1], num_threads=threads)
    model.user_factors, model.item_factors = (np.ascontiguousarray(v) for v in vectors)
    n_users, n_items = len(vectors[0]), len(vectors[1])
    matrix = csr_matrix((np.ones(seen[1].size, np.float32), seen[1], seen[0]), shape=(n_users, n_items))
    users = np.arange(n_users)

    def check(lists: Any) -> None:
        items, scores = lists
        found = {
            "user_id": np.repeat(users, K),
            "rank": np.tile(np.arange(1, K + 1), n_users),
            "item_id": items.ravel(),
        }
        _check_lists({name: values[scores.ravel() > -1e30] for name, values in found.items()}, vectors, seen)

    return Entry(
        "implicit",
        lambda _k: model.recommend(users, matrix, N=K, filter_already_liked_items=True),
        n_users,
        check,
        unit="users/s",
        what="implicit's recommend by the same vectors, in memory",
        role="baseline",
        threads=threads,
    )
