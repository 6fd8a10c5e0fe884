"""``fastrec update``: go on from a run with newer data."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.cli.options import add_option, given
from fastrec.cli.train import finish
from fastrec.config import SECTION_OF, UPDATABLE, UPDATE_EPOCHS

_DEFAULTS = {"epochs": f"default {UPDATE_EPOCHS}", "out": "left out: runs/TIME-..."}


def add_commands(commands: Any) -> None:
    """Add ``update``."""
    command = commands.add_parser(
        "update",
        usage="fastrec update RUN --data NEW [--positives all|new] [options]",
        help="go on from a run with newer data, in a new run folder",
        description="Go on from a finished run with newer data: the same log plus what came since, or only the new "
        "part. Users and items keep their numbers, newcomers start from initial weights, the optimiser state is kept, "
        "and epoch numbers and draws go on. Data are filtered and split by the run's own rules; what the run trained "
        "on stays in train. Options that are left out are the run's.",
    )
    command.add_argument("run_dir", metavar="RUN", help="run folder to go on from; it is not changed")
    command.add_argument("--data", required=True, metavar="NAME|PATH", help="the new log")
    command.add_argument(
        "--positives",
        choices=("all", "new"),
        default="all",
        help="what an epoch visits: every training positive, or only those that the run did not train on (default all)",
    )
    groups: dict[str, Any] = {}
    for name in UPDATABLE:
        section = SECTION_OF[name]
        if section not in groups:
            groups[section] = command.add_argument_group(section)
        add_option(groups[section], name, _DEFAULTS.get(name, ""))
    command.set_defaults(run=_update, several=True)


def _update(args: argparse.Namespace) -> int:
    from fastrec.training.update import update

    options = {name: value for name, value in given(args).items() if name != "data"}
    return finish(update(args.run_dir, args.data, positives=args.positives, **options), [], options.get("baselines"))
