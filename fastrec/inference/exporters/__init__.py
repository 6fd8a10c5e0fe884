"""The exporters, one file each: a file in this folder that registers an ``Exporter`` is a value of ``--to``.

``parts`` holds what they have in common. Importing this package imports no exporter; ``get`` does.
"""

from __future__ import annotations

import difflib
import pkgutil
import sys
from importlib import import_module
from typing import TYPE_CHECKING

from fastrec.errors import ConfigError

if TYPE_CHECKING:
    from fastrec.inference.exporters.parts.base import Exporter


def names() -> list[str]:
    """Names of the exporters, by their files and by ``register``."""
    files = {m.name.replace("_", "-") for m in pkgutil.iter_modules(__path__) if not m.ispkg}
    base = sys.modules.get("fastrec.inference.exporters.parts.base")
    return sorted(files | (set(base.registered()) if base is not None else set()))


def get(name: str) -> Exporter:
    """The exporter that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    from fastrec.inference.exporters.parts.base import registered

    if name not in registered() and name in names():
        import_module(f"{__name__}.{name.replace('-', '_')}")
    if name not in registered():
        near = difflib.get_close_matches(str(name), names(), 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        raise ConfigError(f"to={name!r}: must be one of {', '.join(names())}{hint}")
    return registered()[name]
