"""MAP, Precision, AUC, coverage, novelty, Gini, popularity and breakdowns against plain definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastrec.data.split import Split
from fastrec.errors import ConfigError, DataError
from fastrec.evaluation import beyond
from fastrec.evaluation.metrics import MISS, grouped
from tests.helpers.fakes import random_parts


def lists(rng: np.random.Generator) -> list[tuple[list[int], int]]:
    """(ranks of the positives, length of the list) of some users."""
    made = []
    for _ in range(40):
        n = int(rng.integers(1, 30))
        made.append((sorted(rng.choice(n, int(rng.integers(1, n + 1)), replace=False) + 1), n))
    return made


def test_map_precision_and_auc_are_the_plain_definitions(rng: np.random.Generator) -> None:
    made = lists(rng)
    users = np.concatenate([[u] * len(r) for u, (r, _) in enumerate(made)])
    ranks = np.concatenate([r for r, _ in made])
    others = np.concatenate([[n - len(r)] * len(r) for r, n in made])
    shuffled = rng.permutation(users.size)
    got = beyond.accuracy(ranks[shuffled], users[shuffled], others[shuffled], (1, 5, 10))
    for k in (1, 5, 10):
        average, precision = [], []
        for r, _ in made:
            hits = [at for at in r if at <= k]
            average.append(sum((j + 1) / at for j, at in enumerate(hits)) / min(k, len(r)))
            precision.append(len(hits) / k)
        assert got[f"MAP@{k}"] == pytest.approx(np.mean(average))
        assert got[f"Precision@{k}"] == pytest.approx(np.mean(precision))
        assert got.standard_errors[f"MAP@{k}"] == pytest.approx(np.std(average, ddof=1) / math.sqrt(40))
    area = []
    for r, n in made:
        rest = [at for at in range(1, n + 1) if at not in r]
        area.append(np.mean([p < q for p in r for q in rest]) if rest else 0.0)
    assert got["AUC"] == pytest.approx(np.mean(area))
    assert (got.n_users, got.n_positives) == (40, users.size)


def test_misses_count_as_nothing() -> None:
    got = beyond.accuracy(np.array([MISS, 1]), np.array([0, 1]), np.array([0, 3]), (5,))
    assert dict(got) == {"MAP@5": 0.5, "Precision@5": 0.1, "AUC": 0.5}
    with pytest.raises(DataError, match="no positive"):
        beyond.accuracy(np.array([], np.int64), np.array([], np.int64))
    with pytest.raises(ConfigError, match="cutoffs"):
        beyond.accuracy(np.array([1]), np.array([0]), ks=(0,))


def test_what_lists_are_like() -> None:
    items, lengths = np.array([[0, 1], [0, 9]]), np.array([2, 1])
    got = beyond.of_lists(items, lengths, np.array([4, 1, 0, 0]), 4)
    assert got["coverage"] == 0.5
    assert got["novelty"] == pytest.approx((0 + 2 + 0) / 3)
    assert got["popularity"] == pytest.approx((1 + 0.25 + 1) / 3)
    assert got["popularity_bias"] == pytest.approx(0.75 / ((1 * 4 + 0.25) / 5))
    times = np.array([2, 1, 0, 0])
    assert got["gini"] == pytest.approx(np.abs(times[:, None] - times[None]).sum() / (2 * 16 * times.mean()))
    assert beyond.of_lists(np.array([[0, 1]]), np.array([2]), np.array([1, 1]), 2)["gini"] == 0
    assert beyond.of_lists(np.array([[0]]), np.array([1]), np.array([0, 0]), 4)["novelty"] == 2, "as if one user had it"
    with pytest.raises(DataError, match="every list is empty"):
        beyond.of_lists(np.array([[0]]), np.array([0]), np.array([1]), 1)


def test_groups_hold_equally_many_and_never_part_equal_values(rng: np.random.Generator) -> None:
    group, names = beyond.quantile_groups(np.arange(100), 10)
    assert np.bincount(group).tolist() == [10] * 10
    assert names[0] == "0 to 9"
    values = rng.integers(0, 4, 50)
    group, names = beyond.quantile_groups(values, 10)
    assert names == ["0", "1", "2", "3"]
    assert (group == values).all()
    assert beyond.quantile_groups(np.array([7, 7]))[1] == ["7"]
    assert beyond.quantile_groups(np.array([], np.int64))[1] == []


def test_breakdowns_add_up_and_give_an_item_to_each_of_its_labels(rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 60, 30, (9, 0, 3)))
    ranks = rng.integers(1, 20, split.test.n_interactions)
    genres = [["odd", "all"] if i % 2 else ["all"] for i in range(29)] + [[]]
    found = beyond.breakdowns(split, ranks, lambda r, u: grouped(r, u, (10,)), labels={"genre": genres}, n=4)
    assert list(found) == ["activity", "popularity", "genre"]
    for name in ("activity", "popularity"):
        assert sum(part.n_positives for part in found[name].values()) == split.test.n_interactions
    items, users = split.test.items, split.test.users
    mine = items % 2 == 1
    mine &= items < 29
    assert found["genre"]["odd"]["HR@10"] == grouped(ranks[mine], users[mine], (10,))["HR@10"]
    assert found["genre"]["all"].n_positives == np.count_nonzero(items < 29)
    with pytest.raises(ConfigError, match=r"labels\['genre'\] has 1 entries for 30 items"):
        beyond.breakdowns(split, ranks, lambda r, u: grouped(r, u), labels={"genre": [[]]})
