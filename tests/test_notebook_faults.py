"""The faults of the notebook that fastrec replaces, one test named after each.

Most run on MovieLens-1M itself; where the fault shows on a few lines, on those.
"""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import fastrec
from fastrec.data import Interactions, Split, leave_one_out, load
from fastrec.errors import DataError
from fastrec.sampling import NegativeSampler
from fastrec.training.fit import Result

PACKAGE = Path(__file__).resolve().parent.parent / "fastrec"


@pytest.fixture(scope="module")
def ml1m(real_data: Callable[[str], Path]) -> Interactions:
    return load(real_data("ml-1m"))


@pytest.fixture(scope="module")
def split(ml1m: Interactions) -> Split:
    return leave_one_out(ml1m)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The layout of ML-1M in four lines."""
    (tmp_path / "ratings.dat").write_text("1::3952::5::978300760\n2::1::3::978302109\n")
    (tmp_path / "movies.dat").write_bytes(
        "1::Cité (1995)::Drama\n7::Sans Toit (1985)::Drama\n3952::Z::\n".encode("latin-1")
    )
    (tmp_path / "users.dat").write_text("1::F::1::10::02460\n2::M::56::16::70072\n")
    return tmp_path


@pytest.mark.real_data
def test_fault_raw_movie_ids_overrun_the_item_table(ml1m: Interactions, split: Split) -> None:
    """Ids were MovieID - 1, up to 3951, in a table of 3,883 rows: an index error waiting."""
    assert int(ml1m.item_ids.max()) == 3952 > ml1m.n_items
    for part in (ml1m, split.train, split.validation, split.test):
        assert int(part.items.max()) < part.n_items == part.item_ids.size
    assert np.array_equal(np.unique(ml1m.items), np.arange(ml1m.n_items))


@pytest.mark.real_data
def test_fault_films_that_nobody_rated_are_counted_as_items(
    ml1m: Interactions, real_data: Callable[[str], Path]
) -> None:
    """3,883 films are catalogued, 3,706 rated; the others are items only on request."""
    assert (ml1m.n_items, ml1m.catalog.movies.height) == (3_706, 3_883)
    assert int(ml1m.item_counts().min()) >= 1
    asked = load(real_data("ml-1m"), unrated_negatives=True)
    assert asked.n_items == 3_883
    assert asked.n_interactions == ml1m.n_interactions
    assert int((asked.item_counts() == 0).sum()) == 177


@pytest.mark.real_data
def test_fault_validation_negatives_drawn_against_validation_positives_only(split: Split) -> None:
    """So train positives came back as negatives. Drawn against all that is known, none does."""
    known = split.train.users.astype(np.int64) * split.n_items + split.train.items
    users = split.validation.users

    def returned(part: Interactions) -> int:
        sampler = NegativeSampler(part.indptr, part.items, n_items=part.n_items, n_negatives=4, seed=1)
        drawn = sampler.sample(users, epoch=0, start=0)
        return int(np.isin(users[:, None].astype(np.int64) * split.n_items + drawn, known).sum())

    assert returned(split.validation) > 10_000  # the fault, shown
    assert returned(split.train) == 0


def test_fault_zero_based_ratings_joined_with_one_based_movies(folder: Path) -> None:
    loaded = load(folder)
    assert loaded.titles is not None
    assert dict(zip(loaded.item_ids.tolist(), loaded.titles.tolist())) == {1: "Cité (1995)", 3952: "Z"}
    joined = loaded.catalog.joined().select("user", "item", "title").collect()
    assert joined.rows() == [(1, 3952, "Z"), (2, 1, "Cité (1995)")]


@pytest.mark.real_data
def test_fault_titles_fall_to_the_wrong_film(ml1m: Interactions) -> None:
    """What the shifted join did to real data: every title must be that of its own MovieID."""
    assert ml1m.titles is not None
    by_id = dict(zip(ml1m.item_ids.tolist(), ml1m.titles.tolist()))
    assert by_id[260] == "Star Wars: Episode IV - A New Hope (1977)"  # and it keeps its colon
    assert by_id[1] == "Toy Story (1995)"
    assert by_id[3952] == "Contender, The (2000)"
    known = dict(ml1m.catalog.movies.select("item", "title").iter_rows())
    assert all(known[i] == title for i, title in by_id.items())


@pytest.mark.real_data
def test_fault_movies_dat_read_as_utf8(ml1m: Interactions) -> None:
    """It is Latin-1."""
    titles = dict(ml1m.catalog.movies.select("item", "title").iter_rows())
    assert titles[73] == "Misérables, Les (1995)"
    accented = [title for title in titles.values() if not title.isascii()]
    assert len(accented) == 50
    assert not any("\ufffd" in title or "Ã" in title for title in accented)


def test_fault_bad_lines_skipped_without_a_word(folder: Path) -> None:
    """pandas' on_bad_lines="skip" drops what does not fit; here it is an error that names the line."""
    path = folder / "ratings.dat"
    good = path.read_text()
    for bad, what in (("1::2::3::4::5", "5 fields"), ("1::2", "only 2 fields"), ("1::2::x::4", "rating 'x'")):
        path.write_text(good + bad + "\n" + good)
        with pytest.raises(DataError, match=rf"ratings\.dat, line 3: .*{what}"):
            load(folder)


def test_fault_outer_joins_turn_ids_into_floats_and_add_null_rows(folder: Path) -> None:
    catalog = load(folder).catalog
    inner = catalog.joined().collect()
    assert inner.height == 2
    assert not sum(inner.select("user", "item", "rating", "title", "zip").null_count().row(0))
    outer = catalog.joined(unrated=True).collect()
    assert outer.height == 3
    for frame in (inner, outer):
        assert [frame.schema[c] for c in ("user", "item", "timestamp", "age")] == [pl.Int64] * 4


@pytest.mark.real_data
def test_fault_joined_view_loses_or_invents_rows(ml1m: Interactions) -> None:
    view = ml1m.catalog.joined().collect()
    assert view.height == 1_000_209
    assert not sum(view.null_count().row(0))
    assert view.select(pl.struct("user", "item").n_unique()).item() == 1_000_209
    unrated = ml1m.catalog.joined(unrated=True).collect()
    assert unrated.height == 1_000_209 + 177


@pytest.mark.real_data
def test_fault_joins_use_the_untransliterated_titles(ml1m: Interactions) -> None:
    """The notebook transliterated one frame and joined another: the view holds both spellings of each title."""
    film = ml1m.catalog.joined().filter(pl.col("item") == 73).select("title", "title_ascii").unique().collect()
    assert film.rows() == [("Misérables, Les (1995)", "Miserables, Les (1995)")]
    movies = ml1m.catalog.movies
    assert all(title.isascii() for title in movies["title_ascii"].to_list())
    changed = movies.filter(pl.col("title") != pl.col("title_ascii"))
    assert changed.height == sum(not title.isascii() for title in movies["title"].to_list())


@pytest.fixture
def far_away() -> Iterator[None]:
    """This process in a zone 14 hours ahead of UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Etc/GMT-14"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


@pytest.mark.usefixtures("far_away")
def test_fault_datetimes_in_the_machines_local_zone(folder: Path) -> None:
    assert datetime.fromtimestamp(0).hour == 14  # the zone is in force
    view = load(folder).catalog.joined().collect()
    assert view.schema["datetime"] == pl.Datetime("us", "UTC")
    assert view["datetime"][0] == datetime(2000, 12, 31, 22, 12, 40, tzinfo=UTC)


@pytest.mark.real_data
def test_fault_zip_codes_read_as_numbers(ml1m: Interactions) -> None:
    """User 4 lives in 02460, not 2460."""
    users = ml1m.catalog.users
    assert users.height == 6_040
    assert users.filter(pl.col("user") == 4)["zip"].item() == "02460"
    assert users["zip"].str.len_chars().min() >= 5


def test_fault_a_per_item_dataset_feeds_the_trainer() -> None:
    """No torch Dataset or DataLoader in the package: batches are slices.

    Except in the adapters for other people's loops, which nothing here imports but the facade, by name.
    """
    adapters = PACKAGE / "batches" / "adapters.py"
    for path in sorted(set(PACKAGE.rglob("*.py")) - {adapters}):
        assert "batches.adapters import" not in path.read_text(), path
        for node in ast.walk(ast.parse(path.read_text())):
            name = getattr(node, "id", getattr(node, "attr", getattr(node, "name", None)))
            assert name not in ("DataLoader", "IterableDataset", "TensorDataset"), f"{path}: {name}"
            assert not (isinstance(node, ast.ImportFrom) and node.module == "torch.utils.data"), path


@pytest.mark.real_data
def test_fault_the_last_interaction_is_not_held_out_alone(ml1m: Interactions, split: Split) -> None:
    """Train, validation and test of the notebook's sizes, disjoint, the test pair the last of its user."""
    assert [p.n_interactions for p in (split.train, split.validation, split.test)] == [892_037, 102_132, 6_040]
    assert ml1m.timestamps is not None
    last = np.maximum.reduceat(ml1m.timestamps, ml1m.indptr[:-1])
    assert np.array_equal(split.test.timestamps, last)
    assert np.array_equal(split.test.degrees, np.ones(6_040))
    everything = np.concatenate(
        [p.users.astype(np.int64) * p.n_items + p.items for p in (split.train, split.validation, split.test)]
    )
    assert np.unique(everything).size == 1_000_209


def test_fault_a_saved_log_needs_the_whole_data_stack(tmp_path: Path) -> None:
    """The notebook could train nowhere but beside its pandas frames; a saved log opens without Polars."""
    Interactions.from_arrays(["a", "b"], [2, 1], [5, 6]).save(tmp_path / "x.safetensors")
    code = (
        "import sys; from fastrec.data import load, leave_one_out\n"
        f"x = load({str(tmp_path / 'x.safetensors')!r}); leave_one_out(x)\n"
        "assert not {'polars', 'pandas', 'torch'} & set(sys.modules), sorted(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=PACKAGE.parent)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """A short run on a small synthetic log, by the one call that replaces the notebook's missing training loop."""
    out = tmp_path_factory.mktemp("runs") / "small"
    return fastrec.train(
        "synthetic-small", dim=4, epochs=3, patience=0, progress=False, tensorboard=False, out=str(out)
    )


def test_fault_no_training_loop_survives(trained: Result) -> None:
    """One call trains: every epoch is logged, the loss falls, the weights are kept."""
    lines = [json.loads(line) for line in (trained.run.path / "metrics.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["kind"] == "epoch"]
    assert len(losses) == 3
    assert losses[-1] < losses[0]
    assert (trained.run.path / "model.safetensors").is_file()


def test_fault_nothing_evaluates_ranking(trained: Result) -> None:
    """Both protocols report ranking metrics, within their bounds."""
    for protocol in ("99 candidates", "full ranking"):
        figures = trained.metrics[protocol]
        assert 0 <= figures["NDCG@10"] <= figures["HR@10"] <= 1


def test_fault_the_test_set_is_never_used(trained: Result) -> None:
    """The test part is scored once, at the end: one record, after every epoch's."""
    kinds = [json.loads(line)["kind"] for line in (trained.run.path / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("test") == len(trained.metrics)
    assert set(kinds[-len(trained.metrics) :]) == {"test"}
