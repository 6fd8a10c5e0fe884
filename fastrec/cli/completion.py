"""``fastrec completion``: a script that lets a shell complete commands, flags and choices."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.terminal import say

SHELLS = ("bash", "zsh", "tcsh")


def add_commands(commands: Any) -> None:
    """Add ``completion``."""
    completion = commands.add_parser(
        "completion",
        help="print the completion script of a shell",
        description="Print a script that completes commands, flags and choices: "
        'eval "$(fastrec completion bash)" in ~/.bashrc, or for zsh a file _fastrec on the fpath.',
    )
    completion.add_argument("shell", choices=SHELLS)
    completion.set_defaults(run=_completion)


def _completion(args: argparse.Namespace) -> None:
    import shtab

    say(shtab.complete(args.parser, shell=args.shell))
