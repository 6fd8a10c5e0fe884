"""From a Config to a split to a run: the common path of ``fastrec train`` and ``fastrec.train``."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Unpack

from fastrec import config as configs
from fastrec.config import Config, TrainOptions
from fastrec.data import splits
from fastrec.data.interactions import Interactions
from fastrec.data.loading import has_split, is_frame, load, load_split
from fastrec.data.split import Split, add_validation
from fastrec.engines.processes import joined
from fastrec.errors import ConfigError
from fastrec.runs import is_split_file, open_split
from fastrec.training.fit import Result, fit
from fastrec.training.ranks import in_turn
from fastrec.training.resolve import FILTERS, MEMORY, SPLITTING, resolve


def prepare(config: Config) -> Split:
    """Load ``data`` and split it as the config says; a split that comes with the data is used and reported.

    Raises
    ------
    DataNotFoundError
        If a named data set is not found and cannot be downloaded.
    DataError
        If the data are malformed, or the split does not fit them.
    ConfigError
        If a filter is asked for of data that have their own split.
    """
    source, rule = config.data.data, config.split
    if source.startswith(MEMORY):
        raise ConfigError(
            f"data = {source!r}: the run was given its data in memory, so there is no source to load again; name "
            "the data.safetensors of that run"
        )
    options: dict[str, Any] = {name: config[name] for name in FILTERS}
    saved = is_split_file(source)
    if rule.split == "given" or (rule.split == "auto" and (saved or has_split(source))):
        filters = ("min_rating", "k_core", "unrated_negatives", "item_table", "user_table")
        unused = [name for name in (options if saved else filters) if options[name]]
        if unused:
            raise ConfigError(
                f"{', '.join(unused)}: {source} comes with its own split, which is used as it is; leave it out, or "
                'split the complete log with split = "ratio" or "leave-one-out"'
            )
        columns = {name: value for name, value in options.items() if name not in filters}
        timed = config.negatives.negatives_from == "existing"
        given = open_split(source, times=timed) if saved else load_split(source, **columns)
        return add_validation(given, rule.validation, rule.split_seed)
    if options.pop("drop_overlap"):
        raise ConfigError(
            f"drop_overlap: {source} is split by split = {rule.split!r}, whose parts never overlap; leave it out"
        )
    return cut(load(source, **options), config)


def cut(interactions: Interactions, config: Config) -> Split:
    """Split loaded interactions by its rule."""
    rule = config.split
    if rule.split == "given":
        raise ConfigError(f"split = {rule.split!r}: {interactions.name} has no split of its own")
    return splits.get(rule.split).cut(interactions, rule.test_fraction, rule.validation, rule.split_seed)


def train(data: Any = None, *, preset: str | None = None, **options: Unpack[TrainOptions]) -> Result:
    """Train a model and evaluate it once on the test part.

    Parameters
    ----------
    data : Interactions, Split, frame, str or Path, optional
        What to train on: loaded interactions (split by leave-one-out unless ``split=`` says otherwise), a split, or the
        name or path of a data set, or of a file that ``runs.save_split`` wrote. Left out: MovieLens-1M.
    preset : str, optional
        A recipe that comes with fastrec; options that are given replace its own.
    **options
        Any option of ``fastrec.config.Config``. Options of loading go with a name or path only, those of splitting not
        with a split; the run records data in memory as ``memory:NAME``.

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
    base = configs.preset(preset) if preset is not None else Config()
    if is_frame(data):
        loading = {name: options.pop(name) for name in FILTERS if name in options and name != "drop_overlap"}  # type: ignore[misc]
        data = load(data, **loading)
    if data is not None:
        _refuse_unused(data, options)
    config = base.override(**options)
    if isinstance(data, Split):
        return fit(data, config)
    if isinstance(data, (str, Path)):
        config = config.override(data=str(data))
    elif isinstance(data, Interactions):
        config = config.override(data=MEMORY + data.name)
    config = resolve(config)  # before minutes of loading
    with joined() as processes:
        if isinstance(data, Interactions):
            split = cut(data, config)
        else:
            split = in_turn(processes, config.data.data, lambda: prepare(config))
        return fit(split, config, loaded=True)


def _refuse_unused(data: Any, options: Mapping[str, Any]) -> None:
    """Refuse what would be recorded but not done."""
    if not isinstance(data, (str, Path, Interactions, Split)):
        raise ConfigError(
            f"data is a {type(data).__name__}: give the name or path of a data set, a frame, Interactions "
            "(fastrec.load, Interactions.from_frame) or a Split"
        )
    unused = set() if isinstance(data, (str, Path)) else set(FILTERS)
    if isinstance(data, Split):
        unused |= set(SPLITTING)
    if asked := [name for name in options if name in unused]:
        what = "a split" if isinstance(data, Split) else "data in memory"
        raise ConfigError(
            f"{', '.join(asked)}: no effect with {what}; leave it out, or give it to the function that loads or "
            "splits the data (fastrec.load, fastrec.ratio_split, ...)"
        )
