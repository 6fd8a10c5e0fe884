"""A split that grows: numbers stay, the parent's training pairs stay in train, the rule is applied to the rest."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastrec.data.csr_build import core_mask
from fastrec.data.earlier import numbered_as
from fastrec.data.grown import Grown, grow, parts_of
from fastrec.data.interactions import Interactions
from fastrec.data.split import TRAIN, Split, everything, leave_one_out, ratio_split, time_split
from fastrec.errors import DataError

N = 900


def log(seed: int = 3) -> tuple[np.ndarray, ...]:
    """Users, items, times of N distinct pairs, by time; late ids come late."""
    rng = np.random.default_rng(seed)
    pairs = np.unique(np.stack([rng.integers(0, 50, 2 * N), rng.integers(0, 40, 2 * N)], 1), axis=0)
    pairs = rng.permutation(pairs)[:N]
    times = np.sort(rng.integers(0, 5_000, N))
    late = np.arange(N) > 0.8 * N
    users = np.where(late & (pairs[:, 0] < 5), pairs[:, 0] + 100, pairs[:, 0])
    return users.astype(np.int64), (pairs[:, 1] * 7).astype(np.int64), times


def made(rows: slice, **options: Any) -> Interactions:
    return Interactions.from_arrays(*(column[rows] for column in log()), name="log", **options)


OLD, EVERY, LATE = slice(0, 700), slice(0, N), slice(700, N)
RULES = {
    "loo": lambda x: leave_one_out(x, 0.2, seed=5),
    "ratio": lambda x: ratio_split(x, 0.2, 0.2, seed=5),
    "time": lambda x: time_split(x, 0.2, 0.2),
    "none": everything,
}


def pairs(x: Interactions) -> set[tuple[int, int]]:
    return set(zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist()))


def grown(rule: str, rows: slice, **options: Any) -> tuple[Split, Grown]:
    earlier = RULES[rule](made(OLD))
    return earlier, grow(earlier, numbered_as(made(rows), earlier), RULES[rule], **options)


@pytest.mark.parametrize("rule", RULES)
def test_the_complete_log_and_the_new_part_give_one_split(rule: str) -> None:
    earlier, whole = grown(rule, EVERY)
    _, part = grown(rule, LATE)
    for name in ("train", "validation", "test"):
        a, b = getattr(whole.split, name), getattr(part.split, name)
        assert a.fingerprint() == b.fingerprint(), name
        assert b.timestamps is not None
    assert whole.counts["merged"] == 700
    assert part.counts["merged"] == 0
    assert {k: v for k, v in whole.counts.items() if k != "merged"} == {
        k: v for k, v in part.counts.items() if k != "merged"
    }
    assert whole.counts["new_pairs"] == N - 700
    assert np.array_equal(whole.split.train.user_ids[: earlier.n_users], earlier.train.user_ids)
    assert whole.counts["new_users"] == whole.split.n_users - earlier.n_users > 0


@pytest.mark.parametrize("rule", RULES)
def test_what_was_trained_on_stays_in_train_and_the_rule_decides_the_rest(rule: str) -> None:
    earlier, result = grown(rule, EVERY)
    assert pairs(earlier.train) <= pairs(result.split.train)
    assert set().union(*(pairs(getattr(result.split, p)) for p in ("train", "validation", "test"))) == pairs(
        made(EVERY)
    )
    plain = RULES[rule](numbered_as(made(EVERY), earlier))
    kept = 0
    for name in ("validation", "test"):
        held, ruled = pairs(getattr(result.split, name)), pairs(getattr(plain, name))
        assert held == ruled - pairs(earlier.train), name
        kept += len(ruled & pairs(earlier.train))
    assert result.counts["kept_in_train"] == kept
    assert any(f"{kept:,} interactions that the parent trained on stay" in n for n in result.split.train.notes) == (
        kept > 0
    )
    train = result.split.train
    fresh = {(int(train.user_ids[train.users[e]]), int(train.item_ids[train.items[e]])) for e in result.untrained}
    assert fresh == pairs(train) - pairs(earlier.train)


def test_a_user_without_news_keeps_its_test_pair() -> None:
    earlier, result = grown("loo", LATE)
    quiet = set(earlier.train.user_ids.tolist()) - set(made(LATE).user_ids.tolist())
    assert quiet
    assert {p for p in pairs(earlier.test) if p[0] in quiet} == {p for p in pairs(result.split.test) if p[0] in quiet}


def test_of_a_pair_in_both_the_later_time_counts() -> None:
    earlier = RULES["none"](made(OLD))
    users, items, times = (column[:1] for column in log())
    again = Interactions.from_arrays(users, items, times + 10_000)
    result = grow(earlier, numbered_as(again, earlier), RULES["none"])
    assert (result.counts["merged"], result.counts["new_pairs"]) == (1, 0)
    assert result.split.train.timestamps.max() == times[0] + 10_000
    before = Interactions.from_arrays(users, items, times - 10_000)
    kept = grow(earlier, numbered_as(before, earlier), RULES["none"]).split.train.timestamps
    assert np.array_equal(kept, earlier.train.timestamps)


def test_the_core_drops_newcomers_only() -> None:
    earlier = RULES["none"](made(OLD, k_core=12))
    thin = int((earlier.train.degrees < 40).sum())
    assert thin, "users of the parent that a larger core would drop"
    result = grow(earlier, numbered_as(made(EVERY), earlier), RULES["none"], k_core=40)
    train = result.split.train
    assert np.array_equal(train.user_ids[: earlier.n_users], earlier.train.user_ids)
    assert pairs(earlier.train) <= pairs(train)
    assert result.counts["outside_core"] > 0
    assert "outside the 40-core left out" in train.notes[-1]
    degrees, counts = train.degrees[earlier.n_users :], train.item_counts()[earlier.train.n_items :]
    assert (degrees >= 40).all()
    assert (counts >= 40).all()
    loose = grow(earlier, numbered_as(made(EVERY), earlier), RULES["none"], k_core=3).split.train
    assert (loose.degrees[earlier.n_users :] >= 3).all()
    assert loose.n_users > train.n_users, "some newcomers are inside the 3-core"


def test_the_core_of_a_log_is_unchanged() -> None:
    x = made(EVERY)
    plain = core_mask(x.indptr, x.items, x.n_items, 15)
    assert np.array_equal(plain, core_mask(x.indptr, x.items, x.n_items, 15, keep_users=0, keep_items=0))
    assert not plain.all()
    assert core_mask(x.indptr, x.items, x.n_items, 15, keep_users=x.n_users, keep_items=x.n_items).all()


def test_a_given_split_keeps_its_parts_and_new_pairs_are_train() -> None:
    base = RULES["ratio"](made(OLD))
    earlier = replace(base, how="files", candidates=np.zeros((base.test.n_interactions, 3), np.int32), comparable=True)
    result = grow(earlier, numbered_as(made(LATE), earlier), None).split
    assert pairs(result.test) == pairs(earlier.test)
    assert pairs(result.validation) == pairs(earlier.validation)
    assert pairs(result.train) == pairs(earlier.train) | pairs(made(LATE))
    assert result.candidates is None
    assert not result.comparable
    assert "replaced by drawn ones" in result.notes[0]


def test_missing_times_are_refused_with_what_to_do() -> None:
    earlier = RULES["loo"](made(OLD))
    plain = replace(numbered_as(made(LATE), earlier), timestamps=None)
    with pytest.raises(DataError, match="has no times, and the split rule of the run needs them"):
        grow(earlier, plain, RULES["loo"], needs_times=True)
    old = Split(
        *(replace(getattr(earlier, p), timestamps=None) for p in ("train", "validation", "test")), "leave-one-out"
    )
    with pytest.raises(DataError, match=r"lacks 700 interactions of log.*give the complete log"):
        grow(old, numbered_as(made(LATE), earlier), RULES["loo"], needs_times=True)
    complete = grow(old, numbered_as(made(EVERY), earlier), RULES["loo"], needs_times=True)
    assert complete.split.test.fingerprint() == grown("loo", EVERY)[1].split.test.fingerprint()


def test_other_numbers_are_refused() -> None:
    earlier = RULES["none"](made(OLD))
    with pytest.raises(DataError, match="do not begin with those of"):
        grow(earlier, made(LATE), RULES["none"])


def test_the_parts_of_a_split_are_found_again() -> None:
    x = made(EVERY)
    split = RULES["ratio"](x)
    parts = parts_of(x, split)
    assert pairs(x.keep(parts == TRAIN)) == pairs(split.train)
    assert pairs(x.keep(parts == 2)) == pairs(split.test)


@pytest.mark.parametrize("rows", [EVERY, LATE])
@pytest.mark.parametrize("weighted", ["both", "earlier", "new"])
def test_weights_follow_their_pairs(rows: slice, weighted: str) -> None:
    def weigh(x: Interactions, factor: int) -> Interactions:
        of = x.user_ids[x.users] + factor * x.item_ids[x.items]
        return replace(x, weights=of.astype(np.float32))

    old, new = made(OLD), made(rows)
    if weighted != "new":
        old = weigh(old, 2)
    if weighted != "earlier":
        new = weigh(new, 3)
    before = everything(old)
    grown = grow(before, numbered_as(new, before), everything).split.train
    assert grown.weights is not None
    in_old, in_new = pairs(old), pairs(new)
    for user, item, weight in zip(grown.user_ids[grown.users], grown.item_ids[grown.items], grown.weights):
        pair = (int(user), int(item))
        if pair in in_new and weighted != "earlier":
            assert weight == user + 3 * item
        elif pair in in_old and weighted != "new":
            assert weight == user + 2 * item
        else:
            assert weight == 1
