"""The k best items of many rows at once: scores a tile at a time, and a heap for each row.

B rows, I items, C candidate items, D dim, K kept per row.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from fastrec.evaluation.full_ranking import host, scoring
from fastrec.evaluation.metrics import check_scores
from fastrec.inference import kernels
from fastrec.jit import resolve_threads, run_ranges

ROWS, TILE = 1024, 4096
"""Rows and items of a tile of scores: 16 MiB of float32, whatever the size of the catalogue."""
PAIRS_AT_ONCE = 1 << 14
"""Pairs scored at a time by a model without vectors: its activations stay in cache."""


class Best(NamedTuple):
    """The first ``counts[b]`` columns of row b are filled, best first; equal scores are in ascending order of item."""

    items: NDArray[np.int32]
    scores: NDArray[np.float32]
    counts: NDArray[np.int64]


class Scorer(Protocol):
    """Scores of rows against items. ``shape`` is the most rows and items of a tile."""

    n_items: int
    shape: tuple[int, int]

    def tile(self, rows: NDArray[np.int32], items: slice | NDArray[np.int32]) -> NDArray[np.float32]:
        """float32[B, T], C-contiguous, which the caller may write over; without the bias."""

    def bias(self, items: slice | NDArray[np.int32]) -> NDArray[np.float32]:
        """float32[T]: what is added to the scores of each item."""


class VectorScorer:
    """score = query . vector * scale + bias; ``scale`` and ``bias`` float32[I] default to ones and zeros."""

    shape = (ROWS, TILE)

    def __init__(
        self,
        queries: NDArray[np.float32],
        vectors: NDArray[np.float32],
        bias: NDArray[np.float32] | None = None,
        scale: NDArray[np.float32] | None = None,
    ) -> None:
        self.queries, self.vectors, self._bias, self._scale = queries, vectors, bias, scale
        self.n_items = vectors.shape[0]
        self._buffer = np.empty(0, np.float32)

    def tile(self, rows: NDArray[np.int32], items: slice | NDArray[np.int32]) -> NDArray[np.float32]:
        """One matrix product."""
        vectors = self.vectors[items]
        if self._scale is not None:
            vectors = vectors * self._scale[items, None]
        size = rows.size * vectors.shape[0]
        if self._buffer.size < size:
            self._buffer = np.empty(size, np.float32)
        out = self._buffer[:size].reshape(rows.size, vectors.shape[0])
        return np.matmul(self.queries[rows], vectors.T, out=out)

    def bias(self, items: slice | NDArray[np.int32]) -> NDArray[np.float32]:
        """The bias of the items, or zeros."""
        if self._bias is not None:
            return np.ascontiguousarray(self._bias[items])
        return np.zeros(items.stop - items.start if isinstance(items, slice) else items.size, np.float32)


class ModelScorer:
    """Scores by a model's own forward pass (``cross``), on its device."""

    def __init__(self, model: Any, n_items: int) -> None:
        self.model, self.n_items = model, n_items
        self.shape = (16, PAIRS_AT_ONCE // 16)

    def tile(self, rows: NDArray[np.int32], items: slice | NDArray[np.int32]) -> NDArray[np.float32]:
        """B x T forward passes."""
        import torch

        chosen = np.arange(items.start, items.stop, dtype=np.int32) if isinstance(items, slice) else items
        with scoring(self.model) as device:
            pair = torch.from_numpy(rows).to(device), torch.from_numpy(chosen).to(device)
            scores = host(self.model.cross(*pair).float(), "the model's scores").copy()
        check_scores(scores, "the model's scores")
        return scores

    def bias(self, items: slice | NDArray[np.int32]) -> NDArray[np.float32]:
        """Zeros: the model adds its own."""
        return np.zeros(items.stop - items.start if isinstance(items, slice) else items.size, np.float32)


class Csr(NamedTuple):
    """Items of each row, ascending within it."""

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]


@dataclass(frozen=True)
class Candidates:
    """The items that may be listed, ascending; ``chosen`` None means all."""

    chosen: NDArray[np.int32] | None
    place: NDArray[np.int32]
    allowed: NDArray[np.bool_]

    @staticmethod
    def of(mask: NDArray[np.bool_] | None, n_items: int) -> Candidates:
        """From bool[I], or all items. Cost: 5 bytes per item."""
        if mask is None:
            return Candidates(None, np.arange(n_items, dtype=np.int32), np.ones(n_items, np.bool_))
        place = np.cumsum(mask, dtype=np.int32)
        place -= mask
        return Candidates(np.flatnonzero(mask).astype(np.int32), place, mask)

    @property
    def size(self) -> int:
        """How many there are."""
        return self.place.size if self.chosen is None else self.chosen.size

    def part(self, lo: int, hi: int) -> slice | NDArray[np.int32]:
        """Items of the candidates lo to hi."""
        return slice(lo, hi) if self.chosen is None else self.chosen[lo:hi]


def top_k(
    scorer: Scorer,
    rows: NDArray[np.int32],
    k: int,
    *,
    hidden: Sequence[Csr] = (),
    candidates: Candidates | None = None,
    threads: int | None = None,
) -> Best:
    """The ``k`` best candidates of each row, less those that ``hidden`` lists for it.

    Parameters
    ----------
    scorer : Scorer
    rows : int32[B]
        Rows of the scorer and of ``hidden``.
    k : int
        At least 1.
    hidden : sequence of Csr
        What is left out of each row's list.
    candidates : Candidates, optional
        What may be listed; None means every item.
    threads : int, optional
        Threads of the selection; matrix products use the threads BLAS is set to.

    Cost
    ----
    B * C scores, and a tile of them in memory at a time; 8 bytes for each of B * K entries.
    """
    threads = resolve_threads(threads)
    chosen = Candidates.of(None, scorer.n_items) if candidates is None else candidates
    k = max(1, min(k, chosen.size))
    items = np.full((rows.size, k), -1, np.int32)
    scores = np.full((rows.size, k), -np.inf, np.float32)
    counts = np.zeros(rows.size, np.int64)
    step, width = scorer.shape
    for lo in range(0, rows.size, step):
        block, at = rows[lo : lo + step], slice(lo, lo + step)
        for first in range(0, chosen.size, width):
            part = chosen.part(first, min(first + width, chosen.size))
            tile, bias = scorer.tile(block, part), scorer.bias(part)

            def work(a: int, b: int, tile: Any = tile, bias: Any = bias, first: int = first, at: slice = at) -> None:
                for csr in hidden:
                    kernels.hide(tile, first, chosen.place, chosen.allowed, rows[at], csr.indptr, csr.items, a, b)
                kernels.push(tile, bias, first, scores[at], items[at], counts[at], a, b)

            run_ranges(work, block.size, threads, grain=8)
    run_ranges(lambda a, b: kernels.finish(scores, items, counts, a, b), rows.size, threads, grain=64)
    if chosen.chosen is not None:
        items = np.where(items >= 0, chosen.chosen[items], np.int32(-1)) if chosen.size else items
    return Best(items, scores, counts)
