"""A split as one safetensors file: in a run folder, or by itself, to train where neither the source nor Polars is.

It holds the union of the parts as one CSR with the part of each interaction; ids, titles and candidates are next to it.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.arrays import frozen
from fastrec.data.interactions import Interactions
from fastrec.data.packed import from_tensors, pack
from fastrec.data.split import TEST, TRAIN, VALIDATION, Split
from fastrec.errors import DataError
from fastrec.files import expect, map_safetensors, parse_json, reason, sweep, write_tensors

VERSION = 2
"""Version 1, without a checksum, is read too; in a run folder the manifest has the sha256 of such a file."""
_META = {"names": [str], "how": str, "comparable": bool, "notes": [str], "data_notes": [str]}


def save_split(path: str | os.PathLike[str], split: Split) -> str:
    """Write a split as one file, atomically, and return its sha256.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist.
    split : Split
        Kept without its catalog; times are kept, where every part has them, for updates and time-aware negatives.

    Raises
    ------
    FastrecError
        If the file cannot be written.

    Guarantee
    ---------
    Equal splits give equal bytes, with a checksum over all of them in the header.

    Cost
    ----
    5 bytes per interaction, 4 for its weight where it has one, 4 for its time (8 where times span more than 68
    years), 8 per user, and the ids (8 bytes each where they are numbers).
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
    weights = [p.weights for p in parts.values()]
    if any(w is not None for w in weights):  # a part without them weighs 1
        filled = [np.ones(p.n_interactions, np.float32) if p.weights is None else p.weights for p in parts.values()]
        tensors["weights"] = np.concatenate(filled)[order]
    if split.candidates is not None:
        tensors["candidates"] = split.candidates
    times = [p.timestamps for p in parts.values()]
    if all(t is not None for t in times):
        tensors |= _packed_times(np.concatenate(times)[order])  # type: ignore[arg-type]
    meta = {
        "version": VERSION,
        "names": [p.name for p in parts.values()],
        "how": split.how,
        "comparable": split.comparable,
        "notes": split.notes,
        "data_notes": split.train.notes,
    }
    return write_tensors(path, tensors, {"fastrec": json.dumps(meta, sort_keys=True)}, checksum=True)


def is_split_file(path: str | os.PathLike[str]) -> bool:
    """Whether ``save_split`` wrote this file; also where it is damaged behind its header. False for no such file.

    Raises
    ------
    DataError
        If there is such a file, and it cannot be read.
    """
    path = Path(path)
    try:
        if path.suffix != ".safetensors" or not path.is_file():
            return False
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            return b'"part"' in f.read(min(length, 1 << 20))
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); name another file or change its rights") from None


def _packed_times(times: NDArray[np.int64]) -> dict[str, NDArray[Any]]:
    """``times.base`` int64[1] and ``times`` int32 or int64 above it."""
    base = int(times.min()) if times.size else 0
    narrow = times.size and int(times.max()) - base < 2**31
    return {"times": (times - base).astype(np.int32 if narrow else np.int64), "times.base": np.array([base])}


def _times(tensors: dict[str, NDArray[Any]], shape: tuple[int, ...]) -> NDArray[np.int64] | None:
    """int64[E]: what ``_packed_times`` packed; None in a file without times, ValueError with the reason if damaged."""
    times, base = tensors.get("times"), tensors.get("times.base")
    if times is None and base is None:
        return None
    if times is None or base is None or times.shape != shape or times.dtype.str not in ("<i4", "<i8"):
        raise ValueError("the times do not fit the interactions")
    if base.shape != (1,) or base.dtype.str != "<i8":
        raise ValueError(f"times.base is {base.dtype}{list(base.shape)}")
    summed: NDArray[np.int64] = frozen(times + base[0])
    return summed


def open_split(path: str | os.PathLike[str], *, verify: bool = True, times: bool = False) -> Split:
    """Open what ``save_split`` wrote, or the ``data.safetensors`` of a run folder; arrays stay on disk until touched.

    Parameters
    ----------
    path : path
    verify : bool
        Compare the file with its checksum; not needed where the entire file was compared with its sha256 already.
    times : bool
        Read the times too, where the file has them.

    Raises
    ------
    DataError
        If the file is missing, damaged in any bit, or something else.

    Cost
    ----
    One pass over the file for the checksum (1.2 GB/s per thread), and one over the CSR of each part.
    """
    path = Path(path)
    try:
        there = path.is_file()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); name another file") from None
    if not there:
        raise DataError(f"{path}: no such file; save a split with fastrec.runs.save_split")
    sweep(path.parent, re.escape(path.name))
    try:
        tensors, header = map_safetensors(path, verify=verify)
        if "fastrec" not in header:
            raise DataError(f"{path}: not a saved split (it has no 'fastrec'); save one with fastrec.runs.save_split")
        return _split(tensors, header, times)
    except ValueError as error:
        if str(error).startswith(f"{path}: not a saved split"):
            raise
        raise DataError(f"{path}: not a complete saved split ({error}); save it again") from None


def _split(tensors: dict[str, NDArray[Any]], header: dict[str, str], times: bool) -> Split:
    """The split of a file's tensors and header, checked; ValueError with the reason."""
    meta = parse_json(header["fastrec"])
    expect(meta, {"version": int}, "header")
    if meta["version"] not in (1, VERSION):
        raise ValueError(f"version {meta['version']}, this fastrec reads {VERSION}")
    if meta["version"] == VERSION and "checksum" not in header:
        raise ValueError("it has no checksum")
    expect(meta, _META, "header")
    columns = from_tensors(tensors)
    columns["timestamps"] = _times(tensors, columns["items"].shape) if times else None
    whole = Interactions(**columns, notes=tuple(meta["data_notes"]))
    names = dict(zip((TRAIN, VALIDATION, TEST), meta["names"], strict=True))
    part, candidates = tensors.get("part"), tensors.get("candidates")
    if part is None or part.dtype != np.uint8 or part.shape != whole.items.shape or (part > max(names)).any():
        raise ValueError("the parts do not fit the interactions")
    if candidates is not None and candidates.dtype.str != "<i4":
        raise ValueError(f"candidates are {candidates.dtype}")
    train, validation, test = (whole.keep(part == number, name=name) for number, name in names.items())
    return Split(
        train=train,
        validation=validation,
        test=test,
        how=meta["how"],
        candidates=candidates,
        comparable=meta["comparable"],
        notes=tuple(meta["notes"]),
    )
