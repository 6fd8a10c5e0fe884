"""What a run records is what was done, and what cannot work is found before the work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.config import Config, read_toml
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import ConfigError
from fastrec.runs import open_run, save_split
from fastrec.training.fit import fit, resume
from fastrec.training.job import prepare, train
from tests.helpers.training import positives

SMALL: dict[str, Any] = {
    "dim": 4, "epochs": 1, "batch_size": 32, "candidates": 9, "progress": False, "tensorboard": False, "patience": 0,
}  # fmt: skip


def log() -> Interactions:
    indptr, items = positives(n_users=40, n_items=30)
    return Interactions(indptr, items, user_ids=np.arange(40), item_ids=np.arange(30), name="clicks.csv")


@pytest.fixture
def split() -> Split:
    return ratio_split(log())


LOADING = {
    "user_col": "u", "item_col": "i", "rating_col": "r", "time_col": "t", "min_rating": 4.0, "k_core": 500,
    "unrated_negatives": True,
}  # fmt: skip
SPLITTING = {"split": "ratio", "validation": 0.2, "test_fraction": 0.3, "split_seed": 1}


@pytest.mark.parametrize("option", [*LOADING, *SPLITTING])
def test_options_that_have_no_effect_on_the_data_are_refused(option: str, split: Split, tmp_path: Path) -> None:
    given = {option: {**LOADING, **SPLITTING}[option], "out": str(tmp_path / "run"), **SMALL}
    with pytest.raises(ConfigError, match=f"^{option}: no effect with a split"):
        train(split, **given)
    if option in LOADING:
        with pytest.raises(ConfigError, match=f"^{option}: no effect with data in memory"):
            train(log(), **given)
    assert not (tmp_path / "run").exists()


def test_defaults_given_by_name_are_refused_too(split: Split) -> None:
    with pytest.raises(ConfigError, match="k_core, split: no effect"):
        train(split, k_core=0, split="auto")
    with pytest.raises(ConfigError, match="data is a int"):
        train(1)  # type: ignore[arg-type]


def test_fit_refuses_filters_that_nobody_applied(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="min_rating, k_core: no effect on data in memory"):
        fit(split, Config(**SMALL, k_core=5, min_rating=3.0), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_the_record_says_what_was_done(split: Split, tmp_path: Path) -> None:
    train(log(), split="ratio", test_fraction=0.3, out=str(tmp_path / "a"), **SMALL)
    train(split, preset="ncf-gmf-8", out=str(tmp_path / "b"), **SMALL)
    fit(split, Config(**SMALL), out=tmp_path / "c")
    a, b, c = (open_run(tmp_path / name).config for name in "abc")
    assert (a["data"], a["split"], a["test_fraction"], a["validation"]) == ("memory:clicks.csv", "ratio", 0.3, 0.1)
    for config in (b, c):
        assert (config["data"], config["split"], config["validation"]) == ("memory:clicks.csv", "given", 0.0)
    for name in "abc":
        with pytest.raises(ConfigError, match=r"data = 'memory:clicks\.csv': .*in memory.*data\.safetensors"):
            prepare(read_toml(tmp_path / name / "config.toml"))
    assert resume(tmp_path / "a").metrics, "a run in memory is opened as any other"
    again = train(tmp_path / "b" / "data.safetensors", validation=0.0, out=str(tmp_path / "d"), **SMALL)
    assert again.run.manifest["data"]["fingerprints"] == open_run(tmp_path / "b").manifest["data"]["fingerprints"]


def test_data_that_are_loaded_are_recorded_by_their_path(split: Split, tmp_path: Path) -> None:
    save_split(tmp_path / "s.safetensors", split)
    result = train(tmp_path / "s.safetensors", out=str(tmp_path / "run"), **SMALL)
    assert result.run.config["data"] == str(tmp_path / "s.safetensors")


# found before the work


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("cutoffs", (2**31,)), ("cutoffs", (5, 2**31 - 1)), ("cutoffs", (1_000_001,)), ("cutoffs", (2**70,)),
        ("candidates", 2**31 - 1), ("candidates", 65537), ("candidates", 0), ("layers", (2**70,)), ("layers", (10**9,)),
        ("min_rating", float("nan")), ("min_rating", float("inf")), ("out", ""), ("out", "a\0b"), ("out", "a\udcff"),
        ("data", " "), ("data", "x\0"), ("user_col", ""), ("pretrained_gmf", ""), ("device", ""),
    ],
)  # fmt: skip
def test_a_value_that_fails_later_is_refused_by_its_own_name(option: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=f"^{option} = "):
        Config(**{option: value})


def test_candidates_beyond_memory_are_refused_before_training(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.sysconf", lambda name: {"SC_PAGE_SIZE": 4096, "SC_PHYS_PAGES": 1}[name])
    with pytest.raises(ConfigError, match=r"^candidates = 500: .* lower candidates"):
        fit(split, Config(**{**SMALL, "candidates": 500}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_cutoff_that_every_model_hits_is_noted(split: Split, tmp_path: Path) -> None:
    result = fit(split, Config(**SMALL, cutoffs=(10, 30, 1_000_000)), out=tmp_path / "run")
    assert any("cutoffs 30, 1000000: there are 30 items" in note for note in result.notes)
