"""Baselines on a split: fitted on train, settings chosen on validation, scored on test as every model is."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrec.data.split import Split
from fastrec.evaluation import baselines
from fastrec.evaluation.baseline import Baseline
from fastrec.evaluation.metrics import CUTOFFS
from fastrec.evaluation.score import score_split
from fastrec.evaluation.selection import Selection, Validator

FEW_ITEMS = 5_000
"""Items up to which EASE takes seconds, so that every training prints it."""
SCORES = 1 << 24
"""Scores of a validation of one setting at most: enough users to tell settings apart, in about a second."""


def usual(n_items: int) -> list[str]:
    """The baselines that every training prints: popularity, and EASE where the catalogue is small."""
    return ["popularity", *(["ease"] if n_items <= FEW_ITEMS else [])]


def run_baselines(
    split: Split,
    names: Sequence[str],
    *,
    select: str | None = None,
    cutoffs: Sequence[int] = CUTOFFS,
    n_candidates: int = 99,
    candidate_seed: int = 0,
    threads: int | None = None,
    free_bytes: int | None = None,
) -> dict[str, dict[str, Any]]:
    """Fit and score baselines by the split, candidates and metrics of a run.

    Parameters
    ----------
    split : Split
    names : sequence of str
        See ``baselines.names``.
    select : str, optional
        What chooses among a baseline's settings, on a fixed sample of validation users; None takes its first.
    cutoffs, n_candidates, candidate_seed, threads
        See ``score_split``.
    free_bytes : int, optional
        Memory that is free; None asks the system.

    Returns
    -------
    dict of str to dict
        By name, in the given order: ``settings``, ``validation`` (the value that chose them, or None), ``seconds``,
        ``metrics`` (see ``score_split``); or ``left_out``, the reason why it was not fitted.

    Raises
    ------
    ConfigError
        For an unknown name or selection.
    """
    entries = [baselines.get(name) for name in names]
    validator = None
    if select is not None:
        options: dict[str, Any] = {"n_candidates": n_candidates, "seed": candidate_seed, "threads": threads}
        validator = Validator.of(split, Selection.parse(select), scores=SCORES, sample_candidates=True, **options)
    free = available_bytes() if free_bytes is None else free_bytes
    found: dict[str, dict[str, Any]] = {}
    for entry in entries:
        need = entry.n_bytes(split.n_users, split.n_items, split.train.n_interactions)
        if free is not None and need > free / 2:
            found[entry.name] = {
                "left_out": f"takes {need / 1e9:,.1f} GB, more than half of the {free / 1e9:,.1f} GB of memory free"
            }
            continue
        began = time.perf_counter()
        model, settings, value = _choose(entry, split, validator, threads)
        metrics = score_split(
            *(model, split),
            cutoffs=cutoffs, n_candidates=n_candidates, candidate_seed=candidate_seed, threads=threads,
        )  # fmt: skip
        found[entry.name] = {
            "about": entry.about,
            "settings": settings,
            "validation": value,
            "seconds": time.perf_counter() - began,
            "metrics": metrics,
        }
    return found


def _choose(
    entry: Baseline, split: Split, validator: Validator | None, threads: int | None
) -> tuple[Any, dict[str, Any], float | None]:
    """(model, settings, validation value) of the setting that validates best; of equals, the first."""
    prepared = {} if entry.prepare is None else {"prepared": entry.prepare(split.train, threads)}
    if validator is None:
        return entry.fit(split.train, threads, **entry.grid[0], **prepared), dict(entry.grid[0]), None
    kept: tuple[Any, dict[str, Any], float | None] = (None, {}, None)
    for settings in entry.grid:
        model = entry.fit(split.train, threads, **settings, **prepared)
        value = validator.value(model)
        if kept[2] is None or value > kept[2]:
            kept = (model, dict(settings), value)
    return kept


def winners(rows: dict[str, dict[str, dict[str, Any]]]) -> dict[str, tuple[str, str]]:
    """The best model of each protocol: protocol -> (model, metric), by NDCG at 10, or at the largest K there is.

    Parameters
    ----------
    rows : dict of str to dict
        Metrics by model (see ``score_split``); of equals, the first wins. Users not in train have no say.
    """
    best: dict[str, tuple[str, str]] = {}
    for protocol in dict.fromkeys(p for metrics in rows.values() for p in metrics if "not in train" not in p):
        scored = {name: metrics[protocol] for name, metrics in rows.items() if protocol in metrics}
        metric = ndcg_of(next(iter(scored.values())))
        if metric is not None:
            best[protocol] = (max(scored, key=lambda name: scored[name].get(metric, -1.0)), metric)
    return best


def ndcg_of(part: dict[str, Any]) -> str | None:
    """NDCG@10 where it was measured, else NDCG at the largest K; None without any."""
    cutoffs = [int(name.partition("@")[2]) for name in part if name.startswith("NDCG@")]
    return None if not cutoffs else f"NDCG@{10 if 10 in cutoffs else max(cutoffs)}"


def remarks(name: str, metrics: dict[str, dict[str, Any]], found: dict[str, dict[str, Any]]) -> list[str]:
    """Remarks on the table: baselines left out, and a model that is not above popularity."""
    said = [f"baseline {other} left out: it {row['left_out']}" for other, row in found.items() if "left_out" in row]
    popular = found.get("popularity", {}).get("metrics", {})
    for protocol, part in metrics.items():
        metric = ndcg_of(part)
        if metric is None or "not in train" in protocol or metric not in popular.get(protocol, {}):
            continue
        ours, theirs = part[metric], popular[protocol][metric]
        if ours <= theirs:
            said.append(f"{name} is not above popularity in {protocol}: {metric} {ours:.4f} against {theirs:.4f}")
    return said


def available_bytes() -> int | None:
    """Memory that a process may still take, within the limit of its control group; None where that is unknown."""
    found = []
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
        found += [1024 * int(line.split()[1]) for line in lines if line.startswith("MemAvailable:")]
        limit, used = (Path(f"/sys/fs/cgroup/memory.{what}").read_text().strip() for what in ("max", "current"))
        if limit != "max":
            found.append(max(0, int(limit) - int(used)))
    except (OSError, ValueError, IndexError):  # not Linux, or no control group of version 2
        pass
    if not found:
        try:
            found.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
        except (AttributeError, ValueError, OSError):  # not a POSIX system
            return None
    return min(found)
