"""Frozen candidates: what each test or validation positive is ranked against, the same in every run.

B rows (one positive each), C candidates.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int
from fastrec.data.split import Split
from fastrec.errors import ConfigError
from fastrec.evaluation.full_ranking import candidate_ranks
from fastrec.evaluation.metrics import CUTOFFS, Metrics, check_cutoffs, single
from fastrec.jit import resolve_threads
from fastrec.runs import fingerprints
from fastrec.sampling import NegativeSampler, identity
from fastrec.sampling.philox import TAG_CANDIDATES

MAX_CANDIDATES = 2**16
"""Most negatives that the sampler draws for a row."""

PARTS = ("test", "validation")
"""The epoch word of a row's address is the index here: both parts draw from streams of their own."""


@dataclass(frozen=True, eq=False)
class Candidates:
    """Positives and what each is ranked against.

    Parameters
    ----------
    users, positives : int32[B]
        The pairs of the part, in CSR order.
    items : int32[B, C]
        Candidates of each; short rows are padded with -1.
    source : dict
        Where they come from: ``part``, ``n``, ``seed`` (None where the data have them), ``split`` (fingerprint).
    notes : tuple of str
        Rows that are short or were fixed, each kind with a count.
    """

    users: NDArray[np.int32]
    positives: NDArray[np.int32]
    items: NDArray[np.int32]
    source: dict[str, Any]
    notes: tuple[str, ...] = field(default=())

    @property
    def sha256(self) -> str:
        """Over the data's fingerprint, the split, the seed and every candidate: equal where results compare."""
        digest = hashlib.sha256(b"fastrec candidates 1")
        digest.update(json.dumps([self.source, list(self.items.shape)], sort_keys=True).encode())
        digest.update(np.ascontiguousarray(self.items, dtype="<i4").view(np.uint8).data)
        return digest.hexdigest()

    def describe(self) -> dict[str, Any]:
        """Source, hash and notes, for the run's record."""
        return {**self.source, "sha256": self.sha256, "n_rows": len(self.users), "notes": list(self.notes)}

    def evaluate(self, model: Any, ks: Sequence[int] = CUTOFFS, *, threads: int | None = None) -> Metrics:
        """Metrics of a model on these rows (see ``evaluate_candidates``)."""
        ks = check_cutoffs(ks)
        return single(self.ranks(model, threads=threads), self.users, ks)

    def ranks(self, model: Any, *, threads: int | None = None) -> NDArray[np.int64]:
        """int64[B]: the rank of each positive among its candidates (see ``evaluate.candidate_ranks``)."""
        return candidate_ranks(model, self.users, self.positives, self.items, threads=threads)

    def only(self, rows: NDArray[np.bool_]) -> Candidates:
        """The rows where ``rows`` is true, each with the candidates it has here."""
        return replace(self, users=self.users[rows], positives=self.positives[rows], items=self.items[rows])


def candidates_for(
    split: Split, part: str = "test", *, n: int = 99, seed: int = 0, threads: int | None = None
) -> Candidates:
    """The frozen candidates of a part: those that come with the data for test, else drawn.

    Parameters
    ----------
    split : Split
        Its ``candidates`` are used for test where there are any, and ``n`` and ``seed`` have no say then.
    part : {"test", "validation"}
        Whose positives are ranked.
    n : int
        Candidates C of each positive.
    seed : int
        Candidate seed, 0 to 2^32-1, apart from the training seed.
    threads : int, optional
        Threads of the draw; None means all.

    Returns
    -------
    Candidates
        For each positive ``n`` different items, uniform over those without an interaction of its user. A user with
        fewer gets all of them; ``notes`` counts those rows.

    Raises
    ------
    ConfigError
        An unknown part, ``n`` below 1, or ``seed`` out of range.

    Guarantee
    ---------
    A pure function of the split, ``n`` and ``seed``, for any threads: a row is addressed by (seed, TAG_CANDIDATES,
    part, user and item of its positive), so with ``n_items`` fixed it depends only on its user's rows. The first m of n
    candidates are those drawn for m, except in short rows.
    """
    if part not in PARTS:
        raise ConfigError(f"part={part!r}: must be one of {', '.join(PARTS)}")
    pairs = getattr(split, part)
    source: dict[str, Any] = {"part": part, "split": fingerprints(split)["split"]}
    if part == "test" and split.candidates is not None:
        source |= {"n": int(split.candidates.shape[1]), "seed": None}
        own = split.candidates == pairs.items[:, None]
        items = np.where(own, np.int32(-1), split.candidates)
        notes = [f"{int(own.any(axis=1).sum())} candidate rows held their own positive; dropped there"] * bool(
            own.any()
        )
        return Candidates(pairs.users, pairs.items, items, source, tuple(notes))
    n = as_int("candidates", n)
    if not 1 <= n <= MAX_CANDIDATES:
        raise ConfigError(
            f"{n} candidates: each positive needs at least 1 to be ranked against, and at most {MAX_CANDIDATES} are "
            "drawn; rank against every item instead"
        )
    seed = as_int("candidate_seed", seed)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"candidate_seed={seed}: must be in 0 to 2^32-1")
    source |= {"n": n, "seed": seed}
    parts = (split.train, split.validation, split.test)
    sampler = NegativeSampler(
        split.train.indptr,
        split.train.items,
        n_items=split.n_items,
        n_negatives=n,
        seed=seed,
        distinct=True,
        exclude=[(p.indptr, p.items) for p in parts[1:]],
        on_full="skip",
        tag=TAG_CANDIDATES,
    )
    users = pairs.users
    at = identity(users, pairs.items)
    items = sampler.sample(users, epoch=PARTS.index(part), positions=at, threads=resolve_threads(threads))
    short = np.flatnonzero(items[:, 0] < 0) if users.size else np.empty(0, np.int64)
    for row in short:
        free = np.ones(split.n_items, np.bool_)
        for p in parts:
            free[p.row(int(users[row]))] = False
        legal = np.flatnonzero(free)
        items[row, : legal.size] = legal
    notes = []
    if short.size:
        few = int((items[short] >= 0).sum(axis=1).min())
        notes.append(
            f"{short.size} {part} positives are ranked against all items without an interaction of the user, because "
            f"they are fewer than {n} (the fewest: {few})"
        )
    return Candidates(users, pairs.items, items, source, tuple(notes))
