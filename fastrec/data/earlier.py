"""Numbering by an earlier data set: every id keeps its number, new ids follow, ids that have gone keep empty rows."""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.data.arrays import frozen
from fastrec.data.csr_build import MAX_IDS, csr_from_pairs, plain_ids, text_array
from fastrec.data.interactions import Interactions
from fastrec.data.packed import unpack
from fastrec.errors import ConfigError, DataError
from fastrec.files import map_safetensors


class Earlier(NamedTuple):
    """The id maps of an earlier data set."""

    user_ids: NDArray[Any]
    item_ids: NDArray[Any]
    titles: NDArray[Any] | None
    name: str


def earlier_ids(source: Any) -> Earlier:
    """The id maps that a source holds.

    Parameters
    ----------
    source : Interactions, Split, Run, or path
        A path names a run folder, or a file of ``Interactions.save`` or ``fastrec.runs.save_split``.

    Raises
    ------
    DataError
        If the file is missing, damaged or holds no ids, or an id is there twice.
    ConfigError
        For another kind of object.
    """
    if isinstance(source, str | os.PathLike):
        found = _from_file(Path(source))
    else:
        split = getattr(source, "split", None)  # a Run: its class is imported above this package
        held = split() if callable(split) else source
        held = getattr(held, "train", held)
        if not isinstance(held, Interactions):
            raise ConfigError(
                f"ids = a {type(source).__module__}.{type(source).__qualname__}: must be Interactions, a split, a run, "
                "or the path of a run folder or of a saved file"
            )
        found = Earlier(held.user_ids, held.item_ids, held.titles, held.name)
    for what, ids in (("user", found.user_ids), ("item", found.item_ids)):
        values, counts = np.unique(ids, return_counts=True)
        if values.size < ids.size:
            raise DataError(f"ids: {found.name} has {what} id {values[counts.argmax()]} twice; give each id one number")
    return found


def _from_file(path: Path) -> Earlier:
    file = path / "data.safetensors" if path.is_dir() else path
    tensors, _ = map_safetensors(file)
    try:
        titles = unpack("titles", tensors) if "titles.bytes" in tensors else None
        ids = [plain_ids(unpack(what, tensors), what.removesuffix("_ids")) for what in ("user_ids", "item_ids")]
    except ValueError as error:
        raise DataError(f"{file}: holds no user and item ids ({error}); name a run, or a saved data set") from None
    return Earlier(ids[0], ids[1], titles, str(path))


def numbered_as(interactions: Interactions, source: Any) -> Interactions:
    """The same interactions under the numbers of an earlier data set.

    Parameters
    ----------
    interactions : Interactions
    source : object
        See ``earlier_ids``.

    Returns
    -------
    Interactions
        An id of the earlier set keeps its number; new ids follow in ascending order; users and items that have gone
        are empty rows and columns. ``notes`` counts all three.

    Raises
    ------
    DataError
        If one set has integer ids and the other text.
    """
    earlier = earlier_ids(source)
    notes, maps = [], {}
    for what in ("user", "item"):
        old, own = getattr(earlier, f"{what}_ids"), getattr(interactions, f"{what}_ids")
        maps[what] = _extended(old, own, what, interactions.name, earlier.name)
        gone = old.size - np.isin(own, old).sum()
        notes.append(f"{maps[what].size - old.size} new {what}s, {gone} {what}s without interactions here")
    users, items = (_numbers_of(getattr(interactions, f"{what}_ids"), maps[what]) for what in ("user", "item"))
    csr = csr_from_pairs(
        users[interactions.users], items[interactions.items], maps["user"].size, maps["item"].size, None
    )
    columns: dict[str, Any] = {
        what: None if values is None else frozen(values[csr.rows])
        for what in ("timestamps", "file_order", "weights")
        for values in [getattr(interactions, what)]
    }
    titles = None
    if interactions.titles is not None or earlier.titles is not None:
        known = [str(item) for item in maps["item"].tolist()]  # as a catalogue without the title has it
        if earlier.titles is not None:
            known[: earlier.item_ids.size] = earlier.titles.tolist()
        if interactions.titles is not None:
            for item, title in zip(items.tolist(), interactions.titles.tolist()):
                known[item] = title
        titles = text_array(known)
    return replace(
        interactions,
        indptr=frozen(csr.indptr),
        items=frozen(csr.items),
        user_ids=maps["user"],
        item_ids=maps["item"],
        titles=titles,
        notes=(*interactions.notes, f"ids as in {earlier.name}: {'; '.join(notes)}"),
        **columns,
    )


def _extended(old: NDArray[Any], own: NDArray[Any], what: str, name: str, earlier: str) -> NDArray[Any]:
    """The earlier ids in their order, then those that are only in ``own``, ascending."""
    text = [ids.dtype.kind in "UO" for ids in (old, own)]
    if text[0] != text[1] and old.size and own.size:
        kinds = ["text" if t else "integers" for t in text]
        raise DataError(
            f"{name}: its {what} ids are {kinds[1]}, those of {earlier} {kinds[0]}, so none can be the same; write "
            "both alike"
        )
    new = np.setdiff1d(own, old)
    if old.size + new.size > MAX_IDS:
        raise DataError(f"{name}: {old.size} {what}s of {earlier} and {new.size} new ones: at most {MAX_IDS} fit int32")
    if text[0] or text[1]:
        return text_array([*old.tolist(), *new.tolist()])
    return np.concatenate((old, new))


def _numbers_of(own: NDArray[Any], every: NDArray[Any]) -> NDArray[np.int32]:
    """int32: the number of each own id in ``every``, which holds all of them."""
    order = np.argsort(every, kind="stable")
    return order[np.searchsorted(every, own, sorter=order)].astype(np.int32)
