"""From a Config to a split to a run: what ``fastrec train`` and ``fastrec.train`` both do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fastrec.config import Config, preset
from fastrec.data.interactions import Interactions
from fastrec.data.split import (
    Split,
    carve_validation,
    has_split,
    leave_one_out,
    load_split,
    ratio_split,
    time_split,
)
from fastrec.errors import ConfigError
from fastrec.runs import is_split_file, open_split
from fastrec.training.fit import Result, fit
from fastrec.training.resolve import resolve


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
    from fastrec.data.loading import load

    options: dict[str, Any] = {
        "user_col": config.user_col,
        "item_col": config.item_col,
        "rating_col": config.rating_col,
        "time_col": config.time_col,
        "min_rating": config.min_rating,
        "k_core": config.k_core,
        "unrated_negatives": config.unrated_negatives,
    }
    saved = is_split_file(config.data)
    if config.split == "given" or (config.split == "auto" and (saved or has_split(config.data))):
        filters = ("min_rating", "k_core", "unrated_negatives")
        unused = [name for name in (options if saved else filters) if options[name]]
        if unused:
            raise ConfigError(
                f"{', '.join(unused)}: {config.data} brings its own split, which is used as it is; leave it out, or "
                'cut the whole log anew with split = "ratio" or "leave-one-out"'
            )
        columns = {name: value for name, value in options.items() if name not in filters}
        given = open_split(config.data) if saved else load_split(config.data, **columns)
        return carve_validation(given, config.validation, config.split_seed)
    return cut(load(config.data, **options), config)


def cut(interactions: Interactions, config: Config) -> Split:
    """Split loaded interactions by ``config.split``."""
    if config.split in ("auto", "leave-one-out"):
        return leave_one_out(interactions, validation=config.validation, seed=config.split_seed)
    shares: dict[str, Any] = {"test": config.test_share, "validation": config.validation}
    if config.split == "ratio":
        return ratio_split(interactions, **shares, seed=config.split_seed)
    if config.split == "time":
        return time_split(interactions, **shares)
    raise ConfigError(f"split = {config.split!r}: {interactions.name} brings no split of its own")


def train(data: Interactions | Split | str | Path | None = None, **options: Any) -> Result:
    """Train a model and evaluate it once on the test part.

    Parameters
    ----------
    data : Interactions, Split, str or Path, optional
        What to train on: loaded interactions (split by leave-one-out unless ``split=`` says otherwise), a split, or the
        name or path of a data set, or of a file that ``runs.save_split`` wrote. Left out: MovieLens-1M.
    **options
        Any field of ``fastrec.config.Config``, and ``preset=`` for a recipe that comes with fastrec.

    Returns
    -------
    Result
        ``run`` (the run folder), ``metrics``, ``samples_per_s``, ``best_epoch``.

    Raises
    ------
    ConfigError
        For an unknown or impossible option.
    DataError
        For data that cannot be used.
    """
    base = preset(options.pop("preset")) if "preset" in options else Config()
    if isinstance(data, (str, Path)):
        options["data"] = str(data)
    elif data is not None:
        name = data.name if isinstance(data, Interactions) else data.train.name
        options.setdefault("data", name)
    config = resolve(base.override(**options))  # before minutes of loading
    if isinstance(data, Split):
        return fit(data, config)
    return fit(cut(data, config) if isinstance(data, Interactions) else prepare(config), config)
