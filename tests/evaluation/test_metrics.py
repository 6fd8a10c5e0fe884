"""Metrics from ranks: hand-made values, a slow oracle, and the bugs that inflate them elsewhere."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrec.errors import ConfigError, DataError
from fastrec.evaluation.metrics import MISS, check_cutoffs, grouped, ranks, single


def slow(lists: list[list[int]], k: int) -> dict[str, float]:
    """HR, NDCG, MRR, Recall at K of users given as ranks of their positives, by the textbook, on whole lists."""
    out = {"HR": 0.0, "NDCG": 0.0, "MRR": 0.0, "Recall": 0.0}
    for positives in lists:
        relevant = [1 if place in positives else 0 for place in range(1, max([*positives, k]) + 1)]
        top, best = relevant[:k], sorted(relevant, reverse=True)[:k]
        out["HR"] += float(any(top))
        out["NDCG"] += sum(g / math.log2(i + 2) for i, g in enumerate(top)) / sum(
            g / math.log2(i + 2) for i, g in enumerate(best)
        )
        out["MRR"] += 1 / (top.index(1) + 1) if any(top) else 0.0
        out["Recall"] += sum(top) / len(positives)
    return {name: value / len(lists) for name, value in out.items()}


def test_values_by_hand() -> None:
    m = single(np.array([1, 3, 11]), np.array([0, 1, 2]), (10, 3))
    assert m["HR@3"] == m["HR@10"] == pytest.approx(2 / 3)
    assert m["NDCG@10"] == pytest.approx((1 + 0.5) / 3)
    assert m["MRR@10"] == pytest.approx((1 + 1 / 3) / 3)
    assert (m.n_users, m.n_positives) == (3, 3)
    assert m.standard_errors["HR@10"] == pytest.approx(np.std([1, 1, 0], ddof=1) / math.sqrt(3))
    assert list(m) == [f"{name}@{k}" for k in (3, 10) for name in ("HR", "NDCG", "MRR", "Recall")]


@given(
    lists=st.lists(st.sets(st.integers(1, 30), min_size=1, max_size=8).map(sorted), min_size=1, max_size=12),
    k=st.integers(1, 25),
)
@settings(deadline=None)
def test_several_positives_a_user_agree_with_the_textbook(lists: list[list[int]], k: int) -> None:
    users = np.repeat(np.arange(len(lists)), [len(x) for x in lists])
    m = grouped(np.concatenate(lists), users, (k,))
    for name, value in slow(lists, k).items():
        assert m[f"{name}@{k}"] == pytest.approx(value), name
    assert m[f"NDCG@{k}"] <= m[f"HR@{k}"] + 1e-12
    assert m.n_users == len(lists)


@given(
    lists=st.lists(st.lists(st.integers(1, 30), min_size=1, max_size=8), min_size=1, max_size=12),
    k=st.integers(1, 25),
    shuffled=st.randoms(use_true_random=False),
)
@settings(deadline=None)
def test_lists_of_their_own_are_hit_by_user_as_in_full_ranking(lists: list[list[int]], k: int, shuffled) -> None:
    """One definition of HR in a table: any positive of the user in K, whichever protocol."""
    pairs = [(user, rank) for user, mine in enumerate(lists) for rank in mine]
    shuffled.shuffle(pairs)
    users, found = (np.array(column) for column in zip(*pairs))
    m = single(found, users, (k,))
    n = len(lists)
    assert m[f"HR@{k}"] == pytest.approx(sum(min(x) <= k for x in lists) / n)
    assert m[f"MRR@{k}"] == pytest.approx(sum(1 / min(x) for x in lists if min(x) <= k) / n)
    gains = [[1 / math.log2(r + 1) if r <= k else 0 for r in x] for x in lists]
    assert m[f"NDCG@{k}"] == pytest.approx(sum(sum(g) / len(g) for g in gains) / n)
    assert m[f"Recall@{k}"] == pytest.approx(sum(sum(r <= k for r in x) / len(x) for x in lists) / n)
    assert m[f"NDCG@{k}"] <= m[f"HR@{k}"] + 1e-12
    assert (m.n_users, m.n_positives) == (n, len(pairs))


def test_both_protocols_agree_where_every_user_has_one_positive() -> None:
    found, users = np.array([1, 4, 12, MISS]), np.arange(4)
    assert dict(single(found, users)) == dict(grouped(found, users))
    assert single(found, users).standard_errors == grouped(found, users).standard_errors


def test_a_miss_is_a_miss_at_any_cutoff() -> None:
    for metric in (single, grouped):
        m = metric(np.array([MISS, MISS, 1]), np.array([0, 0, 1]), (10, 2**31))
        assert m["HR@10"] == m[f"HR@{2**31}"] == m["Recall@10"] == m["NDCG@10"] == 0.5


def test_recall_is_a_fraction_of_positives_and_with_one_each_the_hit_rate() -> None:
    one = grouped(np.array([1, 20]), np.array([0, 1]), (10,))
    assert one["Recall@10"] == one["HR@10"] == 0.5
    assert grouped(np.array([1, 20, 3]), np.array([0, 0, 1]), (10,))["Recall@10"] == pytest.approx(0.75)


def test_ties_bug_constant_scores_give_hit_rate_zero() -> None:
    """A sort that happens to put the positive first gives a constant model a hit rate of 1."""
    scores = np.zeros((50, 100), np.float32)
    m = single(ranks(scores[:, 0], scores[:, 1:]), np.arange(50), (10,))
    assert m["HR@10"] == m["NDCG@10"] == m["MRR@10"] == 0.0
    assert ranks(scores[:, 0], scores[:, 1:]).tolist() == [100] * 50


def test_untied_random_scores_give_a_tenth(rng: np.random.Generator) -> None:
    scores = rng.permuted(np.tile(np.arange(100, dtype=np.float32), (40_000, 1)), axis=1)
    m = single(ranks(scores[:, 0], scores[:, 1:]), np.arange(40_000), (10,))
    assert abs(m["HR@10"] - 0.1) < 4 * m.standard_errors["HR@10"] < 0.007
    expected = sum(1 / math.log2(r + 1) for r in range(1, 11)) / 100
    assert abs(m["NDCG@10"] - expected) < 4 * m.standard_errors["NDCG@10"]


def test_hit_rate_that_is_not_hr_at_k_bug_hugectr() -> None:
    """HugeCTR's sample counts a hit where a thresholded prediction is right: HR@K asks for the place in the list."""
    confident_but_11th = np.full((1, 99), 0.1)
    confident_but_11th[0, :10] = 0.99
    assert single(ranks(np.array([0.9]), confident_but_11th), np.array([0]), (10,))["HR@10"] == 0.0
    doubtful_but_first = np.full((1, 99), 0.01)
    assert single(ranks(np.array([0.02]), doubtful_but_first), np.array([0]), (10,))["HR@10"] == 1.0


def test_padding_is_not_counted() -> None:
    others = np.array([[5.0, 5.0, 5.0]])
    assert ranks(np.array([1.0]), others, np.array([[True, False, False]])).tolist() == [2]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_scores_that_are_not_finite_are_refused_by_name(bad: float) -> None:
    others = np.zeros((3, 4), np.float32)
    others[2, 1] = bad
    with pytest.raises(DataError, match=r"scores\[2, 1\] = .*diverged"):
        ranks(np.zeros(3, np.float32), others)
    with pytest.raises(DataError, match=r"positive scores\[0\]"):
        ranks(np.array([bad]), np.zeros((1, 4)))


def test_half_precision_scores_are_refused_because_they_tie() -> None:
    with pytest.raises(ConfigError, match="float16; rank on float32"):
        ranks(np.zeros(3, np.float16), np.zeros((3, 4), np.float32))


def test_standard_error_takes_users_not_positives_as_independent() -> None:
    """Ten copies of each user's case tell nothing new: the error must not shrink by sqrt(10)."""
    r, users = np.array([1, 5, 30, 2, 60, 11]), np.arange(6)
    once = single(r, users, (10,))
    tenfold = single(np.repeat(r, 10), np.repeat(users, 10), (10,))
    assert tenfold.standard_errors["NDCG@10"] == pytest.approx(once.standard_errors["NDCG@10"])
    assert tenfold.n_positives == 60
    assert tenfold.n_users == 6


def test_nothing_to_rank_and_impossible_cutoffs_are_refused() -> None:
    none = np.empty(0, np.int64)
    with pytest.raises(DataError, match="no positive to rank"):
        single(none, none)
    with pytest.raises(DataError, match="no positive to rank"):
        grouped(none, none)
    for ks in ((), (0, 10)):
        with pytest.raises(ConfigError, match="at least one K"):
            check_cutoffs(ks)
