"""No option is taken without effect: each one changes the run, or is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.cli.main import main
from fastrec.config import OPTIONS, Config, preset, presets
from fastrec.config.needs import DATA_NEEDS, NEEDS, OFF
from fastrec.data.split import Split
from fastrec.engines.capabilities import choose
from fastrec.errors import ConfigError
from fastrec.runs import open_run
from fastrec.training.fit import fit, resume
from fastrec.training.job import train
from fastrec.training.resolve import resolve, wish
from tests.helpers.fakes import interactions

COLUMNS = {"user_col": "user", "item_col": "item", "rating_col": "rating", "time_col": "at"}
SMALL: dict[str, Any] = {"dim": 4, "epochs": 2, "batch_size": 64, "candidates": 9, "progress": False}
SMALL |= {"tensorboard": False, "lr": 0.02, "threads": 1}
FUSED = {"engine": "fused", "optimizer": "sgd", "dim": 20}  # a dim whose kernels other tests compile
MLP = {"model": "mlp", "dim": 4}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a log in two forms: log.csv, and ml/ with a catalogue of more items than were rated."""
    folder = tmp_path_factory.mktemp("world")
    rng = np.random.default_rng(3)
    lines, rated = ["user,who,item,what,rating,stars,at,then,day"], ["userId,movieId,rating,timestamp"]
    for user in range(50):
        for k, item in enumerate(rng.choice(20, 4 + user % 8, replace=False) * 2 + user % 2):
            stars = rng.integers(1, 6, 2)
            day = f"{1 + (user + 3 * k) % 12:02d}/{1 + (user + 5 * k) % 12:02d}/2001"
            lines.append(f"{user},{user // 2},{item},{item // 2},{stars[0]},{stars[1]},{1000 + k},{9000 - k},{day}")
            rated.append(f"{user},{item},{stars[0]},{1000 + k}")
    (folder / "log.csv").write_text("\n".join(lines) + "\n")
    (folder / "other.csv").write_text("\n".join(lines[:-20]) + "\n")
    (folder / "ml").mkdir()
    (folder / "ml" / "ratings.csv").write_text("\n".join(rated) + "\n")
    movies = "".join(f"{item},Film {item} (2001),Drama\n" for item in range(60))
    (folder / "ml" / "movies.csv").write_text("movieId,title,genres\n" + movies)
    return folder


def observed(run: Any) -> dict[str, Any]:
    """What a run left, without its record of options and anything that time changes."""
    folder, manifest = run.path, run.manifest
    records = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    tensorboard = any("tfevents" in p.name for p in folder.iterdir())
    return {
        "weights": hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        "data": manifest["data"],
        "engine": {k: v for k, v in manifest["engine"].items() if k != "threads"},
        "metrics": manifest["result"]["metrics"],
        "stopped": (manifest["result"]["stopped"], manifest["result"]["epochs_done"]),
        "losses": [(r["kind"], r.get("loss")) for r in records],
        "measured": [{k: v for k, v in r.items() if "@" in k} for r in records],
        "files": sorted(p.name for p in (folder / "checkpoints").iterdir()),
        "tensorboard": tensorboard,
    }


@pytest.fixture(scope="module")
def run_of(world: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., dict[str, Any]]:
    @cache
    def run(key: str) -> dict[str, Any]:
        options: dict[str, Any] = json.loads(key)
        source = world / options.pop("data", "log.csv")
        if source.suffix == ".csv":
            options = {**COLUMNS, **options}
        for name in ("pretrained_gmf", "pretrained_mlp"):
            if name in options:
                options[name] = str(parts(name[-3:], json.dumps(options[name])))
        options = {k: v for k, v in {**SMALL, **options}.items() if v is not None}
        return observed(train(str(source), out=str(tmp_path_factory.mktemp("runs") / "run"), **options).run)

    @cache
    def parts(model: str, key: str) -> Path:
        made = train(
            str(world / "log.csv"), out=str(tmp_path_factory.mktemp("parts") / "run"),
            **{**SMALL, **COLUMNS, "model": model, "seed": json.loads(key)},
        )  # fmt: skip
        return made.run.path

    return lambda **options: run(json.dumps(options, sort_keys=True))


PAIR = {"model": "neumf", "pretrained_gmf": 0, "pretrained_mlp": 0, "epochs": 1}
COSINE = {"model": "cosine-mf", "loss": "ccl", "optimizer": "row-adagrad", "margin": 0.3}
CHANGES: dict[str, tuple[dict[str, Any], Any]] = {
    "data": ({}, "other.csv"),
    "user_col": ({}, "who"),
    "item_col": ({}, "what"),
    "rating_col": ({"min_rating": 3.0}, "stars"),
    "time_col": ({}, "then"),
    "time_format": ({"time_col": "day", "time_format": "%d/%m/%Y"}, "%m/%d/%Y"),
    "where": ({}, "rating > 2"),
    "weight_col": ({}, "stars"),
    "min_rating": ({}, 3.0),
    "k_core": ({}, 6),
    "unrated_negatives": ({"data": "ml"}, True),
    "split": ({}, "time"),
    "validation": ({}, 0.3),
    "test_fraction": ({"split": "ratio"}, 0.4),
    "split_seed": ({}, 1),
    "negatives": ({}, 2),
    "distribution": ({}, "popularity"),
    "popularity_alpha": ({"distribution": "popularity"}, 0.1),
    "negatives_from": ({}, "existing"),
    "exclude": ({}, "all"),
    "hard_negatives": ({}, 8),
    "model": ({}, "mf"),
    "dim": ({}, 8),
    "layers": ({"model": "mlp", "dim": None, "layers": (16, 4)}, (8, 4, 2)),
    "dropout": (MLP, 0.3),
    "init_std": ({}, 0.5),
    "output_init": ({}, "lecun"),
    "history_weight": (COSINE, 2.0),
    "scored_history_weight": ({**COSINE, "history_weight": 2.0}, 5.0),
    "temperature": ({"model": "mf", "loss": "softmax"}, 0.2),
    "margin": (COSINE, 0.1),
    "negative_weight": (COSINE, 3.0),
    "calibration": ({"model": "mf", "loss": "gbce", "negatives": 4}, 0.1),
    "pretrained_gmf": (PAIR, 1),
    "pretrained_mlp": (PAIR, 1),
    "pretrained_alpha": (PAIR, 0.9),
    "loss": ({}, "bpr"),
    "optimizer": ({}, "sgd"),
    "lr": ({}, 0.1),
    "l2": ({}, 0.3),
    "output_l2": ({}, 0.3),
    "weight_decay": ({"optimizer": "adamw"}, 50.0),
    "output_lr": ({}, 0.9),
    "schedule": ({}, "cosine"),
    "warmup": ({}, 5),
    "step_epochs": ({"schedule": "step"}, 1),
    "step_factor": ({"schedule": "step", "step_epochs": 1}, 0.1),
    "engine": ({"optimizer": "sgd"}, "torch"),
    "fused_mode": (FUSED, "lock_free"),
    "epochs": ({}, 3),
    "batch_size": ({}, 32),
    "accumulate": ({}, 2),
    "patience": ({"epochs": 12, "lr": 0.5}, 1),
    "seed": ({}, 1),
    "precision": ({}, "bf16"),
    "select": ({}, "candidates:HR@5"),
    "candidates": ({}, 5),
    "candidate_seed": ({}, 1),
    "cutoffs": ({}, (3,)),
    "checkpoint_every": ({"keep": 5}, 2),
    "keep": ({}, 1),
    "log_every": ({}, 1),
    "tensorboard": ({}, True),
}
"""Option -> (options of a run, another value of the option): the second run differs in more than its config."""
ELSEWHERE = {
    "item_table": "data/test_tables.py: the fields of items in the catalogue",
    "user_table": "data/test_tables.py: the fields of users",
    "drop_overlap": "data/: a split that comes with the data, with a test pair that train has",
    "baselines": "cli/test_cli_baselines.py: which rows the table of a run has",
    "device": "test_device.py: another device than the CPU is refused where there is none",
    "compile": "below: another backend",
    "graph": "below: refused on the CPU",
    "threads": "the promise is the same bytes; the pool is tested in sampling/",
    "out": "the folder of every run here",
    "progress": "training/test_trainer.py: what stderr shows",
}


def test_every_option_has_a_case() -> None:
    assert not CHANGES.keys() & ELSEWHERE.keys()
    assert CHANGES.keys() | ELSEWHERE.keys() == OPTIONS.keys()


@pytest.mark.parametrize("option", CHANGES)
def test_each_option_changes_the_run(option: str, run_of: Callable[..., dict[str, Any]]) -> None:
    base, value = CHANGES[option]
    assert run_of(**base) != run_of(**{**base, option: value})


def test_compile_changes_the_backend() -> None:
    assert choose(wish(Config(compile=True), "cpu")).name != choose(wish(Config(), "cpu")).name


def test_a_loss_with_nothing_to_calibrate_is_refused(world: Path, tmp_path: Path) -> None:
    options = {**SMALL, **COLUMNS, "model": "mf", "loss": "gbce"}
    with pytest.raises(ConfigError, match=r"loss = gbce: has no effect of its own: 39 negatives of 40 items"):
        train(str(world / "log.csv"), out=str(tmp_path / "run"), negatives=39, **options)
    assert not (tmp_path / "run").exists()
    train(str(world / "log.csv"), out=str(tmp_path / "run"), negatives=38, **{**options, "epochs": 1})


INERT: dict[str, tuple[dict[str, Any], str]] = {
    "validation": ({"split": "none", "validation": 0.2}, "a split that has a validation part"),
    "test_fraction": ({"test_fraction": 0.3}, "split = ratio or time"),
    "split_seed": ({"split_seed": 3, "split": "time"}, "a split that draws"),
    "popularity_alpha": ({"popularity_alpha": 0.5}, "distribution = popularity"),
    "negatives_from": ({"negatives_from": "existing", "distribution": "popularity"}, "distribution = uniform"),
    "unrated_negatives": ({"unrated_negatives": True, "negatives_from": "existing"}, "negatives_from = all"),
    "layers": ({"layers": (8, 4)}, "a model with layers"),
    "dropout": ({"dropout": 0.5}, "a model with layers"),
    "dim": ({"model": "mlp", "layers": (8, 4), "dim": 4}, "layers to be left out"),
    "history_weight": ({"model": "mf", "history_weight": 1.0}, "a model that scores by the user's history"),
    "scored_history_weight": ({"scored_history_weight": 1.0}, "a model that scores by the user's history"),
    "temperature": ({"loss": "inbatch-softmax", "temperature": 0.2}, "loss = softmax"),
    "margin": ({"margin": 0.2}, "loss = ccl"),
    "negative_weight": ({"negative_weight": 20.0}, "loss = ccl"),
    "calibration": ({"calibration": 0.2}, "loss = gbce"),
    "pretrained_gmf": ({"model": "neumf", "pretrained_gmf": "x"}, "they go together"),
    "pretrained_mlp": ({"model": "neumf", "pretrained_mlp": "y"}, "they go together"),
    "pretrained_alpha": ({"model": "neumf", "pretrained_alpha": 0.3}, "pretrained_gmf and pretrained_mlp"),
    "init_std": (
        {"model": "neumf", "pretrained_gmf": "x", "pretrained_mlp": "y", "init_std": 0.1},
        "none pretrained",
    ),
    "output_init": ({"model": "mlp", "output_init": "one"}, "model = gmf or neumf"),
    "output_lr": ({"model": "mf", "output_lr": 0.5}, "a model with output weights h"),
    "output_l2": ({"optimizer": "adamw", "output_l2": 0.5}, "an optimizer other than adamw"),
    "l2": ({"optimizer": "adamw", "l2": 0.5}, "an optimizer other than adamw"),
    "weight_decay": ({"optimizer": "adam", "weight_decay": 0.5}, "optimizer = adamw"),
    "step_epochs": ({"step_epochs": 3}, "schedule = step"),
    "step_factor": ({"step_factor": 0.3, "schedule": "linear"}, "schedule = step"),
    "fused_mode": ({"fused_mode": "deterministic", "engine": "torch"}, "engine = fused"),
    "graph": ({"graph": False}, "a CUDA device"),
    "patience": ({"patience": 3, "validation": 0.0, "split": "leave-one-out"}, "a validation part"),
    "candidates": ({"candidates": 5, "validation": 0.0}, "without candidates of its own"),
    "candidate_seed": ({"candidate_seed": 5, "validation": 0.0}, "without candidates of its own"),
    "cutoffs": ({"cutoffs": (3,)}, "a test part"),
}


def test_every_need_has_a_case() -> None:
    assert INERT.keys() == {name for need in (*NEEDS, *DATA_NEEDS) for name in need.options}
    assert OFF.keys() <= INERT.keys()


@pytest.mark.parametrize("option", [k for k in INERT if k not in ("candidates", "candidate_seed", "cutoffs")])
def test_an_option_without_effect_is_refused_wherever_it_was_given(option: str, tmp_path: Path) -> None:
    given, needed = INERT[option]
    says = rf"{option} = .*: has no effect here; it needs .*{needed}"
    with pytest.raises(ConfigError, match=says):
        resolve(Config(device="cpu", **given))
    rest = {k: v for k, v in given.items() if k != option}
    assert option not in resolve(Config(device="cpu", **rest)).to_dict() or rest == {}
    lines = [f"{k} = {json.dumps(v)}\n" for k, v in given.items()]
    (tmp_path / "c.toml").write_text("".join(lines))
    from fastrec.config import read_toml

    with pytest.raises(ConfigError, match=r"\(.*c\.toml\): has no effect"):
        resolve(read_toml(tmp_path / "c.toml"))


@pytest.mark.parametrize("option", [k for k in INERT if k not in ("candidates", "candidate_seed", "cutoffs")])
def test_what_has_no_effect_is_not_recorded(option: str) -> None:
    given = {k: v for k, v in INERT[option][0].items() if k != option}
    if option.startswith("pretrained"):
        given = {"model": "neumf"}
    if option == "output_l2":
        assert option not in resolve(Config(device="cpu", **given)).to_dict()
    found = resolve(Config(device="cpu", **given))
    assert option not in found.to_dict()
    assert f"\n{option} = " not in found.to_toml()
    assert resolve(found).to_toml() == found.to_toml()


def bare(test: bool = True, candidates: bool = True) -> Split:
    rows = [[(u + 3 * k) % 30 for k in range(6)] for u in range(30)]
    train_part = interactions([sorted(r) for r in rows], 30)
    nothing = interactions([[]] * 30, 30)
    tested = interactions([[(u + 1) % 30] for u in range(30)], 30) if test else nothing
    own = np.array([[(u + 20 + 3 * k) % 30 for k in range(4)] for u in range(30)], np.int32) if candidates else None
    return Split(train_part, nothing, tested, candidates=own)


@pytest.mark.parametrize("option", ["candidates", "candidate_seed", "cutoffs", "patience"])
def test_options_that_these_data_leave_without_effect_are_refused(option: str, tmp_path: Path) -> None:
    value = INERT[option][0][option]
    split = bare(test=option != "cutoffs", candidates=option != "cutoffs")
    rest = {k: v for k, v in SMALL.items() if k != "candidates"}
    with pytest.raises(ConfigError, match=rf"^{option} = .*: has no effect here"):
        fit(split, Config(**{**rest, option: value}), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
    result = fit(split, Config(**rest), out=tmp_path / "run")
    assert option not in result.run.config
    assert option not in (tmp_path / "run" / "config.toml").read_text()


def test_a_split_given_in_memory_is_not_split_again(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"^validation, split_seed: no effect on a split"):
        fit(bare(), Config(validation=0.2, split_seed=3), out=tmp_path / "run")


# presets and later options


@pytest.mark.parametrize("name", presets())
def test_a_preset_has_no_option_without_effect(name: str) -> None:
    parts = {"pretrained_gmf": "x", "pretrained_mlp": "y"} if name.endswith("pretrained") else {}
    found = resolve(preset(name).override(**parts, device="cpu"))
    assert found.notes == ()
    assert all(found[k] == preset(name)[k] for k in preset(name).origins), "a default replaced what the preset gave"


def test_a_preset_that_needs_runs_to_start_from_says_so() -> None:
    with pytest.raises(
        ConfigError, match=r"pretrained_alpha = 0\.7 \(preset ncf-neumf-64-pretrained\).*pretrained_gmf"
    ):
        resolve(preset("ncf-neumf-64-pretrained"))


def test_what_does_not_fit_a_later_option_is_noted() -> None:
    found = resolve(preset("ncf-gmf-fused-64").override(engine="torch", device="cpu"))
    assert found.notes == (
        (
            "preset ncf-gmf-fused-64 chose lr = 0.07, l2 = 0.054, output_lr = 0.0002, output_l2 = 0.0018, "
            "init_std = 0.1, batch_size = 16384 for engine = fused: they may not fit engine = torch; give them too"
        ),
        "fused_mode = 'lock_free' of preset ncf-gmf-fused-64 is left out: no effect with engine = torch",
    )
    found = resolve(preset("ncf-gmf-64").override(optimizer="sgd", lr=0.1, device="cpu"))
    assert any("l2 = 0.063" in n and "for engine = torch, optimizer = adam" in n for n in found.notes)
    assert not any("lr = 0.1" in n for n in found.notes), "what the flag gave is not a misfit"
    found = resolve(preset("ncf-mlp-64").override(model="gmf", device="cpu"))
    assert any(n.startswith("layers = [512, 256, 128, 64] of preset ncf-mlp-64 is left out") for n in found.notes)


@pytest.mark.parametrize("engine", ["torch", "fused"])
def test_given_values_are_never_replaced_by_a_default(engine: str) -> None:
    given: dict[str, Any] = {"lr": 0.5, "l2": 0.0, "output_l2": 0.0, "output_lr": 1.0, "output_init": "lecun"}
    given |= {"init_std": 0.7, "engine": engine, "optimizer": "sgd"}
    found = resolve(Config(device="cpu", **given))
    assert {k: found[k] for k in given} == given


def test_unknown_names_are_refused_with_those_there_are() -> None:
    for option in ("model", "loss", "optimizer"):
        with pytest.raises(ConfigError, match=f"{option} = 'svd': must be one of "):
            resolve(Config(**{option: "svd"}))


# records


RUNS: dict[str, list[str]] = {
    "default": [],
    "mlp with layers": ["--model", "mlp", "--layers", "8", "4", "--dropout", "0.2"],
    "step": ["--schedule", "step", "--step-epochs", "1", "--dim", "4"],
    "ratio": ["--split", "ratio", "--test-fraction", "0.3", "--model", "mf", "--loss", "bpr"],
    "fused": ["--optimizer", "sgd", "--model", "mf", "--dim", "20"],
    "lock free": ["--optimizer", "sgd", "--fused-mode", "lock_free", "--threads", "1", "--dim", "20"],
    "no validation": ["--validation", "0"],
    "softmax": ["--loss", "inbatch-softmax", "--optimizer", "adamw", "--exclude", "all"],
}


@pytest.mark.parametrize("name", RUNS)
def test_the_config_of_a_run_makes_the_same_run(
    name: str, world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Byte for byte, from another folder, with the data named by a relative path."""
    monkeypatch.chdir(world)
    columns = [word for k, v in COLUMNS.items() for word in (f"--{k.replace('_', '-')}", v)]
    small = ["--epochs", "2", "--batch-size", "64", "--no-progress", "--no-tensorboard"]
    assert main(["train", "--data", "log.csv", *columns, *small, *RUNS[name], "--out", str(tmp_path / "a")]) == 0
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--config", "a/config.toml", "--out", "b"]) == 0, capsys.readouterr().err
    for file in ("model.safetensors", "config.toml"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes(), file
    assert open_run("b").config["data"] == str(world / "log.csv")
    if name == "no validation":
        assert "no validation part, so no early stopping" in capsys.readouterr().out


def test_the_record_keeps_what_was_asked_next_to_what_it_became(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastrec.config import read_toml

    result = train(str(world / "log.csv"), out=str(tmp_path / "run"), **COLUMNS, **SMALL)  # type: ignore[arg-type]
    text = (tmp_path / "run" / "config.toml").read_text()
    assert 'device = "auto"' in text.partition("[resolved]")[0]
    assert 'device = "cpu"' in text.partition("[resolved]")[2]
    assert result.run.config["device"] == open_run(tmp_path / "run").config["device"] == "cpu"
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 1)
    again = resolve(read_toml(tmp_path / "run" / "config.toml"))
    assert (again.training.device, again.training.precision) == ("cuda", "bf16")


def test_a_run_may_be_resumed_under_a_relative_path_of_its_data(
    world: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(world)
    train("log.csv", out=str(tmp_path / "run"), **COLUMNS, **SMALL)  # type: ignore[arg-type]
    assert "nothing left to train" in resume(tmp_path / "run", data="log.csv").notes[-1]


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({"WORLD_SIZE": "2", "RANK": "0"}, "MASTER_ADDR, MASTER_PORT not set"),
        ({"RANK": "1"}, "WORLD_SIZE, MASTER_ADDR, MASTER_PORT not set"),
        ({"WORLD_SIZE": "2", "RANK": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}, "WORLD_SIZE=2, RANK=2: not"),
    ],
)
def test_a_part_of_torchruns_environment_is_refused(
    variables: dict[str, str],
    said: str,
    world: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    out = tmp_path / "run"
    assert main(["train", "--data", str(world / "log.csv"), "--out", str(out)]) == 2
    assert said in capsys.readouterr().err
    with pytest.raises(ConfigError, match="start them by torchrun"):
        fit(bare(), Config(), out=out)
    with pytest.raises(ConfigError, match="start them by torchrun"):
        resume(out)
    assert not out.exists()


def test_a_run_prints_what_auto_and_the_defaults_became(
    world: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    columns = [word for k, v in COLUMNS.items() for word in (f"--{k.replace('_', '-')}", v)]
    options = ["--epochs", "1", "--no-tensorboard", "--l2", "0.01", "--device", "cpu", "--out", str(tmp_path / "run")]
    assert main(["train", "--data", str(world / "log.csv"), *columns, *options]) == 0
    said = "gmf, bce, adam: engine = torch, precision = fp32, lr = 0.002, init_std = 0.01, output_init = one"
    assert f"{said}, output_lr = 0.1, negatives = 4, output_l2 = 0.001\n" in capsys.readouterr().err
