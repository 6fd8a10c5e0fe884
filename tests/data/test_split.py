"""Splits: every interaction in exactly one part, the rule kept, the draw addressed, nothing leaked."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec.data import Interactions, Split, add_validation, has_split, leave_one_out, ratio_split, time_split
from fastrec.data.split import from_parts
from fastrec.errors import ConfigError, DataError
from fastrec.sampling.philox import TAG_VALIDATION
from tests.helpers.cases import examples

LOG = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 12), st.integers(0, 5)), min_size=1, max_size=80)
PARTS = ("train", "validation", "test")


def build(rows: list[tuple[int, int, int]]) -> Interactions:
    return Interactions.from_arrays(*(np.array(c) for c in zip(*rows)))


def pairs(x: Interactions) -> set[tuple[int, int]]:
    return set(zip(x.users.tolist(), x.items.tolist()))


def check_partition(x: Interactions, split: Split) -> None:
    """Each interaction in exactly one part, with its own time; ids shared."""
    assert sum(getattr(split, p).n_interactions for p in PARTS) == x.n_interactions
    assert set().union(*(pairs(getattr(split, p)) for p in PARTS)) == pairs(x)
    times = dict(
        zip(zip(x.users.tolist(), x.items.tolist()), x.timestamps.tolist() if x.timestamps is not None else [])
    )
    for part in (split.train, split.validation, split.test):
        assert part.user_ids is x.user_ids
        assert part.item_ids is x.item_ids
        assert (part.n_users, part.n_items) == (x.n_users, x.n_items) == (split.n_users, split.n_items)
        if x.timestamps is not None:
            assert part.timestamps is not None
            assert [times[p] for p in zip(part.users.tolist(), part.items.tolist())] == part.timestamps.tolist()


@examples(200)
@given(LOG, st.sampled_from([0.0, 0.1, 0.25, 0.9]), st.integers(0, 2**32 - 1))
def test_leave_one_out_takes_the_last_of_each_user(rows: list, fraction: float, seed: int) -> None:
    x = build(rows)
    split = leave_one_out(x, validation=fraction, seed=seed)
    check_partition(x, split)
    assert x.file_order is not None
    assert x.timestamps is not None
    alone = 0
    for u in range(x.n_users):
        row = range(int(x.indptr[u]), int(x.indptr[u + 1]))
        last = max(row, key=lambda e: (x.timestamps[e], x.file_order[e]))  # type: ignore[index]
        alone += len(row) == 1
        assert split.test.row(u).tolist() == ([int(x.items[last])] if len(row) > 1 else [])
        rest = len(row) - (len(row) > 1)
        assert split.validation.degrees[u] == min(-int(-(round(fraction * 100) * rest) // 100), rest - 1)
    assert split.notes == ((f"{alone} users with one interaction stay in train, not in test",) if alone else ())
    assert split.how == "leave-one-out"
    assert not split.comparable


def test_ties_in_time_go_to_the_later_row_of_the_file() -> None:
    x = Interactions.from_arrays([1, 1, 1, 1], [4, 9, 2, 7], [5, 8, 8, 1])
    assert x.item_ids[leave_one_out(x).test.items].tolist() == [2]
    x = Interactions.from_arrays([1, 1, 1, 1], [4, 2, 9, 7], [5, 8, 8, 1])
    assert x.item_ids[leave_one_out(x).test.items].tolist() == [9]


def test_users_with_one_interaction_stay_in_train_and_are_counted() -> None:
    split = leave_one_out(Interactions.from_arrays([1, 2, 2, 3], [1, 1, 2, 3], [1, 2, 3, 4]))
    assert split.test.degrees.tolist() == [0, 1, 0]
    assert split.train.degrees.tolist() == [1, 1, 1]
    assert split.notes == ("2 users with one interaction stay in train, not in test",)


def test_a_user_with_two_interactions_keeps_one_in_train() -> None:
    split = leave_one_out(Interactions.from_arrays([1, 1], [1, 2], [1, 2]), validation=0.9)
    assert [getattr(split, p).n_interactions for p in PARTS] == [1, 0, 1]


def test_leave_one_out_without_timestamps_names_the_ratio_split() -> None:
    x = Interactions.from_arrays([1, 1], [1, 2])
    with pytest.raises(
        DataError, match=r"there are no timestamps; use the ratio split \(--split ratio; fastrec\.ratio_split\)"
    ):
        leave_one_out(x)
    with pytest.raises(DataError, match="the time split needs timestamps"):
        time_split(x)


@pytest.mark.parametrize("rule", [leave_one_out, ratio_split])
def test_seeds_change_the_draw_and_nothing_else_does(rule: Callable[..., Split], rng: np.random.Generator) -> None:
    x = Interactions.from_arrays(rng.integers(0, 50, 3000), rng.integers(0, 400, 3000), np.arange(3000))
    drawn = {seed: rule(x, seed=seed).validation for seed in (0, 1, 42, 2**32 - 1)}
    assert len({d.fingerprint() for d in drawn.values()}) == 4
    assert len({rule(x, seed=seed).test.fingerprint() for seed in drawn}) == (4 if rule is ratio_split else 1)
    assert rule(x, seed=42).validation.fingerprint() == rule(x).validation.fingerprint() == drawn[42].fingerprint()
    with pytest.raises(ConfigError, match="split seed -1"):
        rule(x, seed=-1)


@pytest.mark.parametrize("rule", [leave_one_out, ratio_split])
def test_one_and_more_threads_draw_the_same(
    rule: Callable[..., Split], rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = Interactions.from_arrays(rng.integers(0, 2000, 60_000), rng.integers(0, 999, 60_000), np.arange(60_000))
    prints = set()
    for threads in (1, 2, 7):
        monkeypatch.setattr("fastrec.data.split.available_threads", lambda t=threads: t)
        split = rule(x)
        prints.add((split.train.fingerprint(), split.validation.fingerprint(), split.test.fingerprint()))
    assert len(prints) == 1


def philox(counter: tuple[int, int, int, int], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 in plain integers, after the paper."""
    c, k, low = list(counter), list(key), 0xFFFFFFFF
    for _ in range(10):
        p, q = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(q >> 32) ^ c[1] ^ k[0], q & low, (p >> 32) ^ c[3] ^ k[1], p & low]
        k = [(k[0] + 0x9E3779B9) & low, (k[1] + 0xBB67AE85) & low]
    return c


def test_the_validation_draw_is_where_its_address_says() -> None:
    """The address is a promise: a change of what is drawn here is a new STREAM_VERSION."""
    assert philox((0, 0, 0, 0), (0, 0))[0] == 0x6627E8D5
    x = Interactions.from_arrays(np.repeat([3, 4], 21), np.tile(np.arange(21), 2), np.tile(np.arange(21), 2))
    split = leave_one_out(x, validation=0.2, seed=42)
    drawn = [split.validation.row(u).tolist() for u in (0, 1)]
    for u in (0, 1):
        words = [philox((e, u, 0, 0), (42, TAG_VALIDATION)) for e in range(20)]  # item 20 is the test item
        keys = [w[1] << 32 | w[0] for w in words]
        assert drawn[u] == sorted(sorted(range(20), key=keys.__getitem__)[:4])
    assert drawn == [[6, 9, 11, 15], [9, 11, 16, 19]]


@pytest.mark.parametrize("fraction", ["0.07", "0.1", "0.14", "0.28", "0.29", "0.55", "0.57", "0.58"])
def test_a_fraction_is_rounded_up_in_decimals(fraction: str) -> None:
    """.07 * 100 is 7.000000000000001 in floats; the ceiling must not make 8 of it."""
    degrees = np.arange(2, 301)
    users = np.repeat(degrees, degrees)
    items = np.concatenate([np.arange(d) for d in degrees])
    split = ratio_split(Interactions.from_arrays(users, items), test=float(fraction), validation=0.0)
    expected = [min(math.ceil(Fraction(fraction) * int(d)), int(d) - 1) for d in degrees]
    assert split.test.degrees.tolist() == expected


def test_the_validation_draw_is_uniform() -> None:
    """Each of 20 positions is drawn twice in 20 by 10 %: chi-square over 20,000 users."""
    n_users, n = 20_000, 20
    x = Interactions.from_arrays(np.repeat(np.arange(n_users), n), np.tile(np.arange(n), n_users))
    counts = ratio_split(x, test=0.1, validation=0.1).test.item_counts()
    expected = n_users * 2 / n
    assert counts.sum() == n_users * 2
    assert ((counts - expected) ** 2 / (expected * 0.9)).sum() < 45  # chi-square with 19 degrees: p about .0007


@examples(200)
@given(LOG, st.sampled_from([0.1, 0.2, 0.5, 0.99]), st.sampled_from([0.0, 0.1, 0.6]))
def test_ratio_split_gives_each_user_its_fraction(rows: list, test: float, validation: float) -> None:
    x = build(rows)
    split = ratio_split(replace(x, timestamps=None), test=test, validation=validation)
    check_partition(replace(x, timestamps=None), split)
    n = x.degrees
    in_test = np.minimum(-(-(round(test * 100) * n) // 100), n - 1)
    rest = n - in_test
    assert np.array_equal(split.test.degrees, in_test)
    assert np.array_equal(split.validation.degrees, np.minimum(-(-(round(validation * 100) * rest) // 100), rest - 1))
    assert split.train.degrees.min() >= 1


@examples(200)
@given(LOG, st.sampled_from([0.1, 0.2, 0.5]), st.sampled_from([0.0, 0.1, 0.5]))
def test_time_split_never_trains_on_what_comes_later(rows: list, test: float, validation: float) -> None:
    x = build(rows)
    assert x.timestamps is not None
    least = np.sort(x.timestamps)[x.n_interactions - max(1, -int(-(round(test * 100) * x.n_interactions) // 100))]
    if x.timestamps.min() == least:  # what shares the instant of the cut goes to test too
        with pytest.raises(DataError, match="nothing is left for train"):
            time_split(x, test=test, validation=validation)
        return
    rest = np.sort(x.timestamps[x.timestamps < least])
    if validation and rest[rest.size - max(1, -int(-(round(validation * 100) * rest.size) // 100))] == rest[0]:
        with pytest.raises(DataError, match="nothing is left for train"):
            time_split(x, test=test, validation=validation)
        return
    split = time_split(x, test=test, validation=validation)
    check_partition(x, split)
    assert split.test.n_interactions >= test * x.n_interactions - 1e-9
    later = split.test.timestamps
    for earlier in (split.train, split.validation):
        if earlier.n_interactions:
            assert earlier.timestamps.max() < later.min()  # type: ignore[union-attr]
    if split.validation.n_interactions:
        assert split.train.timestamps.max() < split.validation.timestamps.min()  # type: ignore[union-attr]


def test_time_split_counts_the_cold() -> None:
    x = Interactions.from_arrays([1, 1, 1, 1, 2], [1, 2, 3, 4, 9], [1, 2, 3, 4, 5])
    split = time_split(x, test=0.2, validation=0.0)
    assert split.test.user_ids[split.test.users].tolist() == [2]
    assert split.notes == (
        "1 users of the test part have no interaction in train",
        "1 items of the test part have no interaction in train",
    )


@pytest.mark.parametrize("fraction", [-0.1, 1.0, 1.5, float("nan")])
def test_fractions_out_of_range_are_refused(fraction: float) -> None:
    x = Interactions.from_arrays([1, 1, 1], [1, 2, 3], [1, 2, 3])
    for split in (
        lambda: leave_one_out(x, validation=fraction),
        lambda: ratio_split(x, test=fraction),
        lambda: time_split(x, validation=fraction),
    ):
        with pytest.raises(ConfigError, match="a fraction of the interactions"):
            split()
    for rule in (ratio_split, time_split):
        with pytest.raises(ConfigError, match="test=0: a split needs test interactions"):
            rule(x, test=0)


def test_add_validation_takes_from_train_only() -> None:
    x = Interactions.from_arrays(np.repeat([1, 2], 20), np.tile(np.arange(20), 2), np.tile(np.arange(20), 2))
    bare = leave_one_out(x, validation=0.0)
    carved = add_validation(bare)
    check_partition(x, carved)
    assert carved.test is bare.test
    assert carved.validation.degrees.tolist() == [2, 2]
    assert add_validation(carved) is carved
    assert add_validation(bare, validation=0.0).validation.n_interactions == 0


def test_a_split_that_leaks_is_refused() -> None:
    x = Interactions.from_arrays([1, 1, 2], [1, 2, 2], [1, 2, 3])
    nothing = x.keep(np.zeros(3, bool))
    for a, b in (("train", "test"), ("train", "validation"), ("validation", "test")):
        parts = {part: x if part in (a, b) else nothing for part in PARTS}
        with pytest.raises(DataError, match=f"user 1 has item 1 in {a} and in {b}"):
            Split(**parts)
    other = Interactions.from_arrays([1, 1, 3], [1, 2, 2], [1, 2, 3])
    with pytest.raises(DataError, match="train and test differ in user_ids"):
        Split(nothing, nothing, other)
    fewer = Interactions.from_arrays([1, 2], [1, 1])
    with pytest.raises(DataError, match="train and test differ in item_ids"):
        Split(nothing, nothing, fewer)


def test_candidates_must_fit_the_test_pairs() -> None:
    x = Interactions.from_arrays([1, 1, 2], [1, 2, 2], [1, 2, 3])
    parts = np.array([0, 2, 0], np.uint8)
    assert from_parts(x, parts, "by hand", candidates=np.array([[0, -1]], np.int32)).candidates is not None
    for candidates, says in (
        (np.zeros((2, 3), np.int32), r"int32\[2, 3\], but must be int32 with one row for each of the 1"),
        (np.zeros((1, 3), np.int64), "int64"),
        (np.full((1, 3), 2, np.int32), "candidates run from 2 to 2, but there are 2 items"),
        (np.full((1, 3), -2, np.int32), "candidates run from -2"),
    ):
        with pytest.raises(DataError, match=says):
            from_parts(x, parts, "by hand", candidates=candidates)


def test_synthetic_names_bring_no_split() -> None:
    assert not has_split("synthetic-small")
    with pytest.raises(DataError, match="no-such-set"):
        has_split("no-such-set")
