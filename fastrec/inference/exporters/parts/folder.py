"""What the exports that are folders have in common: the packages they need, and the ids of their rows."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import MissingPackageError, not_installed
from fastrec.runs import Run


def needed(package: str) -> Any:
    """The module of an optional package.

    Raises
    ------
    MissingPackageError
        With the line that installs it.
    """
    try:
        return import_module(package)
    except ImportError:
        raise MissingPackageError(not_installed(package), name=package) from None


def write_ids(folder: Path, run: Run) -> None:
    """``users.parquet`` (``row``, ``id``) and ``items.parquet`` (also ``title``): the id of each row number."""
    from fastrec.data.tables import write_parquet

    train = run.split().train
    for name, ids in (("users", train.user_ids), ("items", train.item_ids)):
        table: dict[str, Any] = {"row": np.arange(ids.size, dtype=np.int64), "id": ids}
        if name == "items" and train.titles is not None:
            table["title"] = train.titles
        write_parquet(folder / f"{name}.parquet", table, {})


def write_vectors(folder: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    """Write the columns: ``users.parquet`` (``id``, ``vector``), ``items.parquet`` (also ``title``, ``bias``)."""
    from fastrec.data.tables import write_parquet

    users = {"id": columns["user_ids"], "vector": columns["user_vectors"]}
    items = {"id": columns["item_ids"]}
    for name, key in (("title", "titles"), ("bias", "item_bias"), ("vector", "item_vectors")):
        if key in columns:
            items[name] = columns[key]
    for name, rows in (("users", users), ("items", items)):
        write_parquet(folder / f"{name}.parquet", rows, {"metric": metric})
