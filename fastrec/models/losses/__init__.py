"""The losses, one file each: a file in this folder that registers a ``Loss`` is a loss.

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
    from fastrec.models.parts.loss import Loss


def names() -> list[str]:
    """Names of the losses, by their files and by ``register``."""
    files = {m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__)}
    parts = sys.modules.get("fastrec.models.parts.loss")
    return sorted(files | (set(parts.registered()) if parts is not None else set()))


def get(name: str) -> Loss:
    """The loss that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from fastrec.models.parts.loss import registered

    if name not in registered() and name in names():
        import_module(f"{__name__}.{name.replace('-', '_')}")
    if name not in registered():
        near = difflib.get_close_matches(name, names(), 1)
        raise ConfigError(
            f"loss = {name!r}: must be one of {', '.join(names())}" + (f"; did you mean {near[0]}?" if near else "")
        )
    return registered()[name]
