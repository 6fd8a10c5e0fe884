"""A split as one safetensors file: in a run folder, or by itself, to train where neither the source nor Polars is.

It holds the union of the parts as one CSR with the part of each interaction; ids, titles and candidates beside it.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.data.interactions import Interactions, map_safetensors, pack, unpack
from fastrec.data.split import TEST, TRAIN, VALIDATION, Split
from fastrec.errors import DataError
from fastrec.files import write_tensors

VERSION = 1


def save_split(path: str | os.PathLike[str], split: Split) -> str:
    """Write a split as one file, atomically, and return its sha256.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist.
    split : Split
        Kept without times and catalog, which nothing after the split sees.

    Raises
    ------
    FastrecError
        If the file cannot be written.

    Guarantee
    ---------
    Equal splits give equal bytes.

    Cost
    ----
    5 bytes an interaction, 8 a user, and the ids (8 bytes each where they are numbers).
    """
    parts = {TRAIN: split.train, VALIDATION: split.validation, TEST: split.test}
    # each part's keys ascend already: a stable sort merges three runs in linear time
    keys = np.concatenate([p.users.astype(np.int64) * split.n_items + p.items for p in parts.values()])
    order = np.argsort(keys, kind="stable")
    degrees = split.train.degrees + split.validation.degrees + split.test.degrees
    tensors: dict[str, Any] = {
        "indptr": np.concatenate(([0], np.cumsum(degrees))).astype(np.int64),
        "items": np.concatenate([p.items for p in parts.values()])[order],
        "part": np.repeat(np.array(list(parts), np.uint8), [p.n_interactions for p in parts.values()])[order],
    }
    for name in ("user_ids", "item_ids", "titles"):
        values = getattr(split.train, name)
        if values is not None:
            tensors.update(pack(name, values))
    if split.candidates is not None:
        tensors["candidates"] = split.candidates
    meta = {
        "version": VERSION,
        "names": [p.name for p in parts.values()],
        "how": split.how,
        "comparable": split.comparable,
        "notes": split.notes,
        "data_notes": split.train.notes,
    }
    return write_tensors(path, tensors, {"fastrec": json.dumps(meta, sort_keys=True)})


def is_split_file(path: str | os.PathLike[str]) -> bool:
    """Whether ``save_split`` wrote this file; also where it is damaged behind its header. False for no such file."""
    path = Path(path)
    if path.suffix != ".safetensors" or not path.is_file():
        return False
    with path.open("rb") as f:
        length = int.from_bytes(f.read(8), "little")
        return b'"part"' in f.read(min(length, 1 << 20))


def open_split(path: str | os.PathLike[str]) -> Split:
    """Open what ``save_split`` wrote, or the ``data.safetensors`` of a run folder; arrays stay on disk until touched.

    Raises
    ------
    DataError
        If the file is missing, damaged or something else.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; save a split with fastrec.runs.save_split")
    try:
        tensors, header = map_safetensors(path)
        meta = json.loads(header["fastrec"])
        if meta["version"] != VERSION:
            raise ValueError(f"version {meta['version']}, this fastrec reads {VERSION}")
        whole = Interactions(
            indptr=tensors["indptr"],
            items=tensors["items"],
            user_ids=unpack("user_ids", tensors),
            item_ids=unpack("item_ids", tensors),
            titles=unpack("titles", tensors) if "titles.bytes" in tensors else None,
            notes=tuple(meta["data_notes"]),
        )
        names = dict(zip((TRAIN, VALIDATION, TEST), meta["names"], strict=True))
        if tensors["part"].shape != whole.items.shape or not np.isin(tensors["part"], list(names)).all():
            raise ValueError("the parts do not fit the interactions")
        train, validation, test = (whole.keep(tensors["part"] == part, name=name) for part, name in names.items())
        return Split(
            train=train,
            validation=validation,
            test=test,
            how=meta["how"],
            candidates=tensors.get("candidates"),
            comparable=meta["comparable"],
            notes=tuple(meta["notes"]),
        )
    except KeyError as error:
        raise DataError(
            f"{path}: not a saved split (it has no {error}); save one with fastrec.runs.save_split"
        ) from None
    except (DataError, ValueError, TypeError, AttributeError, OSError) as error:
        raise DataError(f"{path}: not a whole saved split ({error}); save it again") from None
