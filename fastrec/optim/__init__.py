"""Optimisers: schedules, one file per update rule in ``rules/``, and the forms of Adam for CPU and CUDA.

Importing this package does not import torch; ``get`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrec.optim import rules
from fastrec.registry import Folder

if TYPE_CHECKING:
    from fastrec.optim.rule import Rule


_FOLDER: Folder[Rule] = Folder("optimizer = ", rules.__name__, "fastrec.optim.rule")


def names() -> list[str]:
    """Names of the update rules, by their files and by ``register``."""
    return _FOLDER.names()


def get(name: str) -> Rule:
    """The update rule that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    return _FOLDER.get(name)
