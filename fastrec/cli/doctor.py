"""``fastrec doctor``: a report on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.cli.data import listed, show_list
from fastrec.terminal import say, say_json, table


def add_commands(commands: Any) -> None:
    """Add ``doctor``."""
    doctor = commands.add_parser(
        "doctor",
        help="show what torch, CUDA, threads and data folders were found",
        description="Show which versions, devices, threads and data folders fastrec finds here; changes nothing.",
    )
    doctor.add_argument("--json", action="store_true", help="print JSON")
    doctor.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> None:
    from fastrec.runs.doctor import findings

    if args.json:
        say_json({"findings": dict(findings()), "data": listed()})
        return
    say(table(findings()))
    show_list()
