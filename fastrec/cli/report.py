"""``fastrec report``: one page that shows a run."""

from __future__ import annotations

import argparse
from typing import Any

import fastrec
from fastrec.terminal import say


def add_commands(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "report",
        help="write one page that shows a run: curves, metrics by group, lists, provenance",
        description="Write one HTML file that shows a run, to be opened in any browser: it has no scripts and loads "
        "nothing. Curves of loss, validation and speed; test metrics with confidence intervals next to the baselines, "
        "and by popularity, activity, genre and user field; coverage and calibration; lists of some users next to "
        "their favourites; configuration and provenance.",
    )
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("--out", metavar="FILE", help="file to write, which must not exist (default RUN/report.html)")
    parser.add_argument("--png", metavar="FOLDER", help="write the charts as PNG files too (needs matplotlib)")
    parser.add_argument("--user", action="append", metavar="ID", help="show this user's list; may be repeated")
    parser.add_argument("-k", type=int, default=10, help="how many items a list has (default 10)")
    parser.set_defaults(run=_report)


def _report(args: argparse.Namespace) -> None:
    say(str(fastrec.report(args.run_dir, out=args.out, png=args.png, users=args.user, k=args.k)), keep="")
