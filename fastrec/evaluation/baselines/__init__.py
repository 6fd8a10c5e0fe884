"""Baselines in closed form or by solvers, one file each: a file in this folder that registers a ``Baseline`` is one.

Importing this package does not import torch; ``get`` does.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fastrec.errors import ConfigError

if TYPE_CHECKING:
    from fastrec.evaluation.baseline import Baseline


def names() -> list[str]:
    """Names of the baselines, by their files and by ``register``."""
    files = {m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)}
    base = sys.modules.get("fastrec.evaluation.baseline")
    return sorted(files | (set(base.registered()) if base is not None else set()))


def get(name: str) -> Baseline:
    """The baseline that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from fastrec.evaluation.baseline import registered

    if name not in registered() and name in names():
        import_module(f"{__name__}.{name.replace('-', '_')}")
    if name not in registered():
        near = difflib.get_close_matches(name, names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"baseline = {name!r}: must be one of {', '.join(names())}{hint}")
    return registered()[name]
