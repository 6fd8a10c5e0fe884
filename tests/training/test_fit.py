"""fit and resume: from a split to a run folder, on a small world without Polars."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec.cli.train import summary
from fastrec.config import Config, preset
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import CheckpointError, ConfigError
from fastrec.evaluation.score import evaluate
from fastrec.files import sha256_file
from fastrec.inference.recommend import recommend
from fastrec.runs import Run, open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.sampling import STREAM_VERSION
from fastrec.training.build import make_sampler
from fastrec.training.fit import Result, fit, resume
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
    assert result.epoch_samples_per_s is not None
    text = summary(result)
    rate = f"{result.epoch_samples_per_s:,.0f} in the last epoch's steps"
    for row in (("samples/s, training", rate), ("validation", "a random sample of each user's interactions")):
        assert re.search(rf"{row[0]} +{re.escape(row[1])}", text), text
    assert "validation included" in text
    assert "comparable" not in text, "nobody could take a small log for the NCF paper's"


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
    half = open_run(tmp_path / "cut")
    assert half.manifest["status"] == "interrupted"
    tensors, meta = Checkpoints(half.path / "checkpoints").load()
    assert all(torch.equal(v, tensors[f"model.{k}"]) for k, v in half.model().state_dict().items()), "they can be used"
    assert first.notes[-1] == f"interrupted: the run's weights are those of its last checkpoint, step {meta['step']}"
    assert len(first.recommender().recommend(int(first.example_user), k=3)) == 3
    assert "fastrec recommend" in summary(first)
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


def test_a_run_is_done_only_when_its_metrics_are_on_the_disk(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Power lost right after the manifest says "done" must not take the lines of the test metrics."""
    synced, lines, record, fsync = {}, [], Run.record, os.fsync

    def recorded(run: Run, **values: object) -> None:
        if values.get("status") == "done":
            found = os.stat(run.path / "metrics.jsonl")
            lines.append((synced.get(found.st_ino), found.st_size))
        record(run, **values)

    def sync(descriptor: int) -> None:
        fsync(descriptor)
        found = os.fstat(descriptor)
        synced[found.st_ino] = found.st_size

    monkeypatch.setattr(Run, "record", recorded)
    monkeypatch.setattr(os, "fsync", sync)
    train(split, tmp_path / "run")
    assert len(lines) == 1
    assert lines[0][0] == lines[0][1] > 0


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
    defaults = {k: v for k, v in SMALL.items() if k != "patience"}
    result = fit(bare, Config(**defaults), out=tmp_path / "run")
    assert "patience" not in result.run.config
    with pytest.raises(ConfigError, match=r"patience = 3: has no effect.*a validation part, and these data have none"):
        train(bare, tmp_path / "x", patience=3)
    assert not (tmp_path / "x").exists()
    assert any("last weights" in note for note in result.notes)
    assert (result.best_epoch, result.epochs_done) == (None, 3)


def test_avoiding_held_out_positives_is_named_a_leak(split: Split, tmp_path: Path) -> None:
    sampler = make_sampler(split, Config(**SMALL, exclude="all"))
    users = split.test.users
    drawn = sampler.sample(users, epoch=0, start=0)
    for user, row in zip(users, drawn):
        assert not np.isin(row, split.test.row(user)).any()
    assert any("leak" in note for note in train(split, tmp_path / "run", exclude="all").notes)


def test_pretrained_neumf_starts_from_two_runs(split: Split, tmp_path: Path) -> None:
    train(split, tmp_path / "gmf", model="gmf")
    train(split, tmp_path / "mlp", model="mlp")
    given = {"pretrained_gmf": str(tmp_path / "gmf"), "pretrained_mlp": str(tmp_path / "mlp")}
    options = {k: v for k, v in SMALL.items() if k != "init_std"}
    options |= {"model": "neumf", "optimizer": "sgd", "lr": 0.0, "epochs": 1, **given}
    fit(split, Config(**options), out=tmp_path / "neumf")
    net, gmf = open_run(tmp_path / "neumf").model(), open_run(tmp_path / "gmf").model()
    assert np.array_equal(net.user_factors.detach(), gmf.user_factors.detach())
    np.testing.assert_allclose(net.h[:4].detach(), 0.5 * gmf.h.detach(), rtol=1e-6)
    with pytest.raises(ConfigError, match="go together"):
        train(split, tmp_path / "x", model="neumf", pretrained_gmf=given["pretrained_gmf"])
    with pytest.raises(ConfigError, match=r"init_std = 0\.1: has no effect"):
        train(split, tmp_path / "x", model="neumf", **given)
    with pytest.raises(ConfigError, match="holds a MLP"):
        fit(split, Config(**{**options, "pretrained_gmf": given["pretrained_mlp"]}), out=tmp_path / "x")
    assert not (tmp_path / "x").exists()


def test_what_is_left_out_is_resolved_by_model_and_recorded(split: Split, tmp_path: Path) -> None:
    """A GMF's h starts at ones and hardly shrinks; whatever is given stands, and other models have no part in it."""

    def of(**options: Any) -> tuple[Any, ...]:
        c = resolve(Config(device="cpu", **options))
        return tuple(c.to_dict().get(name) for name in ("output_init", "output_lr", "l2", "output_l2"))

    assert of() == ("one", 0.1, 0.015, 0.001)
    assert of(l2=0.01, output_lr=1.0) == ("one", 1.0, 0.01, 0.001)
    assert of(optimizer="adamw") == ("one", 0.1, None, None)
    plain = ("lecun", 1.0, 0.0015, None)
    assert of(output_init="lecun") == plain
    assert of(model="neumf") == ("lecun", 1.0, 0.01, 0.0)
    assert of(model="mlp") == (None, 1.0, 0.01, 0.0)
    assert of(model="mf") == (None, None, 0.0015, None)
    assert of(engine="fused", optimizer="sgd") == ("one", *plain[1:])
    assert resolve(preset("ncf-gmf-8")).model.output_init == "lecun", "a preset keeps its recipe"
    run = train(split, tmp_path / "run", epochs=1).run
    assert [run.config[k] for k in ("output_init", "output_lr", "l2", "output_l2")] == ["one", 0.1, 0.0, 0.001]


def test_an_impossible_run_leaves_no_folder(split: Split, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dropout = 0\.5: has no effect here; it needs a model with layers"):
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
        "options = dict(dim=4, epochs=1, progress=False, tensorboard=False, output_l2=0.1, output_lr=0.5)\n"
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


@pytest.mark.parametrize("select", ["candidates:hr@3", "FULL:recall@20", None])
def test_records_spell_the_selection_as_it_was_chosen(split: Split, tmp_path: Path, select: str | None) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    result = train(split, tmp_path / "run", patience=2, select=select, tensorboard=True)
    wanted = {"candidates:hr@3": "candidates:HR@3", "FULL:recall@20": "full:Recall@20", None: "full:NDCG@10"}[select]
    assert (
        result.select == result.run.config["select"] == open_run(tmp_path / "run").manifest["selection"]["by"] == wanted
    )
    lines = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    values = [line[f"val {wanted}"] for line in lines if line["kind"] == "epoch"]
    assert result.best_validation == max(values)
    assert result.best_epoch == 1 + values.index(max(values))
    events = EventAccumulator(str(tmp_path / "run"))
    events.Reload()
    assert f"val/{wanted}" in events.Tags()["scalars"]


def test_selection_without_validation_is_refused_and_leaves_no_folder(split: Split, tmp_path: Path) -> None:
    bare = replace(split, validation=split.validation.keep(np.zeros(split.validation.n_interactions, bool)))
    with pytest.raises(ConfigError, match="select = full:HR@5: there is no validation part to select on"):
        train(bare, tmp_path / "run", select="full:HR@5")
    assert not (tmp_path / "run").exists()
    result = train(bare, tmp_path / "run")
    assert result.select is None
    assert "select" not in result.run.config


def test_a_run_older_than_select_was_selected_by_candidates(split: Split, tmp_path: Path) -> None:
    """The config of such a run has no ``select``: it opens, and its closing table names what selected it."""
    run = train(split, tmp_path / "run", patience=2).run
    text = (run.path / "config.toml").read_text().replace('select = "full:NDCG@10"\n', "")
    assert "select" not in text.replace("fused", "")
    (run.path / "config.toml").write_text(text)
    run.manifest.pop("selection", None)
    run.record(files=run.manifest["files"] | {"config.toml": sha256_file(run.path / "config.toml")})
    assert resume(run.path).select == "candidates:NDCG@10"


def test_resume_takes_the_same_selection_in_another_spelling(split: Split, tmp_path: Path) -> None:
    run = train(split, tmp_path / "run", patience=2).run
    assert resume(run.path, select="FULL:ndcg@10").select == "full:NDCG@10"
    with pytest.raises(CheckpointError, match="select: 'full:NDCG@10' -> 'candidates:NDCG@10'"):
        resume(run.path, select="candidates:NDCG@10")
