"""TOML files of options, presets, and the configs that runs record."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fastrec.config.config import OPTIONS, SECTION_OF, SECTIONS, Config
from fastrec.config.names import RENAMED
from fastrec.errors import ConfigError, shown

RESOLVED = "resolved"
"""Table of a run's config.toml: what each "auto" became there. A record, not options: reading it as a file skips it."""
MOST_BYTES = 1 << 20
_DEEP_KEY = re.compile(r"""(?<![\w."'-])(?:(?:[\w-]++|"[^"\n]*+"|'[^'\n]*+')[ \t]*+\.[ \t]*+){64}""")
"""tomllib takes the square of the parts of a key in time and memory: minutes and gigabytes for 100 kB."""
_FOLDER = Path(__file__).parent.parent / "presets"


def parse_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML that may be damaged or hostile.

    Raises
    ------
    ValueError
        With the reason: not UTF-8, not TOML, a number of thousands of digits, nested too deeply, above 1 MiB.
    """
    if len(data) > MOST_BYTES:
        raise ValueError(f"{len(data):,} bytes, and options take at most {MOST_BYTES:,}")
    text = data.decode()
    if _DEEP_KEY.search(text):
        raise ValueError("a key of more than 64 parts")
    try:
        return tomllib.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_toml(path: str | Path, base: Config | None = None, origin: str | None = None) -> Config:
    """``base`` (the defaults) with the options of a TOML file over it: flat keys, tables by section, or both.

    Parameters
    ----------
    path : path
    base : Config, optional
    origin : str, optional
        How messages call the file; left out: its path.

    Raises
    ------
    ConfigError
        If the file is missing, is not TOML, or has a key or value that Config refuses.
    """
    try:
        values = parse_toml(Path(path).read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name another config file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from None
    try:
        return (base or Config()).given(flat(values), str(path) if origin is None else origin)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def flat(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a file by their flat names.

    Raises
    ------
    ConfigError
        For an unknown table, an option in another section's table, or one that is given twice.
    """
    found: dict[str, Any] = {}
    for name, value in values.items():
        if not isinstance(value, dict):
            part = {name: value}
        elif name == RESOLVED:
            continue
        elif name not in SECTIONS:
            raise ConfigError(f"unknown section [{shown(name)[1:-1]}]; sections are {', '.join(SECTIONS)}")
        else:
            part = value
            for key in part:
                if SECTION_OF.get(key, name) != name:
                    raise ConfigError(f"{key} belongs in section [{SECTION_OF[key]}], not in [{name}]")
        if twice := found.keys() & part.keys():
            raise ConfigError(f"{min(twice)} is given twice; leave one out")
        found |= part
    return found


def recorded(values: Mapping[str, Any]) -> dict[str, Any]:
    """The options of a run's config.toml by their flat, present names, with what each "auto" became."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        if isinstance(value, dict) and name in SECTIONS:
            found |= value
        elif name != RESOLVED:
            found[RENAMED.get(name, name)] = value
    if found.get("loss") == "softmax" and "temperature" not in found:
        found["loss"] = "inbatch-softmax"  # its name before there was a sampled one
    became = values.get(RESOLVED, {})
    return found | (became if isinstance(became, dict) else {})


def restored(values: Mapping[str, Any], origin: str = "the run's config.toml") -> Config:
    """The config of a run from what ``recorded`` gave: options that it left out have no effect.

    Parameters
    ----------
    values : mapping
    origin : str
        Where messages say that they were given.

    Raises
    ------
    ConfigError
        If a key or value is not one of this version.
    """
    made = with_defaults(Config().given(values, origin))
    return made.settled({}, inert=frozenset(name for name in OPTIONS if name not in values))


def presets() -> list[str]:
    """Names of the presets that come with fastrec."""
    names = [p.name.removesuffix(".toml") for p in _FOLDER.iterdir() if p.name.endswith(".toml")]
    return sorted(name for name in names if name.partition("-")[0] != "default")


def preset(name: str, base: Config | None = None) -> Config:
    """A preset by name over ``base`` (the defaults)."""
    if name not in presets():
        raise ConfigError(f"no preset {name!r}; there are: {', '.join(presets())}")
    return read_toml(_FOLDER / f"{name}.toml", base, f"preset {name}")


def default_rules(model: str) -> list[dict[str, Any]]:
    """The rules of ``default.toml`` (all models), then those of ``default-MODEL.toml``, where there is one.

    Returns
    -------
    list of dict
        Each with ``set`` (option -> value) and ``when`` (option -> a value, or a list of those that fit), which may be
        empty.
    """
    rules: list[dict[str, Any]] = []
    for name in ("default.toml", f"default-{model}.toml"):
        file = _FOLDER / name
        if file.is_file():
            rules += [{"when": {}, **rule} for rule in parse_toml(file.read_bytes())["rule"]]
    return rules


def with_defaults(config: Config) -> Config:
    """A config with the defaults that depend on model, loss, optimiser and engine: see ``default_rules``.

    Rules apply in order and later ones win; a rule's ``when`` sees what earlier rules set. What anyone gave is never
    replaced.
    """
    found: dict[str, Any] = {}
    for rule in default_rules(config.model.model):
        values = {**config.values(), **found}
        fits = (values[k] in v if isinstance(v, list) else values[k] == v for k, v in rule["when"].items())
        if all(fits):
            found |= {k: v for k, v in rule["set"].items() if k not in config.origins}
    return config.settled(found)


def defaulted(config: Config) -> dict[str, Any]:
    """Values of a resolved config that the rules of its model decided: not given, and with an effect."""
    ruled = dict.fromkeys(name for rule in default_rules(config.model.model) for name in rule["set"])
    return {k: config[k] for k in ruled if k not in config.origins and k not in config.inert and config[k] is not None}
