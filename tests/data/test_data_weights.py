"""A column of weights: read from every kind of table, checked, kept through duplicates, splits, filters and files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import fastrec
from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.loading import load, load_split
from fastrec.data.split import Split, add_validation, everything, leave_one_out, ratio_split, time_split
from fastrec.errors import ConfigError, DataError
from fastrec.runs import open_split, save_split
from fastrec.runs.provenance import fingerprints
from fastrec.training.build import build_engine
from fastrec.training.job import prepare
from fastrec.training.resolve import resolve

ROWS = {
    "user": [1, 1, 1, 2, 2, 3, 3, 3, 1],
    "item": [10, 11, 12, 10, 13, 11, 12, 14, 10],
    "timestamp": [5, 6, 7, 5, 9, 1, 2, 3, 8],
    "rating": [5.0, 1.0, 4.0, 5.0, 3.0, 2.0, 5.0, 4.0, 3.0],
    "plays": [1.0, 0.0, 2.5, 3.0, 0.25, 7.0, 1.0, 2.0, 9.0],
}


def by_pair(x: Interactions) -> dict[tuple[Any, Any], float]:
    assert x.weights is not None
    assert x.weights.dtype == np.float32
    return dict(zip(zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist()), x.weights.tolist()))


LATEST = {(1, 10): 9.0, (1, 11): 0.0, (1, 12): 2.5, (2, 10): 3.0, (2, 13): 0.25}
LATEST |= {(3, 11): 7.0, (3, 12): 1.0, (3, 14): 2.0}
"""The pair (1, 10) is there twice: the later row's weight counts."""


def written(folder: Path, how: str) -> Any:
    frame = pl.DataFrame(ROWS)
    if how == "csv":
        frame.write_csv(folder / "log.csv")
    elif how == "quoted":
        (folder / "log.csv").write_text(frame.write_csv(quote_style="always"))
    elif how == "parquet":
        frame.write_parquet(folder / "log.parquet")
    elif how == "ndjson":
        frame.write_ndjson(folder / "log.ndjson")
    elif how == "parts":
        for k, part in enumerate((frame[:4], frame[4:])):
            part.write_parquet(folder / f"part-{k}.parquet")
        return folder
    elif how == "mapping":
        return ROWS
    elif how == "pandas":
        return pytest.importorskip("pandas").DataFrame(ROWS)
    else:
        return frame
    return next(folder.iterdir())


@pytest.mark.parametrize("how", ["csv", "quoted", "parquet", "ndjson", "parts", "mapping", "pandas", "polars"])
def test_weights_of_the_latest_row_are_read(tmp_path: Path, how: str) -> None:
    x = load(written(tmp_path, how), weight_col="plays")
    assert by_pair(x) == LATEST
    assert any(note.startswith("columns not used") and "plays" in note for note in load(written(tmp_path, how)).notes)
    assert not any("plays" in note for note in x.notes)


@pytest.mark.parametrize("how", ["csv", "quoted", "parquet", "mapping"])
def test_ratings_may_be_weights_too(tmp_path: Path, how: str) -> None:
    x = load(written(tmp_path, how), weight_col="rating", min_rating=3.0)
    assert by_pair(x) == {(1, 10): 3.0, (1, 12): 4.0, (2, 10): 5.0, (2, 13): 3.0, (3, 12): 5.0, (3, 14): 4.0}


@pytest.mark.parametrize("value", ["-0.5", "nan", "inf", "1e300", "", "often"])
@pytest.mark.parametrize("quoted", [False, True])
def test_a_weight_that_is_none_is_refused_with_its_place(tmp_path: Path, value: str, quoted: bool) -> None:
    path = tmp_path / "log.csv"
    cell = f'"{value}"' if quoted else value
    path.write_text(f"user,item,w\n1,1,1\n1,2,{cell}\n")
    with pytest.raises(DataError, match=r"log\.csv(, (data row 1|line 3): w |: .*w holds NaN or inf)"):
        load(path, weight_col="w")


def test_a_frame_refuses_it_too() -> None:
    with pytest.raises(DataError, match="data row 1: w -1 is below 0; a weight is at least 0"):
        load({"user": [1, 2], "item": [1, 2], "w": [1, -1]}, weight_col="w")
    with pytest.raises(DataError, match="weight column 'w' is String; weights are numbers"):
        load(pl.DataFrame({"user": [1, 2], "item": [1, 2], "w": ["a", "b"]}), weight_col="w")
    with pytest.raises(DataError, match=r"no column 'v' \(--weight-col\)"):
        load({"user": [1, 2], "item": [1, 2], "w": [1, 1]}, weight_col="v")
    for wrong in ([1.0, np.nan], [1.0, -1.0], [1.0, 1e300]):
        with pytest.raises(DataError, match="in row 1; weights are finite and at least 0"):
            Interactions.from_arrays([1, 2], [1, 2], weights=wrong)
    with pytest.raises(DataError, match="weights has shape"):
        Interactions.from_arrays([1, 2], [1, 2], weights=[1.0])


def test_formats_without_names_refuse_the_option(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::1\n1::2::5::2\n")
    with pytest.raises(ConfigError, match=r"--weight-col w: .*has no named columns"):
        load(tmp_path / "ratings.dat", weight_col="w")
    x = load(ROWS, weight_col="plays")
    x.save(tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"weight_col='plays'.*is a CSR already"):
        load(tmp_path / "x.safetensors", weight_col="plays")
    with pytest.raises(ConfigError, match="weight_col: no effect with data in memory"):
        fastrec.train(x, weight_col="plays")


def test_files_keep_them_and_fingerprints_see_them(tmp_path: Path) -> None:
    x, plain = load(ROWS, weight_col="plays"), load(ROWS)
    again = Interactions.open(x.save(tmp_path / "x.safetensors"))
    assert by_pair(again) == LATEST
    assert again.fingerprint() == x.fingerprint() != plain.fingerprint()
    assert plain.weights is None
    assert Interactions.open(plain.save(tmp_path / "y.safetensors")).weights is None
    assert by_pair(load(ROWS, weight_col="plays", ids=plain)) == LATEST
    core = [(user, item) for user in (1, 3) for item in (11, 12)]
    assert by_pair(load(ROWS, weight_col="plays", k_core=2)) == {pair: LATEST[pair] for pair in core}


@pytest.mark.parametrize("cut", [leave_one_out, ratio_split, time_split, everything])
def test_splits_and_their_files_keep_them(tmp_path: Path, cut: Any) -> None:
    split = cut(load(ROWS, weight_col="plays"))
    save_split(tmp_path / "split.safetensors", split)
    again = open_split(tmp_path / "split.safetensors")
    for one in (split, again):
        parts = [by_pair(part) for part in (one.train, one.validation, one.test)]
        assert parts[0] | parts[1] | parts[2] == LATEST
    assert fingerprints(again) == fingerprints(split)


def test_a_split_that_comes_with_the_data_takes_them(tmp_path: Path) -> None:
    frame = pl.DataFrame(ROWS).unique(("user", "item"), keep="last", maintain_order=True)
    frame[:5].write_csv(tmp_path / "train.csv")
    frame[5:].write_csv(tmp_path / "test.csv")
    split = load_split(tmp_path, weight_col="plays")
    assert by_pair(split.train) | by_pair(split.test) == LATEST
    cut = add_validation(split, 0.3)
    assert cut.train.weights is not None
    assert cut.train.n_interactions == cut.train.weights.size < split.train.n_interactions
    config = resolve(Config(data=str(tmp_path), weight_col="plays", device="cpu", model="mf", dim=4, threads=1))
    engine = build_engine(prepare(config), config)
    assert engine.stream.weights is not None
    engine.close()


def test_a_part_without_weights_counts_as_one_in_the_file(tmp_path: Path) -> None:
    split = leave_one_out(load(ROWS, weight_col="plays"))
    bare = leave_one_out(load(ROWS))
    save_split(tmp_path / "s.safetensors", Split(split.train, bare.validation, bare.test, how="leave-one-out"))
    again = open_split(tmp_path / "s.safetensors")
    assert by_pair(again.train) == by_pair(split.train)
    assert set(by_pair(again.test).values()) == {1.0}
