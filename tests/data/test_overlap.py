"""A split that comes with the data and overlaps: refused with the way out, or its overlap left out and counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from fastrec.config import Config
from fastrec.data import leave_one_out, load, load_split, ratio_split
from fastrec.errors import ConfigError, DataError
from fastrec.training.job import prepare


def ncf(folder: Path) -> Path:
    (folder / "x.train.rating").write_text("0\t1\t5\t1\n0\t2\t5\t2\n1\t2\t5\t3\n")
    (folder / "x.test.rating").write_text("0\t2\t5\t4\n1\t3\t5\t5\n")
    (folder / "x.test.negative").write_text("(0,2)\t7\t8\n(1,3)\t8\t9\n")
    return folder


def test_overlapping_test_pairs_are_refused_or_left_out_with_their_candidates(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"in train and in test; .*--drop-overlap \(drop_overlap=True\)"):
        load_split(ncf(tmp_path))
    split = load_split(tmp_path, drop_overlap=True)
    assert (split.train.n_interactions, split.test.n_interactions) == (3, 1)
    assert "test: 1 pairs that an earlier part has too left out" in split.notes
    assert split.candidates is not None
    assert split.test.item_ids[split.candidates[0]].tolist() == [8, 9]
    assert prepare(Config(data=str(tmp_path), drop_overlap=True)).test.n_interactions == 1


def test_validation_is_apart_from_train_and_test_from_both(tmp_path: Path) -> None:
    for part, rows in (("train", "1,1\n1,2\n"), ("validation", "1,2\n1,3\n"), ("test", "1,1\n1,3\n1,4\n")):
        (tmp_path / f"{part}.csv").write_text("user,item\n" + rows)
    split = load_split(tmp_path, drop_overlap=True)
    assert [p.n_interactions for p in (split.train, split.validation, split.test)] == [2, 1, 1]
    (tmp_path / "test.csv").write_text("user,item\n1,1\n1,2\n")
    with pytest.raises(DataError, match="every one of its 2 pairs"):
        load_split(tmp_path, drop_overlap=True)


def test_an_option_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"drop_overlap: synthetic-small is split by .*whose parts never overlap"):
        prepare(Config(data="synthetic-small", drop_overlap=True))


def test_none_trains_on_everything() -> None:
    split = prepare(Config(data="synthetic-small", split="none"))
    assert split.train.n_interactions == load("synthetic-small").n_interactions
    assert split.validation.n_interactions == split.test.n_interactions == 0


def test_splits_take_names_and_frames() -> None:
    named, loaded = leave_one_out("synthetic-small"), leave_one_out(load("synthetic-small"))
    assert named.test.fingerprint() == loaded.test.fingerprint()
    frame = {"user": [1, 1, 2, 2], "item": [1, 2, 1, 3], "time": [1, 2, 3, 4]}
    assert leave_one_out(frame).test.n_interactions == 2
    assert ratio_split(frame, test=0.5).test.n_interactions == 2
