"""Options of a Config as flags."""

from __future__ import annotations

import argparse
import types
import typing
from collections.abc import Callable
from typing import Any

from fastrec import models, optim
from fastrec.config import OPTIONS, RENAMED, TYPES, Config
from fastrec.data import splits
from fastrec.models import losses

METAVARS = {
    "data": "NAME|PATH",
    "out": "RUN_DIR",
    "device": "NAME",
    "pretrained_gmf": "RUN",
    "pretrained_mlp": "RUN",
}
"""The placeholder of a value in the help, where the type says too little."""
REGISTERED: dict[str, Callable[[], list[str]]] = {
    "model": models.names,
    "loss": losses.names,
    "optimizer": optim.names,
    "split": splits.values,
}
"""Options whose choices are a registry's names."""


def flag(name: str) -> str:
    """The flag of an option."""
    return f"--{name.replace('_', '-')}"


def add_option(group: Any, name: str, otherwise: str | None = None) -> None:
    """Add the flag of an option to a parser or a group of it.

    Parameters
    ----------
    group : parser or group of it
    name : str
    otherwise : str, optional
        What the help says in place of the default and of what is left out; "" for nothing.
    """
    metadata, hint = OPTIONS[name].metadata, TYPES[name]
    plain = [o for o in typing.get_args(hint) if o is not type(None)] if isinstance(hint, types.UnionType) else [hint]
    kind, default = plain[0], Config()[name]
    given = " ".join(map(str, default)) if isinstance(default, tuple) else default
    shown = "" if default in (None, ()) or kind is bool else f" (default {given})"
    text = metadata["help"].replace("%", "%%")
    if otherwise is not None:
        text, shown = text.partition("; left out:")[0], f" ({otherwise})" if otherwise else ""
    options: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "help": text + shown,
        "dest": name,
    }
    choices = REGISTERED[name]() if name in REGISTERED else metadata["choices"]
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif typing.get_origin(kind) is tuple:
        options |= {"type": int, "nargs": "+", "metavar": "N"}
    elif choices:
        options |= {"type": kind, "choices": choices}
    else:
        metavar = METAVARS.get(name, "COLUMN" if name.endswith("_col") else kind.__name__.upper())
        options |= {"type": kind, "metavar": metavar}
    group.add_argument(flag(name), **options)


def add_renamed(parser: Any) -> None:
    """Let the former names of flags be refused with the present ones."""
    for old in RENAMED:
        parser.add_argument(flag(old), action=_Renamed, nargs="?", default=argparse.SUPPRESS, help=argparse.SUPPRESS)


class _Renamed(argparse.Action):
    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:  # noqa: ARG002
        parser.error(f"{option_string} is now called {flag(RENAMED[self.dest])}; use that name")


def given(args: argparse.Namespace) -> dict[str, Any]:
    """The options of a Config that the command line gave."""
    return {name: value for name, value in vars(args).items() if name in OPTIONS}
