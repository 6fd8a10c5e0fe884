"""Vectors of a run with the ids and titles they belong to, for use elsewhere.

U users, I items, D dim.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.interactions import pack
from fastrec.errors import ConfigError
from fastrec.evaluation.full_ranking import Vectors
from fastrec.runs import Run, aside, write_tensors


def export(run: Run, *, to: str, out: str | os.PathLike[str]) -> Path:
    """Write user and item vectors such that score = user . item + item bias, up to a constant for each user.

    Parameters
    ----------
    run : Run
        Of a model that has vectors: MF or GMF (whose h is folded into the item vectors).
    to : {"npz", "parquet", "safetensors"}
        npz: ``user_ids``, ``item_ids`` (int64 or str), ``user_vectors`` float32[U, D], ``item_vectors`` float32[I, D],
        ``item_bias`` float32[I], and ``titles`` where there are any; opens with ``allow_pickle=False``.
        safetensors: the same names; strings as UTF-8 bytes (``titles.bytes``) with offsets (``titles.offsets``).
        parquet: one row for each user and item: ``kind`` ("user" or "item"), ``id`` (text where either kind has text
        ids), ``title``, ``bias`` (0 for users), ``vector`` (a list of D float32).
    out : path
        File to write; it must not exist, its folder must.

    Returns
    -------
    Path
        ``out``.

    Raises
    ------
    ConfigError
        An unknown format, a file that exists, no such folder, or a model without vectors (MLP, NeuMF).
    CheckpointError
        If the run has no weights, or they were altered.
    """
    path = Path(out)
    if to not in WRITERS:
        raise ConfigError(f"to={to!r}: must be one of {', '.join(WRITERS)}")
    _must_be_new(path)
    model = run.model()
    vectors = Vectors.of(model)
    if vectors is None:
        raise ConfigError(
            f"{run.path}: a {run.manifest['model']['model']} scores through a network and has no vectors whose dot "
            "product is the score; export an mf or gmf run, or score with fastrec.runs.open_run(RUN).model()"
        )
    train = run.split().train
    columns: dict[str, NDArray[Any]] = {
        "user_ids": train.user_ids,
        "item_ids": train.item_ids,
        "user_vectors": vectors.users,
        "item_vectors": vectors.items,
        "item_bias": vectors.bias,
    }
    if train.titles is not None:
        columns["titles"] = train.titles
    WRITERS[to](path, columns)
    return path


def _must_be_new(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path}: exists and is not overwritten; name another file with --out")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first, or name another file with --out")


def _npz(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    wide = next((name for name, values in columns.items() if values.dtype.kind == "O"), None)
    if wide is not None:
        longest = max(map(len, columns[wide].tolist()))
        raise ConfigError(
            f"{path}: one of {wide} has {longest:,} characters, room that npz would give to each of them; export to "
            "safetensors or parquet"
        )
    with aside(path) as part, part.open("wb") as f:
        np.savez(f, **columns)  # type: ignore[arg-type]  # the stub takes the names for its options


def _safetensors(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    tensors: dict[str, NDArray[Any]] = {}
    for name, values in columns.items():
        tensors.update(pack(name, values))
    write_tensors(path, tensors)


def _parquet(path: Path, columns: dict[str, NDArray[Any]]) -> None:
    from fastrec.data.tables import write_parquet

    users, items = columns["user_ids"], columns["item_ids"]
    n_users, n_items = users.size, items.size
    titles = columns.get("titles", np.full(n_items, None))
    both_numbers = users.dtype.kind in "iu" and items.dtype.kind in "iu"
    texts = [str(i) for ids in (users, items) for i in ids.tolist()]
    ids = np.concatenate((users, items)) if both_numbers else np.array(texts, dtype=object)
    rows = {
        "kind": np.repeat(np.array(["user", "item"]), [n_users, n_items]),
        "id": ids,
        "title": np.concatenate((np.full(n_users, None), titles.astype(object))),
        "bias": np.concatenate((np.zeros(n_users, np.float32), columns["item_bias"])),
        "vector": np.concatenate((columns["user_vectors"], columns["item_vectors"])),
    }
    with aside(path) as part:
        write_parquet(part, rows)


WRITERS: dict[str, Callable[[Path, dict[str, NDArray[Any]]], None]] = {
    "npz": _npz,
    "parquet": _parquet,
    "safetensors": _safetensors,
}
"""What ``to`` may be."""
