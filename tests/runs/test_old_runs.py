"""A run folder written by commit f03738c opens, evaluates and recommends as it did there."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import fastrec
from fastrec.inference.recommend import recommend

OLD = Path(__file__).with_name("run-f03738c")
PRINTED = {
    "full ranking": {"HR@3": 0.3, "NDCG@3": 0.2315, "HR@5": 0.7, "NDCG@5": 0.3907},
}
"""What f03738c printed of full ranking; its candidates were drawn by stream version 1."""


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """A copy: evaluating may sweep or lock, and the committed folder stays as it is."""
    return Path(shutil.copytree(OLD, tmp_path / "run"))


def test_it_evaluates_to_the_figures_that_were_printed(run: Path) -> None:
    found = fastrec.evaluate(run)
    for protocol, figures in PRINTED.items():
        for name, figure in figures.items():
            assert found[protocol][name] == pytest.approx(figure, abs=5e-5), (protocol, name)
    assert any("version 2" in note for note in found["5 candidates"]["notes"]), found["5 candidates"]["notes"]


def test_it_recommends_by_title(run: Path) -> None:
    rows = recommend(fastrec.open_run(run), "1", 5)
    assert [row["rank"] for row in rows] == [1, 2, 3, 4, 5]
    assert all(str(row["title"]).startswith("Film ") for row in rows)


def test_its_options_are_read_under_their_present_names(run: Path) -> None:
    config = fastrec.open_run(run).config
    assert config["model"] == "gmf"
    assert config["dim"] == 4
    assert "data" in config
