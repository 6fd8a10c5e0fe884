"""The arguments of a recommendation list, and its columns as a frame or as arrays.

B rows, n vectors, D dim, K cutoff.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fastrec.inference.lookup import Ids
from fastrec.inference.top_k import Best, Candidates, Csr, VectorScorer, top_k

Kind = Literal["source", "contiguous"]
Output = Literal["frame", "arrays"]


@dataclass(frozen=True)
class Choice:
    """How ids come in and go out, and what may be listed."""

    ids: Kind
    output: Output
    candidates: Candidates | None
    hidden: tuple[Csr, ...]
    k: int
    skip_unknown: bool = False


def neighbours(table: NDArray[np.float32], rows: NDArray[np.int32], choice: Choice, threads: int | None) -> Best:
    """The rows of ``table`` float32[n, D] with the highest cosine with each of ``rows`` int32[B], itself left out.

    A row of zeros has cosine 0 with all.
    """
    norms = np.sqrt(np.einsum("nd,nd->n", table, table))
    scale = np.divide(1.0, norms, out=np.zeros_like(norms), where=norms > 0)
    own = Csr(np.arange(rows.size + 1, dtype=np.int64), np.ascontiguousarray(rows))
    at = np.arange(rows.size, dtype=np.int32)
    scorer = VectorScorer(table[rows] * scale[rows, None], table, scale=scale)
    return top_k(scorer, at, choice.k, hidden=[own], candidates=choice.candidates, threads=threads)


def columns(
    key: tuple[str, Ids],
    other: tuple[str, Ids],
    rows: NDArray[np.int32],
    best: Best,
    choice: Choice,
    titles: NDArray[Any] | None = None,
) -> Any:
    """One row per filled entry of the lists of ``rows`` int32[B], as a frame or as a dict of arrays."""
    filled = np.arange(best.items.shape[1]) < best.counts[:, None]
    whose, found = np.repeat(rows, best.counts), best.items[filled]
    rank = np.broadcast_to(np.arange(1, best.items.shape[1] + 1, dtype=np.int32), filled.shape)[filled]
    made: dict[str, Any] = {key[0]: whose, "rank": rank, other[0]: found}
    if choice.output == "arrays":
        if choice.ids == "source":
            made |= {key[0]: key[1].values[whose], other[0]: other[1].values[found]}
        if titles is not None:
            made["title"] = titles[found]
        return {**made, "score": best.scores[filled]}
    from fastrec.data.lists import frame_of, series

    for table in (key[1], other[1]):
        if table.column is None:
            table.column = series(table.values)
        if titles is not None and table.what == "item" and table.titles is None:
            table.titles = series(titles)
    if choice.ids == "source":
        made |= {key[0]: (key[1].column, whose), other[0]: (other[1].column, found)}
    if titles is not None:
        made["title"] = (other[1].titles, found)
    return frame_of({**made, "score": best.scores[filled]})
