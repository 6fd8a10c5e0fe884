"""Arrays and text as the tensors of a file, and back: what comes from a file is checked here, entry by entry."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.csr_build import text_array
from fastrec.errors import DataError

_COLUMNS = {"indptr": "<i8", "items": "<i4", "timestamps": "<i8", "weights": "<f4"}


def from_tensors(tensors: dict[str, NDArray[Any]]) -> dict[str, Any]:
    """The arrays of an Interactions from a file's tensors, of the types that ``save`` gives them.

    Raises
    ------
    ValueError
        If one is missing, or of another type.
    """
    made: dict[str, Any] = {}
    for what in ("indptr", "items", "timestamps", "file_order", "weights"):
        values = tensors.get(what)
        if values is None and what in ("indptr", "items"):
            raise ValueError(f"it has no {what}")
        if values is not None:
            if values.ndim != 1 or values.dtype.str not in _COLUMNS.get(what, ("<i4", "<i8")):
                raise ValueError(f"{what} is {values.dtype}{list(values.shape)}")
            made[what] = values
    for what in ("user_ids", "item_ids", "titles"):
        if what != "titles" or what in tensors or "titles.bytes" in tensors:
            made[what] = unpack(what, tensors)
    return made


def pack(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Numbers as they are; strings as UTF-8 bytes (``name.bytes``) with offsets (``name.offsets``)."""
    if values.dtype.kind not in "UO":
        return {name: values}
    try:
        encoded = [str(v).encode() for v in values.tolist()]
    except UnicodeEncodeError as error:
        raise DataError(f"{name}: {error.object!r} is not Unicode text ({error.reason}); repair it") from None
    offsets = np.concatenate(([0], np.cumsum([len(e) for e in encoded], dtype=np.int64))).astype(np.int64)
    return {f"{name}.bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), f"{name}.offsets": offsets}


def unpack(name: str, tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The inverse of ``pack``.

    Raises
    ------
    ValueError
        If the tensors are not what ``pack`` gives.
    """
    if name in tensors:
        if tensors[name].ndim != 1 or tensors[name].dtype.str != "<i8":
            raise ValueError(f"{name} is {tensors[name].dtype}{list(tensors[name].shape)}")
        return tensors[name]
    raw, offsets = tensors.get(f"{name}.bytes"), tensors.get(f"{name}.offsets")
    if raw is None or offsets is None:
        raise ValueError(f"it has no {name}")
    if raw.ndim != 1 or raw.dtype != np.uint8 or offsets.ndim != 1 or offsets.dtype.str != "<i8" or not offsets.size:
        raise ValueError(f"{name} is {raw.dtype}{list(raw.shape)} with offsets {offsets.dtype}{list(offsets.shape)}")
    if offsets[0] != 0 or offsets[-1] != raw.size or (offsets[1:] < offsets[:-1]).any():
        raise ValueError(f"the offsets of {name} do not ascend from 0 to its {raw.size} bytes")
    blob, ends = raw.tobytes(), offsets.tolist()
    texts = [blob[a:b].decode() for a, b in itertools.pairwise(ends)]
    if any(text.endswith("\0") for text in texts):
        raise ValueError(f"a text of {name} holds NUL at its end")
    return text_array(texts)
