"""The fused engine behind fit and resume: same run folder, same cursor, clear stops."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.config import Config, preset, presets
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.errors import ConfigError, FastrecError
from fastrec.runs import open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.build import build_engine
from fastrec.training.fit import Result, fit, resume
from fastrec.training.resolve import resolve
from fastrec.training.trainer import Trainer
from tests.helpers.training import positives

FUSED: dict[str, Any] = {
    "engine": "fused", "model": "mf", "optimizer": "row-adagrad", "dim": 4, "epochs": 2, "batch_size": 64,
    "candidates": 9, "progress": False, "tensorboard": False, "lr": 0.05, "init_std": 0.1, "patience": 0,
}  # fmt: skip


@pytest.fixture(scope="module")
def split() -> Split:
    indptr, items = positives(n_users=60, n_items=40)
    whole = Interactions(indptr, items, user_ids=np.arange(60), item_ids=np.arange(100, 140), name="small")
    return ratio_split(whole, test=0.2, validation=0.2)


def train(split: Split, folder: Path, **options: Any) -> Result:
    return fit(split, Config(**{**FUSED, **options}), out=folder)


def model_bytes(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


@pytest.mark.parametrize(
    ("model", "optimizer"), [("mf", "row-adagrad"), ("gmf", "sgd"), ("mf", "lazy-adam"), ("gmf", "lazy-adam")]
)
def test_resumed_at_every_step_ends_in_the_same_bytes(
    split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, optimizer: str
) -> None:
    options: dict[str, Any] = {"model": model, "optimizer": optimizer, "batch_size": 96, "dim": 20}
    train(split, tmp_path / "whole", **options)
    n_steps = 2 * -(-split.train.n_interactions // 96)
    inner = Trainer.run
    for step in range(1, n_steps):
        with monkeypatch.context() as m:
            m.setattr(Trainer, "run", lambda self, step=step: inner(self, stop_after=step))
            assert train(split, tmp_path / f"cut-{step}", **options).stopped == "interrupted"
        assert resume(tmp_path / f"cut-{step}", progress=False).stopped == "all epochs"
        assert model_bytes(tmp_path / f"cut-{step}") == model_bytes(tmp_path / "whole"), f"cut after step {step}"


def test_the_engine_is_recorded_and_learns(split: Split, tmp_path: Path) -> None:
    result = train(split, tmp_path / "run", engine="auto", epochs=30, patience=10)
    run = open_run(tmp_path / "run")
    assert run.config["engine"] == "fused", "auto is resolved before it is recorded"
    assert run.manifest["engine"]["fused_mode"] == "deterministic"
    assert result.metrics["9 candidates"]["HR@10"] > 0.5
    losses = [json.loads(x) for x in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    epochs = [r["loss"] for r in losses if r["kind"] == "epoch"]
    assert epochs[-1] < epochs[0]


@pytest.mark.parametrize(
    ("options", "engine"),
    [
        ({"model": "mf", "optimizer": "sgd"}, "fused"),
        ({"model": "mf", "optimizer": "row-adagrad", "loss": "bpr"}, "fused"),
        ({"model": "gmf", "optimizer": "sgd"}, "fused"),
        ({"model": "gmf", "optimizer": "sgd", "loss": "bpr"}, "torch"),
        ({"model": "gmf", "optimizer": "adam"}, "torch"),
        ({"model": "gmf", "optimizer": "lazy-adam"}, "fused"),
        ({"model": "mlp", "optimizer": "sgd"}, "torch"),
    ],
)
def test_auto_depends_on_model_loss_and_optimizer(options: dict[str, Any], engine: str) -> None:
    resolved = resolve(Config(device="cpu", **options))
    assert (resolved.training.engine, resolved.training.fused_mode) == (engine, "deterministic")


def test_auto_on_cuda(split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    """The fused engine where it has the optimiser; its bf16 keeps no float32 master, and so must be named."""
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    for options, found in (
        ({"optimizer": "sgd"}, ("fused", "fp32")),
        ({"optimizer": "row-adagrad", "device": "cuda:1"}, ("fused", "fp32")),
        ({"optimizer": "lazy-adam"}, ("torch", "bf16")),
        ({"optimizer": "adam"}, ("torch", "bf16")),
        ({"optimizer": "sgd", "engine": "torch"}, ("torch", "bf16")),
    ):
        resolved = resolve(Config(**{"device": "cuda", "model": "gmf", **options}))
        assert (resolved.training.engine, resolved.training.precision) == found
    for options, said in (
        ({"fused_mode": "lock_free"}, "device = 'cuda': engine = fused, fused_mode = lock_free, takes 'cpu'"),
        ({"precision": "fp16"}, "precision = 'fp16'"),
        ({"accumulate": 2}, "accumulate = 2"),
    ):
        with pytest.raises(ConfigError, match=said):
            build_engine(split, resolve(Config(**{**FUSED, "device": "cuda", **options})))
    with pytest.raises(ConfigError, match="precision = 'bf16': engine = fused on cpu"):
        build_engine(split, resolve(Config(**{**FUSED, "device": "cpu", "precision": "bf16"})))


@pytest.mark.parametrize(("mode", "lr", "l2"), [("deterministic", 0.4, 1e4), ("lock_free", 10.0, 1.0)])
def test_a_diverging_run_stops_with_its_last_good_state(
    split: Split, tmp_path: Path, mode: str, lr: float, l2: float
) -> None:
    options: dict[str, Any] = {"optimizer": "sgd", "lr": lr, "l2": l2, "epochs": 400, "fused_mode": mode}
    with pytest.raises(FastrecError, match="training diverged"):
        train(
            split,
            tmp_path / "run",
            log_every=1,
            warmup=100,
            checkpoint_every=1,
            **options,
        )
    tensors, _ = Checkpoints(tmp_path / "run" / "checkpoints", 2).load()
    assert all(np.isfinite(t.numpy()).all() for t in tensors.values()), "the last good checkpoint stays"


@pytest.mark.parametrize("options", [{"accumulate": 2}, {"hard_negatives": 8}, {"compile": True}])
def test_options_of_the_torch_engine_are_refused(split: Split, tmp_path: Path, options: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=f"{next(iter(options))} = .*use engine = torch"):
        train(split, tmp_path / "run", **options)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", [n for n in presets() if "mf" in n])
def test_presets_say_lock_free_by_name(name: str) -> None:
    config = preset(name)
    if config.training.engine == "fused":
        assert config.split.validation == 0.0, "the last fit is on all training rows"
        assert resolve(config).training.fused_mode == config.training.fused_mode
