"""The losses, one file each: a file in this folder that registers a ``Loss`` is a loss.

Importing this package does not import torch; ``get`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrec.registry import Folder

if TYPE_CHECKING:
    from fastrec.models.parts.loss import Loss


_FOLDER: Folder[Loss] = Folder("loss = ", __name__, "fastrec.models.parts.loss")


def names() -> list[str]:
    """Names of the losses, by their files and by ``register``."""
    return _FOLDER.names()


def get(name: str) -> Loss:
    """The loss that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    return _FOLDER.get(name)
