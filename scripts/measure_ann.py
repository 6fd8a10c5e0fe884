"""Measure nearest-neighbour libraries on the vectors of a run: build time, queries/s, recall@10 against exact search.

    pip install faiss-cpu hnswlib usearch
    python scripts/measure_ann.py RUN

Libraries that are not installed are left out. Every index is an HNSW graph with M = 16, 200 nodes looked at when it is
built and 64 when it is searched, over float32 item vectors with the item bias as a column, for their inner product.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import numpy as np

from fastrec import Recommender
from fastrec.inference.exporters.ann import QUERIES, SETTINGS
from fastrec.inference.top_k import VectorScorer, top_k

K, THREADS = 10, 2
CONNECTIVITY, BUILD, SEARCH = (SETTINGS[name] for name in ("connectivity", "expansion_add", "expansion_search"))


def faiss_search(items: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Build; returns the search."""
    import faiss

    faiss.omp_set_num_threads(THREADS)
    index = faiss.IndexHNSWFlat(items.shape[1], CONNECTIVITY, faiss.METRIC_INNER_PRODUCT)
    index.hnsw.efConstruction, index.hnsw.efSearch = BUILD, SEARCH
    index.add(items)
    return lambda queries: index.search(queries, K)[1]


def hnswlib_search(items: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Build; returns the search."""
    import hnswlib

    index = hnswlib.Index("ip", items.shape[1])
    index.init_index(len(items), ef_construction=BUILD, M=CONNECTIVITY)
    index.add_items(items, num_threads=THREADS)
    index.set_ef(SEARCH)
    return lambda queries: index.knn_query(queries, K, num_threads=THREADS)[0]


def usearch_search(items: np.ndarray) -> Callable[[np.ndarray], Any]:
    """Build; returns the search."""
    from usearch.index import Index

    index = Index(ndim=items.shape[1], dtype="f32", **SETTINGS)
    index.add(np.arange(len(items), dtype=np.uint64), items, threads=THREADS)
    return lambda queries: index.search(queries, K, threads=THREADS).keys


LIBRARIES = {"faiss-cpu": faiss_search, "hnswlib": hnswlib_search, "usearch": usearch_search}


def main(run: str) -> None:
    """Print one line a library."""
    rec = Recommender.load(run)
    items = np.ascontiguousarray(np.concatenate((rec.item_vectors, rec.item_bias[:, None]), axis=1))
    rows = np.unique(np.linspace(0, rec.n_users - 1, min(QUERIES, rec.n_users)).astype(np.int32))
    users = np.concatenate((rec.user_vectors, np.ones((rec.n_users, 1), np.float32)), axis=1)
    exact = top_k(VectorScorer(users, items), rows, K, threads=THREADS).items
    print(f"{rec.n_items:,} items, {items.shape[1]} columns, {rows.size:,} queries, {THREADS} threads")
    for name, make in LIBRARIES.items():
        try:
            label = f"{name} {version(name)}"
        except PackageNotFoundError:
            continue
        builds, speeds = [], []
        for _ in range(3):
            start = time.perf_counter()
            search = make(items)
            built = time.perf_counter()
            found = search(users[rows])
            builds.append(built - start)
            speeds.append(rows.size / (time.perf_counter() - built))
        hits = np.mean([len({*a} & {*b}) / K for a, b in zip(np.asarray(found).tolist(), exact.tolist())])
        print(f"{label:18s} build {min(builds):6.2f} s   {max(speeds):8,.0f} queries/s   recall@10 {hits:.4f}")


if __name__ == "__main__":
    main(sys.argv[1])
