"""Defaults learn: each loss, optimiser and mode rises above popularity; a batch that overshoots is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.config import Config, preset
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.engines.units import Units
from fastrec.errors import ConfigError
from fastrec.evaluation.baseline_runs import remarks, run_baselines
from fastrec.models import losses
from fastrec.training.build import build_engine
from fastrec.training.fit import fit
from fastrec.training.resolve import resolve

QUICK: dict[str, Any] = {
    "dim": 8, "batch_size": 64, "epochs": 8, "patience": 0, "progress": False, "tensorboard": False, "candidates": 20,
    "device": "cpu", "threads": 1,
}  # fmt: skip


@pytest.fixture(scope="module")
def split() -> Split:
    """Four tastes of 30 items each, liked alike: popularity knows nothing, a user's taste everything."""
    rng = np.random.default_rng(3)
    n_users, group = 160, 30
    rows = [np.sort(rng.choice(group, 12, replace=False)) + group * (u % 4) for u in range(n_users)]
    indptr = np.arange(n_users + 1, dtype=np.int64) * 12
    ids = {"user_ids": np.arange(n_users), "item_ids": np.arange(4 * group)}
    whole = Interactions(indptr, np.concatenate(rows).astype(np.int32), name="tastes", **ids)
    return ratio_split(whole, test=0.1, validation=0.0)


LEARN = [
    ("mf", "bce", "adam", {}),
    ("gmf", "bce", "adamw", {}),
    ("gmf", "bpr", "lazy-adam", {"engine": "torch"}),
    ("mf", "inbatch-softmax", "adam", {}),
    ("mf", "bce", "adagrad", {}),
    ("gmf", "bce", "sgd", {"engine": "torch"}),
    ("mf", "bce", "sgd", {"engine": "fused", "fused_mode": "deterministic"}),
    ("mf", "bpr", "sgd", {"engine": "fused", "fused_mode": "lock_free"}),
    ("mf", "bce", "row-adagrad", {"engine": "fused", "fused_mode": "deterministic"}),
    ("mf", "softmax", "adam", {}),
    ("mf", "gbce", "sgd", {"engine": "fused", "fused_mode": "lock_free"}),
    ("cosine-mf", "ccl", "row-adagrad", {"negatives": 40}),
    ("cosine-mf", "softmax", "adam", {}),
    ("mlp", "bce", "adam", {}),
    ("neumf", "bce", "adam", {}),
]


@pytest.mark.parametrize(("model", "loss", "optimizer", "options"), LEARN)
def test_defaults_learn(
    split: Split, tmp_path: Path, model: str, loss: str, optimizer: str, options: dict[str, Any]
) -> None:
    config = Config(**{**QUICK, **options, "model": model, "loss": loss, "optimizer": optimizer})
    result = fit(split, config.override(epochs=30), out=tmp_path / "run")
    popular = run_baselines(split, ["popularity"], n_candidates=20, threads=1)
    assert remarks(model, result.metrics, popular) == []


def test_a_batch_whose_sum_overshoots_is_refused_with_the_lr_that_fits(split: Split) -> None:
    sgd = {**QUICK, "model": "mf", "optimizer": "sgd", "engine": "torch"}
    wide = resolve(Config(**{**sgd, "batch_size": 10**6, "lr": 5.0}))
    with pytest.raises(
        ConfigError, match=r"lr = 5: SGD sums .* overshoots above lr = [\d.]+; .*batch_size to \d+"
    ) as e:
        build_engine(split, wide)
    fits = float(str(e.value).split("above lr = ")[1].split(";")[0])
    build_engine(split, wide.override(lr=fits * 0.99)).close()
    for free in ({"engine": "fused", "fused_mode": "lock_free"}, {"optimizer": "adam"}):
        build_engine(split, wide.override(lr=5.0, **free)).close()  # sample by sample, or no sum


def test_what_is_given_is_never_replaced_by_a_default() -> None:
    for optimizer in ("sgd", "adam", "adagrad", "row-adagrad", "lazy-adam"):
        for model in ("mf", "gmf", "mlp", "neumf"):
            given = {"lr": 0.123, "l2": 0.0, "init_std": 0.3} | ({"output_init": "lecun"} if model == "gmf" else {})
            c = resolve(Config(device="cpu", engine="torch", model=model, optimizer=optimizer, **given))
            assert {name: c[name] for name in given} == given
            assert resolve(c).to_dict() == c.to_dict(), "resolving twice changes nothing"
    assert resolve(Config(device="cpu", model="mf", optimizer="adamw", engine="torch")).optim.weight_decay > 0


def test_presets_keep_the_decay_that_they_were_chosen_with() -> None:
    """Their l2 and output_l2 per sample, as kernels take them and as they were before l2 was per positive."""
    chosen = {
        "ncf-gmf-8": (0.0, None),
        "ncf-gmf-64": (0.007, 0.0),
        "ncf-gmf-fused-64": (0.006, 2e-4),
        "ncf-mf": (0.0065, None),
        "ncf-mf-fast": (0.006, None),
        "ncf-mlp-64": (0.008, 0.0),
        "ncf-neumf-64": (0.006, 0.0),
        "ncf-neumf-64-pretrained": (0.006, 0.0),
    }
    for name, values in chosen.items():
        c = preset(name)
        units = Units(losses.get(c.optim.loss), c.optim.optimizer, 1 + c.negatives.negatives)
        for per_sample, l2 in zip(values, (c.optim.l2, c.optim.output_l2)):
            found = None if l2 is None else units.l2_of_sample(l2)
            assert found == (per_sample if per_sample is None else pytest.approx(per_sample, rel=1e-9)), name
