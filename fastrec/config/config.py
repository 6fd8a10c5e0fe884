"""One frozen Config in sections: every option is a flag of ``fastrec train``, a TOML key and a keyword.

A value comes from, in rising order: the defaults, a preset, a TOML file, the command line or a keyword.
"""

from __future__ import annotations

import difflib
import typing
from collections.abc import Iterable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any

from fastrec.config.checks import check
from fastrec.config.names import RENAMED
from fastrec.config.sections import Data, Evaluation, Model, Negatives, Optim, RunOptions, Split, Training
from fastrec.config.typed import Options
from fastrec.errors import ConfigError, shown

SECTIONS: dict[str, Any] = {
    "data": Data,
    "split": Split,
    "negatives": Negatives,
    "model": Model,
    "optim": Optim,
    "training": Training,
    "evaluation": Evaluation,
    "run": RunOptions,
}
OPTIONS: dict[str, Field[Any]] = {f.name: f for section in SECTIONS.values() for f in fields(section)}
"""Every option by its name, in the order of the sections."""
SECTION_OF = {f.name: name for name, section in SECTIONS.items() for f in fields(section)}
TYPES: dict[str, Any] = {k: v for s in SECTIONS.values() for k, v in typing.get_type_hints(s).items()}


@dataclass(frozen=True, init=False)
class Config:
    """Everything that decides a training run. Unknown keys, wrong types and impossible values raise ConfigError.

    Options are given by their flat names (``Config(lr=0.01)``) and read as ``config.optim.lr``; ``config["lr"]`` reads
    one whose name is a variable. Flat attributes are not offered: four options are called as their section is.
    """

    data: Data
    split: Split
    negatives: Negatives
    model: Model
    optim: Optim
    training: Training
    evaluation: Evaluation
    run: RunOptions
    origins: Mapping[str, str] = field(compare=False, repr=False)
    """Option -> where it was given ("" for a flag or a keyword, else a file or preset); defaults are not in it."""
    asked: Mapping[str, Any] = field(compare=False, repr=False)
    """What was asked for where the value is what it became on this machine, such as device: "auto"."""
    inert: frozenset[str] = field(compare=False, repr=False)
    """Options without effect in this run, which no record keeps."""
    notes: tuple[str, ...] = field(compare=False, repr=False)
    """What the run has to say about its options."""

    def __init__(self, **options: typing.Unpack[Options]) -> None:
        parts = {name: section() for name, section in SECTIONS.items()}
        for name, value in {**parts, "origins": {}, "asked": {}, "inert": frozenset(), "notes": ()}.items():
            object.__setattr__(self, name, value)
        self._set(options, "")

    def _set(self, values: Mapping[str, Any], origin: str | None) -> None:
        """Put checked values in place; for a Config that is not yet in use."""
        for key in values:
            if key not in OPTIONS:
                raise ConfigError(unknown(key))
        new = {k: check(k, v, TYPES[k], OPTIONS[k].metadata) for k, v in values.items()}
        for name in dict.fromkeys(SECTION_OF[k] for k in new):
            part = {k: v for k, v in new.items() if SECTION_OF[k] == name}
            object.__setattr__(self, name, replace(getattr(self, name), **part))
        if origin is not None:
            object.__setattr__(self, "origins", {**self.origins, **dict.fromkeys(new, origin)})
            object.__setattr__(self, "asked", {k: v for k, v in self.asked.items() if k not in new})
        self._check_together()

    def _check_together(self) -> None:
        """Check what can be checked without knowing models, data or this machine."""
        cutoffs, layers = self.evaluation.cutoffs, self.model.layers
        if not cutoffs or min(cutoffs) < 1:
            raise ConfigError(f"cutoffs = {list(cutoffs)}: give at least one K, each at least 1")
        if max(cutoffs) > 1_000_000:
            raise ConfigError(f"cutoffs = {list(cutoffs)}: each K must be in 1 to 1,000,000")
        if any(not 1 <= width <= 65536 for width in layers):
            raise ConfigError(f"layers = {list(layers)}: each width must be in 1 to 65,536")
        drawn, kept = self.negatives.hard_negatives, self.negatives.negatives
        if drawn and drawn < kept:
            raise ConfigError(f"hard_negatives = {drawn}: must be at least negatives = {kept}")

    def _copy(self, **changes: Any) -> Config:
        made = object.__new__(Config)
        for f in fields(self):
            object.__setattr__(made, f.name, changes.get(f.name, getattr(self, f.name)))
        return made

    def __getitem__(self, name: str) -> Any:
        """The value of an option by its flat name."""
        return getattr(getattr(self, SECTION_OF[name]), name)

    def given(self, values: Mapping[str, Any], origin: str = "") -> Config:
        """A copy with values that a file, preset or caller gave.

        Raises
        ------
        ConfigError
            For an unknown or former key (the closest or new one is named), a wrong type or an impossible value.
        """
        made = self._copy()
        made._set(values, origin)
        return made

    def override(self, **changes: typing.Unpack[Options]) -> Config:
        """A copy with the given options changed, as by keywords; see ``given``."""
        return self.given(changes)

    def settled(self, values: Mapping[str, Any], **kept: Any) -> Config:
        """A copy with values that were not given: defaults that depend on others, or what an "auto" became.

        Parameters
        ----------
        values : mapping
        **kept
            ``asked``, ``inert`` or ``notes`` of the copy.
        """
        made = self._copy(**kept)
        made._set(values, None)
        return made

    def values(self) -> dict[str, Any]:
        """Every option by its flat name."""
        return {name: self[name] for name in OPTIONS}

    def to_dict(self) -> dict[str, Any]:
        """Flat, as plain TOML and JSON types; None and options without effect are left out."""
        found = ((k, v) for k, v in self.values().items() if v is not None and k not in self.inert)
        return {k: list(v) if isinstance(v, tuple) else v for k, v in found}

    def to_nested(self) -> dict[str, dict[str, Any]]:
        """By section, as config.toml: what was asked for, and under ``resolved`` what it became on this machine."""
        values = {**self.to_dict(), **self.asked}
        parts = {s: {k: v for k, v in values.items() if SECTION_OF[k] == s} for s in SECTIONS}
        parts["resolved"] = {k: self[k] for k in self.asked if self[k] is not None}
        return {name: part for name, part in parts.items() if part}

    def to_toml(self) -> str:
        """The text of ``to_nested``, readable by ``read_toml``."""
        import tomli_w

        return tomli_w.dumps(self.to_nested())

    def decisive(self) -> dict[str, Any]:
        """The part of ``to_dict`` that decides the weights: not folders, logging or thread counts."""
        return {k: v for k, v in self.to_dict().items() if OPTIONS[k].metadata["result"]}

    def digest(self) -> str:
        """sha256 of ``decisive``."""
        import hashlib
        import json

        return hashlib.sha256(json.dumps(self.decisive(), sort_keys=True).encode()).hexdigest()

    def differences(self, other: Config) -> list[str]:
        """One line for each decisive option in which the two differ, as ``key: mine -> other's``."""
        names = [name for name, f in OPTIONS.items() if f.metadata["result"] and self[name] != other[name]]
        return [f"{name}: {self[name]!r} -> {other[name]!r}" for name in names]


def unknown(key: str, known: Iterable[str] = tuple(OPTIONS)) -> str:
    """The message for a key that is not an option: its new name, the closest one, or all of them."""
    plain = str(key).replace("-", "_")
    if plain in RENAMED:
        return f"{key} is now called {RENAMED[plain]}; use that name"
    close = difflib.get_close_matches(plain, [*known, *RENAMED], 1)
    name = RENAMED.get(close[0], close[0]) if close else None
    return f"unknown option {shown(key)}" + (f"; did you mean {name!r}?" if name else f"; known: {', '.join(known)}")
