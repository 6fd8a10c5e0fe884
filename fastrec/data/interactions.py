"""Interactions of users and items, as a CSR with the ids it came from. Opens from a saved file without Polars.

U users, I items, E interactions.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int
from fastrec.data.arrays import as_int64, frozen, immutable, integers, plain, seconds, texts, weights_of
from fastrec.data.csr_build import MAX_IDS, as_array, core_mask, csr_from_pairs, factorize, plain_ids
from fastrec.data.packed import from_tensors, pack, unpack
from fastrec.errors import DataError, shown
from fastrec.files import expect, map_safetensors, parse_json, sweep, write_tensors
from fastrec.sampling.csr import check_csr

__all__ = ["Interactions", "map_safetensors", "pack", "unpack"]

FILE_VERSION = 2
"""Version 1, without a checksum, is read too: a flipped bit that leaves a possible log passes there."""

_META = {"name": str, "notes": str}


@dataclass(frozen=True, eq=False)
class Interactions:
    """A CSR of positives over contiguous ids, with maps back to the ids of the source.

    Its arrays are checked once, here, and cannot be changed afterwards: an array that can be written to is copied.

    Parameters
    ----------
    indptr : int64[U+1]
        Row bounds: the interactions of user ``u`` are ``items[indptr[u]:indptr[u+1]]``.
    items : int32[E]
        Item of each interaction, strictly ascending within a row.
    user_ids, item_ids : int64[U] or str[U]; int64[I] or str[I]
        The source's id of each contiguous id; text is object[n] of str where one long id would widen all of them.
    timestamps : int64[E], optional
        Seconds since 1970 UTC, aligned with ``items``; None where the source has none.
    file_order : int32[E] or int64[E], optional
        Row of the source each interaction came from, for ties in time; None where it no longer matters.
    weights : float32[E], optional
        What training multiplies the loss of each positive and its negatives by: finite, at least 0; None for 1.
    titles : str[I], optional
        Display title of each item; object[I] of str as for ids.
    catalog : Catalog, optional
        Fields of items and users in the source (``fastrec.data.catalog``); not saved.
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
    weights: NDArray[np.float32] | None = None
    titles: NDArray[Any] | None = None
    catalog: Any = None
    name: str = "interactions"
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        if not isinstance(self.name, str):
            raise DataError(f"name = {shown(self.name)}: must be text")
        if not isinstance(self.notes, (tuple, list)) or not all(isinstance(note, str) for note in self.notes):
            raise DataError(f"{self.name}: notes = {shown(self.notes)}: must be a tuple of texts")
        held: dict[str, Any] = {"notes": tuple(self.notes)}
        for what in ("user_ids", "item_ids"):
            held[what] = immutable(plain_ids(getattr(self, what), f"{self.name}: {what.removesuffix('_ids')}"))
        # owned before they are checked: nobody can change them in between
        indptr, items = (immutable(plain(getattr(self, a), f"{self.name}: {a}")) for a in ("indptr", "items"))
        checked = check_csr(indptr, items, max(1, held["item_ids"].size), name=self.name)
        held["indptr"], held["items"] = immutable(frozen(checked[0])), immutable(frozen(checked[1]))
        if indptr.size - 1 != held["user_ids"].size:
            raise DataError(
                f"{self.name}: {indptr.size - 1} rows but {held['user_ids'].size} user_ids; they must agree"
            )
        for what in ("timestamps", "file_order"):
            if getattr(self, what) is not None:
                held[what] = integers(getattr(self, what), items.size, self.name, what)
        if self.weights is not None:
            held["weights"] = weights_of(self.weights, items.size, self.name)
        if self.titles is not None:
            held["titles"] = immutable(texts(self.titles, f"{self.name}: titles"))
            if held["titles"].size != held["item_ids"].size:
                raise DataError(f"{self.name}: {held['titles'].size} titles for {held['item_ids'].size} items")
        for what, value in held.items():
            object.__setattr__(self, what, value)

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
        weights: Any = None,
        min_rating: float | None = None,
        k_core: int = 0,
        name: str = "interactions",
        max_ids: int = MAX_IDS,
    ) -> Interactions:
        """Build from one array per column, without Polars.

        Parameters
        ----------
        users, items : integer[R] or str[R]
            Source ids of each row. Contiguous ids follow the ascending order of source ids. NumPy drops NUL at the end
            of text in arrays of fixed width (``<U8``, ``S8``) before anything can see it: ``u`` and ``u\\0`` are one id
            there, and refused in lists, object arrays and ``StringDType``.
        timestamps : integer[R], optional
            Seconds since 1970 UTC; what is too large for them (from the year 5138 on) is refused.
        ratings : float[R], optional
            Used by ``min_rating`` only.
        weights : float[R], optional
            What the loss of each row is multiplied by in training, finite and at least 0.
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
        if timestamps is not None:
            timestamps = seconds(timestamps, f"{name}: timestamps")
        user_codes, user_ids = factorize(users, "user", max_ids=max_ids)
        item_codes, item_ids = factorize(items, "item", max_ids=max_ids)
        return Interactions.from_codes(
            user_codes,
            user_ids,
            item_codes,
            item_ids,
            timestamps,
            ratings,
            weights=weights,
            min_rating=min_rating,
            k_core=k_core,
            name=name,
        )

    @staticmethod
    def from_codes(
        users: NDArray[np.int32],
        user_ids: NDArray[Any],
        items: NDArray[np.int32],
        item_ids: NDArray[Any],
        timestamps: Any = None,
        ratings: Any = None,
        *,
        weights: Any = None,
        min_rating: float | None = None,
        k_core: int = 0,
        name: str = "interactions",
    ) -> Interactions:
        """``Interactions.from_arrays`` for rows that are numbered already: int32[R] contiguous ids and the id maps."""
        if users.size == 0:
            raise DataError(f"{name}: no interactions; there is nothing to build from")
        columns = {"items": items, "timestamps": timestamps, "ratings": ratings, "weights": weights}
        for what, values in columns.items():
            if values is not None and np.shape(values) != users.shape:
                raise DataError(f"{name}: {what} has shape {np.shape(values)}, users {users.shape}; they must agree")
        times = None if timestamps is None else as_int64(timestamps, f"{name}: timestamps")
        csr = csr_from_pairs(users, items, user_ids.shape[0], item_ids.shape[0], times)
        notes = []
        if csr.items.size < users.size:
            notes.append(f"{users.size - csr.items.size} duplicate (user, item) rows merged, the latest kept")
        made = Interactions(
            indptr=frozen(csr.indptr),
            items=frozen(csr.items),
            user_ids=user_ids,
            item_ids=item_ids,
            timestamps=None if times is None else frozen(times[csr.rows]),
            file_order=frozen(csr.rows),
            weights=None if weights is None else frozen(weights_of(weights, users.size, name)[csr.rows]),
            name=name,
        )
        if min_rating is not None:
            if ratings is None:
                raise DataError(f"{name}: min_rating={min_rating} needs ratings, and there are none; leave it out")
            scores = as_array(ratings, f"{name}: ratings")
            if np.isnan(scores).any():
                raise DataError(f"{name}: rating of row {int(np.isnan(scores).argmax())} is nan; fix or remove the row")
            mask = scores[csr.rows] >= min_rating
            notes.append(f"{mask.size - int(mask.sum())} interactions rated below {min_rating} left out")
            made = made.keep(mask).reindex(f"min_rating={min_rating}")
        return replace(made, notes=tuple(notes)).core(k_core)

    @staticmethod
    def from_frame(
        frame: Any,
        *,
        user_col: str | None = None,
        item_col: str | None = None,
        rating_col: str | None = None,
        time_col: str | None = None,
        time_format: str | None = None,
        weight_col: str | None = None,
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
        from fastrec.data.loading import from_frame

        columns = {"user_col": user_col, "item_col": item_col, "rating_col": rating_col, "time_col": time_col}
        columns |= {"time_format": time_format, "weight_col": weight_col}
        return from_frame(frame, **columns, min_rating=min_rating, k_core=k_core, name=name)

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
        """int32[E]: the user of each interaction, in CSR order. Cost: E * 4 bytes, made again at each call."""
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
            indptr=frozen(np.searchsorted(kept, self.indptr)),
            items=frozen(self.items[kept]),
            timestamps=None if self.timestamps is None else frozen(self.timestamps[kept]),
            file_order=None if self.file_order is None else frozen(self.file_order[kept]),
            weights=None if self.weights is None else frozen(self.weights[kept]),
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
        k = as_int("k_core", k)
        if k < 0:
            raise DataError(f"k_core={k}: must be at least 0 (0 keeps all)")
        if k <= 1:
            return self
        mask = core_mask(self.indptr, self.items, self.n_items, k)
        note = f"{mask.size - int(mask.sum())} interactions outside the {k}-core left out"
        return replace(self.keep(mask).reindex(f"k_core={k}"), notes=(*self.notes, note))

    def reindex(self, why: str) -> Interactions:
        """Drop users and items without interactions and close the gaps in the ids; errors name ``why``."""
        has_user, has_item = self.degrees > 0, self.item_counts() > 0
        if not self.n_interactions:
            raise DataError(f"{self.name}: no interaction is left with {why}; choose a weaker one")
        if has_user.all() and has_item.all():
            return self
        new_item = np.cumsum(has_item, dtype=np.int64) - 1
        return replace(
            self,
            indptr=np.concatenate((self.indptr[:-1][has_user], self.indptr[-1:])),
            items=frozen(new_item.astype(np.int32)[self.items]),
            user_ids=self.user_ids[has_user],
            item_ids=self.item_ids[has_item],
            titles=None if self.titles is None else self.titles[has_item],
        )

    def fingerprint(self) -> str:
        """sha256 over CSR, timestamps, id maps and any weights: equal for equal data, whatever the file was called."""
        digest = hashlib.sha256(b"fastrec interactions 1")
        weights = () if self.weights is None else (self.weights,)
        for array in (self.indptr, self.items, self.timestamps, self.user_ids, self.item_ids, *weights):
            if array is None:
                digest.update(b"none")
                continue
            if array.dtype.kind in "UO":
                digest.update("\x00".join(array.tolist()).encode())
            else:
                digest.update(f"{array.dtype.str}{array.shape}".encode())
                digest.update(np.ascontiguousarray(array).view(np.uint8).data)
        return digest.hexdigest()

    def save(self, path: str | os.PathLike[str]) -> Path:
        """Write one ``.safetensors`` file that ``Interactions.open`` maps into memory; ``catalog`` is not kept.

        Raises
        ------
        FastrecError
            If the file cannot be written; one of that name is intact then.

        Guarantee
        ---------
        Equal data, name and notes give equal bytes. The file is written completely or not at all, and synced.
        """
        tensors: dict[str, NDArray[Any]] = {"indptr": self.indptr, "items": self.items}
        for what in ("timestamps", "file_order", "weights", "user_ids", "item_ids", "titles"):
            values = getattr(self, what)
            if values is not None:
                tensors.update(pack(what, values))
        meta = {"fastrec": f"interactions {FILE_VERSION}", "name": self.name, "notes": json.dumps(self.notes)}
        write_tensors(path, tensors, meta, checksum=True)
        return Path(path)

    @staticmethod
    def open(path: str | os.PathLike[str], *, mmap: bool = True) -> Interactions:
        """Open what ``save`` wrote; with ``mmap`` the arrays stay on disk until touched.

        Raises
        ------
        DataError
            If the file is missing, damaged in any bit, or something else.

        Cost
        ----
        One pass over the file for its checksum, in threads (about 1.2 GB/s each), and one over the CSR; no copy.
        """
        path = Path(path)
        sweep(path.parent, re.escape(path.name))
        tensors, meta = map_safetensors(path, mmap=mmap)
        version = meta.get("fastrec")
        if version not in (f"interactions {FILE_VERSION}", "interactions 1"):
            raise DataError(f"{path}: not a saved Interactions file of version {FILE_VERSION} (found {shown(version)})")
        try:
            expect(meta, _META if version == "interactions 1" else _META | {"checksum": str}, "header")
            notes = parse_json(meta["notes"])
            expect(notes, [str], "notes")
            return Interactions(**from_tensors(tensors), name=meta["name"], notes=tuple(notes))
        except ValueError as error:
            raise DataError(f"{path}: not a complete saved Interactions file ({error}); save it again") from None
