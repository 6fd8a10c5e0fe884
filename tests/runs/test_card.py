"""The model card of a run: what it is, how to load it, and nothing that steers a page."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from fastrec import runs
from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.runs.card import card, write_card
from fastrec.training.fit import fit, resume
from tests.helpers.fakes import interactions
from tests.helpers.training import positives


def made(folder: Path, name: str) -> runs.Run:
    parts = [interactions(rows, 2, f"{name} train") for rows in ([[0], [1]], [[], []], [[1], []])]
    return runs.create(folder, config={"model": "mf", "dim": 4}, split=Split(*parts))


def test_a_card_tells_data_recipe_metrics_use_and_licence(tmp_path: Path) -> None:
    run = made(tmp_path / "run", "ml-1m")
    assert "None: the training was interrupted" in card(run)
    metrics = {"99 candidates": {"HR@10": 0.5}, "full ranking": {"HR@10": 0.25, "notes": []}}
    counts = {"stopped": "all epochs", "epochs_done": 1, "best_epoch": None, "best_validation": None}
    speed = {"seconds": 1.0, "samples_per_s": 2.0}
    run.record(status="done", result={**counts, **speed, "metrics": metrics, "notes": ["2 rows merged"]})
    write_card(run)
    text = (runs.open_run(run.path).path / "README.md").read_text()
    for words in (
        "# mf on ml-1m",
        "2 users, 2 items; train 2, validation 0, test 1 interactions",
        "| 99 candidates | 0.5000 |",
        "| full ranking | 0.2500 |",
        "- 2 rows merged",
        "| dim | 4 |",
        "fastrec.Recommender.load",
        "MovieLens, by GroupLens: research use only",
    ):
        assert words in text


def test_names_from_data_are_harmless(tmp_path: Path) -> None:
    text = card(made(tmp_path / "run", "<script>alert(1)</script>\x1b[31m\n# head | [x](y)"))
    assert "<script>" not in text
    assert "\x1b" not in text
    assert "\n# head" not in text
    assert "\\| \\[x\\](y)" in text
    assert "not known to fastrec" in text


def test_a_card_that_a_crash_prevented_is_written_by_the_next_resume(tmp_path: Path) -> None:
    indptr, items = positives(n_users=40, n_items=30)
    split = ratio_split(Interactions(indptr, items, user_ids=np.arange(40), item_ids=np.arange(30), name="small"))
    options = Config(dim=4, epochs=1, batch_size=32, candidates=9, progress=False, tensorboard=False, patience=0)
    fit(split, options, out=tmp_path / "run")
    text = (tmp_path / "run" / "README.md").read_bytes()
    (tmp_path / "run" / "README.md").unlink()
    (tmp_path / "run" / ".README.md.123-abcd.part").write_bytes(b"half")
    (tmp_path / "run" / ".metrics.jsonl.123-abcd.part").write_bytes(b"half")
    assert resume(tmp_path / "run").stopped == "all epochs"
    assert (tmp_path / "run" / "README.md").read_bytes() == text
    assert not list((tmp_path / "run").glob(".*.part"))
