"""A grid of runs: alternatives of options, times seeds, on one split; validation picks the row whose test is scored."""

from __future__ import annotations

import json
import re
import shutil
import statistics
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any

from fastrec.config import OPTIONS, SECTION_OF, TYPES, Config, unknown
from fastrec.data.split import Split
from fastrec.engines.processes import refuse_several
from fastrec.errors import CheckpointError, ConfigError, shown
from fastrec.evaluation.selection import resolve_selection
from fastrec.files import write_bytes
from fastrec.runs import Run, fingerprints, open_run
from fastrec.runs.folder import CONFIG, DATA, TABLES
from fastrec.runs.manifest import MANIFEST
from fastrec.runs.shared import Shared
from fastrec.training.fit import fit, resume
from fastrec.training.resolve import resolve, settle_for
from fastrec.training.scoring import score_test

RECORD = "grid.json"
REFUSED = ("data", "split", "evaluation", "run")
"""Sections whose options all rows of a grid share: figures on other data or by other measures do not compare."""


@dataclass
class Row:
    """One recipe of a grid and what its seeds came to."""

    name: str
    values: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    """Of each seed: the metric that selects, of the weights that are kept."""
    test: dict[str, list[float]] = field(default_factory=dict)
    """Of each seed, by "PROTOCOL METRIC@K"; only of the row that validation picks."""

    @property
    def mean(self) -> float:
        """Mean validation over seeds."""
        return statistics.fmean(self.validation)

    def as_dict(self) -> dict[str, Any]:
        """For the record, JSON-able."""
        runs = [str(run.path) for run in self.runs]
        return {"name": self.name, "set": self.values, "runs": runs, "validation": self.validation, "test": self.test}


@dataclass
class Grid:
    """A grid and how it ended."""

    out: Path
    rows: list[Row]
    select: str
    picked: Row | None = None
    """None where it was interrupted."""


def parse_sets(given: Sequence[str]) -> list[dict[str, Any]]:
    """The rows that ``KEY=VALUE`` texts ask for: values of one key are alternatives, different keys multiply.

    Raises
    ------
    ConfigError
        For a text without "=", an unknown key, one that a grid cannot vary, a value of the wrong type, or one given
        twice.
    """
    found: dict[str, list[Any]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        name = key.strip().replace("-", "_")
        if not equals:
            raise ConfigError(f"--set {shown(text)}: write KEY=VALUE, such as dim=32")
        if name not in OPTIONS:
            raise ConfigError(f"--set {shown(text)}: {unknown(name)}")
        if SECTION_OF[name] in REFUSED or name == "seed":
            why = "--seeds K trains seeds" if name == "seed" else "all rows of a grid share it; give it as an option"
            raise ConfigError(f"--set {shown(text)}: {name} is not for a grid: {why}")
        read = _value(name, value.strip())
        if read in found.setdefault(name, []):
            raise ConfigError(f"--set {shown(text)}: is given twice")
        found[name].append(read)
    return [dict(zip(found, values)) for values in product(*found.values())]


def _value(name: str, text: str) -> Any:
    """A value of an option from text; Config checks it."""
    hint = TYPES[name]
    kinds = [k for k in (typing.get_args(hint) or (hint,)) if k is not type(None)]
    kind = tuple if typing.get_origin(hint) is tuple else kinds[0]
    try:
        if kind is bool:
            return {"true": True, "false": False}[text.lower()]
        if kind is tuple:
            return tuple(int(part) for part in re.split(r"[\s,]+", text.strip("[]() ")))
        return kind(text)
    except (KeyError, ValueError):
        words = {bool: "true or false", int: "an integer", float: "a number", tuple: "integers"}
        raise ConfigError(f"{name} = {shown(text)}: must be {words[kind]}") from None


def row_name(values: dict[str, Any], model: str) -> str:
    """The NAME of a row's folders: its options, or the model where there are none."""
    words = [f"{k}={'-'.join(map(str, v)) if isinstance(v, tuple) else v}" for k, v in values.items()]
    return re.sub(r"[^A-Za-z0-9._=,+-]+", "-", ",".join(words)) or model


def train_grid(
    split: Split,
    config: Config,
    sets: Sequence[dict[str, Any]],
    *,
    seeds: int,
    out: Path,
    say: Callable[[str], None] = lambda _: None,
) -> Grid:
    """Train every row with ``seeds`` seeds, from ``config``'s on; score the test part of the row that validation picks.

    Parameters
    ----------
    split : Split
        What ``config``'s data options give (``job.prepare``).
    config : Config
        What all rows share.
    sets : sequence of dict
        Options of each row: see ``parse_sets``.
    seeds : int
        At least 1.
    out : path
        Run folders are ``OUT/NAME-seedN``; the split is kept once in ``OUT/shared``. Finished runs of an earlier call
        are taken as they are, unfinished ones are resumed.
    say : callable, optional
        Called with a line for each run.

    Raises
    ------
    ConfigError
        If there is no validation part to pick by, a row is impossible, a folder holds another run, or this is one of
        several processes.
    """
    refuse_several("a grid")
    if seeds < 1:
        raise ConfigError(f"seeds = {seeds}: train at least 1")
    first = config.training.seed
    rows = [Row(row_name(values, config.model.model), values) for values in sets]
    if len({row.name for row in rows}) < len(rows):
        raise ConfigError(f"{', '.join(sorted(row.name for row in rows))}: two rows have one folder name")
    select = resolve_selection(config.evaluation.select, split)
    if select is None:
        raise ConfigError("a grid picks by validation, and these data have no validation part; set validation = 0.1")
    config = config.settled({"select": select})
    shared, prints = Shared(out / "shared"), fingerprints(split)["split"]
    recipes = [resolve(config.given(row.values)) for row in rows]  # checked before the first is trained
    for seed in range(first, first + seeds):
        for row, recipe in zip(rows, recipes, strict=True):
            path = out / f"{row.name}-seed{seed}"
            run, stopped = _one(path, split, recipe.settled({"seed": seed}), prints, shared)
            if stopped == "interrupted":
                return Grid(out, rows, select)
            row.runs.append(run)
            row.validation.append(_validation(run, select))
            say(f"{path}: {select} {row.validation[-1]:.4f} ({stopped})")
    picked = max(rows, key=lambda row: row.mean)
    _score(picked)
    record = {"select": select, "picked": picked.name, "rows": [row.as_dict() for row in rows]}
    write_bytes(out / RECORD, json.dumps(record, indent=2).encode() + b"\n")
    return Grid(out, rows, select, picked)


def _score(row: Row) -> None:
    """Score the test part of a row's runs."""
    for run in row.runs:
        for protocol, values in score_test(run).items():
            for name, value in values.items():
                if "@" in name:
                    row.test.setdefault(f"{protocol} {name}", []).append(value)


def _one(path: Path, split: Split, config: Config, prints: str, shared: Shared) -> tuple[Run, str]:
    """Train, resume or take one run; (run, how it ended)."""
    _drop_unmade(path)
    if not path.exists():
        result = fit(split, config, out=path, loaded=True, test=False, shared=shared)
        return result.run, result.stopped
    run = open_run(path)
    ours = settle_for(split, config).decisive()
    theirs = {k: v for k, v in run.config.items() if OPTIONS[k].metadata["result"]}
    changed = [
        f"{k}: {theirs.get(k)!r} -> {ours.get(k)!r}" for k in sorted({*ours, *theirs}) if ours.get(k) != theirs.get(k)
    ]
    if run.manifest["data"]["fingerprints"]["split"] != prints:
        changed.insert(0, "its data or split are others")
    if changed:
        raise ConfigError(
            f"{path}: is a run of another grid ({'; '.join(changed)}); give another --out, or move it away"
        )
    if run.manifest["status"] == "done":
        return run, "done before"
    result = resume(path, progress=config.run.progress, test=False)
    return result.run, result.stopped


def _drop_unmade(path: Path) -> None:
    """Remove a run folder that was cut off while it was made: it has no manifest, and nothing but what was copied."""
    if path.is_dir() and not path.is_symlink() and not (path / MANIFEST).exists():
        own = {CONFIG, DATA, *(file for file, _ in TABLES.values())}
        if all(p.name in own or re.fullmatch(r"\..+\.part", p.name) for p in path.iterdir()):
            shutil.rmtree(path)


def _validation(run: Run, select: str) -> float:
    """The metric that selects, of the weights that the run kept."""
    best, epoch = run.manifest["result"]["best_validation"], run.manifest["result"]["epochs_done"]
    if best is not None:
        return float(best)
    lines = (run.path / "metrics.jsonl").read_text().splitlines()
    values = [line for line in map(json.loads, lines) if line["kind"] == "epoch" and line["epoch"] == epoch]
    if not values:
        raise CheckpointError(
            f"{run.path}: metrics.jsonl has no validation of epoch {epoch}; delete it and train again"
        )
    return float(values[-1][f"val {select}"])
