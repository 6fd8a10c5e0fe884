"""Interactions: who met what, as a CSR with the ids it came from. Opens from a saved file without Polars.

U users, I items, E interactions.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.csr_build import MAX_IDS, contiguous, core_mask
from fastrec.errors import DataError
from fastrec.sampling.csr import check_csr

FILE_VERSION = 1


@dataclass(frozen=True, eq=False)
class Interactions:
    """A CSR of positives over contiguous ids, with maps back to the ids of the source.

    Parameters
    ----------
    indptr : int64[U+1]
        Row bounds: the interactions of user ``u`` are ``items[indptr[u]:indptr[u+1]]``.
    items : int32[E]
        Item of each interaction, strictly ascending within a row.
    user_ids, item_ids : int64[U] or str[U]; int64[I] or str[I]
        The source's id of each contiguous id.
    timestamps : int64[E], optional
        Seconds since 1970 UTC, aligned with ``items``; None where the source has none.
    file_order : int32[E] or int64[E], optional
        Row of the source each interaction came from, for ties in time; None where it no longer matters.
    titles : str[I], optional
        Display title of each item.
    catalog : Catalog, optional
        What the source tells of items and users (``fastrec.data.catalog``); not saved.
    name : str
        What the data are called in messages and records.
    notes : tuple of str
        What was left out or merged on the way here, each with a count.
    """

    indptr: NDArray[np.int64]
    items: NDArray[np.int32]
    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    timestamps: NDArray[np.int64] | None = None
    file_order: NDArray[Any] | None = None
    titles: NDArray[np.str_] | None = None
    catalog: Any = None
    name: str = "interactions"
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        indptr, items = check_csr(self.indptr, self.items, max(1, self.item_ids.shape[0]), name=self.name)
        object.__setattr__(self, "indptr", indptr)
        object.__setattr__(self, "items", items)
        if indptr.size - 1 != self.user_ids.shape[0]:
            raise DataError(
                f"{self.name}: {indptr.size - 1} rows but {self.user_ids.shape[0]} user_ids; they must agree"
            )
        for what in ("timestamps", "file_order"):
            values = getattr(self, what)
            if values is not None and values.shape != items.shape:
                raise DataError(f"{self.name}: {what} has shape {values.shape}, items {items.shape}; they must agree")
        if self.titles is not None and self.titles.shape != self.item_ids.shape:
            raise DataError(f"{self.name}: {self.titles.shape[0]} titles for {self.item_ids.shape[0]} items")

    def __repr__(self) -> str:
        times = "with" if self.timestamps is not None else "without"
        return (
            f"Interactions({self.name!r}: {self.n_users} users x {self.n_items} items, "
            f"{self.n_interactions} interactions, {times} timestamps)"
        )

    @staticmethod
    def from_arrays(
        users: Any,
        items: Any,
        timestamps: Any = None,
        ratings: Any = None,
        *,
        min_rating: float | None = None,
        k_core: int = 0,
        name: str = "interactions",
        max_ids: int = MAX_IDS,
    ) -> Interactions:
        """Build from one array per column, without Polars.

        Parameters
        ----------
        users, items : integer[R] or str[R]
            Source ids of each row. Contiguous ids follow the ascending order of source ids.
        timestamps : integer[R], optional
            Seconds since 1970 UTC.
        ratings : float[R], optional
            Looked at by ``min_rating`` alone.
        min_rating : float, optional
            Keep rows rated at least this, after duplicates are settled; users and items left empty lose their ids.
        k_core : int
            Keep the largest subset in which every user and item has at least this many interactions.
        name : str
            What the data are called in messages.
        max_ids : int
            Most distinct users, and items, allowed.

        Raises
        ------
        DataError
            If lengths disagree, ids are not integers or strings, there are too many of them, or nothing is left.

        Guarantee
        ---------
        Of rows with one (user, item) the latest is kept, ties in time to the later row; ``notes`` says how
        many were merged.
        """
        from fastrec.data.assemble import from_codes

        user_codes, user_ids = contiguous(users, "user", max_ids=max_ids)
        item_codes, item_ids = contiguous(items, "item", max_ids=max_ids)
        return from_codes(
            user_codes,
            user_ids,
            item_codes,
            item_ids,
            timestamps,
            ratings,
            min_rating=min_rating,
            k_core=k_core,
            name=name,
        )

    @staticmethod
    def from_frame(
        frame: Any,
        *,
        user_col: str | None = None,
        item_col: str | None = None,
        rating_col: str | None = None,
        time_col: str | None = None,
        time_format: str | None = None,
        min_rating: float | None = None,
        k_core: int = 0,
        name: str = "frame",
    ) -> Interactions:
        """Build from a frame in memory; see ``fastrec.data.load`` for the options.

        Parameters
        ----------
        frame : polars.DataFrame, polars.LazyFrame, pandas.DataFrame or mapping of str to array
            One row per interaction; usual column names are recognised.

        Raises
        ------
        DataError
            Naming the column or row at fault.
        """
        from fastrec.data.loading import from_log
        from fastrec.data.readers.table import read_frame
        from fastrec.data.source import Columns

        log = read_frame(frame, Columns(user_col, item_col, rating_col, time_col, time_format), name)
        return from_log(log, name=name, min_rating=min_rating, k_core=k_core)

    @property
    def n_users(self) -> int:
        """Number of users U, with or without interactions here."""
        return int(self.user_ids.shape[0])

    @property
    def n_items(self) -> int:
        """Number of items I, with or without interactions here."""
        return int(self.item_ids.shape[0])

    @property
    def n_interactions(self) -> int:
        """Number of interactions E."""
        return int(self.items.shape[0])

    @property
    def users(self) -> NDArray[np.int32]:
        """int32[E]: the user of each interaction, in CSR order. Cost: E * 4 bytes, made anew at each call."""
        return np.repeat(np.arange(self.n_users, dtype=np.int32), np.diff(self.indptr))

    @property
    def degrees(self) -> NDArray[np.int64]:
        """int64[U]: interactions of each user."""
        return np.diff(self.indptr)

    def item_counts(self) -> NDArray[np.int64]:
        """int64[I]: interactions of each item (its popularity)."""
        return np.bincount(self.items, minlength=self.n_items).astype(np.int64)

    def row(self, user: int) -> NDArray[np.int32]:
        """int32[degree]: the items of one contiguous user id, ascending."""
        return self.items[self.indptr[user] : self.indptr[user + 1]]

    def keep(self, mask: NDArray[np.bool_], *, name: str | None = None) -> Interactions:
        """The interactions where ``mask`` bool[E] is true, over the same users, items and id maps."""
        kept = np.flatnonzero(mask)
        return replace(
            self,
            indptr=np.searchsorted(kept, self.indptr),
            items=self.items[kept],
            timestamps=None if self.timestamps is None else self.timestamps[kept],
            file_order=None if self.file_order is None else self.file_order[kept],
            name=name or self.name,
        )

    def core(self, k: int) -> Interactions:
        """The k-core: the largest subset in which every user and item left has at least ``k`` interactions.

        Users and items outside it lose their ids; ``notes`` counts the interactions left out. ``k`` of 0 or 1 leaves
        the users and items as they are.

        Raises
        ------
        DataError
            If nothing is left, or ``k`` is negative.
        """
        if k < 0:
            raise DataError(f"k_core={k}: must be at least 0 (0 keeps all)")
        if k <= 1:
            return self
        from fastrec.data.assemble import dense

        mask = core_mask(self.indptr, self.items, self.n_items, k)
        note = f"{mask.size - int(mask.sum())} interactions outside the {k}-core left out"
        return replace(dense(self.keep(mask), f"k_core={k}"), notes=(*self.notes, note))

    def fingerprint(self) -> str:
        """sha256 over CSR, timestamps and id maps: equal for equal data, whatever the file was called."""
        digest = hashlib.sha256(b"fastrec interactions 1")
        for array in (self.indptr, self.items, self.timestamps, self.user_ids, self.item_ids):
            if array is None:
                digest.update(b"none")
                continue
            if array.dtype.kind == "U":
                digest.update("\x00".join(array.tolist()).encode())
            else:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one ``.safetensors`` file that ``Interactions.open`` maps into memory; ``catalog`` is not kept."""
        from safetensors.numpy import save_file

        path = Path(path)
        tensors: dict[str, NDArray[Any]] = {"indptr": self.indptr, "items": self.items}
        for what in ("timestamps", "file_order", "user_ids", "item_ids", "titles"):
            values = getattr(self, what)
            if values is not None:
                tensors.update(pack(what, values))
        meta = {"fastrec": f"interactions {FILE_VERSION}", "name": self.name, "notes": json.dumps(self.notes)}
        aside = path.with_name(path.name + ".part")
        save_file({k: np.ascontiguousarray(v) for k, v in tensors.items()}, aside, metadata=meta)
        os.replace(aside, path)
        return path

    @staticmethod
    def open(path: str | os.PathLike[str], *, mmap: bool = True) -> Interactions:
        """Open what ``save`` wrote; with ``mmap`` the arrays stay on disk until touched.

        Raises
        ------
        DataError
            If the file is missing, truncated or something else.
        """
        tensors, meta = map_safetensors(path, mmap=mmap)
        if meta.get("fastrec") != f"interactions {FILE_VERSION}":
            raise DataError(
                f"{path}: not a saved Interactions file of version {FILE_VERSION} (found {meta.get('fastrec')!r})"
            )
        return Interactions(
            indptr=tensors["indptr"],
            items=tensors["items"],
            user_ids=unpack("user_ids", tensors),
            item_ids=unpack("item_ids", tensors),
            timestamps=tensors.get("timestamps"),
            file_order=tensors.get("file_order"),
            titles=unpack("titles", tensors) if "titles.bytes" in tensors else None,
            name=meta["name"],
            notes=tuple(json.loads(meta["notes"])),
        )


def pack(name: str, values: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Numbers as they are; strings as UTF-8 bytes (``name.bytes``) with offsets (``name.offsets``)."""
    if values.dtype.kind not in "UO":
        return {name: values}
    encoded = [str(v).encode() for v in values.tolist()]
    offsets = np.concatenate(([0], np.cumsum([len(e) for e in encoded], dtype=np.int64))).astype(np.int64)
    return {f"{name}.bytes": np.frombuffer(b"".join(encoded), dtype=np.uint8), f"{name}.offsets": offsets}


def unpack(name: str, tensors: dict[str, NDArray[Any]]) -> NDArray[Any]:
    """The inverse of ``pack``."""
    if name in tensors:
        return tensors[name]
    blob, offsets = tensors[f"{name}.bytes"].tobytes(), tensors[f"{name}.offsets"].tolist()
    return np.array([blob[a:b].decode() for a, b in itertools.pairwise(offsets)], dtype=np.str_)


_DTYPES = {
    "I64": np.int64,
    "I32": np.int32,
    "U8": np.uint8,
    "F32": np.float32,
    "F64": np.float64,
    "U32": np.uint32,
}


def map_safetensors(
    path: str | os.PathLike[str], *, mmap: bool = True
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file as arrays over mapped memory (its own NumPy reader copies), with its metadata.

    Source: the format at https://github.com/huggingface/safetensors (8 bytes of header length, JSON, then the data).

    Raises
    ------
    DataError
        If the file is missing, truncated or not in the format.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with path.open("rb") as f:
            length = int.from_bytes(f.read(8), "little")
            if length > size - 8:
                raise ValueError(f"header of {length} bytes in a file of {size}")
            header = json.loads(f.read(length))
        meta = header.pop("__metadata__", {})
        raw = np.memmap(path, dtype=np.uint8, mode="r") if mmap else np.fromfile(path, dtype=np.uint8)
        tensors = {}
        for key, entry in header.items():
            a, b = entry["data_offsets"]
            if 8 + length + b > size:
                raise ValueError(f"{key} ends at byte {8 + length + b} of a file of {size}")
            tensors[key] = raw[8 + length + a : 8 + length + b].view(_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; save one with Interactions.save") from None
    except (ValueError, KeyError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({error}); make it again") from None
    return tensors, meta
