"""What CONTRIBUTING.md adds is one file each, and that file is enough: it trains, evaluates, recommends and exports."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from typing import Any

import pytest

from tests.conftest import ROOT

PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SECTION = re.compile(r"^## (Add .*?)\n(.*?)(?=^## )", re.M | re.S)
FILES = {title: re.findall(r"```python\n# (\S+)\n(.*?)```", text, re.S) for title, text in SECTION.findall(PAGE)}
USERS, ITEMS = 60, 40


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What tests/helpers/contributed.py prints, with the files of the page added."""
    folder = tmp_path_factory.mktemp("contributed")
    for files in FILES.values():
        for name, text in files:
            path = folder / "added" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
    # two groups of users, each with a half of the items: what a model can learn and popularity cannot
    rows = [
        (u, i)
        for u in range(USERS)
        for i in range(ITEMS)
        if u % 2 == i % 2 and (u * 2654435761 + i * 40503 >> 7) % 5 < 3
    ]
    (folder / "log.qrels").write_text("".join(f"u{u} 0 i{i} 1\n" for u, i in rows))
    ran = subprocess.run(
        [sys.executable, "-m", "tests.helpers.contributed", str(folder / "added"), "log.qrels"],
        cwd=folder, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=240,
    )  # fmt: skip
    assert ran.returncode == 0, ran.stderr[-4000:]
    printed: dict[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return printed


def test_every_addition_is_one_file_that_is_not_there_yet() -> None:
    assert len(FILES) == 9
    assert {title: len(files) for title, files in FILES.items()} == dict.fromkeys(FILES, 1)
    assert [name for ((name, _),) in FILES.values() if (ROOT / name).exists()] == []


@pytest.mark.parametrize("model", ["euclidean", "lightgcn"])
def test_a_model_trains_evaluates_recommends_and_exports(found: dict[str, Any], model: str) -> None:
    run = found[model]
    assert run["config"]["model"] == model
    assert run["losses"][-1] < run["losses"][0]
    assert run["evaluated"]["full ranking"]["HR@10"] > 0.6, "a random order of 25 unseen items has 0.4"
    assert len(re.findall(r"^\d+ +i\d+ ", run["recommended"], re.M)) == 10
    assert run["export_error"] < 1e-5


def test_loss_optimiser_format_and_split_rule_are_those_added(found: dict[str, Any]) -> None:
    assert (found["euclidean"]["config"]["optimizer"], found["lightgcn"]["config"]["loss"]) == ("rmsprop", "hinge")
    assert found["euclidean"]["config"]["data"].endswith("log.qrels")
    assert found["euclidean"]["config"]["split"] == "leave-one-random"
    assert found["euclidean"]["tests"] == [1] * USERS


@pytest.mark.parametrize("protocol", ["full ranking", "99 candidates"])
def test_a_metric_is_measured_and_selected_by(found: dict[str, Any], protocol: str) -> None:
    run = found["lightgcn"]
    assert run["config"]["select"] == "full:F1@5"
    assert run["result"]["best_validation"] > 0
    values = run["evaluated"][protocol]
    for k in (5, 10, 20):  # one positive per user
        assert values[f"F1@{k}"] == pytest.approx(2 * values[f"HR@{k}"] / (k + 1))


def test_a_baseline_is_fitted_and_scored(found: dict[str, Any]) -> None:
    rows = found["baselines"]
    svd, popular = (rows[name]["metrics"]["full ranking"]["NDCG@10"] for name in ("pure-svd", "popularity"))
    assert svd > popular
    assert rows["pure-svd"]["settings"]["dim"] in (50, 20, 10)


@pytest.mark.parametrize("model", ["euclidean", "lightgcn"])
def test_an_exporter_writes_its_file(found: dict[str, Any], model: str) -> None:
    head, n_lines, first, ident = found[model]["words"]
    assert (head, n_lines, first) == (f"{ITEMS} {21 if model == 'euclidean' else 20}", ITEMS, ident)
