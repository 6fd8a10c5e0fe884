"""A folder of two Parquet tables, users and items."""

from __future__ import annotations

from pathlib import Path

from fastrec.inference.exporters.parts.base import Content, Exporter, register
from fastrec.inference.exporters.parts.folder import write_folder, write_vectors


def write(path: Path, content: Content) -> None:
    """``users.parquet`` and ``items.parquet``."""
    write_folder(path, lambda folder: write_vectors(folder, content.columns, content.metric))


PARQUET = register(Exporter("parquet", write))
