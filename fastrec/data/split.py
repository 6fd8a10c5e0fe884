"""Splits of a log into train, validation and test that share users, items and id maps. Needs no Polars.

U users, I items, E interactions.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_float, as_int
from fastrec.data.interactions import Interactions
from fastrec.data.split_kernels import draw_keys, first_shared, mark_fraction, mark_last
from fastrec.errors import ConfigError, DataError
from fastrec.jit import available_threads, run_ranges
from fastrec.sampling.philox import TAG_VALIDATION

TRAIN, VALIDATION, TEST = 0, 1, 2
"""The part of an interaction, as ``Split.parts`` and run folders number it."""

_VALIDATION_DRAW, _TEST_DRAW = 0, 1  # the epoch word of the address: the two draws of one split are independent


@dataclass(frozen=True, eq=False)
class Split:
    """Three disjoint logs over the same users and items.

    Parameters
    ----------
    train, validation, test : Interactions
        Equal ``n_users``, ``n_items``, ``user_ids`` and ``item_ids``; validation may be empty.
    how : str
        The rule that made it, for records: "leave-one-out", "ratio", "time", or the files it came from.
    candidates : int32[T, C], optional
        Items to rank each of the T test pairs against, rows in CSR order of ``test``; short rows end in -1.
    comparable : bool
        Whether test and candidates are the NCF paper's own, so that its tables are comparable with the result.
    notes : tuple of str
        What was left out or stayed in train, each with a count.

    Raises
    ------
    DataError
        If the parts do not share their id maps, overlap, or candidates do not fit the test pairs.
    """

    train: Interactions
    validation: Interactions
    test: Interactions
    how: str = "given"
    candidates: NDArray[np.int32] | None = None
    comparable: bool = False
    notes: tuple[str, ...] = field(default=())

    def __post_init__(self) -> None:
        for name in ("validation", "test"):
            part = getattr(self, name)
            for ids in ("user_ids", "item_ids"):
                ours, theirs = getattr(self.train, ids), getattr(part, ids)
                if ours is not theirs and not np.array_equal(ours, theirs):
                    raise DataError(f"{self.how}: train and {name} differ in {ids}; number them together first")
        for a, b in (("train", "validation"), ("train", "test"), ("validation", "test")):
            one, two = getattr(self, a), getattr(self, b)
            user = first_shared(one.indptr, one.items, two.indptr, two.items)
            if user >= 0:
                item = int(np.intersect1d(one.row(user), two.row(user))[0])
                raise DataError(
                    f"{self.how}: user {one.user_ids[user]} has item {one.item_ids[item]} in {a} and in {b}; "
                    "an interaction belongs to one part. For files, --drop-overlap (drop_overlap=True) leaves it out "
                    f"of {b}"
                )
        c = self.candidates
        if c is not None and (c.ndim != 2 or c.shape[0] != self.test.n_interactions or c.dtype != np.int32):
            raise DataError(
                f"{self.how}: candidates are {c.dtype}{list(c.shape)}, but must be int32 with one row for each of the "
                f"{self.test.n_interactions} test pairs"
            )

        if c is not None and c.size and (c.max() >= self.n_items or c.min() < -1):
            raise DataError(
                f"{self.how}: candidates run from {c.min()} to {c.max()}, but there are {self.n_items} items"
            )

    def __repr__(self) -> str:
        sizes = ", ".join(f"{part} {getattr(self, part).n_interactions}" for part in ("train", "validation", "test"))
        return f"Split({self.how}: {sizes}; {self.n_users} users x {self.n_items} items)"

    @property
    def n_users(self) -> int:
        """Number of users U, the same in every part."""
        return self.train.n_users

    @property
    def n_items(self) -> int:
        """Number of items I, the same in every part."""
        return self.train.n_items


def _fraction(name: str, value: float) -> float:
    value = as_float(name, value)
    if not 0 <= value < 1:
        raise ConfigError(f"{name}={value}: a fraction of the interactions, from 0 (none) to below 1")
    return value


def _draw(
    interactions: Interactions, parts: NDArray[np.uint8], fraction: float, part: int, epoch: int, seed: int
) -> None:
    seed = as_int("split seed", seed)
    if not 0 <= seed < 2**32:
        raise ConfigError(f"split seed {seed}: must be in 0 to {2**32 - 1}")
    if fraction == 0:
        return
    key = np.empty(parts.size, np.uint64)
    threads = available_threads()
    csr = (interactions.indptr, interactions.items)
    run_ranges(
        lambda lo, hi: draw_keys(*csr, key, epoch, seed, TAG_VALIDATION, lo, hi),
        interactions.n_users,
        threads,
        grain=256,
    )
    run_ranges(
        lambda lo, hi: mark_fraction(interactions.indptr, parts, key, fraction, part, lo, hi),
        interactions.n_users,
        threads,
        grain=256,
    )


def _dated(interactions: Interactions) -> str:
    """Names the columns of dates that the source has and nothing reads."""
    unused = getattr(interactions.catalog, "unused", {})
    names = [name for name, looks in unused.items() if looks == "time"]
    return f"; column {names[0]!r} holds dates: --time-col {names[0]} (from Python time_col=)" if names else ""


def from_parts(interactions: Interactions, parts: NDArray[np.uint8], how: str, **fields: Any) -> Split:
    """The split that gives each interaction the part numbered TRAIN, VALIDATION or TEST in uint8[E]."""
    name = interactions.name
    return Split(
        train=interactions.keep(parts == TRAIN, name=f"{name} train"),
        validation=interactions.keep(parts == VALIDATION, name=f"{name} validation"),
        test=interactions.keep(parts == TEST, name=f"{name} test"),
        how=how,
        **fields,
    )


def everything(interactions: Interactions) -> Split:
    """Every interaction in train: nothing is held out, so nothing can be measured."""
    return from_parts(interactions, np.zeros(interactions.n_interactions, np.uint8), "none")


def leave_one_out(interactions: Interactions, validation: float = 0.1, seed: int = 42) -> Split:
    """Each user's last interaction to test, a drawn fraction of the rest to validation.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    validation : float
        Fraction of each user's remaining n interactions: ceil(validation * n) of them, but at least one stays in train.
    seed : int
        Split seed of that draw, 0 to 2^32-1.

    Returns
    -------
    Split
        One test pair for each user of two or more interactions. Users with one keep it in train; ``notes`` counts them.

    Raises
    ------
    DataError
        If there are no timestamps.
    ConfigError
        If ``validation`` is not in [0, 1) or ``seed`` is out of range.

    Guarantee
    ---------
    A pure function of the data, ``validation`` and ``seed``. Ties in time go to the later row of the file.
    The draw orders each row by a number addressed by (seed, user, item) under TAG_VALIDATION: other users' rows do not
    matter.

    Cost
    ----
    O(E), about 0.1 microsecond an interaction.
    """
    if interactions.timestamps is None:
        raise DataError(
            f"{interactions.name}: leave-one-out takes each user's last interaction, but there are no timestamps; use "
            "the ratio split (--split ratio; fastrec.ratio_split), or load a log with a time column"
            + _dated(interactions)
        )
    fraction = _fraction("validation", validation)
    parts = np.zeros(interactions.n_interactions, np.uint8)
    order = interactions.file_order
    order = np.arange(parts.size, dtype=np.int64) if order is None else order
    mark_last(interactions.indptr, interactions.timestamps, order, parts)
    _draw(interactions, parts, fraction, VALIDATION, _VALIDATION_DRAW, seed)
    alone = int((interactions.degrees == 1).sum())
    notes = (f"{alone} users with one interaction stay in train, not in test",) if alone else ()
    return from_parts(interactions, parts, "leave-one-out", notes=notes)


def ratio_split(interactions: Interactions, test: float = 0.2, validation: float = 0.1, seed: int = 42) -> Split:
    """A drawn fraction of each user's interactions to test, then of the rest to validation; needs no timestamps.

    Parameters
    ----------
    interactions : Interactions
        The log.
    test, validation : float
        Of a user's n interactions ceil(test * n) go to test, of the m that remain ceil(validation * m) to validation;
        at least one stays in train.
    seed : int
        Split seed of both draws, 0 to 2^32-1.

    Returns
    -------
    Split
        ``notes`` counts the users that have too few interactions for a test pair.

    Raises
    ------
    ConfigError
        If a fraction is outside [0, 1), ``test`` is 0, or ``seed`` is out of range.

    Guarantee
    ---------
    A pure function of the fractions, ``seed`` and, for each user, of its own row.
    """
    if _fraction("test", test) == 0:
        raise ConfigError("test=0: a split needs test interactions; give a fraction above 0")
    parts = np.zeros(interactions.n_interactions, np.uint8)
    _draw(interactions, parts, test, TEST, _TEST_DRAW, seed)
    _draw(interactions, parts, _fraction("validation", validation), VALIDATION, _VALIDATION_DRAW, seed)
    alone = int((interactions.degrees == 1).sum())
    notes = (f"{alone} users with one interaction stay in train, not in test",) if alone else ()
    return from_parts(interactions, parts, "ratio", notes=notes)


def time_split(interactions: Interactions, test: float = 0.2, validation: float = 0.1) -> Split:
    """The latest fraction of all interactions to test, the latest of the rest to validation: one clock for all users.

    Parameters
    ----------
    interactions : Interactions
        With timestamps.
    test, validation : float
        Least fraction of all interactions in test, and of the rest in validation; interactions of one instant stay
        together, so a part may be larger.

    Returns
    -------
    Split
        No interaction in test is earlier than one in train. ``notes`` counts test users and items unseen in train.

    Raises
    ------
    DataError
        If there are no timestamps, or too few distinct ones to cut.
    ConfigError
        If a fraction is outside [0, 1) or ``test`` is 0.
    """
    times = interactions.timestamps
    if times is None:
        raise DataError(
            f"{interactions.name}: the time split needs timestamps and there are none; use the ratio split "
            "(--split ratio; fastrec.ratio_split), or load a log with a time column" + _dated(interactions)
        )
    if _fraction("test", test) == 0:
        raise ConfigError("test=0: a split needs test interactions; give a fraction above 0")
    fraction = _fraction("validation", validation)
    parts = np.zeros(times.size, np.uint8)
    parts[times >= _cut(times, test)] = TEST
    rest = times[parts == TRAIN]
    if fraction > 0 and rest.size:
        parts[(parts == TRAIN) & (times >= _cut(rest, fraction))] = VALIDATION
    if not (parts == TRAIN).any():
        raise DataError(
            f"{interactions.name}: nothing is left for train, because {times.size} interactions share "
            f"{np.unique(times).size} distinct times; take smaller fractions, or the ratio split"
        )
    split = from_parts(interactions, parts, "time")
    return replace(split, notes=unseen_in_train(split.train, split.test))


def unseen_in_train(train: Interactions, test: Interactions) -> tuple[str, ...]:
    """Notes that count the users and items of the test part that have no interaction in train."""
    users = int(((test.degrees > 0) & (train.degrees == 0)).sum())
    items = int(((test.item_counts() > 0) & (train.item_counts() == 0)).sum())
    said = ((users, "users"), (items, "items"))
    return tuple(f"{count} {what} of the test part have no interaction in train" for count, what in said if count)


def _cut(times: NDArray[np.int64], fraction: float) -> int:
    """The time from which on there are at least ``fraction`` of the interactions."""
    k = times.size - max(1, int(np.ceil(fraction * times.size - 1e-9)))
    return int(np.partition(times, k)[k])


def add_validation(split: Split, validation: float = 0.1, seed: int = 42) -> Split:
    """Take a validation part out of train, as ``leave_one_out`` does; a split that has one is given back as it is.

    Raises
    ------
    ConfigError
        If ``validation`` is not in [0, 1) or ``seed`` is out of range.
    """
    if split.validation.n_interactions:
        return split
    parts = np.zeros(split.train.n_interactions, np.uint8)
    _draw(split.train, parts, _fraction("validation", validation), VALIDATION, _VALIDATION_DRAW, seed)
    return replace(
        split,
        train=split.train.keep(parts == TRAIN),
        validation=replace(split.train.keep(parts == VALIDATION), name=split.validation.name),
    )
