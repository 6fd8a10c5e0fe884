"""Baselines next to a trained run: scored as it was, kept in its manifest."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from fastrec.evaluation import baselines
from fastrec.evaluation.baseline_runs import run_baselines, usual
from fastrec.evaluation.metrics import CUTOFFS
from fastrec.training.fit import Result

CANDIDATES = {"n_candidates": "candidates", "candidate_seed": "candidate_seed"}
"""Argument -> option of a run; a split with candidates of its own has neither."""


def names_for(n_items: int, every: bool) -> list[str]:
    """The baselines of a training: the usual ones, and all the others where they are asked for."""
    first = usual(n_items)
    return [*first, *(name for name in baselines.names() if name not in first)] if every else first


def missing(result: Result, *, every: bool = False) -> list[str]:
    """Baselines that a finished run should have and lacks; none without a test part."""
    if result.stopped == "interrupted" or not result.metrics:
        return []
    return [name for name in names_for(result.run.split().n_items, every) if name not in result.baselines]


def add_baselines(result: Result, names: Sequence[str], *, threads: int | None = None) -> Result:
    """Fit baselines on the split of a finished run, score them as the run was, and put them into its manifest.

    Parameters
    ----------
    result : Result
        Of ``fit`` or ``resume``, with test metrics; its ``seconds`` stay those of the training.
    names : sequence of str
        See ``missing``.
    threads : int, optional
        CPU threads; None means all.
    """
    if not names:
        return result
    config = result.run.config
    found = run_baselines(
        result.run.split(),
        names,
        select=result.select,
        cutoffs=config.get("cutoffs", CUTOFFS),
        **{name: config[key] for name, key in CANDIDATES.items() if key in config},
        threads=threads,
    )
    rows = {**result.baselines, **found}
    result.run.record(result={**result.run.manifest["result"], "baselines": rows})
    return replace(result, baselines=rows)
