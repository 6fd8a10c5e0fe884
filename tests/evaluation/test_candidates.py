"""Frozen candidates: legal, different, the same in every run, and hashed."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from fastrec.data.split import Split, add_validation
from fastrec.errors import ConfigError
from fastrec.evaluation.candidates import candidates_for
from tests.helpers.fakes import VectorModel, interactions, random_parts


@pytest.fixture
def split(rng: np.random.Generator) -> Split:
    return Split(*random_parts(rng, 50, 400, (20, 4, 3)))


def known(split: Split, user: int) -> set[int]:
    return {int(i) for p in (split.train, split.validation, split.test) for i in p.row(user)}


@pytest.mark.parametrize("part", ["test", "validation"])
def test_candidates_are_different_and_never_known(split: Split, part: str) -> None:
    found = candidates_for(split, part, n=99)
    pairs = getattr(split, part)
    assert found.items.shape == (pairs.n_interactions, 99)
    assert found.items.dtype == np.int32
    assert np.array_equal(found.users, pairs.users)
    assert np.array_equal(found.positives, pairs.items)
    assert found.notes == ()
    for user, row in zip(found.users, found.items):
        assert len(set(row.tolist())) == 99
        assert not known(split, int(user)) & set(row.tolist())
        assert 0 <= row.min() <= row.max() < split.n_items


def test_candidates_resampled_every_run_bug_recbole(split: Split) -> None:
    """RecBole draws new candidates in each run, so that two runs' metrics differ without any change of model."""
    first = candidates_for(split, "test", seed=0, threads=1)
    np.random.seed(1)  # noqa: NPY002  # the state of a global generator has no say
    again = candidates_for(split, "test", seed=0, threads=2)
    assert np.array_equal(first.items, again.items)
    assert first.sha256 == again.sha256
    other = candidates_for(split, "test", seed=1)
    assert not np.array_equal(first.items, other.items)
    assert first.sha256 != other.sha256


def test_the_hash_covers_data_split_part_and_count(split: Split) -> None:
    fewer = split.train.keep(np.arange(split.train.n_interactions) > 0)
    hashes = [
        candidates_for(split).sha256,
        candidates_for(split, "validation").sha256,
        candidates_for(split, n=98).sha256,
        candidates_for(replace(split, train=fewer)).sha256,
        candidates_for(replace(split, how="ratio")).sha256,
        candidates_for(replace(split, candidates=candidates_for(split).items)).sha256,
    ]
    assert len(set(hashes)) == len(hashes)
    described = candidates_for(split, seed=5).describe()
    assert (described["seed"], described["n"], described["part"]) == (5, 99, "test")
    assert described["sha256"] == candidates_for(split, seed=5).sha256


def test_test_and_validation_draw_from_streams_of_their_own() -> None:
    """Row r of both parts has one user and one set of known items here: only the address tells them apart."""
    split = Split(*(interactions([[k]] * 30, 5000) for k in range(3)))
    test, validation = (candidates_for(split, part).items for part in ("test", "validation"))
    assert np.mean([len(np.intersect1d(a, b)) for a, b in zip(test, validation)]) < 10  # 99 * 99 / 5000 by chance: 2
    assert len({tuple(row) for row in test.tolist()}) == 30


def test_fewer_candidates_are_the_first_columns_of_more(split: Split) -> None:
    assert np.array_equal(candidates_for(split, n=10).items, candidates_for(split, n=99).items[:, :10])


def test_users_with_fewer_legal_items_get_all_of_them() -> None:
    rows = [list(range(40)), list(range(5)), list(range(59))]
    split = Split(interactions(rows, 60), interactions([[]] * 3, 60), interactions([[59], [59], [59]], 60))
    found = candidates_for(split, n=20)
    assert sorted(found.items[0][found.items[0] >= 0].tolist()) == list(range(40, 59))
    assert (found.items[1] >= 0).all()
    assert (found.items[2] == -1).all()
    assert len(found.notes) == 1
    assert found.notes[0].startswith("2 test positives are ranked against all items without an interaction of the user")
    assert found.notes[0].endswith("fewer than 20 (the fewest: 0)")
    model = VectorModel(np.zeros((3, 1)), np.zeros((60, 1)), -np.arange(60.0))
    assert dict(found.evaluate(model, (19, 20))) == pytest.approx(
        # the third user has no candidate: a miss, not the first of one
        {"HR@19": 0, "NDCG@19": 0, "MRR@19": 0, "Recall@19": 0}
        | {"HR@20": 1 / 3, "NDCG@20": 1 / np.log2(21) / 3, "MRR@20": 1 / 20 / 3, "Recall@20": 1 / 3}
    )


def test_each_legal_item_is_as_likely_as_another() -> None:
    n_users, n_items = 3000, 24
    split = Split(
        interactions([[3, 4, 5]] * n_users, n_items),
        interactions([[0]] * n_users, n_items),
        interactions([[23]] * n_users, n_items),
    )
    counts = np.bincount(candidates_for(split, n=5).items.ravel(), minlength=n_items)
    legal = np.setdiff1d(np.arange(n_items), [0, 3, 4, 5, 23])
    assert counts.sum() == counts[legal].sum() == n_users * 5
    expected = n_users * 5 / legal.size
    assert ((counts[legal] - expected) ** 2 / expected).sum() < 42.3  # chi-square, 18 degrees, p = .001


def test_given_candidates_are_used_for_test_and_lose_the_positive_itself(split: Split) -> None:
    given = np.tile(np.arange(7, dtype=np.int32), (split.test.n_interactions, 1))
    given[:, 0] = split.test.items
    given[:, 3] = -1
    found = candidates_for(replace(split, candidates=given), seed=9)
    assert (found.items[:, 0] == -1).all()
    assert "held their own positive; dropped there" in found.notes[0]
    assert (found.source["seed"], found.source["n"]) == (None, 7)
    drawn = candidates_for(replace(split, candidates=given), "validation", seed=9)
    assert np.array_equal(drawn.items, candidates_for(split, "validation", seed=9).items)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"part": "train"}, "part='train'"), ({"n": 0}, "at least 1"), ({"seed": -1}, "seed=-1")],
)
def test_impossible_arguments_are_refused(split: Split, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        candidates_for(split, **options)


def test_an_empty_part_has_no_rows() -> None:
    nothing = interactions([[], []], 300)
    split = Split(interactions([[1], [2]], 300), nothing, nothing)
    assert candidates_for(split, "validation").items.shape == (0, 99)


@pytest.mark.real_data
def test_ncf_published_candidates_are_legal(real_data: Any) -> None:
    """156 published rows hold the test item itself: dropped there, and said."""
    from fastrec.data.loading import load_split

    split = add_validation(load_split(real_data("ncf-ml-1m")))
    found = candidates_for(split)
    assert found.items.shape == (6040, 99)
    assert (found.items == -1).sum() == 156
    assert any(note.startswith("156 candidate rows held the test item itself") for note in split.notes)
    assert not (found.items == found.positives[:, None]).any()
