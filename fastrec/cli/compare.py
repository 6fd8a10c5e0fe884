"""``fastrec compare``: two recipes, user by user."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.terminal import say, say_json, table


def add_commands(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "compare",
        help="two runs, or two folders of seeds, user by user",
        description="Compare B with A by the test results of the same users: difference B - A, bootstrap interval, "
        "paired t test, effect size, and how many more seeds would settle it. A and B are run folders, folders of runs "
        "that differ in the seed, or OUT/NAME of OUT/NAME-seed0, OUT/NAME-seed1, ... Data, split and candidates must "
        "be the same.",
    )
    parser.add_argument("a", metavar="A", help="run folder, or folder of seeds")
    parser.add_argument("b", metavar="B", help="run folder, or folder of seeds")
    parser.add_argument(
        "--metric", action="append", metavar="PROTOCOL:METRIC@K", help="such as full:NDCG@20; may be repeated"
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=compare)


def compare(args: argparse.Namespace) -> None:
    """Run the command."""
    from fastrec.evaluation.comparison import METRICS
    from fastrec.evaluation.comparison import compare as compared

    found = compared(args.a, args.b, metrics=args.metric or METRICS)
    if args.json:
        say_json(found)
        return
    pairs = len(found["seeds"])
    say(f"A {found['a']}\nB {found['b']}", keep="\n")
    seeds = ", ".join(str(a) if a == b else f"{a} and {b}" for a, b in found["seeds"])
    say(f"{found['n_users']:,} users; {pairs} pair{'s' if pairs > 1 else ''} of runs (seed {seeds})", keep="")
    for name, (a, b) in found["options"].items():
        say(f"{name}: {a} -> {b}", keep="")
    rows = [
        ("metric", "A", "B", "B - A", "95 % interval", "p", "d_z", "users better, worse", "p of seeds", "more seeds")
    ]
    for name, row in found["metrics"].items():
        low, high = row["interval"]
        rows.append((
            name, f"{row['a']:.4f}", f"{row['b']:.4f}", f"{row['difference']:+.4f}", f"{low:+.4f} to {high:+.4f}",
            _p(row["p"]), "-" if row["effect_size"] is None else f"{row['effect_size']:+.3f}",
            f"{row['better']:,}, {row['worse']:,}", _p(row["p_seeds"]),
            "-" if row["more_seeds"] is None else f"{row['more_seeds']:,}",
        ))  # fmt: skip
    say(table(rows))
    for note in found["notes"]:
        say(f"note: {note}", keep="")


def _p(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}" if value >= 0.001 else f"{value:.1e}"
