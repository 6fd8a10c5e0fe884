"""A split that grows by newer interactions: users and items keep their numbers, what was trained on stays in train.

U users, I items, E interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.data.arrays import frozen
from fastrec.data.csr_build import core_mask
from fastrec.data.interactions import Interactions
from fastrec.data.split import TEST, TRAIN, VALIDATION, Split, from_parts
from fastrec.errors import DataError

PARTS = {TRAIN: "train", VALIDATION: "validation", TEST: "test"}
_NEW = 255


class Grown(NamedTuple):
    """A grown split, and what happened on the way."""

    split: Split
    untrained: NDArray[np.int64]
    """CSR indices, ascending, of the training positives that the earlier run did not train on."""
    counts: dict[str, int]
    """``new_pairs``, ``merged``, ``kept_in_train``, ``outside_core``, ``new_users``, ``new_items``."""


class _Union(NamedTuple):
    """The pairs of both, in the order of a CSR over the new numbering."""

    users: NDArray[np.int32]
    items: NDArray[np.int32]
    parts: NDArray[np.uint8]
    """The part that the earlier split gave a pair, or ``_NEW``."""
    times: NDArray[np.int64] | None
    order: NDArray[np.int64]
    """For ties in time: earlier pairs before new ones, of those the test pairs last; else rows of the new log."""
    weights: NDArray[np.float32] | None
    merged: int
    """Pairs of the new log that the earlier split has too."""
    undated: int
    """Earlier pairs whose time is in neither."""


def grow(
    earlier: Split,
    new: Interactions,
    cut: Callable[[Interactions], Split] | None,
    *,
    k_core: int = 0,
    keep_items: bool = False,
    needs_times: bool = False,
) -> Grown:
    """Join a split with a log that continues it, and split the result by the same rule.

    Parameters
    ----------
    earlier : Split
        With times, where there are any.
    new : Interactions
        The complete log or only what came since, numbered by ``load(..., ids=earlier)``.
    cut : callable, optional
        The rule. None leaves every earlier pair in its part and puts new ones into train.
    k_core : int
        New users and items outside the k-core are left out; earlier ones always stay.
    keep_items : bool
        Keep the numbers of new items without interactions.
    needs_times : bool
        Whether ``cut`` reads times.

    Raises
    ------
    DataError
        If ``new`` is not numbered as ``earlier``, or times are needed and missing.

    Guarantee
    ---------
    Every pair of ``earlier.train`` is in the train part of the result. Of a pair that both have, the later time counts.
    """
    _check_ids(earlier, new)
    union = _join(earlier, new)
    name = new.name if union.merged == _size(earlier) else earlier.train.name.removesuffix(" train")
    if needs_times and union.times is None:
        raise DataError(_undated(earlier, new, union))
    made, parts, outside = _interactions(earlier, new, union, name, k_core, keep_items)
    counts = {
        "new_pairs": int((parts == _NEW).sum()),
        "merged": union.merged,
        "outside_core": outside,
        "new_users": made.n_users - earlier.n_users,
        "new_items": made.n_items - earlier.n_items,
    }
    held, notes, how, counts["kept_in_train"] = _cut(earlier, made, parts, cut)
    read = [note for note in new.notes if not note.startswith("ids as in ")]  # which counts users that are not new
    made = replace(made, notes=(*read, *_said(counts, k_core, new.name)))
    untrained = np.flatnonzero((parts != TRAIN)[held == TRAIN])
    return Grown(from_parts(made, held, how, notes=notes), untrained, counts)


def _cut(
    earlier: Split, made: Interactions, parts: NDArray[np.uint8], cut: Callable[[Interactions], Split] | None
) -> tuple[NDArray[np.uint8], tuple[str, ...], str, int]:
    """The part of each pair, notes, the rule's name, and how many pairs stay in train against the rule."""
    if cut is None:
        return np.where(parts == _NEW, TRAIN, parts).astype(np.uint8), _replaced_candidates(earlier), earlier.how, 0
    split = cut(made)
    held = parts_of(made, split)
    against = (parts == TRAIN) & (held != TRAIN)
    held[against] = TRAIN
    return held, split.notes, split.how, int(against.sum())


def parts_of(interactions: Interactions, split: Split) -> NDArray[np.uint8]:
    """uint8[E]: the part that a split of these interactions gave each of them."""
    parts = np.full(interactions.n_interactions, TRAIN, np.uint8)
    keys = _keys(interactions.users, interactions.items, interactions.n_items)
    for number in (VALIDATION, TEST):
        part = getattr(split, PARTS[number])
        parts[np.searchsorted(keys, _keys(part.users, part.items, interactions.n_items))] = number
    return parts


def _keys(users: NDArray[Any], items: NDArray[Any], n_items: int) -> NDArray[np.int64]:
    keys: NDArray[np.int64] = users.astype(np.int64) * n_items + items
    return keys


def _size(split: Split) -> int:
    return sum(getattr(split, name).n_interactions for name in PARTS.values())


def _check_ids(earlier: Split, new: Interactions) -> None:
    for what in ("user_ids", "item_ids"):
        old, now = getattr(earlier.train, what), getattr(new, what)
        if now.size < old.size or not np.array_equal(now[: old.size], old):
            raise DataError(
                f"{new.name}: its {what} do not begin with those of {earlier.train.name}; number it by "
                "fastrec.load(..., ids=RUN)"
            )


def _join(earlier: Split, new: Interactions) -> _Union:
    sources = [getattr(earlier, name) for name in PARTS.values()]
    n_items = new.n_items
    keys = np.concatenate([_keys(p.users, p.items, n_items) for p in sources])
    at = np.argsort(keys, kind="stable")  # each part's keys ascend: a stable sort merges three runs
    keys, parts = keys[at], np.repeat(np.array(list(PARTS), np.uint8), [p.n_interactions for p in sources])[at]
    own = _keys(new.users, new.items, n_items)
    place = np.searchsorted(keys, own)
    shared = place < keys.size
    shared[shared] = keys[place[shared]] == own[shared]
    fresh, place = ~shared, place[shared]
    rows = np.arange(own.size) if new.file_order is None else new.file_order.astype(np.int64)
    order = (parts == TEST).astype(np.int64)
    order[place] = 2 + rows[shared]
    times, undated = _times(sources, new, at, place, shared)
    every = np.concatenate((keys, own[fresh]))
    back = np.argsort(every, kind="stable")
    every = every[back]
    new_parts = np.full(int(fresh.sum()), _NEW, np.uint8)
    return _Union(
        (every // n_items).astype(np.int32),
        (every % n_items).astype(np.int32),
        np.concatenate((parts, new_parts))[back],
        None if times is None else np.concatenate((times, new.timestamps[fresh]))[back],  # type: ignore[index]
        np.concatenate((order, 2 + rows[fresh]))[back],
        _weights(sources, new, at, place, shared, back),
        int(place.size),
        undated,
    )


def _weights(
    sources: list[Interactions], new: Interactions, at: Any, place: Any, shared: Any, back: Any
) -> NDArray[np.float32] | None:
    """Weights of all pairs, 1 where there are none; of a pair in both logs that of the new one. None without any."""
    if all(p.weights is None for p in (*sources, new)):
        return None
    ones = [np.ones(p.n_interactions, np.float32) if p.weights is None else p.weights for p in (*sources, new)]
    joined = np.concatenate(ones[:-1])[at]
    if new.weights is not None:
        joined[place] = new.weights[shared]
    every: NDArray[np.float32] = np.concatenate((joined, ones[-1][~shared]))[back]
    return every


def _times(
    sources: list[Interactions], new: Interactions, at: NDArray[Any], place: NDArray[Any], shared: NDArray[np.bool_]
) -> tuple[NDArray[np.int64] | None, int]:
    """Times of the earlier pairs, None unless all pairs of both have one; and how many earlier pairs lack theirs."""
    if new.timestamps is None:
        return None, 0
    if all(p.timestamps is not None for p in sources):
        times: NDArray[np.int64] = np.concatenate([p.timestamps for p in sources])[at]
        times[place] = np.maximum(times[place], new.timestamps[shared])
        return times, 0
    if place.size == at.size:  # the complete log has them all
        return new.timestamps[shared], 0
    return None, at.size - place.size


def _undated(earlier: Split, new: Interactions, union: _Union) -> str:
    if new.timestamps is None:
        return (
            f"{new.name}: has no times, and the split rule of the run needs them; name its time column with --time-col"
        )
    return (
        f"{new.name}: lacks {union.undated:,} interactions of {earlier.train.name}, whose times the run does not keep "
        "(an earlier fastrec made it); give the complete log"
    )


def _interactions(
    earlier: Split, new: Interactions, union: _Union, name: str, k_core: int, keep_items: bool
) -> tuple[Interactions, NDArray[np.uint8], int]:
    """The joined log without new users and items outside the core, the part of each pair, and the pairs left out."""
    indptr = np.searchsorted(union.users, np.arange(new.n_users + 1)).astype(np.int64)
    made = Interactions(
        frozen(indptr),
        frozen(union.items),
        new.user_ids,
        new.item_ids,
        None if union.times is None else frozen(union.times),
        frozen(union.order),
        None if union.weights is None else frozen(union.weights),
        new.titles,
        new.catalog,
        name,
    )
    if k_core <= 1:
        return made, union.parts, 0
    old = {"keep_users": earlier.n_users, "keep_items": earlier.n_items}
    mask = core_mask(made.indptr, made.items, made.n_items, k_core, **old)
    outside = int(mask.size - mask.sum())
    if not outside:
        return made, union.parts, 0
    made = made.keep(mask)
    users = (np.arange(made.n_users) < earlier.n_users) | (made.degrees > 0)
    items = (np.arange(made.n_items) < earlier.n_items) | (made.item_counts() > 0) | keep_items
    numbers = np.cumsum(items) - 1
    made = replace(
        made,
        indptr=np.concatenate((made.indptr[:-1][users], made.indptr[-1:])),
        items=frozen(numbers.astype(np.int32)[made.items]),
        user_ids=made.user_ids[users],
        item_ids=made.item_ids[items],
        titles=None if made.titles is None else made.titles[items],
    )
    return made, union.parts[mask], outside


def _replaced_candidates(earlier: Split) -> tuple[str, ...]:
    if earlier.candidates is None:
        return ()
    name = earlier.train.name
    return (f"the candidates that came with {name} are replaced by drawn ones, since new interactions may be in them",)


def _said(counts: dict[str, int], k_core: int, name: str) -> tuple[str, ...]:
    """What happened, with counts, for records."""
    new = ", ".join(f"{counts[f'new_{w}']:,} new {w}" for w in ("users", "items"))
    notes = [
        f"{name}: {counts['new_pairs']:,} new interactions, {new}; {counts['merged']:,} that the run has are merged"
    ]
    if counts["kept_in_train"]:
        notes.append(
            f"{counts['kept_in_train']:,} interactions that the parent trained on stay in train, where the split rule "
            "would hold them out"
        )
    if counts["outside_core"]:
        notes.append(
            f"{counts['outside_core']:,} interactions of new users and items outside the {k_core}-core left out"
        )
    return tuple(notes)
