"""One NumPy archive, which opens with ``allow_pickle=False``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError
from fastrec.files import atomic_write
from fastrec.inference.exporters.parts.base import Content, Exporter, register


def write(path: Path, content: Content) -> None:
    """The columns and ``metric``."""
    save(path, content.columns, content.metric)


def save(path: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    """Write arrays by name.

    Raises
    ------
    ConfigError
        If a text is so long that fixed-width strings would take its room for every row.
    """
    wide = next((name for name, values in columns.items() if values.dtype.kind == "O"), None)
    if wide is not None:
        longest = max(map(len, columns[wide].tolist()))
        raise ConfigError(
            f"{path}: one of {wide} has {longest:,} characters, room that npz would give to each of them; export to "
            "safetensors or parquet"
        )
    with atomic_write(path) as part, part.open("wb") as f:
        np.savez(f, **columns, metric=np.array(metric))  # type: ignore[arg-type]  # the stub takes names for options


NPZ = register(Exporter("npz", write))
