"""The results of single users that a run keeps: ``results.parquet``, one row for each test positive.

Columns: ``user_id`` and ``item_id`` of the source, ``in_train`` (whether the user has a training positive),
``candidates_rank`` and ``full_rank`` (from 1; 0 is a miss at every K). E test positives.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation.metrics import MISS
from fastrec.evaluation.score import FULL, Ranked, rank_test
from fastrec.files import atomic_write, sha256_file
from fastrec.runs import Run
from fastrec.runs.folder import RESULTS

COLUMNS = {"candidates": "candidates_rank", "full": "full_rank"}
"""Column of each protocol."""


@dataclass(frozen=True, eq=False)
class Results:
    """Ranks of the test positives of a run, in CSR order of its test part."""

    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    in_train: NDArray[np.bool_]
    ranks: dict[str, NDArray[np.int64]]
    """int64[E] by "candidates" and "full"; ``MISS`` is a miss."""
    candidates: dict[str, Any]
    """What the candidates are: see ``Candidates.describe``."""


def of_ranked(ranked: Ranked) -> Results:
    """The results that a ranking gives."""
    test, found = ranked.split.test, ranked.counted
    near = next(name for name in found if name != FULL)
    return Results(
        test.user_ids[test.users],
        test.item_ids[test.items],
        ranked.trained,
        {"candidates": found[near], "full": found[FULL]},
        ranked.frozen.describe(),
    )


def save_results(run: Run, ranked: Ranked) -> None:
    """Write ``results.parquet`` into the run folder and its sha256 into the manifest."""
    from fastrec.data.tables import write_parquet

    found = of_ranked(ranked)
    columns = {"user_id": found.user_ids, "item_id": found.item_ids, "in_train": found.in_train}
    for protocol, name in COLUMNS.items():
        ranks = found.ranks[protocol]
        columns[name] = np.where(ranks >= MISS, 0, ranks)
    path = run.path / RESULTS
    with atomic_write(path) as part:
        write_parquet(part, columns)
        digest = sha256_file(part)
    run.record(files={**run.manifest["files"], RESULTS: digest})


def read_results(run: Run, *, threads: int | None = None) -> Results:
    """The results that a run keeps; where it keeps none (an earlier fastrec made it) its weights are ranked again.

    Raises
    ------
    CheckpointError
        If the file is altered, or the run has no weights.
    DataError
        If the run has no test part.
    """
    test = run.split().test
    if not test.n_interactions:
        raise DataError(f"{run.path}: its data have no test part, so there are no results to compare")
    metrics = run.manifest.get("result", {}).get("metrics", {})
    recorded = next((part["candidates"] for part in metrics.values() if "candidates" in part), None)
    if RESULTS not in run.manifest["files"] or recorded is None:
        options = {"n_candidates": "candidates", "candidate_seed": "candidate_seed"}
        given = {name: run.config[key] for name, key in options.items() if key in run.config}
        return of_ranked(rank_test(run.model(), run.split(), threads=threads, **given))
    from fastrec.data.tables import read_columns

    path = run.verified(RESULTS)
    try:
        table = read_columns(path)
        ranks = {protocol: table[name] for protocol, name in COLUMNS.items()}
        ids = table["user_id"], table["item_id"], table["in_train"].astype(np.bool_)
    except (DataError, KeyError) as error:
        raise CheckpointError(f"{path}: not the results of a run ({error}); train again") from None
    return Results(*ids, {name: np.where(r == 0, MISS, r).astype(np.int64) for name, r in ranks.items()}, recorded)
