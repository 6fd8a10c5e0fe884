"""From a Config to a split to a run: what ``fastrec train`` and ``fastrec.train`` both do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastrec.config import Config, preset
from fastrec.data.interactions import Interactions
from fastrec.data.loading import has_split, is_frame, load, load_split
from fastrec.data.split import (
    Split,
    add_validation,
    everything,
    leave_one_out,
    ratio_split,
    time_split,
)
from fastrec.errors import ConfigError
from fastrec.runs import is_split_file, open_split
from fastrec.training.fit import Result, fit
from fastrec.training.resolve import FILTERS, MEMORY, resolve


def prepare(config: Config) -> Split:
    """Load ``config.data`` and split it as the config says; a split that comes with the data is used and said.

    Raises
    ------
    DataNotFoundError
        If a named set cannot be had.
    DataError
        If the data are malformed, or the split does not fit them.
    ConfigError
        If a filter is asked for of data that bring their own split.
    """
    if config.data.startswith(MEMORY):
        raise ConfigError(
            f"data = {config.data!r}: the run was given its data in memory, so there is no source to load again; name "
            "the data.safetensors of that run"
        )
    options: dict[str, Any] = {name: getattr(config, name) for name in FILTERS}
    saved = is_split_file(config.data)
    if config.split == "given" or (config.split == "auto" and (saved or has_split(config.data))):
        filters = ("min_rating", "k_core", "unrated_negatives", "item_table", "user_table")
        unused = [name for name in (options if saved else filters) if options[name]]
        if unused:
            raise ConfigError(
                f"{', '.join(unused)}: {config.data} brings its own split, which is used as it is; leave it out, or "
                'cut the whole log anew with split = "ratio" or "leave-one-out"'
            )
        columns = {name: value for name, value in options.items() if name not in filters}
        given = open_split(config.data) if saved else load_split(config.data, **columns)
        return add_validation(given, config.validation, config.split_seed)
    if options.pop("drop_overlap"):
        raise ConfigError(
            f"drop_overlap: {config.data} is cut into parts by split = {config.split!r}, which never overlap; leave it "
            "out"
        )
    return cut(load(config.data, **options), config)


def cut(interactions: Interactions, config: Config) -> Split:
    """Split loaded interactions by ``config.split``."""
    if config.split in ("auto", "leave-one-out"):
        return leave_one_out(interactions, validation=config.validation, seed=config.split_seed)
    shares: dict[str, Any] = {"test": config.test_share, "validation": config.validation}
    if config.split == "none":
        return everything(interactions)
    if config.split == "ratio":
        return ratio_split(interactions, **shares, seed=config.split_seed)
    if config.split == "time":
        return time_split(interactions, **shares)
    raise ConfigError(f"split = {config.split!r}: {interactions.name} brings no split of its own")


def train(data: Any = None, **options: Any) -> Result:
    """Train a model and evaluate it once on the test part.

    Parameters
    ----------
    data : Interactions, Split, frame, str or Path, optional
        What to train on: loaded interactions (split by leave-one-out unless ``split=`` says otherwise), a split, or the
        name or path of a data set, or of a file that ``runs.save_split`` wrote. Left out: MovieLens-1M.
    **options
        Any field of ``fastrec.config.Config``, and ``preset=`` for a recipe that comes with fastrec. Options of loading
        go with a name or path only, those of splitting not with a split; the run records data in memory as
        ``memory:NAME``.

    Returns
    -------
    Result
        ``run`` (the run folder), ``metrics``, ``samples_per_s``, ``best_epoch``.

    Raises
    ------
    ConfigError
        For an unknown or impossible option, or one that has no effect on ``data``.
    DataError
        For data that cannot be used.
    """
    base = preset(options.pop("preset")) if "preset" in options else Config()
    if is_frame(data):
        data = load(data, **{name: options.pop(name) for name in FILTERS if name in options and name != "drop_overlap"})
    if data is not None:
        _refuse_unused(data, options)
    if isinstance(data, (str, Path)):
        options["data"] = str(data)
    elif isinstance(data, Interactions):
        options["data"] = MEMORY + data.name
    config = resolve(base.override(**options))  # before minutes of loading
    if isinstance(data, Split):
        return fit(data, config)
    split = cut(data, config) if isinstance(data, Interactions) else prepare(config)
    return fit(split, config, loaded=True)


def _refuse_unused(data: Any, options: dict[str, Any]) -> None:
    """Refuse what would be recorded but not done."""
    if not isinstance(data, (str, Path, Interactions, Split)):
        raise ConfigError(
            f"data is a {type(data).__name__}: give the name or path of a data set, a frame, Interactions "
            "(fastrec.load, Interactions.from_frame) or a Split"
        )
    unused = set() if isinstance(data, (str, Path)) else set(FILTERS)
    if isinstance(data, Split):
        unused |= {"split", "validation", "test_share", "split_seed"}
    if asked := [name for name in options if name in unused]:
        what = "a split" if isinstance(data, Split) else "data in memory"
        raise ConfigError(
            f"{', '.join(asked)}: no effect beside {what}; leave it out, or give it to the function that loads or "
            "splits the data (fastrec.load, fastrec.ratio_split, ...)"
        )
