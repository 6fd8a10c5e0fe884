"""The criterion by which a run selects its weights: protocol, metric and cutoff, measured on validation.

U users, I items.
"""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.interactions import Interactions
from fastrec.data.split import Split
from fastrec.data.split_kernels import draw_keys
from fastrec.errors import ConfigError, shown
from fastrec.evaluation.candidates import Candidates, candidates_for
from fastrec.evaluation.full_ranking import full_ranks
from fastrec.evaluation.metrics import MISS, Metrics, grouped, metric_names, single
from fastrec.sampling.philox import TAG_VALIDATION

PROTOCOLS = ("full", "candidates")
DEFAULT = "full:NDCG@10"
LEGACY = "candidates:NDCG@10"
"""What runs were selected by whose config has no ``select``."""
MOST_K = 1_000_000

SCORES = 1 << 27
"""Scores of a validation by full ranking at most, where a model has vectors (matrix products, about 1 ns a score)."""
SCORES_WITHOUT_VECTORS = 1 << 22
"""The same where each score is a forward pass (MLP d=64: 270 ns a score on one core)."""
FEWEST_USERS = 256
_SAMPLE_DRAW = 2  # the epoch word of a user's address: 0 and 1 are the draws of a split


@dataclass(frozen=True)
class Selection:
    """A protocol, a metric and K, spelled ``full:NDCG@10``."""

    protocol: str
    metric: str
    k: int

    @staticmethod
    def parse(text: str) -> Selection:
        """Read ``PROTOCOL:METRIC@K``, in any case.

        Raises
        ------
        ConfigError
            For an unknown protocol or metric (all are listed), a K that is not in 1 to 1,000,000, or another form.
        """
        protocol, colon, rest = text.strip().partition(":")
        metric, at, k = rest.partition("@")
        if not (colon and at):
            raise ConfigError(f"select = {shown(text)}: must be PROTOCOL:METRIC@K, such as {DEFAULT}; {_known()}")
        protocol, metric = protocol.strip(), metric.strip()
        protocols, metrics = ({name.lower(): name for name in names} for names in (PROTOCOLS, metric_names()))
        if protocol.lower() not in protocols:
            raise ConfigError(f"select = {shown(text)}: unknown protocol {shown(protocol)}{_near(protocol, protocols)}")
        if metric.lower() not in metrics:
            raise ConfigError(f"select = {shown(text)}: unknown metric {shown(metric)}{_near(metric, metrics)}")
        k = k.strip()
        if not (k.isascii() and k.isdigit() and len(k) <= 7 and 1 <= int(k) <= MOST_K):
            raise ConfigError(f"select = {shown(text)}: K = {shown(k)} must be an integer in 1 to {MOST_K:,}")
        return Selection(protocols[protocol.lower()], metrics[metric.lower()], int(k))

    def __str__(self) -> str:
        return f"{self.protocol}:{self.name}"

    @property
    def name(self) -> str:
        """The metric as in tables of results: ``NDCG@10``."""
        return f"{self.metric}@{self.k}"


def _known() -> str:
    return f"protocols: {', '.join(PROTOCOLS)}; metrics: {', '.join(metric_names())}"


def _near(given: str, known: dict[str, str]) -> str:
    near = difflib.get_close_matches(given.lower(), known, 1)
    return f"; {_known()}" + (f"; did you mean {known[near[0]]}?" if near else "")


def selectable(split: Split) -> bool:
    """Whether any validation positive is of a user in train, so that weights can be selected."""
    return bool((split.train.degrees[split.validation.users] > 0).any())


def resolve_selection(select: str | None, split: Split) -> str | None:
    """The selection of a run in its canonical spelling; None where it has nothing to select on and none is asked for.

    Raises
    ------
    ConfigError
        If it cannot be read, or the split has no validation positive of a user in train.
    """
    parsed = None if select is None else Selection.parse(select)
    if not selectable(split):
        if parsed is None:
            return None
        why = "no validation positive of a user in train" if split.validation.n_interactions else "no validation part"
        raise ConfigError(
            f"select = {parsed}: there is {why} to select on; set validation (such as 0.1), or leave select out"
        )
    return str(parsed or Selection.parse(DEFAULT))


@dataclass(frozen=True, eq=False)
class Validator:
    """Measures a model on the validation part: called with a model, gives metrics by name.

    Parameters
    ----------
    selection : Selection
    split : Split
    part : Interactions
        The validation positives that are ranked: of users in train, and of the sample where there is one.
    frozen : Candidates or None
        What they are ranked against; None in full ranking.
    n_users_of : int
        Users in train that have a validation positive, of which ``part`` has all or a sample.
    threads : int, optional

    Notes
    -----
    Test positives of a user are ordinary items here, in both protocols unless candidates exclude them: validation
    knows nothing of them. A positive whose item is not in train is a miss, as in test.
    """

    selection: Selection
    split: Split
    part: Interactions
    frozen: Candidates | None
    n_users_of: int
    threads: int | None = None

    @staticmethod
    def of(
        split: Split,
        selection: Selection,
        *,
        scores: int = SCORES,
        sample_candidates: bool = False,
        n_candidates: int = 99,
        seed: int = 0,
        threads: int | None = None,
    ) -> Validator | None:
        """The validator of a split; None where it has no validation positive of a user in train.

        Parameters
        ----------
        split : Split
        selection : Selection
        scores : int
            Scores of a full ranking at most: where U * I is more, a sample of ``scores / I`` users is ranked, at least
            256. The sample is addressed by (seed, user), so it is the same in every run.
        sample_candidates : bool
            Take that sample of users in the candidates protocol too.
        n_candidates, seed : int
            See ``candidates_for``.
        threads : int, optional
            CPU threads; None means all.
        """
        validation = split.validation
        users = np.flatnonzero((validation.degrees > 0) & (split.train.degrees > 0))
        if not users.size:
            return None
        kept = users
        if selection.protocol == "full" or sample_candidates:
            kept = sample_users(users, max(FEWEST_USERS, scores // split.n_items), seed)
        wanted = np.zeros(split.n_users, np.bool_)
        wanted[kept] = True
        rows = wanted[validation.users]
        frozen = None
        if selection.protocol == "candidates":
            frozen = candidates_for(split, "validation", n=n_candidates, seed=seed, threads=threads).only(rows)
        part = validation if rows.all() else validation.keep(rows)
        return Validator(selection, split, part, frozen, int(users.size), threads)

    def metrics(self, model: Any) -> Metrics:
        """Every metric at the selection's K."""
        if self.frozen is not None:
            found = self.frozen.ranks(model, threads=self.threads)
        else:
            found = full_ranks(model, self.split.train, self.part, threads=self.threads)
        found = np.where(self.split.train.item_counts()[self.part.items] == 0, MISS, found)
        return (grouped if self.frozen is None else single)(found, self.part.users, (self.selection.k,))

    def value(self, model: Any) -> float:
        """The metric that selects."""
        return self.metrics(model)[self.selection.name]

    def __call__(self, model: Any) -> dict[str, float]:
        """The metric that selects, with HR and NDCG at its K: ``{"full:NDCG@10": ..., "full:HR@10": ...}``."""
        found, s = self.metrics(model), self.selection
        return {f"{s.protocol}:{name}": found[name] for name in dict.fromkeys((s.name, f"HR@{s.k}", f"NDCG@{s.k}"))}

    def describe(self) -> dict[str, Any]:
        """The criterion, for the run's record."""
        n_users = int(np.count_nonzero(self.part.degrees))
        return {
            "by": str(self.selection),
            "n_users": n_users,
            "of_users": self.n_users_of,
            "n_positives": self.part.n_interactions,
            "candidates": None if self.frozen is None else self.frozen.describe(),
        }

    @property
    def notes(self) -> list[str]:
        """Says that users are a sample, where they are."""
        n_users = int(np.count_nonzero(self.part.degrees))
        if n_users == self.n_users_of:
            return []
        return [f"validation by {self.selection} ranks a fixed sample of {n_users:,} of {self.n_users_of:,} users"]


def sample_users(users: NDArray[np.int64], n: int, seed: int) -> NDArray[np.int64]:
    """The ``n`` users of lowest draw, ascending; all of them where there are no more than ``n``.

    A user's draw is a pure function of (seed, user), under TAG_VALIDATION: samples nest as ``n`` grows.
    """
    if users.size <= n:
        return users
    n_users = int(users.max()) + 1
    key = np.empty(n_users, np.uint64)
    rows = np.arange(n_users + 1), np.zeros(n_users, np.int32)  # a user's address is that of the pair (user, item 0)
    draw_keys(*rows, key, _SAMPLE_DRAW, seed, TAG_VALIDATION, 0, n_users)
    return np.sort(users[np.argsort(key[users], kind="stable")[:n]])


def for_model(model: Any) -> int:
    """Scores that a validation of this model by full ranking may take."""
    return SCORES if model.vectors() is not None else SCORES_WITHOUT_VECTORS
