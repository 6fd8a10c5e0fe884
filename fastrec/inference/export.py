"""Vectors of a run with the ids and titles they belong to, for use elsewhere.

U users, I items, D dim.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.interactions import pack
from fastrec.errors import ConfigError, DataError
from fastrec.evaluation.full_ranking import Vectors
from fastrec.files import atomic_folder, atomic_write, write_tensors
from fastrec.inference.exporters import ann, onnx, projector
from fastrec.inference.exporters.folder import needed
from fastrec.runs import Run

METRICS = {"folded": "dot", "separate": "dot + item_bias"}
"""How a user's items are ranked by what is in the file, for each value of ``bias``."""
DTYPES = ("float32", "float16")


def export(run: Run, *, to: str, out: str | os.PathLike[str], bias: str = "folded", dtype: str = "float32") -> Path:
    """Write user and item vectors whose dot product ranks the items of each user as the model does.

    Score = user vector . item vector, up to a constant for each user. GMF's h is folded into the item vectors; the item
    bias of an MF is one more column of them, and the user vectors have a 1 there.

    Parameters
    ----------
    run : Run
        Of a model that has vectors, MF or GMF; of any model for onnx and projector.
    to : {"npz", "parquet", "safetensors", "ann", "onnx", "projector"}
        npz: ``user_ids``, ``item_ids`` (int64 or str), ``user_vectors`` [U, D], ``item_vectors`` [I, D] (D + 1 for an
        MF), ``titles`` where there are any, and ``metric``; opens with ``allow_pickle=False``.
        safetensors: the same names; strings as UTF-8 bytes (``titles.bytes``) with offsets (``titles.offsets``);
        ``metric`` is in the metadata, in the JSON under the key ``fastrec``.
        parquet: a folder with ``users.parquet`` (``id``, ``vector``) and ``items.parquet`` (``id``, ``title`` where
        there are any, ``vector``), each with ``metric`` in its key-value metadata.
        ann: that folder with ``index.usearch`` too, an index of the items for their vectors' inner product, whose keys
        are the rows of items.parquet, and ``index.json`` (build time, recall@10 against exact search). Needs usearch.
        onnx: a folder with ``model.onnx``, which takes rows of users and items, and the ids of the rows. Needs onnx.
        projector: a folder for ``tensorboard --logdir``, items with transliterated titles and genres.
    out : path
        File to write, or folder; it must not exist, the folder it goes into must.
    bias : {"folded", "separate"}
        "separate" keeps the item bias by itself: ``item_bias`` [I], or ``bias`` in items.parquet; vectors have D
        columns and score = user . item + item bias.
    dtype : {"float32", "float16"}
        Of vectors and bias. float16 halves the file; scores that are close may change places.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ConfigError
        An unknown format, bias or dtype, one without effect, a file that exists, no such folder, or a model without
        vectors (MLP, NeuMF).
    MissingPackageError
        If the format needs a package that is not installed.
    DataError
        If a value does not fit float16.
    CheckpointError
        If the run has no weights, or they were altered.
    """
    path = Path(out)
    for name, value, known in (("to", to, (*WRITERS, *MODELS)), ("bias", bias, METRICS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise ConfigError(f"{name}={value!r}: must be one of {', '.join(known)}")
    _must_be_new(path)
    if (to in MODELS or to == "ann") and (bias, dtype) != ("folded", "float32"):
        raise ConfigError(f"bias and dtype have no effect with to={to!r}; leave them out")
    if to in MODELS:
        MODELS[to](run, path)
        return path
    if to == "ann":
        needed("usearch.index")
    model = run.model()
    vectors = Vectors.of(model)
    if vectors is None:
        raise ConfigError(
            f"{run.path}: a {run.manifest['model']['model']} scores through a network and has no vectors whose dot "
            "product is the score; export an mf or gmf run, or score with fastrec.runs.open_run(RUN).model()"
        )
    train = run.split().train
    users, items = vectors.users, vectors.items
    if bias == "folded" and hasattr(model, "item_bias"):
        users = np.concatenate((users, np.ones((len(users), 1), np.float32)), axis=1)
        items = np.concatenate((items, vectors.bias[:, None]), axis=1)
    columns: dict[str, NDArray[Any]] = {
        "user_ids": train.user_ids,
        "item_ids": train.item_ids,
        "user_vectors": _cast(users, dtype, "user vector"),
        "item_vectors": _cast(items, dtype, "item vector"),
    }
    if bias == "separate":
        columns["item_bias"] = _cast(vectors.bias, dtype, "item bias")
    if train.titles is not None:
        columns["titles"] = train.titles
    WRITERS[to](path, columns, METRICS[bias])
    return path


def _cast(values: NDArray[np.float32], dtype: str, what: str) -> NDArray[Any]:
    if dtype == "float32":
        return values
    largest = float(np.abs(values).max(initial=0.0))
    if largest > np.finfo(np.float16).max:
        raise DataError(f"{what}: {largest:g} does not fit float16 (at most 65504); export float32")
    return values.astype(np.float16)


def _must_be_new(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigError(f"{path}: exists and is not overwritten; name another file with --out")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first, or name another file with --out")


def _npz(path: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    wide = next((name for name, values in columns.items() if values.dtype.kind == "O"), None)
    if wide is not None:
        longest = max(map(len, columns[wide].tolist()))
        raise ConfigError(
            f"{path}: one of {wide} has {longest:,} characters, room that npz would give to each of them; export to "
            "safetensors or parquet"
        )
    with atomic_write(path) as part, part.open("wb") as f:
        np.savez(f, **columns, metric=np.array(metric))  # type: ignore[arg-type]  # the stub takes names for options


def _safetensors(path: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    tensors: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        tensors.update(pack(name, values))
    write_tensors(path, tensors, {"fastrec": json.dumps({"metric": metric})})


def _parquet(path: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    with atomic_folder(path) as part:  # both files or none
        _tables(part, columns, metric)


def _tables(folder: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    from fastrec.data.tables import write_parquet

    users = {"id": columns["user_ids"], "vector": columns["user_vectors"]}
    items = {"id": columns["item_ids"]}
    for name, key in (("title", "titles"), ("bias", "item_bias"), ("vector", "item_vectors")):
        if key in columns:
            items[name] = columns[key]
    for name, rows in (("users", users), ("items", items)):
        write_parquet(folder / f"{name}.parquet", rows, {"metric": metric})


def _ann(path: Path, columns: dict[str, NDArray[Any]], metric: str) -> None:
    ann.write(path, columns["user_vectors"], columns["item_vectors"], lambda to: _tables(to, columns, metric))


WRITERS: dict[str, Callable[[Path, dict[str, NDArray[Any]], str], None]] = {
    "npz": _npz,
    "parquet": _parquet,
    "safetensors": _safetensors,
    "ann": _ann,
}
"""What ``to`` may be for models with vectors."""
MODELS: dict[str, Callable[[Run, Path], None]] = {"onnx": onnx.write, "projector": projector.write}
"""What ``to`` may be for every model; ``bias`` and ``dtype`` have no effect there."""
