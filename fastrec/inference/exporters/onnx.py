"""A model as an ONNX graph: the forward pass that torch evaluates, for any runtime.

B rows, K items a row.
"""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

from fastrec.errors import ConfigError
from fastrec.files import atomic_folder
from fastrec.inference.exporters.parts.base import Content, Exporter, register
from fastrec.inference.exporters.parts.folder import needed, write_ids

OPSET = 17
MOST_BYTES = (1 << 31) - (1 << 20)
"""Protocol buffers hold at most 2 GiB."""


def write(path: Path, content: Content) -> None:
    """``model.onnx``, and ``users.parquet`` and ``items.parquet`` with the ids of its rows.

    Inputs ``users`` int64[B] and ``items`` int64[B, K] are rows (contiguous ids); the output ``scores`` float32[B, K]
    are the logits. Any model that torch trains: what a model's ``forward`` does is traced.

    Raises
    ------
    MissingPackageError
        If onnx is not installed.
    ConfigError
        If the weights are beyond 2 GiB.
    """
    onnx, run = needed("onnx"), content.run
    import torch

    model = run.model().eval()
    size = sum(p.numel() * p.element_size() for p in model.state_dict().values())
    if size > MOST_BYTES:
        raise ConfigError(f"{path}: the weights are {size:,} bytes and an ONNX file holds 2 GiB; export to safetensors")
    pair = torch.zeros(2, dtype=torch.int64), torch.zeros((2, 3), dtype=torch.int64)
    options: dict[str, Any] = {
        "input_names": ["users", "items"],
        "output_names": ["scores"],
        "dynamic_axes": {"users": {0: "B"}, "items": {0: "B", 1: "K"}, "scores": {0: "B", 1: "K"}},
        "opset_version": OPSET,
        "dynamo": False,  # the other exporter needs two packages more, and a model without control flow gains nothing
    }

    with atomic_folder(path) as folder:
        file = folder / "model.onnx"
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")  # that this exporter is not the default one
            torch.onnx.export(model, pair, file, **options)
        graph = onnx.load(file)
        about = {"model": run.manifest["model"], "data": run.manifest["data"]["name"]}
        onnx.helper.set_model_props(graph, {"fastrec": json.dumps(about)})
        onnx.checker.check_model(graph, full_check=True)
        onnx.save(graph, file)
        write_ids(folder, run)


ONNX = register(Exporter("onnx", write, takes_options=False, needs=("onnx",)))
