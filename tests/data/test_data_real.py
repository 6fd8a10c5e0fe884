"""The real data sets, read in place: their published counts, in every format that a publisher uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastrec.data import Interactions, add_validation, has_split, leave_one_out, load, load_split, time_split

Folder = Callable[[str], Path]
pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def ml1m(real_data: Folder) -> Interactions:
    return load(real_data("ml-1m"))


def test_ml1m_has_the_notebooks_counts(ml1m: Interactions) -> None:
    assert (ml1m.n_interactions, ml1m.n_users, ml1m.n_items) == (1_000_209, 6_040, 3_706)
    assert ml1m.catalog.movies.height == 3_883
    assert ml1m.notes == ()
    assert np.array_equal(ml1m.user_ids, np.arange(1, 6_041))


def test_ml1m_leave_one_out_has_the_notebooks_counts(ml1m: Interactions) -> None:
    split = leave_one_out(ml1m)
    assert split.test.n_interactions == 6_040
    assert split.train.n_interactions + split.validation.n_interactions == 994_169
    assert (split.train.n_interactions, split.validation.n_interactions) == (892_037, 102_132)
    assert np.array_equal(split.validation.degrees, -(-(ml1m.degrees - 1) // 10))


@pytest.mark.parametrize(
    ("name", "users", "items", "interactions", "films", "title"),
    [
        ("ml-100k", 943, 1_682, 100_000, 1_682, "Toy Story (1995)"),
        ("ml-latest-small", 671, 9_066, 100_004, 9_125, "Toy Story (1995)"),
        ("gowalla", 29_858, 40_981, 1_027_370, None, None),
        ("ncf-ml-1m", 6_040, 3_706, 1_000_209, None, None),
    ],
)
def test_published_counts(
    real_data: Folder, name: str, users: int, items: int, interactions: int, films: int | None, title: str | None
) -> None:
    loaded = load(real_data(name))
    assert (loaded.n_users, loaded.n_items, loaded.n_interactions) == (users, items, interactions)
    assert (None if loaded.catalog.movies is None else loaded.catalog.movies.height) == films
    assert (None if loaded.titles is None else loaded.titles[0]) == title
    assert (loaded.timestamps is None) == (name == "gowalla")


def test_names_are_found_under_fastrec_data(real_data: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FASTREC_DATA", str(real_data("ml-100k").parent))
    assert load("ml-100k").fingerprint() == load(real_data("ml-100k")).fingerprint()
    assert has_split("gowalla")
    assert not has_split("ml-100k")


def test_latin1_titles_of_ml_100k(real_data: Folder) -> None:
    catalog = load(real_data("ml-100k")).catalog
    film = catalog.movies.filter(catalog.movies["item"] == 543).row(0, named=True)
    assert film["title"] == "Misérables, Les (1995)"
    assert film["title_ascii"] == "Miserables, Les (1995)"
    assert (film["year"], film["genres"]) == (1995, ["Drama", "Musical"])
    assert catalog.users.columns == ["user", "gender", "age", "occupation", "zip"]
    assert catalog.users.row(7) == (8, "M", 36, "administrator", "05201")
    assert catalog.joined().collect().height == 100_000


def test_half_star_ratings_and_quoted_titles_of_latest_small(real_data: Folder) -> None:
    loaded = load(real_data("ml-latest-small"))
    assert loaded.titles is not None
    assert loaded.titles[loaded.item_ids == 11].tolist() == ["American President, The (1995)"]
    liked = load(real_data("ml-latest-small"), min_rating=4.5)
    ratings = loaded.catalog.ratings.collect()["rating"]
    assert liked.n_interactions == int((ratings >= 4.5).sum()) < loaded.n_interactions
    assert set(ratings.unique().to_list()) == {k / 2 for k in range(1, 11)}
    assert liked.titles is not None
    assert liked.titles.size == liked.n_items


def test_both_layouts_of_ml1m_hold_the_same_pairs(real_data: Folder, ml1m: Interactions) -> None:
    """The NCF files count users from 0 and items by first appearance; their map leads back to MovieLens' ids."""
    other = load(real_data("ncf-ml-1m"))
    lines = (real_data("ncf-ml-1m") / "item_map.tsv").read_text().split()[2:]
    raw = dict(zip(map(int, lines[::2]), map(int, lines[1::2])))
    movie = np.array([raw[i] for i in other.item_ids.tolist()])
    ours = set(zip((other.user_ids[other.users] + 1).tolist(), movie[other.items].tolist()))
    assert ours == set(zip(ml1m.user_ids[ml1m.users].tolist(), ml1m.item_ids[ml1m.items].tolist()))


def test_own_leave_one_out_is_not_the_papers_and_says_so(real_data: Folder, ml1m: Interactions) -> None:
    """2,727 users have a tied last time, so the paper's test item is ours for some users only."""
    own, paper = leave_one_out(ml1m), load_split(real_data("ncf-ml-1m"))
    assert not own.comparable
    assert paper.comparable
    lines = (real_data("ncf-ml-1m") / "item_map.tsv").read_text().split()[2:]
    raw = np.array([int(v) for v in lines[1::2]])
    assert int((own.test.item_ids[own.test.items] == raw[paper.test.items]).sum()) == 4_373


def test_ncf_files_keep_their_split_and_candidates(real_data: Folder) -> None:
    split = load_split(real_data("ncf-ml-1m"))
    sizes = (split.train.n_interactions, split.validation.n_interactions, split.test.n_interactions)
    assert sizes == (994_169, 0, 6_040)
    assert (split.n_users, split.n_items) == (6_040, 3_706)
    assert split.candidates is not None
    assert split.candidates.shape == (6_040, 99)
    short = (split.candidates < 0).any(axis=1)
    assert int(short.sum()) == 156
    assert int((split.candidates < 0).sum()) == 156
    assert "156 candidate rows held the test item itself; it was dropped there" in split.notes
    known = split.train.users.astype(np.int64) * split.n_items + split.train.items
    pairs = split.test.users[:, None].astype(np.int64) * split.n_items + split.candidates
    assert not np.isin(pairs[split.candidates >= 0], known).any()
    assert not (split.candidates == split.test.items[:, None]).any()
    first = (real_data("ncf-ml-1m") / "ml-1m.test.negative").read_text().split("\n")[0].split("\t")[1:]
    assert split.candidates[0].tolist() == [int(v) for v in first]
    carved = add_validation(split)
    assert carved.candidates is split.candidates
    assert (carved.train.n_interactions, carved.validation.n_interactions) == (892_037, 102_132)


def test_gowalla_keeps_its_split(real_data: Folder) -> None:
    split = load_split(real_data("gowalla"))
    assert (split.train.n_interactions, split.test.n_interactions) == (810_128, 217_242)
    assert not split.comparable
    assert split.how == "adjacency lists: train.txt, test.txt"


@pytest.mark.parametrize(("fold", "train", "test"), [("u1", 80_000, 20_000), ("ua", 90_570, 9_430)])
def test_the_published_folds_of_ml_100k(real_data: Folder, fold: str, train: int, test: int) -> None:
    split = load_split(real_data("ml-100k") / fold)
    assert (split.train.n_interactions, split.test.n_interactions) == (train, test)


def test_time_split_of_ml1m_cuts_where_it_must(ml1m: Interactions) -> None:
    split = time_split(ml1m)
    assert split.test.timestamps is not None
    assert int(split.test.timestamps.min()) == 975_768_738
    assert split.test.n_interactions == 200_116


def test_ten_core_of_gowalla_is_nearly_itself(real_data: Folder) -> None:
    """The set is published as a 10-core: but for one user and two places, it is."""
    gowalla = load(real_data("gowalla"))
    core = gowalla.core(10)
    assert (core.n_users, core.n_items, core.n_interactions) == (29_857, 40_979, 1_027_343)
    assert min(core.degrees.min(), core.item_counts().min()) == 10
    assert core.notes[-1] == "27 interactions outside the 10-core left out"


def test_ml1m_saved_and_opened_splits_alike(ml1m: Interactions, tmp_path: Path) -> None:
    opened = load(ml1m.save(tmp_path / "ml-1m.safetensors"))
    a, b = leave_one_out(ml1m), leave_one_out(opened)
    assert a.test.fingerprint() == b.test.fingerprint()
    assert a.validation.fingerprint() == b.validation.fingerprint()
    assert opened.titles is not None
    assert opened.titles.tolist() == ml1m.titles.tolist()  # type: ignore[union-attr]
