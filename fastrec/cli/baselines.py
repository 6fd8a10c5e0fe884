"""``fastrec baselines``, and the table of a model next to its baselines."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec import config as configs
from fastrec.cli.options import add_option, given
from fastrec.config import SECTION_OF, Config
from fastrec.errors import ConfigError
from fastrec.terminal import say, say_json, table

OPTIONS = ("select", "candidates", "candidate_seed", "cutoffs", "threads")


def add_commands(commands: Any) -> None:
    """Add ``baselines``."""
    command = commands.add_parser(
        "baselines",
        help="fit and score popularity, ItemKNN, EASE and iALS on a data set",
        description="Fit every baseline on the split that `fastrec train` makes of the data, choose its settings on "
        "the validation part, and score it on the test part by both protocols. What takes more than half of the free "
        "memory is left out.",
    )
    command.add_argument("data", metavar="NAME|PATH", help="a known set, a folder, or a file")
    command.add_argument("--only", nargs="+", metavar="BASELINE", help="these baselines (default: every one)")
    command.add_argument("--json", action="store_true", help="print JSON")
    for name in configs.OPTIONS:
        if (SECTION_OF[name] in ("data", "split") and name != "data") or name in OPTIONS:
            add_option(command, name)
    command.set_defaults(run=_baselines)


def _baselines(args: argparse.Namespace) -> None:
    from fastrec.evaluation import baselines
    from fastrec.evaluation.baseline_runs import remarks, run_baselines
    from fastrec.evaluation.selection import resolve_selection
    from fastrec.training.job import prepare

    names = list(dict.fromkeys(args.only or baselines.names()))
    for name in names:
        baselines.get(name)  # refused before the data are read
    config = Config().given({**given(args), "data": args.data})
    split = prepare(config)
    if not split.test.n_interactions:
        raise ConfigError(f"{args.data}: has no test part to score baselines on; give --split leave-one-out")
    found = run_baselines(
        split,
        names,
        select=resolve_selection(config.evaluation.select, split),
        cutoffs=config.evaluation.cutoffs,
        n_candidates=config.evaluation.candidates,
        candidate_seed=config.evaluation.candidate_seed,
        threads=config.training.threads,
    )
    if args.json:
        say_json(found)
        return
    scored = {name: row["metrics"] for name, row in found.items() if "metrics" in row}
    if scored:
        say(table(score_rows(scored)))
        say(table([*best_rows(scored), *setting_rows(found)]))
    for note in (*remarks("", {}, found), *notes_of(scored)):
        say(f"note: {note}", keep="")


def next_to(result: Any, every: bool | None = None) -> Any:
    """A finished run with its baselines, every one or as its config says; an interrupted one as it is."""
    from fastrec.training.baselines import add_baselines, missing

    config = result.run.config
    wanted = missing(result, every=config.get("baselines", False) if every is None else every)
    if wanted and config.get("progress", True):
        say(f"scoring baselines: {', '.join(wanted)}", err=True, flush=True)
    return add_baselines(result, wanted, threads=config.get("threads"))


def lines(result: Any) -> list[str]:
    """The tables of a run next to its baselines: scores, and the winner of each protocol."""
    models = _models(result)
    best = best_rows(models)
    return [table(score_rows(models)), *([table([*best, *setting_rows(result.baselines)])] if best else [])]


def notes(result: Any) -> list[str]:
    """See ``remarks``."""
    from fastrec.evaluation.baseline_runs import remarks

    return remarks(result.run.config["model"], result.metrics, result.baselines)


def _models(result: Any) -> dict[str, dict[str, dict[str, Any]]]:
    scored = {name: row["metrics"] for name, row in result.baselines.items() if "metrics" in row}
    return {result.run.config["model"]: result.metrics, **scored}


def score_rows(models: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, ...]]:
    """One row per protocol and model, a column per metric at 10 (or every metric where 10 is not a cutoff)."""
    parts = [part for metrics in models.values() for part in metrics.values()]
    names = list(dict.fromkeys(name for part in parts for name in part if "@" in name))
    shown = [name for name in names if name.endswith("@10")] or names
    rows = [("test", "model", *shown)]
    for protocol in dict.fromkeys(protocol for metrics in models.values() for protocol in metrics):
        label = protocol
        for model, metrics in models.items():
            if protocol in metrics:
                part = metrics[protocol]
                rows.append((label, model, *(f"{part[n]:.4f}" if n in part else "-" for n in shown)))
                label = ""
    return rows


def best_rows(models: dict[str, dict[str, dict[str, Any]]]) -> list[tuple[str, str]]:
    """The winner of each protocol, by NDCG; nothing where there is one model only."""
    from fastrec.evaluation.baseline_runs import winners

    if len(models) < 2:
        return []
    return [(f"best in {protocol}", f"{model}, by {metric}") for protocol, (model, metric) in winners(models).items()]


def setting_rows(found: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    """What each baseline was fitted with, and how long that took."""
    return [
        (name, ", ".join([*(f"{k} {v:g}" for k, v in row["settings"].items()), f"{row['seconds']:.1f} s"]))
        for name, row in found.items()
        if "settings" in row
    ]


def notes_of(models: dict[str, dict[str, dict[str, Any]]]) -> list[str]:
    """The notes of the scores, each once."""
    parts = [part for metrics in models.values() for part in metrics.values()]
    return list(dict.fromkeys(note for part in parts for note in part["notes"]))
