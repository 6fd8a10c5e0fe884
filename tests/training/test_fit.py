"""fit and resume: from a split to a run folder, on a small world without Polars."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec.config import Config, preset
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import CheckpointError, ConfigError
from fastrec.evaluation.score import evaluate
from fastrec.inference.recommend import recommend
from fastrec.runs import open_run
from fastrec.sampling import STREAM_VERSION
from fastrec.training.fit import Result, fit, make_sampler, resume
from fastrec.training.resolve import resolve
from fastrec.training.trainer import Trainer
from tests.helpers.fakes import interactions
from tests.helpers.training import positives

SMALL: dict[str, Any] = {
    "dim": 4, "epochs": 3, "batch_size": 32, "candidates": 9, "progress": False, "tensorboard": False, "lr": 0.02,
    "l2": 0.0, "init_std": 0.1, "patience": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def split() -> Split:
    indptr, items = positives(n_users=60, n_items=40)
    whole = Interactions(indptr, items, user_ids=np.arange(60), item_ids=np.arange(100, 140), name="small")
    return ratio_split(whole, test=0.2, validation=0.2)


def train(split: Split, folder: Path, **options: Any) -> Result:
    return fit(split, Config(**{**SMALL, **options}), out=folder)


def test_a_run_holds_what_was_trained_and_how_well(split: Split, tmp_path: Path) -> None:
    result = train(split, tmp_path / "run", patience=5, epochs=12)
    run = open_run(tmp_path / "run")
    assert run.manifest["status"] == "done"
    assert run.config["device"] == "cpu", "auto is resolved before it is recorded"
    assert run.manifest["engine"]["step"] == "kernels"
    assert set(result.metrics) == {"9 candidates", "full ranking"}
    assert result.metrics["9 candidates"]["HR@10"] > 0.5
    kinds = [json.loads(line)["kind"] for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert kinds.count("test") == 2
    assert kinds.count("epoch") == result.epochs_done
    assert result.best_epoch is not None
    assert result.best_validation is not None
    assert np.array_equal(run.model().user_factors.detach(), result.run.model().user_factors.detach())
    assert result.samples_per_s > 0


def test_two_runs_of_one_seed_have_equal_bytes(split: Split, tmp_path: Path) -> None:
    for name in ("a", "b"):
        train(split, tmp_path / name, threads=1 if name == "a" else 2)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() == (tmp_path / "b" / "model.safetensors").read_bytes()
    train(split, tmp_path / "c", seed=1)
    assert (tmp_path / "a" / "model.safetensors").read_bytes() != (tmp_path / "c" / "model.safetensors").read_bytes()


def cut(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    inner = Trainer.run
    monkeypatch.setattr(Trainer, "run", lambda self: inner(self, stop_after=step))


@pytest.mark.parametrize("step", [2, 9])
def test_an_interrupted_run_goes_on_to_the_same_bytes(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    whole = train(split, tmp_path / "whole", patience=2)
    with monkeypatch.context() as m:
        cut(m, step)
        first = train(split, tmp_path / "cut", patience=2)
    assert first.stopped == "interrupted"
    assert first.metrics == {}
    assert open_run(tmp_path / "cut").manifest["status"] == "interrupted"
    second = resume(tmp_path / "cut")
    assert (second.stopped, second.best_epoch) == (whole.stopped, whole.best_epoch)
    assert second.metrics == whole.metrics
    names = ("model.safetensors", "data.safetensors", "config.toml")
    for name in names:
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_finished_run_says_so(split: Split, tmp_path: Path) -> None:
    first = train(split, tmp_path / "run")
    again = resume(tmp_path / "run")
    assert again.metrics == first.metrics
    assert "nothing left to train" in again.notes[-1]


@pytest.mark.parametrize("step", [4, None])
def test_a_run_of_stream_version_1_opens_and_scores_but_does_not_go_on(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int | None
) -> None:
    """Its weights are read; its draws cannot be continued."""
    with monkeypatch.context() as m:
        if step is not None:
            cut(m, step)
        train(split, tmp_path / "run")
    run = open_run(tmp_path / "run")
    assert run.manifest["stream_version"] == run.stream_version == STREAM_VERSION == 2
    del run.manifest["stream_version"]  # as version 1 wrote it
    run.record()
    with pytest.raises(
        CheckpointError, match=r"draws are of stream version 1, and this fastrec draws version 2"
    ) as error:
        resume(tmp_path / "run")
    assert "\n" not in str(error.value)
    old = open_run(tmp_path / "run")
    assert old.stream_version == 1
    if step is None:
        notes = evaluate(old)["9 candidates"]["notes"]
        assert any("stream version 2" in note and "version 1" in note for note in notes), notes
        assert len(recommend(old, old.split().train.user_ids[0], k=3)) == 3


def test_another_config_or_other_data_are_refused_with_the_difference(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as m:
        cut(m, 4)
        train(split, tmp_path / "run")
    with pytest.raises(CheckpointError, match=r"lr: 0\.02 -> 0\.5"):
        resume(tmp_path / "run", lr=0.5)
    with pytest.raises(CheckpointError, match=r"data: 'memory:small' -> 'gowalla'"):
        resume(tmp_path / "run", data="gowalla")
    resume(tmp_path / "run", threads=1, log_every=3)


def test_a_run_cut_before_its_first_checkpoint_starts_over(split: Split, tmp_path: Path) -> None:
    whole = train(split, tmp_path / "whole")
    train(split, tmp_path / "run")
    run = open_run(tmp_path / "run")
    for path in (tmp_path / "run" / "checkpoints").iterdir():
        path.unlink()
    run.record(status="training")
    resume(tmp_path / "run")
    assert (run.path / "model.safetensors").read_bytes() == (whole.run.path / "model.safetensors").read_bytes()


def test_no_validation_part_is_said(split: Split, tmp_path: Path) -> None:
    bare = Split(split.train, split.validation.keep(np.zeros(split.validation.n_interactions, bool)), split.test)
    result = train(bare, tmp_path / "run", patience=3)
    assert any("last weights" in note for note in result.notes)
    assert (result.best_epoch, result.epochs_done) == (None, 3)


def test_avoiding_held_out_positives_is_named_a_leak(split: Split, tmp_path: Path) -> None:
    sampler = make_sampler(split, Config(**SMALL, avoid="all"))
    users = split.test.users
    drawn = sampler.sample(users, epoch=0, start=0)
    for user, row in zip(users, drawn):
        assert not np.isin(row, split.test.row(user)).any()
    assert any("leak" in note for note in train(split, tmp_path / "run", avoid="all").notes)


def test_pretrained_neumf_starts_from_two_runs(split: Split, tmp_path: Path) -> None:
    train(split, tmp_path / "gmf", model="gmf")
    train(split, tmp_path / "mlp", model="mlp")
    given = {"pretrained_gmf": str(tmp_path / "gmf"), "pretrained_mlp": str(tmp_path / "mlp")}
    train(split, tmp_path / "neumf", model="neumf", optimizer="sgd", lr=0.0, epochs=1, **given)
    net, gmf = open_run(tmp_path / "neumf").model(), open_run(tmp_path / "gmf").model()
    assert np.array_equal(net.user_factors.detach(), gmf.user_factors.detach())
    np.testing.assert_allclose(net.h[:4].detach(), 0.5 * gmf.h.detach(), rtol=1e-6)
    with pytest.raises(ConfigError, match="go together"):
        train(split, tmp_path / "x", model="neumf", pretrained_gmf=given["pretrained_gmf"])
    with pytest.raises(ConfigError, match="holds a MLP"):
        train(split, tmp_path / "x", model="neumf", **{**given, "pretrained_gmf": given["pretrained_mlp"]})
    assert not (tmp_path / "x").exists()


def test_what_is_left_out_is_resolved_by_model_and_recorded(split: Split, tmp_path: Path) -> None:
    """A GMF's h starts at ones and hardly shrinks; whatever is given stands, and other models have no part in it."""

    def of(**options: Any) -> tuple[Any, ...]:
        c = resolve(Config(device="cpu", **options))
        return c.init_h, c.lr_h, c.l2, c.l2_h

    assert of() == ("one", 0.1, 0.003, 0.0002)
    assert of(l2=0.01, lr_h=1.0) == ("one", 1.0, 0.01, 0.0002)
    assert of(optimizer="adamw") == ("one", 0.1, 0.003, None)
    plain = ("lecun", 1.0, 0.0003, None)
    assert of(init_h="lecun") == of(model="mf") == of(model="mlp") == of(model="neumf") == plain
    assert of(engine="fused", optimizer="sgd") == plain
    assert resolve(preset("ncf-gmf-8")).init_h == "lecun", "a preset keeps the recipe that it was chosen with"
    run = train(split, tmp_path / "run", epochs=1).run
    assert [run.config[k] for k in ("init_h", "lr_h", "l2", "l2_h")] == ["one", 0.1, 0.0, 0.0002]


def test_an_impossible_run_leaves_no_folder(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no layer to drop"):
        train(split, tmp_path / "run", dropout=0.5)
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a CUDA device is here")
def test_cuda_asked_for_and_not_there_is_an_error(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'cuda:7'.*finds no CUDA device; use device = cpu"):
        train(split, tmp_path / "run", device="cuda:7")
    assert not (tmp_path / "run").exists()


def test_a_run_on_the_cpu_loads_no_compiler(tmp_path: Path) -> None:
    """torch._dynamo takes 100 MB and a second of start, and the base class of torch's optimisers loads it."""
    code = (
        "import sys, fastrec\n"
        "options = dict(dim=4, epochs=1, progress=False, tensorboard=False, l2_h=0.1, lr_h=0.5)\n"
        f"result = fastrec.train('synthetic-small', out={str(tmp_path / 'run')!r}, **options)\n"
        "print(result.stopped, sorted({'torch._dynamo', 'sympy', 'torch._inductor'} & set(sys.modules)))"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "all epochs []", done.stderr


def test_a_saved_run_trains_on_without_polars(split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as m:
        cut(m, 4)
        train(split, tmp_path / "run")
    code = (
        "import sys; sys.modules['polars'] = None\n"
        f"from fastrec.training.fit import resume\nprint(resume({str(tmp_path / 'run')!r}).stopped)"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=root)
    assert done.stdout.strip() == "all epochs", done.stderr


def test_untrained_users_have_no_say_in_early_stopping(tmp_path: Path) -> None:
    """Validation of new users only: nothing to select by, said in a note, and no epoch is kept for its luck."""
    rows = [list(range(k % 5, 40, 3)) for k in range(20)]
    train = interactions([*rows, [], []], 40)
    cold, mixed = ([[]] * 20 + [[1, 2], [3]], [[(k % 5) + 1] for k in range(20)] + [[1, 2], [3]])
    nothing = interactions([[]] * 22, 40)
    for name, validation in (("cold", cold), ("mixed", mixed)):
        result = fit(
            Split(train, interactions(validation, 40), nothing), Config(**{**SMALL, "patience": 2}), out=tmp_path / name
        )
        said = [note for note in result.notes if "left out" in note]
        assert said == [
            f"3 of {3 if name == 'cold' else 23} validation positives left out: their users are not in train"
        ]
        assert (result.best_epoch is None) == (name == "cold")
        assert any("no validation positive of a user in train" in note for note in result.notes) == (name == "cold")
