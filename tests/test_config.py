"""Config: every option is a key, wrong ones are refused by name."""

from dataclasses import fields

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
        ({"optimizer": "adamw", "l2_h": 0.5}, "AdamW decays every weight by l2"),
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
