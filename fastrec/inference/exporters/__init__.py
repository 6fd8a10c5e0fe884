"""The exporters, one file each: a file in this folder that registers an ``Exporter`` is a value of ``--to``.

``parts`` holds what they have in common. Importing this package imports no exporter; ``get`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrec.registry import Folder

if TYPE_CHECKING:
    from fastrec.inference.exporters.parts.base import Exporter


_FOLDER: Folder[Exporter] = Folder("to=", __name__, "fastrec.inference.exporters.parts.base")


def names() -> list[str]:
    """Names of the exporters, by their files and by ``register``."""
    return _FOLDER.names()


def get(name: str) -> Exporter:
    """The exporter that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    return _FOLDER.get(name)
