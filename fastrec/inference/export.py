"""Vectors of a run with the ids and titles they belong to, for use elsewhere.

U users, I items, D dim.
"""

from __future__ import annotations

import os
from pathlib import Path

from fastrec.errors import ConfigError
from fastrec.inference import exporters
from fastrec.inference.exporters.parts.base import METRICS, Content
from fastrec.inference.exporters.parts.folder import needed
from fastrec.runs import Run

DTYPES = ("float32", "float16")


def export(run: Run, *, to: str, out: str | os.PathLike[str], bias: str = "folded", dtype: str = "float32") -> Path:
    """Write user and item vectors whose dot product ranks the items of each user as the model does.

    Score = user vector . item vector, up to a constant for each user. GMF's h is folded into the item vectors; an item
    bias, as MF's, is one more column of them, and the user vectors have a 1 there.

    Parameters
    ----------
    run : Run
        Of a model that has vectors, such as MF and GMF; of any model for onnx and projector.
    to : str
        A name of ``fastrec.inference.exporters.names()``:
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
    path, exporter = Path(out), exporters.get(to)
    for name, value, known in (("bias", bias, METRICS), ("dtype", dtype, DTYPES)):
        if value not in known:
            raise ConfigError(f"{name}={value!r}: must be one of {', '.join(known)}")
    _must_be_new(path)
    if not exporter.takes_options and (bias, dtype) != ("folded", "float32"):
        raise ConfigError(f"bias and dtype have no effect with to={to!r}; leave them out")
    for package in exporter.needs:
        needed(package)
    exporter.write(path, Content(run, bias, dtype))
    return path


def _must_be_new(path: Path) -> None:
    if os.path.lexists(path):
        raise ConfigError(f"{path}: exists and is not overwritten; name another file with --out")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first, or name another file with --out")
