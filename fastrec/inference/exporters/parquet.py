"""A folder of two Parquet tables, users and items."""

from __future__ import annotations

from pathlib import Path

from fastrec.files import atomic_folder
from fastrec.inference.exporters.parts.base import Content, Exporter, register
from fastrec.inference.exporters.parts.folder import write_vectors


def write(path: Path, content: Content) -> None:
    """``users.parquet`` and ``items.parquet``."""
    with atomic_folder(path) as folder:  # both files or none
        write_vectors(folder, content.columns, content.metric)


PARQUET = register(Exporter("parquet", write))
