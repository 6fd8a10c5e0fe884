"""``fastrec evaluate`` and ``export``, for run folders."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import fastrec
from fastrec.inference import exporters
from fastrec.terminal import say, say_json, table


def add_commands(commands: Any) -> None:
    """Add ``evaluate`` and ``export``."""
    evaluate = commands.add_parser(
        "evaluate",
        help="score a run's weights on its test part again",
        description="Score the weights that a run kept on its test part: HR, NDCG and MRR at each K, against the run's "
        "frozen candidates and against every item the user has not interacted with. Ties count against the positive. "
        "The figure after +- is half of a 95 % confidence interval over users.",
    )
    evaluate.add_argument("run_dir", metavar="RUN", help="run folder")
    evaluate.add_argument(
        "--cutoffs", type=int, nargs="+", metavar="K", default=None, help="the K of HR@K and the like"
    )
    evaluate.add_argument(
        "--beyond",
        action="store_true",
        help="MAP, Precision and AUC too, and coverage, Gini, novelty and popularity of the top 10 lists",
    )
    evaluate.add_argument(
        "--by",
        nargs="+",
        metavar="GROUP",
        default=(),
        help="metrics of full ranking by activity, popularity, or a column of the run's tables, such as genres or "
        "gender; all for every one",
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)

    export = commands.add_parser(
        "export",
        help="write user and item vectors with their original ids and titles",
        description="Write the vectors of an MF or GMF run: a user's items rank by dot product. GMF's h and MF's item "
        "bias are folded into the item vectors. npz and safetensors hold user_ids, item_ids, user_vectors, "
        "item_vectors and the metric; parquet is a folder with users.parquet and items.parquet, and ann adds an index "
        "for approximate search (needs usearch). Of any model: onnx (needs onnx), and projector for TensorBoard.",
    )
    export.add_argument("run_dir", metavar="RUN", help="run folder")
    export.add_argument("--to", required=True, choices=exporters.names(), help="file format")
    export.add_argument(
        "--out",
        required=True,
        metavar="PATH",
        help="file to write (a folder for all but npz and safetensors), which must not exist",
    )
    export.add_argument(
        "--bias", choices=("folded", "separate"), default="folded", help="separate: item_bias in an array of its own"
    )
    export.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the vectors")
    export.set_defaults(run=_export)


def _evaluate(args: argparse.Namespace) -> None:
    by = None if list(args.by) == ["all"] else args.by
    result = fastrec.evaluate(args.run_dir, cutoffs=args.cutoffs, beyond=args.beyond, by=by)
    if args.json:
        say_json(result)
        return
    names = list(dict.fromkeys(n for part in result.values() for n in part if "@" in n or n == "AUC"))
    rows = [(n, *(_with_interval(p, n) if n in p else "-" for p in result.values())) for n in names]
    counts = [(n, *(f"{p[f'n_{n}']:,}" for p in result.values())) for n in ("users", "positives")]
    say(table([("test", *result), *rows, *counts]))
    for protocol, part in result.items():
        if "lists" in part:
            say("\n" + table([(f"top 10 lists, {protocol}", ""), *((k, f"{v:.4f}") for k, v in part["lists"].items())]))
        for name, groups in part.get("groups", {}).items():
            say("\n" + table(_group_rows(name, groups)))
    say(f"+- is half of a {CONFIDENCE} confidence interval over users: {INTERVAL} standard errors")
    for note in dict.fromkeys(note for part in result.values() for note in part["notes"]):
        say(f"note: {note}", keep="")


INTERVAL, CONFIDENCE = 1.96, "95 %"
"""Standard errors of half a confidence interval; users are many, so their mean is nearly normal."""


def _with_interval(part: dict[str, Any], name: str) -> str:
    """A mean with half of its confidence interval."""
    error = part["standard_errors"].get(name)
    return f"{part[name]:.4f}" + ("" if error is None else f" +-{INTERVAL * error:.4f}")


def _group_rows(name: str, groups: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """One row a group: HR, NDCG and Recall at 10, or at the first cutoff."""
    metrics = next(iter(groups.values()))
    at = "@10" if "HR@10" in metrics else f"@{next(m for m in metrics if m.startswith('HR@')).partition('@')[2]}"
    shown = [f"{m}{at}" for m in ("HR", "NDCG", "Recall")]
    rows = [(f"by {name}", "users", "positives", *shown)]
    for label, part in groups.items():
        rows.append(
            (label, f"{part['n_users']:,}", f"{part['n_positives']:,}", *(_with_interval(part, m) for m in shown))
        )
    return rows


def _export(args: argparse.Namespace) -> None:
    from fastrec.inference.export import export
    from fastrec.runs import open_run

    made = export(open_run(args.run_dir), to=args.to, out=Path(args.out), bias=args.bias, dtype=args.dtype)
    say(str(made), keep="")
    summary = exporters.get(args.to).summary
    for line in [] if summary is None else summary(made):
        say(line)
