"""The audit of a run: counts equal a plain count of what the stream fed, epoch by epoch."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import fastrec
from fastrec.batches.stream import Stream
from fastrec.cli.main import main
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation import audit as counting
from fastrec.evaluation.audit import expected_draws, exposure_effect
from fastrec.runs import open_run
from fastrec.sampling import NegativeSampler
from fastrec.training.build import make_sampler
from fastrec.training.fit import recorded_config
from tests.helpers.fakes import random_parts


def train(out: Path, **options: Any) -> Path:
    split = Split(*random_parts(np.random.default_rng(3), 30, 40, (12, 3, 2)))
    given = {"model": "mf", "dim": 4, "epochs": 4, "lr": 0.05, "tensorboard": False, "progress": False, **options}
    return fastrec.train(split, out=str(out), **given).run.path


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = train(tmp_path_factory.mktemp("runs") / "run")
    run = open_run(made)
    run.record(result={**run.manifest["result"], "best_epoch": 3, "epochs_done": 4})
    return made


def drawn(path: Path) -> Counter[tuple[int, int, int]]:
    """(epoch from 1, user, item) -> times, from the batches of the training."""
    run = open_run(path)
    split = run.split()
    stream = Stream(split.train.indptr, split.train.items, make_sampler(split, recorded_config(run)), seed=0)
    found: Counter[tuple[int, int, int]] = Counter()
    for epoch in range(run.manifest["result"]["epochs_done"]):
        batch = stream.read(epoch, 0, stream.n_positives)
        for user, row in zip(batch.users.tolist(), batch.items[:, 1:].tolist()):
            found.update((epoch + 1, user, item) for item in row)
    return found


def test_counts_equal_those_of_the_stream(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(counting, "BLOCK", 17)
    monkeypatch.setattr(counting.blocks, "__defaults__", (17,))
    expected, split = drawn(path), open_run(path).split()
    found = fastrec.audit(path)
    assert found["draws"] == sum(expected.values())
    assert [e["kept"] for e in found["by_epoch"]] == [True, True, True, False]
    for name in ("validation", "test"):
        part = getattr(split, name)
        pairs = list(zip(part.users.tolist(), part.items.tolist()))
        times = [sum(expected[epoch, *pair] for epoch in range(1, 5)) for pair in pairs]
        trained = sum(expected[epoch, *pair] for epoch in range(1, 4) for pair in pairs)
        assert found["held_out"][name]["drawn"] == sum(times)
        assert found["held_out"][name]["exposed"] == sum(t > 0 for t in times)
        assert found["held_out"][name]["trained"] == trained
    of_item = Counter({i: sum(n for (_, _, item), n in expected.items() if item == i) for i in range(40)})
    assert [row["drawn"] for row in found["most_drawn"]] == sorted(of_item.values(), reverse=True)[:10]
    assert all(e["effect"] is None for e in found["effect"].values()), "fewer than 100 exposed pairs: no estimate"
    assert "too few" in found["notes"][-1]


def test_one_user_and_one_item(path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    expected = drawn(path)
    user, item = next((u, i) for (_, u, i), _ in expected.most_common(1))
    of_user = fastrec.audit(path, user=user)["pairs"]
    assert {p["item_id"]: p["epochs"] for p in of_user} == {
        i: sorted(e for (e, u, j), n in expected.items() if (u, j) == (user, i) for _ in range(n))
        for i in {i for (_, u, i) in expected if u == user}
    }
    of_item = fastrec.audit(path, item=item)["pairs"]
    assert {p["user_id"]: p["drawn"] for p in of_item} == Counter(
        u for (_, u, i), n in expected.items() if i == item for _ in range(n)
    )
    (both,) = fastrec.audit(path, user=user, item=item)["pairs"]
    assert both["in_kept"] == sum(epoch <= 3 for epoch in both["epochs"])
    assert main(["audit", str(path), "--user", str(user)]) == 0
    assert "4*" in capsys.readouterr().out, "epochs after the kept one are marked"
    assert main(["audit", str(path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["kept_epoch"] == 3
    assert main(["audit", str(path)]) == 0
    assert "4 *" in capsys.readouterr().out
    for wrong in (["--user", "999"], ["--item", "x"]):
        assert main(["audit", str(path), *wrong]) == 1
        assert "not among the" in capsys.readouterr().err


def test_what_draws_do_not_tell_is_not_counted_as_trained(tmp_path: Path) -> None:
    hard = fastrec.audit(train(tmp_path / "hard", hard_negatives=9, negatives=2, engine="torch", epochs=1))
    assert hard["negatives"] == 9
    assert hard["held_out"]["test"]["trained"] is None
    assert hard["held_out"]["test"]["drawn"] > 0
    assert hard["effect"] == {}
    softmax = fastrec.audit(train(tmp_path / "softmax", loss="inbatch-softmax", engine="torch", epochs=1))
    assert softmax["held_out"]["test"]["trained"] is None
    assert "are not draws" in softmax["notes"][0]
    never = fastrec.audit(train(tmp_path / "all", exclude="all", epochs=1))
    assert never["held_out"]["test"]["drawn"] == never["held_out"]["test"]["expected"] == 0


def test_old_and_unfinished_runs_are_refused(tmp_path: Path) -> None:
    run = open_run(train(tmp_path / "run", epochs=1))
    run.record(stream_version=1)
    with pytest.raises(
        CheckpointError, match="stream version 1, and this fastrec draws version 2, so it cannot rebuild"
    ):
        fastrec.audit(run)
    run.record(stream_version=2)
    del run.manifest["result"]
    with pytest.raises(CheckpointError, match="has not ended"):
        fastrec.audit(run)
    with pytest.raises(DataError, match="user 77"):
        fastrec.audit(train(tmp_path / "other", epochs=1), user=77)


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_the_expected_number_of_draws(distribution: str) -> None:
    split = Split(*random_parts(np.random.default_rng(5), 30, 40, (12, 3, 2)))
    train = split.train
    sampler = NegativeSampler(train.indptr, train.items, n_items=40, n_negatives=8, distribution=distribution, seed=1)
    n = 400
    found = counting.count_draws(split, sampler, range(n)).of_pair["test"]
    expected = expected_draws(split, sampler, split.test, n)
    assert np.abs(found - expected).max() < 6 * np.sqrt(expected.max())
    assert (expected[train.item_counts()[split.test.items] > 0][:5] > 0).any()


def test_the_experiment_finds_an_effect_that_was_planted(rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 3000, 50, (20, 1, 2)))
    expected = split.train.degrees[split.test.users] * 0.1
    drawn = rng.poisson(expected)
    # users of high degree hit more: without the degree the effect would have the wrong sign
    chance = np.clip(0.02 * split.train.degrees[split.test.users] + 0.3 - 0.04 * drawn, 0, 1)
    hits = (rng.random(drawn.size) < chance).astype(np.float64)
    found = exposure_effect(hits, drawn, expected, split)
    assert abs(found["effect"] + 0.04) < 4 * found["standard_error"]
    assert 0.002 < found["standard_error"] < 0.02
    plain = np.polyfit(drawn, hits, 1)[0]
    assert plain > found["effect"] + 0.02


@pytest.mark.real_data
def test_an_audit_of_real_data(tmp_path: Path, real_data) -> None:
    split = fastrec.leave_one_out(fastrec.load(real_data("ml-100k")))
    path = fastrec.train(split, model="gmf", dim=8, epochs=4, out=str(tmp_path / "run"), progress=False).run.path
    found = fastrec.audit(path)
    assert found["draws"] == 4 * 4 * split.train.n_interactions
    test = found["held_out"]["test"]
    assert test["pairs"] == 943
    assert abs(test["drawn"] - test["expected"]) < 5 * test["expected"] ** 0.5
    assert found["effect"]["candidates:HR@10"]["standard_error"] > 0
