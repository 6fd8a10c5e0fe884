"""An index of nearest neighbours over the items, by usearch: lists in microseconds from millions of items.

U users, I items, D dim. Source: Malkov and Yashunin, "Efficient and robust approximate nearest neighbor search using
hierarchical navigable small world graphs", IEEE TPAMI 42(4), 2020.
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.files import atomic_folder
from fastrec.inference.exporters.parts.base import Content, Exporter, register
from fastrec.inference.exporters.parts.folder import needed, write_vectors
from fastrec.inference.top_k import VectorScorer, top_k

SETTINGS: dict[str, Any] = {"metric": "ip", "connectivity": 16, "expansion_add": 200, "expansion_search": 64}
"""Inner product; neighbours of a node, and nodes looked at when the index is built and when it is searched."""
QUERIES, K = 1000, 10


def write(path: Path, content: Content) -> None:
    """``index.usearch`` with the row of each item as its key, ``index.json``, ``users.parquet`` and ``items.parquet``.

    index.json holds the library, its settings, ``build_s``, and ``recall_at_10`` against exact search over up to
    ``QUERIES`` users (each list of all items, seen ones too).

    Raises
    ------
    MissingPackageError
        If usearch is not installed.
    """
    users, items = content.columns["user_vectors"], content.columns["item_vectors"]
    started = time.perf_counter()
    index = build(items)
    seconds = time.perf_counter() - started
    rows = np.unique(np.linspace(0, len(users) - 1, min(QUERIES, len(users))).astype(np.int32))
    about = {
        "library": f"usearch {needed('usearch').__version__}",
        "n_items": len(items),
        "dim": items.shape[1],
        **SETTINGS,
        "build_s": round(seconds, 3),
        "recall_at_10": round(recall(index, users, items, rows), 4),
        "queries": int(rows.size),
    }

    with atomic_folder(path) as folder:
        index.save(str(folder / "index.usearch"))
        (folder / "index.json").write_text(json.dumps(about, indent=2) + "\n")
        write_vectors(folder, content.columns, content.metric)


def summary(path: Path) -> list[str]:
    """What index.json says, for the terminal."""
    about = json.loads((path / "index.json").read_text())
    found = f"recall@10 {about['recall_at_10']:.4f} against exact search, over {about['queries']:,} users"
    return [f"{about['library']}: built in {about['build_s']:.2f} s, {found}"]


def build(items: NDArray[np.float32]) -> Any:
    """usearch.index.Index of float32[I, D] by their rows."""
    index = needed("usearch.index").Index(ndim=items.shape[1], dtype="f32", **SETTINGS)
    index.add(np.arange(len(items), dtype=np.uint64), np.ascontiguousarray(items))
    return index


def recall(
    index: Any, users: NDArray[np.float32], items: NDArray[np.float32], rows: NDArray[np.int32], k: int = K
) -> float:
    """Fraction of the exact ``k`` best items of ``rows`` that the index finds."""
    k = min(k, len(items))
    exact = top_k(VectorScorer(users, items), rows, k).items
    found = np.asarray(index.search(np.ascontiguousarray(users[rows]), k).keys).reshape(rows.size, -1)
    hits = sum(len({*a} & {*b}) for a, b in zip(exact.tolist(), found.astype(np.int64).tolist()))
    return hits / max(1, exact.size)


ANN = register(Exporter("ann", write, takes_options=False, needs=("usearch.index",), summary=summary))
