"""What a run is scored by: its validation after each epoch, and its test part."""

from __future__ import annotations

from typing import Any

from fastrec.config import Config, restored
from fastrec.data.split import Split
from fastrec.evaluation.selection import LEGACY, Selection, Validator, for_model
from fastrec.runs import Run, write_card


def recorded_config(run: Run) -> Config:
    """The config of a run; one that is older than ``select`` was selected by NDCG@10 on candidates."""
    old = {} if "select" in run.config or not run.manifest["data"]["n_validation"] else {"select": LEGACY}
    return restored(old | run.config)


def make_validator(split: Split, config: Config, model: Any) -> Validator | None:
    """The validation after each epoch; None if there is nothing to select on."""
    if config.evaluation.select is None:
        return None
    return Validator.of(
        split,
        Selection.parse(config.evaluation.select),
        scores=for_model(model),
        n_candidates=config.evaluation.candidates,
        seed=config.evaluation.candidate_seed,
        threads=config.training.threads,
    )


def score_test(run: Run) -> dict[str, dict[str, Any]]:
    """Score the test part of a finished run that has not scored it yet, and record that; gives its test metrics."""
    result = run.manifest["result"]
    if not result["metrics"]:
        notes = list(result["notes"])
        metrics = metrics_of_test(run, run.model(), recorded_config(run), notes)
        for values in metrics.values():
            notes += [note for note in values.get("notes", ()) if note not in notes]
        run.record(result={**result, "metrics": metrics, "notes": notes})
        write_card(run)
    found: dict[str, dict[str, Any]] = run.manifest["result"]["metrics"]
    return found


def metrics_of_test(run: Run, model: Any, config: Config, notes: list[str]) -> dict[str, dict[str, Any]]:
    """Score a model on the test part of a run, and keep the rank of each test positive; {} without a test part."""
    from fastrec.evaluation.results import save_results
    from fastrec.evaluation.score import rank_test

    split = run.split()
    if not split.test.n_interactions:
        return {}
    ranked = rank_test(
        model,
        split,
        n_candidates=config.evaluation.candidates,
        candidate_seed=config.evaluation.candidate_seed,
        threads=config.training.threads,
    )
    try:
        save_results(run, ranked)
    except ModuleNotFoundError as error:
        notes.append(f"results of single users are not kept: {error.name} is not installed; compare ranks them again")
    found: dict[str, dict[str, Any]] = ranked.metrics(config.evaluation.cutoffs)
    return found
