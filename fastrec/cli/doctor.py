"""``fastrec doctor``: a report on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.cli.data import show_list
from fastrec.terminal import say, table


def add_commands(commands: Any) -> None:
    """Add ``doctor``."""
    doctor = commands.add_parser(
        "doctor",
        help="show what torch, CUDA, threads and data folders were found",
        description="Show which versions, devices, threads and data folders fastrec finds here; changes nothing.",
    )
    doctor.set_defaults(run=_doctor)


def _doctor(_: argparse.Namespace) -> None:
    from fastrec.runs.doctor import findings

    say(table(findings()))
    show_list()
