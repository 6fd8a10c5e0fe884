"""The closing scores of a model: its test part by frozen candidates and by full ranking, and what they compare with."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from fastrec.data.split import Split
from fastrec.errors import DataError
from fastrec.evaluation.candidates import Candidates, candidates_for
from fastrec.evaluation.full_ranking import evaluate_full
from fastrec.evaluation.metrics import CUTOFFS
from fastrec.runs import Run, open_run

FULL = "full ranking"


def evaluate(
    run: Run | str | os.PathLike[str], *, cutoffs: Sequence[int] | None = None, threads: int | None = None
) -> dict[str, dict[str, Any]]:
    """Score the weights of a run on its test part again; the folder is all it takes.

    Parameters
    ----------
    run : Run or path
        The run folder.
    cutoffs : sequence of int, optional
        The K of HR@K and the like; left out: those of the run's config.
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
        A cutoff below 1.
    """
    run = run if isinstance(run, Run) else open_run(run)
    split = run.split()
    if not split.test.n_interactions:
        raise DataError(f"{run.path}: its data have no test part, so there is nothing to evaluate on")
    options = {"n_candidates": "candidates", "candidate_seed": "candidate_seed"}
    given = {name: run.config[key] for name, key in options.items() if key in run.config}
    ks = cutoffs if cutoffs is not None else run.config.get("cutoffs", CUTOFFS)
    return score_split(run.model(), split, cutoffs=ks, threads=threads, **given)


def score_split(
    model: Any,
    split: Split,
    *,
    cutoffs: Sequence[int] = CUTOFFS,
    n_candidates: int = 99,
    candidate_seed: int = 0,
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
        See ``candidates_for``; without effect where the split brings candidates.
    threads : int, optional
        CPU threads; None means all.

    Returns
    -------
    dict of str to dict
        "99 candidates" (whatever their number) and "full ranking", each with ``HR@K``, ``NDCG@K``, ``MRR@K``,
        ``Recall@K`` where users have several test items, ``standard_errors``, ``n_users``, ``n_positives`` and
        ``notes``; the first with ``candidates`` too: where they come from and their sha256. Empty without a test part.
    """
    if not split.test.n_interactions:
        return {}
    frozen = candidates_for(split, "test", n=n_candidates, seed=candidate_seed, threads=threads)
    by_candidates = frozen.evaluate(model, cutoffs, threads=threads).as_dict()
    full = evaluate_full(model, (split.train, split.validation), split.test, cutoffs, threads=threads).as_dict()
    notes = [*frozen.notes, *comparison(split, frozen)]
    return {
        f"{frozen.source['n']} candidates": {**by_candidates, "notes": notes, "candidates": frozen.describe()},
        FULL: {**full, "notes": []},
    }


def comparison(split: Split, frozen: Candidates) -> list[str]:
    """Why the candidate scores may not stand beside the NCF paper's tables; empty where they may."""
    if split.comparable and frozen.source["seed"] is None:
        return []
    own = "its own" if split.candidates is not None else f"drawn (seed {frozen.source['seed']})"
    return [f"not comparable with the NCF paper's tables: the split is {split.how}, the candidates are {own}"]
