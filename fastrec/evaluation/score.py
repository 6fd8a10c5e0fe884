"""The closing scores of a model: its test part by frozen candidates and by full ranking, and what they compare with."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.split import Split
from fastrec.errors import DataError
from fastrec.evaluation.analysis import analyse
from fastrec.evaluation.candidates import Candidates, candidates_for
from fastrec.evaluation.full_ranking import full_ranks
from fastrec.evaluation.metrics import CUTOFFS, MISS, Metrics, check_cutoffs, grouped, single
from fastrec.runs import Run, open_run
from fastrec.sampling import STREAM_VERSION

FULL = "full ranking"
PAPER_NAMES = re.compile(r"ml-?1m|movielens-?1m|pinterest", re.IGNORECASE)
PAPER_SHAPES = {(6_040, 3_706), (55_187, 9_916)}
"""Names, and users and items, of the data of the NCF paper's tables."""
UNTRAINED = ", users not in train"
"""What is added to a protocol's name for the users that the model has learned nothing about."""


@dataclass(frozen=True)
class Wanted:
    """What is measured beyond the means of the headline; see ``evaluate``."""

    beyond: bool = False
    by: Sequence[str] | None = ()
    catalog: Callable[[], Any] = lambda: None

    def add_to(self, row: dict[str, Any], model: Any, split: Split, ranks: Any, ks: Sequence[int]) -> None:
        """Put it into the row of full ranking."""
        if not self.beyond and self.by is not None and not len(self.by):
            return
        found = analyse(model, split, ranks, ks=ks, by=self.by, catalog=self.catalog)
        if self.beyond:
            row |= {**found.accuracy.means, "lists": found.lists}
            row["standard_errors"] = row["standard_errors"] | found.accuracy.standard_errors
        if found.groups:
            row["groups"] = found.as_dict()["groups"]


def evaluate(
    run: Run | str | os.PathLike[str],
    *,
    cutoffs: Sequence[int] | None = None,
    beyond: bool = False,
    by: Sequence[str] | None = (),
    threads: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Score the weights of a run on its test part again; the folder is all it takes.

    Parameters
    ----------
    run : Run or path
        The run folder.
    cutoffs : sequence of int, optional
        The K of HR@K and the like; left out: those of the run's config.
    beyond : bool
        Add MAP@K, Precision@K and AUC to the metrics of "full ranking", and "lists": coverage, Gini, novelty and
        popularity of the top 10 lists (see ``evaluation.beyond``).
    by : sequence of str, optional
        Add "groups" to "full ranking": the metrics by "activity" and "popularity", or by a column of the tables that
        the run keeps, such as "genres" or "gender". None means every one that makes groups.
    threads : int, optional
        CPU threads; None means all.

    Returns
    -------
    dict of str to dict
        See ``score_split``; candidates are drawn with the run's own count and seed.

    Raises
    ------
    CheckpointError
        If the folder is damaged, incomplete or altered.
    DataError
        If the run has no test part.
    ConfigError
        A cutoff below 1, or a name in ``by`` that the tables do not have.

    Cost
    ----
    ``beyond`` and ``by`` score every pair of a user and an item once more.
    """
    run = run if isinstance(run, Run) else open_run(run)
    split = run.split()
    if not split.test.n_interactions:
        raise DataError(f"{run.path}: its data have no test part, so there is nothing to evaluate on")
    options = {"n_candidates": "candidates", "candidate_seed": "candidate_seed"}
    given = {name: run.config[key] for name, key in options.items() if key in run.config}
    ks = cutoffs if cutoffs is not None else run.config.get("cutoffs", CUTOFFS)
    wanted = Wanted(beyond, by, run.catalog)
    rows = score_split(run.model(), split, cutoffs=ks, threads=threads, wanted=wanted, **given)
    if run.stream_version != STREAM_VERSION and split.candidates is None:
        first = next(iter(rows.values()))
        first["notes"].append(
            f"candidates are drawn by stream version {STREAM_VERSION}; the run's own figures are over those of version "
            f"{run.stream_version}"
        )
    return rows


def score_split(
    model: Any,
    split: Split,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    n_candidates: int = 99,
    candidate_seed: int = 0,
    wanted: Wanted | None = None,
    threads: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Metrics of a model on the test part by both protocols, ready for records and tables.

    Parameters
    ----------
    model : torch.nn.Module
        See ``models.build``.
    split : Split
        Its test part is ranked; train and validation are what its users have seen.
    cutoffs : sequence of int
        The K of HR@K and the like.
    n_candidates, candidate_seed : int
        See ``candidates_for``; without effect where the split has candidates.
    wanted : Wanted, optional
        What "full ranking" has beyond the means: see ``evaluate``.
    threads : int, optional
        CPU threads; None means all.

    Returns
    -------
    dict of str to dict
        "99 candidates" (whatever their number) and "full ranking", each with ``HR@K``, ``NDCG@K``, ``MRR@K``,
        ``Recall@K``, ``standard_errors``, ``n_users``, ``n_positives`` and ``notes``;
        the first with ``candidates`` too: where they come from and their sha256. Empty without a test part.

        These two count every test item of the users that have a positive in train; an item that is not in train is a
        miss, because no model can have learned it. Users that are not in train have rows of their own, named
        "99 candidates, users not in train" and so on, where there are any. ``notes`` count both.

    Raises
    ------
    ConfigError, DataError
        A cutoff below 1, or scores that cannot be ranked.
    """
    ks = check_cutoffs(cutoffs)
    if not split.test.n_interactions:
        return {}
    options: dict[str, Any] = {"n_candidates": n_candidates, "candidate_seed": candidate_seed, "threads": threads}
    ranked = rank_test(model, split, **options)
    rows = ranked.metrics(ks)
    if wanted is not None and ranked.trained.any():
        wanted.add_to(rows[FULL], model, split, ranked.ranks[FULL], ks)
    return rows


@dataclass(frozen=True, eq=False)
class Ranked:
    """The rank of each test positive, in CSR order of the test part."""

    split: Split
    frozen: Candidates
    ranks: dict[str, NDArray[np.int64]]
    """int64[E] by protocol, candidates first: from 1, ``MISS`` where the positive has nothing to be ranked against."""

    @property
    def counted(self) -> dict[str, NDArray[np.int64]]:
        """``ranks`` as they count: a test item that is not in train is a miss."""
        unlearned = self.split.train.item_counts()[self.split.test.items] == 0
        return {name: np.where(unlearned, MISS, found) for name, found in self.ranks.items()}

    @property
    def trained(self) -> NDArray[np.bool_]:
        """bool[E]: whether the positive's user is in train."""
        return self.split.train.degrees[self.split.test.users] > 0

    def metrics(self, ks: Sequence[int]) -> dict[str, dict[str, Any]]:
        """What ``score_split`` returns."""
        return _summaries(self, check_cutoffs(ks))


def rank_test(
    model: Any, split: Split, *, n_candidates: int = 99, candidate_seed: int = 0, threads: int | None = None
) -> Ranked:
    """Rank the test part by both protocols; parameters as of ``score_split``."""
    frozen = candidates_for(split, "test", n=n_candidates, seed=candidate_seed, threads=threads)
    ranks = {f"{frozen.source['n']} candidates": frozen.ranks(model, threads=threads)}
    ranks[FULL] = full_ranks(model, (split.train, split.validation), split.test, threads=threads)
    return Ranked(split, frozen, ranks)


def _summaries(ranked: Ranked, ks: tuple[int, ...]) -> dict[str, dict[str, Any]]:
    split, frozen, ranks, counted = ranked.split, ranked.frozen, ranked.ranks, ranked.counted
    notes = {name: untrained_notes(split, found) for name, found in ranks.items()}
    first = next(iter(ranks))
    notes[first] = [*frozen.notes, *notes[first], *comparison(split, frozen)]
    users, trained = split.test.users, ranked.trained
    rows: dict[str, dict[str, Any]] = {}
    for suffix, chosen in (("", trained), (UNTRAINED, ~trained)):
        if suffix and not chosen.any():
            continue
        for name, found in counted.items():
            # a user's places are numbered with all its positives: those that become misses stay in its list
            mine = found[chosen]
            metrics = (grouped if name == FULL else single)(mine, users[chosen], ks) if mine.size else Metrics({})
            extra = {"candidates": frozen.describe()} if name == first else {}
            rows[name + suffix] = {**metrics.as_dict(), "notes": [] if suffix else notes[name], **extra}
    return rows


def untrained_notes(split: Split, ranks: NDArray[np.int64]) -> list[str]:
    """Test positives that no model can have learned, or that have nothing to be ranked against, each with a count."""
    test = split.test
    trained = split.train.degrees[test.users] > 0
    unlearned = split.train.item_counts()[test.items] == 0
    notes = []
    if not trained.all():
        n_users = np.unique(test.users[~trained]).size
        notes.append(
            f"{n_users:,} of {np.count_nonzero(test.degrees):,} test users ({np.count_nonzero(~trained):,} of "
            f"{trained.size:,} test positives) are not in train: rows of their own, not in the headline"
        )
    missed = trained & unlearned
    if missed.any():
        n_items = np.unique(test.items[missed]).size
        notes.append(
            f"{np.count_nonzero(missed):,} test positives are of {n_items:,} items that are not in train: counted as "
            "misses"
        )
    empty = (ranks == MISS) & trained & ~unlearned
    if empty.any():
        notes.append(f"{np.count_nonzero(empty):,} test positives have no item to be ranked against: counted as misses")
    return notes


def comparison(split: Split, frozen: Candidates) -> list[str]:
    """Why the candidate scores are not comparable with the NCF paper's tables; empty where they are.

    Empty for other data too: its tables are of MovieLens-1M and Pinterest.
    """
    alike = (split.n_users, split.n_items) in PAPER_SHAPES or PAPER_NAMES.search(split.train.name)
    if not alike or (split.comparable and frozen.source["seed"] is None):
        return []
    own = "its own" if split.candidates is not None else f"drawn (seed {frozen.source['seed']})"
    return [f"not comparable with the NCF paper's tables: the split is {split.how}, the candidates are {own}"]
