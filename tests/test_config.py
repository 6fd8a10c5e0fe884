"""Config: every option is a key, wrong ones are refused by name."""

from pathlib import Path

import pytest

from fastrec.config import OPTIONS, SECTIONS, Config, preset, presets, read_toml, recorded
from fastrec.errors import ConfigError


def test_toml_round_trip_keeps_every_field(tmp_path) -> None:
    config = Config(dim=64, layers=(256, 128), min_rating=4, threads=2)
    path = tmp_path / "c.toml"
    path.write_text(config.to_toml())
    assert read_toml(path) == config


def test_every_option_has_help() -> None:
    for f in OPTIONS.values():
        assert len(f.metadata["help"]) > 5


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bach_size": 3}, "did you mean 'batch_size'"),
        ({"dim": 0}, "dim = 0: must be in 1"),
        ({"dim": "many"}, "must be an integer"),
        ({"dim": True}, "must be an integer"),
        ({"lr": float("nan")}, "lr = nan"),
        ({"seed": 2**32}, "seed = 4294967296"),
        ({"hard_negatives": 2}, "at least negatives = 4"),
        ({"cutoffs": ()}, "at least one K"),
        ({"threads": 0}, "threads = 0"),
        ({"output_init": "zero"}, "output_init = 'zero': must be one of lecun, one"),
        ({"lr_h": 0.5}, "lr_h is now called output_lr"),
        ({"l2-h": 0.5}, "l2-h is now called output_l2"),
        ({"init_h": "one"}, "init_h is now called output_init"),
        ({"test_share": 0.5}, "test_share is now called test_fraction"),
        ({"avoid": "all"}, "avoid is now called exclude"),
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
        (b".".join([b"a"] * 65) + b" = 1", "not a TOML file .a key of more than 64 parts"),
        (b"[" + b" . ".join([b'"a b"'] * 65) + b"]", "not a TOML file .a key of more than 64 parts"),
        (b"epochs = {" + b".".join([b"a"] * 65) + b" = 1}", "not a TOML file .a key of more than 64 parts"),
        (b"#" * (1 << 20) + b"\n", "not a TOML file .1,048,577 bytes, and options take at most 1,048,576"),
        (b'data = "' + b".".join([b"a"] * 99) + b'"\nepochs = 0', "epochs"),
        (b"epochs = " + b"[" * 200 + b"]" * 200, "epochs = .*must be an integer"),
        (b".".join([b"a"] * 64) + b" = 1", "unknown section .a."),
        (b"\xff\xfee\0", "not a TOML file"),
        (b"epochs = 'caf\xe9'", "not a TOML file"),
        (b"seed = 1979-05-27", "seed = .*must be an integer"),
    ],
)
def test_a_config_file_that_no_one_would_write(tmp_path: Path, text: bytes, says: str) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(text)
    with pytest.raises(ConfigError, match=rf"x\.toml: {says}") as caught:
        read_toml(path)
    assert len(str(caught.value)) < 1200


@pytest.mark.parametrize("name", [".", "x" * 300, "none/x.toml", "a\0b"])
def test_a_config_that_is_no_file(tmp_path: Path, name: str) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError):
        read_toml(tmp_path / name)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_toml(tmp_path / "file" / "x.toml")


def test_a_file_may_be_flat_nested_or_both(tmp_path: Path) -> None:
    path = tmp_path / "c.toml"
    path.write_text('dim = 8\nmodel = "mf"\n[data]\ndata = "x.csv"\nk_core = 2\n[optim]\nlr = 0.1\n')
    assert read_toml(path) == Config(dim=8, model="mf", data="x.csv", k_core=2, lr=0.1)
    assert read_toml(path).origins["lr"] == str(path)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[model]\nlr = 0.1", r"lr belongs in section \[optim\], not in \[model\]"),
        ("dim = 3\n[model]\ndim = 4", "dim is given twice"),
        ("[modle]\ndim = 4", r"unknown section \[modle\]; sections are data, split"),
        ("[model]\nmodel = 3", "model = 3: must be text"),
        ("model = {dmi = 3}", "unknown option 'dmi'; did you mean 'dim'"),
        ("[optim]\nlr_h = 0.1", "lr_h is now called output_lr"),
        ("test_share = 0.1", "test_share is now called test_fraction"),
    ],
)
def test_a_table_that_cannot_be_meant(tmp_path: Path, text: str, says: str) -> None:
    (tmp_path / "x.toml").write_text(text)
    with pytest.raises(ConfigError, match=rf"x\.toml: {says}"):
        read_toml(tmp_path / "x.toml")


def test_sections_hold_what_flat_names_read() -> None:
    config = Config(lr=0.5, split="time")
    assert (config.optim.lr, config["lr"], config.split.split) == (0.5, 0.5, "time")
    assert sum(len(vars(getattr(config, name))) for name in SECTIONS) == len(OPTIONS)
    assert config.override(lr=0.25).optim.lr == 0.25
    assert config.optim.lr == 0.5


def test_records_of_earlier_runs_are_read_by_one_map() -> None:
    old = {
        "data": "ml-1m",
        "model": "gmf",
        "lr_h": 0.1,
        "l2_h": 0.2,
        "init_h": "one",
        "test_share": 0.3,
        "avoid": "all",
    }
    assert recorded(old) == {
        "data": "ml-1m", "model": "gmf", "output_lr": 0.1, "output_l2": 0.2, "output_init": "one", "test_fraction": 0.3,
        "exclude": "all",
    }  # fmt: skip
    nested = {"data": {"data": "x", "k_core": 2}, "training": {"device": "auto"}, "resolved": {"device": "cpu"}}
    assert recorded(nested) == {"data": "x", "k_core": 2, "device": "cpu"}


def test_the_keywords_are_the_options() -> None:
    """``Options`` is what editors and mypy know of Config: its names, types and choices are those of the sections."""
    import typing

    from fastrec import models, optim
    from fastrec.config import TYPES, Options
    from fastrec.data import splits
    from fastrec.models import losses

    registered = {"model": models.names(), "loss": losses.names(), "optimizer": optim.names()}
    registered["split"] = splits.values()
    hints = typing.get_type_hints(Options)
    assert hints.keys() == OPTIONS.keys()
    for name, f in OPTIONS.items():
        parts = typing.get_args(hints[name]) if typing.get_origin(hints[name]) is not typing.Literal else (hints[name],)
        literals = [typing.get_args(p) for p in parts if typing.get_origin(p) is typing.Literal]
        choices = registered.get(name) or list(f.metadata["choices"])
        if choices:
            assert sorted(literals[0]) == sorted(choices), name
            assert (type(None) in parts) == (f.default is None), name
        elif typing.get_origin(TYPES[name]) is not tuple:
            assert hints[name] == TYPES[name], name
