"""How well a model ranks: against frozen candidates, and against every item that a user has not interacted with.

B rows, C candidates, U users, I items, D dim, K cutoff.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.interactions import Interactions
from fastrec.errors import ConfigError, DataError
from fastrec.evaluation import kernels
from fastrec.evaluation.metrics import CUTOFFS, MISS, Metrics, check_cutoffs, check_scores, grouped, ranks, single
from fastrec.jit import resolve_threads, run_ranges

BLOCK_BYTES = 8 << 20
"""Scores held at a time by the full ranking: a block that stays in cache between the product and the count."""
PAIRS_AT_ONCE = {"cpu": 1 << 14, "cuda": 1 << 18}
"""Candidate pairs scored at a time by a model without vectors. On the CPU its activations stay in cache (MLP d=64, ns a
pair: 339 at 2^12, 270 at 2^14, 582 at 2^17); on CUDA launches are few."""


@dataclass(frozen=True)
class Vectors:
    """A model as vectors on the host: score = user . item + item bias, up to a constant a user.

    ``margins`` float32[U] bounds the rounding error of the difference of two float32 scores of a user, whatever
    order the sums are taken in: (D + 8) * 2^-23 * (|user| * max |item| + max |bias|).
    """

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    bias: NDArray[np.float32]
    margins: NDArray[np.float32]

    @staticmethod
    def of(model: Any) -> Vectors | None:
        """The vectors of ``model.vectors()``, checked; None where the model has none.

        Raises
        ------
        ConfigError
            If they are not float32.
        DataError
            If one is NaN or infinite, or so large that a score may be.
        """
        given = model.vectors()
        if given is None:
            return None
        users, items, bias = (host(x, f"the model's {what}") for x, what in zip(given, _PARTS))
        norm = float(np.sqrt(np.einsum("ud,ud->u", items, items, dtype=np.float64).max(initial=0.0)))
        own = np.sqrt(np.einsum("ud,ud->u", users, users, dtype=np.float64))
        bound = own * norm + float(np.abs(bias).max(initial=0.0))
        if not bound.max(initial=0.0) < np.finfo(np.float32).max:
            for array, what in zip((users, items, bias), _PARTS):
                check_scores(array, f"the model's {what}")
            raise DataError("the model's vectors are so large that their products overflow float32; it has diverged")
        return Vectors(users, items, bias, ((users.shape[1] + 8) * 2.0**-23 * bound).astype(np.float32))

    @staticmethod
    def none(n_users: int) -> Vectors:
        """Replaces the vectors that a model lacks: scores then compare as they are."""
        empty = np.empty((0, 0), np.float32)
        return Vectors(empty, empty, np.empty(0, np.float32), np.zeros(n_users, np.float32))


_PARTS = ("user vectors", "item vectors", "item bias")


def host(values: Any, what: str) -> NDArray[np.float32]:
    """A float32 tensor or array as a contiguous host array."""
    if hasattr(values, "detach"):
        if str(values.dtype) != "torch.float32":
            raise ConfigError(f"{what} are {values.dtype}; rank on float32, coarser scores tie")
        values = values.detach().cpu().numpy()
    if values.dtype != np.float32:
        raise ConfigError(f"{what} are {values.dtype}; rank on float32, coarser scores tie")
    return np.ascontiguousarray(values)


@contextlib.contextmanager
def scoring(model: Any) -> Iterator[Any]:
    """Evaluation mode without gradients for the length of the block; gives the device of the model."""
    import torch

    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield next((p.device for p in model.parameters()), torch.device("cpu"))
    finally:
        model.train(was_training)


def evaluate_candidates(
    model: Any,
    users: NDArray[np.int32],
    positives: NDArray[np.int32],
    candidates: NDArray[np.int32],
    ks: Sequence[int] = CUTOFFS,
    *,
    threads: int | None = None,
) -> Metrics:
    """Rank each positive among candidates of its own.

    Parameters
    ----------
    model : torch.nn.Module
        Scored by ``model.vectors()`` where it has them, else by ``model(users, items)``.
    users, positives : int32[B]
        The pairs to rank; a user may have several.
    candidates : int32[B, C]
        What each is ranked against; -1 is padding. A positive without any candidate is a miss.
    ks : sequence of int
        Cutoffs.
    threads : int, optional
        Threads of the kernel; None means all.

    Returns
    -------
    Metrics
        See ``metrics.single``: means over users, HR@K being any of the user's positives in the top K.

    Raises
    ------
    ConfigError, DataError
        Scores that cannot be ranked (coarser than float32, or not finite), or no pair at all.

    Guarantee
    ---------
    Ties count against the positive. With vectors, ranks do not depend on threads, BLAS or machine.

    Cost
    ----
    With vectors B * (1 + C) * D multiplications and no memory to speak of.
    """
    ks = check_cutoffs(ks)
    return single(candidate_ranks(model, users, positives, candidates, threads=threads), np.asarray(users), ks)


def candidate_ranks(
    model: Any,
    users: NDArray[np.int32],
    positives: NDArray[np.int32],
    candidates: NDArray[np.int32],
    *,
    threads: int | None = None,
) -> NDArray[np.int64]:
    """int64[B]: the rank of each positive among its candidates; ``MISS`` where it has none (see above)."""
    threads = resolve_threads(threads)
    users, positives, candidates = (np.ascontiguousarray(x, dtype=np.int32) for x in (users, positives, candidates))
    if candidates.ndim != 2 or not users.shape == positives.shape == candidates.shape[:1]:
        raise ConfigError(
            f"users {list(users.shape)}, positives {list(positives.shape)} and candidates {list(candidates.shape)} "
            "must be [B], [B] and [B, C]"
        )
    vectors = Vectors.of(model)
    if vectors is not None:
        _in_range(users, vectors.users.shape[0], "users")
        _in_range(positives, vectors.items.shape[0], "positives")
        _in_range(candidates, vectors.items.shape[0], "candidates", low=-1)
    empty = (candidates < 0).all(axis=1)
    if vectors is None:
        return np.where(empty, MISS, _scored_ranks(model, users, positives, candidates))
    out = np.empty(users.size, np.int64)

    def work(lo: int, hi: int) -> None:
        kernels.candidate_ranks(
            vectors.users, vectors.items, vectors.bias, vectors.margins, users, positives, candidates, out, lo, hi
        )

    run_ranges(work, users.size, threads, grain=64)
    out[empty] = MISS
    return out


def _in_range(ids: NDArray[np.int32], n: int, what: str, low: int = 0) -> None:
    """Refuse ids without a row in the model: the kernel does not check."""
    if ids.size and (int(ids.min()) < low or int(ids.max()) >= n):
        at = tuple(int(i) for i in np.argwhere((ids < low) | (ids >= n))[0])
        raise DataError(f"{what}{list(at)} = {ids[at]}: the model has rows {low} to {n - 1}; it is of other data")


def _scored_ranks(
    model: Any, users: NDArray[np.int32], positives: NDArray[np.int32], candidates: NDArray[np.int32]
) -> NDArray[np.int64]:
    """Ranks by the model's own forward, some rows at a time."""
    import torch

    found = [np.empty(0, np.int64)]
    with scoring(model) as device:
        rows = max(1, PAIRS_AT_ONCE.get(device.type, PAIRS_AT_ONCE["cpu"]) // (1 + candidates.shape[1]))
        for lo in range(0, users.size, rows):
            own, others = positives[lo : lo + rows, None], candidates[lo : lo + rows]
            valid = others >= 0
            items = np.concatenate((own, np.where(valid, others, own)), axis=1)
            scores = model(torch.from_numpy(users[lo : lo + rows]).to(device), torch.from_numpy(items).to(device))
            table = host(scores, "the model's scores")
            found.append(ranks(table[:, 0], table[:, 1:], valid))
    return np.concatenate(found)


def evaluate_full(
    model: Any,
    seen: Interactions | Sequence[Interactions],
    test: Interactions,
    ks: Sequence[int] = CUTOFFS,
    *,
    threads: int | None = None,
) -> Metrics:
    """Rank each test positive among all items its user has not interacted with: the full ranking.

    Parameters
    ----------
    model : torch.nn.Module
        Scored by ``model.vectors()`` where it has them, else by ``model.score_all(users)``.
    seen : Interactions or sequence of Interactions
        What is left out of each user's list: train, and validation when test is ranked.
    test : Interactions
        The positives to rank; users without any are not counted. Where a user's list would hold nothing but its
        positives, they are misses.
    ks : sequence of int
        Cutoffs.
    threads : int, optional
        Threads of the count; None means all. Matrix products use the threads BLAS is set to.

    Returns
    -------
    Metrics
        See ``metrics.grouped``: means over users, HR@K being any of the user's positives in the top K.

    Raises
    ------
    ConfigError, DataError
        Scores that cannot be ranked (coarser than float32, or not finite), or no positive at all.

    Guarantee
    ---------
    Ties count against the positives. With vectors, ranks do not depend on threads, blocks, BLAS or machine.

    Cost
    ----
    U * I * D multiplications in blocks of ``BLOCK_BYTES``, then one pass over U * I scores for each positive of a user.
    """
    ks = check_cutoffs(ks)
    return grouped(full_ranks(model, seen, test, threads=threads), test.users, ks)


def full_ranks(
    model: Any, seen: Interactions | Sequence[Interactions], test: Interactions, *, threads: int | None = None
) -> NDArray[np.int64]:
    """int64[E]: the rank of each test positive in its user's list, in CSR order; ``MISS`` if it has no other item."""
    parts = [seen] if isinstance(seen, Interactions) else list(seen)
    counts = count_ahead(model, parts, test, threads=threads)
    users = test.users
    # within a user the k-th best positive has k - 1 positives ahead, and counts fall as scores rise
    order = np.lexsort((counts, users))
    place = np.empty(users.size, np.int64)
    place[order] = np.arange(users.size) - test.indptr[users[order]]
    found = counts + place + 1
    most = test.degrees.copy()
    for part in parts:
        most += part.degrees
    for user in np.flatnonzero((most >= test.n_items) & (test.degrees > 0)):  # parts may overlap: then look closer
        known = np.concatenate([part.row(int(user)) for part in (*parts, test)])
        if np.unique(known).size == test.n_items:
            found[test.indptr[user] : test.indptr[user + 1]] = MISS
    return found


def count_ahead(
    model: Any, seen: Sequence[Interactions], test: Interactions, *, threads: int | None = None
) -> NDArray[np.int64]:
    """int64[E]: for each test positive, how many items without an interaction of its user score as high or higher."""
    threads = resolve_threads(threads)
    users = np.flatnonzero(test.degrees).astype(np.int32)
    counts = np.empty(test.n_interactions, np.int64)
    targets = np.empty(test.n_interactions, np.float32)
    vectors = Vectors.of(model)
    if vectors is not None and (len(vectors.users), len(vectors.items)) != (test.n_users, test.n_items):
        raise DataError(
            f"{test.name} has {test.n_users} users and {test.n_items} items, the model {len(vectors.users)} and "
            f"{len(vectors.items)}; it is of other data"
        )
    given = vectors or Vectors.none(test.n_users)
    bias = np.zeros(test.n_items, np.float32) if vectors is None else vectors.bias
    for block, scores in score_blocks(model, vectors, users, test.n_items):

        def work(lo: int, hi: int, block: NDArray[np.int32] = block, scores: NDArray[np.float32] = scores) -> None:
            kernels.take(scores, bias, block, test.indptr, test.items, targets, lo, hi)
            for known in (*seen, test):
                kernels.hide(scores, block, known.indptr, known.items, lo, hi)
            kernels.count_ahead(
                *(given.users, given.items, given.bias, given.margins),
                *(scores, bias, block, test.indptr, test.items, targets, counts, lo, hi),
            )

        run_ranges(work, block.size, threads, grain=16)
    return counts


def score_blocks(
    model: Any, vectors: Vectors | None, users: NDArray[np.int32], n_items: int
) -> Iterator[tuple[NDArray[np.int32], NDArray[np.float32]]]:
    """(users int32[B], scores float32[B, I]) until all users are through; the scores may be written over."""
    rows = max(1, BLOCK_BYTES // (4 * n_items))
    if vectors is not None:
        buffer = np.empty((min(rows, users.size), n_items), np.float32)
        for lo in range(0, users.size, rows):
            block = users[lo : lo + rows]
            yield block, np.matmul(vectors.users[block], vectors.items.T, out=buffer[: block.size])
        return
    import torch

    with scoring(model) as device:
        for lo in range(0, users.size, rows):
            block = users[lo : lo + rows]
            scores = host(model.score_all(torch.from_numpy(block).to(device)), "the model's scores")
            check_scores(scores, "the model's scores")
            yield block, scores
