"""Defaults learn: each loss, optimiser and mode rises above popularity; a batch that overshoots is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec.batches.feed import DeviceBatch
from fastrec.config import Config, preset, presets
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, ratio_split
from fastrec.engines.fused.engine import FusedEngine
from fastrec.engines.minibatch.engine import TorchEngine
from fastrec.engines.units import Units
from fastrec.errors import ConfigError
from fastrec.evaluation.baseline_runs import remarks, run_baselines
from fastrec.models import losses
from fastrec.sampling.order import Cursor
from fastrec.training.build import build_engine
from fastrec.training.fit import fit
from fastrec.training.resolve import resolve
from tests.helpers.training import make_model, make_stream

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


CHOSEN = {
    "fast": (0.006, None, 0.07, None),
    "gowalla": (None, None, 0.3, None),
    "ncf-gmf-8": (0.0, None, 0.005, 1.0),
    "ncf-gmf-64": (0.007, 0.0, 0.002, 0.01),
    "ncf-gmf-fused-64": (0.006, 2e-4, 0.07, 2e-4),
    "ncf-mf": (0.0065, None, 0.03, None),
    "ncf-mf-fast": (0.006, None, 0.07, None),
    "ncf-mlp-64": (0.008, 0.0, None, None),
    "ncf-neumf-64": (0.006, 0.0, None, 0.02),
    "ncf-neumf-64-pretrained": (0.006, 0.0, None, None),
}
"""l2 and l2_h per sample, lr and lr_h of each preset, as kernels take them and as they were before l2 was per positive
and SGD's lr that of one sample (in lock_free it was that already); None: not in the file, or of no effect on units."""


@pytest.mark.parametrize("name", presets())
def test_presets_keep_the_values_that_they_were_chosen_with(name: str) -> None:
    c = preset(name)
    units = Units(losses.get(c.optim.loss), c.optim.optimizer, 1 + c.negatives.negatives)
    *decays, lr, lr_h = CHOSEN[name]
    for per_sample, l2 in zip(decays, (c.optim.l2, c.optim.output_l2)):
        found = None if l2 is None else units.l2_of_sample(l2)
        assert found == (per_sample if per_sample is None else pytest.approx(per_sample, rel=1e-9))
    assert lr in (None, c.optim.lr)
    assert lr_h in (None, c.optim.output_lr or 1.0)


@pytest.mark.parametrize("name", ["ncf-gmf-64", "ncf-mlp-64", "ncf-neumf-64", "ncf-mf", "ncf-gmf-fused-64"])
def test_a_preset_steps_as_before_its_units_were_rewritten(name: str) -> None:
    """The gradient of an explicit batch in float64 by the former units: l2 of each sample, in the mean over samples."""
    c = preset(name)
    l2, l2_h = CHOSEN[name][:2]
    fused = c.training.engine == "fused"
    source = make_stream(c.negatives.negatives)
    net, old = (make_model(c.model.model, 8, init_std=0.3) for _ in range(2))
    options: dict[str, Any] = {"loss": c.optim.loss, "optimizer": c.optim.optimizer, "l2": c.optim.l2, "threads": 1}
    options |= {"output_l2": c.optim.output_l2, "lr": lambda _: c.optim.lr, "batch_size": 1 if fused else 16}
    # lock_free updates an item that is drawn twice for a positive twice
    single = (
        k for k in range(source.n_positives) if len(set(source.read(0, k, k + 1).items[0])) == source.n_negatives + 1
    )
    start = next(single) if fused else 0
    batch = source.read(0, start, start + options["batch_size"])
    if fused:
        before = {k: v.detach().clone() for k, v in net.named_parameters()}
        engine: Any = FusedEngine(net, source, mode="lock_free", **options)
        engine.advance(Cursor(0, start), 1)
        found = {k: (before[k] - v.detach()) / c.optim.lr for k, v in net.named_parameters()}
    else:
        engine = TorchEngine(net, source, **options)
        step = engine._step
        step.accumulate(DeviceBatch(*map(torch.from_numpy, batch)), 1.0, 0, c.optim.lr)
        found = {k: v.grad for k, v in net.named_parameters()}
    engine.close()
    old = old.double()
    users, items = (torch.from_numpy(a).long() for a in batch[:2])
    loss = losses.get(c.optim.loss).mean(old(users, items))
    roles, squares = old.roles(), torch.zeros((), dtype=torch.float64)
    uses = {"user": users.repeat_interleave(items.shape[1]), "item": items.reshape(-1)}
    for key, p in old.named_parameters():
        rows = p[uses[roles[key]]] if roles[key] in uses else p
        each = 1 / items.numel() if roles[key] in uses else 1.0
        shared_l2 = l2 if roles[key] in ("user", "item", "bias") or l2_h is None else l2_h
        squares = squares + shared_l2 / 2 * each * rows.square().sum()
    (loss + squares).backward()
    scale = items.numel() if fused else 1.0  # lock_free descends the sum over the samples of a positive
    for key, p in old.named_parameters():
        expected = scale * p.grad
        np.testing.assert_allclose(found[key], expected, rtol=1e-3 if fused else 1e-5, atol=2e-6 * scale, err_msg=key)
