"""One safetensors file; strings as UTF-8 bytes with offsets."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from fastrec.data.interactions import pack
from fastrec.files import write_tensors
from fastrec.inference.exporters.parts.base import Content, Exporter, register


def write(path: Path, content: Content) -> None:
    """The columns as tensors, ``metric`` in the metadata."""
    tensors: dict[str, NDArray[Any]] = {}
    for name, values in content.columns.items():
        tensors.update(pack(name, values))
    write_tensors(path, tensors, {"fastrec": json.dumps({"metric": content.metric})})


SAFETENSORS = register(Exporter("safetensors", write))
