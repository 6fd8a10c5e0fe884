"""Config: every option is a key, wrong ones are refused by name."""

from dataclasses import fields
from pathlib import Path

import pytest

from fastrec.config import Config, preset, presets, read_toml
from fastrec.errors import ConfigError


def test_toml_round_trip_keeps_every_field(tmp_path) -> None:
    config = Config(dim=64, layers=(256, 128), min_rating=4, threads=2)
    path = tmp_path / "c.toml"
    path.write_text(config.to_toml())
    assert read_toml(path) == config


def test_every_field_has_help_and_a_group() -> None:
    for f in fields(Config):
        assert len(f.metadata["help"]) > 5
        assert f.metadata["group"] in {"data", "model", "training", "evaluation", "run"}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bach_size": 3}, "did you mean 'batch_size'"),
        ({"dim": 0}, "dim = 0: must lie in 1"),
        ({"dim": "many"}, "must be a whole number"),
        ({"dim": True}, "must be a whole number"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"model": "svd"}, "must be one of mf, gmf"),
        ({"hard_negatives": 2}, "at least negatives = 4"),
        ({"cutoffs": ()}, "at least one K"),
        ({"threads": 0}, "threads = 0"),
        ({"init_h": "zero"}, "init_h = 'zero': must be one of auto, lecun, one"),
        ({"model": "mlp", "init_h": "one"}, "an option of gmf and neumf, not of model = mlp"),
        ({"model": "mf", "lr_h": 0.5}, "MF has no h"),
        ({"model": "mf", "l2_h": 0.5}, "MF has no h"),
        ({"optimizer": "adamw", "l2_h": 0.5}, "l2_h = 0.5: AdamW decays every weight; use weight_decay"),
        ({"optimizer": "adamw", "l2": 0.0}, "l2 = 0.0: AdamW decays every weight; use weight_decay"),
        ({"weight_decay": 0.5}, "weight_decay = 0.5: optimizer = adam has none; use l2, or adamw"),
    ],
)
def test_bad_values_are_named(change: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Config().override(**change)


def test_missing_and_broken_files(tmp_path) -> None:
    with pytest.raises(ConfigError, match="no such config file"):
        read_toml(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("dim = = 3")
    with pytest.raises(ConfigError, match="not a TOML file"):
        read_toml(tmp_path / "bad.toml")


def test_digest_ignores_what_cannot_change_the_weights() -> None:
    assert Config().digest() == Config(threads=1, out="x", progress=False).digest()
    assert Config().digest() != Config(seed=1).digest()
    assert Config().differences(Config(seed=1, out="y")) == ["seed: 0 -> 1"]


def test_every_preset_reads() -> None:
    for name in presets():
        preset(name)
    with pytest.raises(ConfigError, match="no preset"):
        preset("nope")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"epochs = " + b"9" * 5000, "not a TOML file"),
        (b"epochs = 0x" + b"f" * 5000, "epochs = .*does not fit 64 bits"),
        (b"lr = " + b"9" * 400, "lr = .*does not fit 64 bits"),
        (b"lr = 1e999", "lr = inf"),
        (b"cutoffs = [0x" + b"f" * 5000 + b"]", "cutoffs = .*must be"),
        (b"model = 0x" + b"f" * 5000, "model = .*must be text"),
        (b"x" * 5000 + b" = 1", "unknown option 'x+"),
        (b"epochs = " + b"[" * 100_000, "not a TOML file .nested too deeply"),
        (b"epochs = " + b"{a=" * 50_000, "not a TOML file .nested too deeply"),
        (b"epochs = " + b"[" * 200 + b"]" * 200, "epochs = .*must be a whole number"),
        (b".".join([b"a"] * 5000) + b" = 1", ".*without tables"),
        (b"\xff\xfee\0", "not a TOML file"),
        (b"epochs = 'caf\xe9'", "not a TOML file"),
        (b"seed = 1979-05-27", "seed = .*must be a whole number"),
    ],
)
def test_a_config_file_that_no_one_would_write(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=rf"x\.toml: {says}") as caught:
        read_toml(path)
    assert len(str(caught.value)) < 1000


@pytest.mark.parametrize("name", [".", "x" * 300, "none/x.toml", "a\0b"])
def test_a_config_that_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        read_toml(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "file" / "x.toml")
