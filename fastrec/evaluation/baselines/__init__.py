"""Baselines in closed form or by solvers, one file each: a file in this folder that registers a ``Baseline`` is one.

Importing this package does not import torch; ``get`` does.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from fastrec.registry import Folder

if TYPE_CHECKING:
    from fastrec.evaluation.baseline import Baseline


_FOLDER: Folder[Baseline] = Folder("baseline = ", __name__, "fastrec.evaluation.baseline")


def names() -> list[str]:
    """Names of the baselines, by their files and by ``register``."""
    return _FOLDER.names()


def get(name: str) -> Baseline:
    """The baseline that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    return _FOLDER.get(name)
