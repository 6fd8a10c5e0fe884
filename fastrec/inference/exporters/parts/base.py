"""The definition of an exporter, what it is given, and the registry of exporters.

U users, I items, D dim.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError
from fastrec.evaluation.full_ranking import Vectors
from fastrec.registry import Registry
from fastrec.runs import Run

METRICS = {"folded": "dot", "separate": "dot + item_bias"}
"""How a user's items are ranked by what is in the file, for each value of ``bias``."""


@dataclass(frozen=True)
class Content:
    """What an exporter writes: the run, or its vectors with ids and titles.

    Parameters
    ----------
    run : Run
    bias, dtype : str
        See ``fastrec.export``.
    """

    run: Run
    bias: str = "folded"
    dtype: str = "float32"

    @property
    def metric(self) -> str:
        """How a user's items are ranked by the vectors."""
        return METRICS[self.bias]

    @cached_property
    def columns(self) -> dict[str, NDArray[Any]]:
        """``user_ids``, ``item_ids``, ``user_vectors`` [U, D], ``item_vectors`` [I, D], ``item_bias`` [I] if separate,
        ``titles`` if there are any.

        Raises
        ------
        ConfigError
            If the model has no vectors.
        DataError
            If a value does not fit the dtype.
        """
        model = self.run.model()
        vectors = Vectors.of(model)
        if vectors is None:
            raise ConfigError(
                f"{self.run.path}: a {self.run.manifest['model']['model']} scores through a network and has no vectors "
                "whose dot product is the score; export an mf or gmf run, or score with "
                "fastrec.runs.open_run(RUN).model()"
            )
        train = self.run.split().train
        users, items = vectors.users, vectors.items
        if self.bias == "folded" and vectors.bias.any():
            users = np.concatenate((users, np.ones((len(users), 1), np.float32)), axis=1)
            items = np.concatenate((items, vectors.bias[:, None]), axis=1)
        columns: dict[str, NDArray[Any]] = {
            "user_ids": train.user_ids,
            "item_ids": train.item_ids,
            "user_vectors": _cast(users, self.dtype, "user vector"),
            "item_vectors": _cast(items, self.dtype, "item vector"),
        }
        if self.bias == "separate":
            columns["item_bias"] = _cast(vectors.bias, self.dtype, "item bias")
        if train.titles is not None:
            columns["titles"] = train.titles
        return columns


def _cast(values: NDArray[np.float32], dtype: str, what: str) -> NDArray[Any]:
    if dtype == "float32":
        return values
    largest = float(np.abs(values).max(initial=0.0))
    if largest > np.finfo(np.float16).max:
        raise DataError(f"{what}: {largest:g} does not fit float16 (at most 65504); export float32")
    return values.astype(np.float16)


@dataclass(frozen=True)
class Exporter:
    """An export format.

    Parameters
    ----------
    name : str
        ``to=NAME``.
    write : callable
        (path, Content) -> None: writes a file or folder that does not exist yet, completely or not at all.
    takes_options : bool
        Whether ``bias`` and ``dtype`` have an effect.
    needs : tuple of str
        Modules of optional packages, looked for before the weights are read.
    summary : callable, optional
        path -> lines that the command prints after the path.
    """

    name: str
    write: Callable[[Path, Content], None]
    takes_options: bool = True
    needs: tuple[str, ...] = ()
    summary: Callable[[Path], list[str]] | None = None


_REGISTRY: Registry[Exporter] = Registry("exporter", lambda exporter: exporter.write)


def register(exporter: Exporter) -> Exporter:
    """Make an exporter known by its name; raises ConfigError if another module has registered the name."""
    return _REGISTRY.put(exporter.name, exporter)


def registered() -> dict[str, Exporter]:
    """Exporters by name, of the modules imported so far; ``exporters.get`` imports what is missing."""
    return _REGISTRY.values()
