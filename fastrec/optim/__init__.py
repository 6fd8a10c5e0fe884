"""Optimisers: schedules, one file per update rule in ``rules/``, and the forms of Adam for CPU and CUDA.

Importing this package does not import torch; ``get`` does.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fastrec.errors import ConfigError
from fastrec.optim import rules

if TYPE_CHECKING:
    from fastrec.optim.rule import Rule


def names() -> list[str]:
    """Names of the update rules, by their files and by ``register``."""
    files = {m.name.replace("_", "-") for m in pkgutil.iter_modules(rules.__path__)}
    rule = sys.modules.get("fastrec.optim.rule")
    return sorted(files | (set(rule.registered()) if rule is not None else set()))


def get(name: str) -> Rule:
    """The update rule that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from fastrec.optim.rule import registered

    if name not in registered() and name in names():
        import_module(f"{rules.__name__}.{name.replace('-', '_')}")
    if name not in registered():
        near = difflib.get_close_matches(name, names(), 1)
        raise ConfigError(
            f"optimizer = {name!r}: must be one of {', '.join(names())}"
            + (f"; did you mean {near[0]}?" if near else "")
        )
    return registered()[name]
