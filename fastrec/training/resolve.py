"""What the options left at "auto" stand for on this machine."""

from __future__ import annotations

import os
from typing import Any

from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.capabilities import Wish, choose
from fastrec.errors import ConfigError
from fastrec.training import defaults

MEMORY = "memory:"
"""What the recorded ``data`` of a run begins with that was given its data in memory: no name or path to run again."""
FILTERS = ("user_col", "item_col", "rating_col", "time_col", "time_format", "min_rating", "k_core", "unrated_negatives")
"""Options that act while data are loaded."""


def wish(config: Config, device: str) -> Wish:
    """What a config asks of an engine on a device."""
    return Wish(
        model=config.model,
        loss=config.loss,
        optimizer=config.optimizer,
        distribution=config.distribution,
        device=device.split(":")[0],
        precision=config.precision if config.precision != "auto" else "fp32",
        engine=config.engine,
        fused_mode=config.fused_mode,
        accumulate=config.accumulate,
        hard_negatives=config.hard_negatives,
        compile=config.compile,
    )


def resolve(config: Config) -> Config:
    """Replace every "auto" but the split's by what it stands for here; resolving twice changes nothing.

    Raises
    ------
    ConfigError
        If the device does not exist on this machine, or no backend takes the options together.
    """
    from fastrec.batches.device import check_device

    device = check_device(config.device)
    engine = choose(wish(config, device)).engine
    precision = config.precision
    if precision == "auto":  # bf16 keeps a float32 master in the torch engine, and none in the fused one
        precision = "bf16" if device.startswith("cuda") and engine == "torch" else "fp32"
    config = config.override(device=device, precision=precision, engine=engine)
    choose(wish(config, device))
    return config.override(**defaults.fill(config.to_dict()))


def check_lr(config: Config, stream: Any) -> None:
    """Refuse an SGD whose summed mini-batches would overshoot: what was learned would depend on the batch.

    Raises
    ------
    ConfigError
        With the lr that fits.
    """
    from fastrec import optim
    from fastrec.engines.units import largest_lr
    from fastrec.models import losses

    sequential = config.engine == "fused" and config.fused_mode == "lock_free"
    if sequential or config.lr is None or not optim.get(config.optimizer).sums:
        return
    rows = config.batch_size * config.accumulate
    largest = largest_lr(stream, rows, losses.get(config.loss))
    if config.lr > largest:
        fits = max(1, int(rows * largest / config.lr))
        raise ConfigError(
            f"lr = {config.lr:g}: SGD sums the gradients of {min(rows, stream.n_positives):,} positives a step, and "
            f"the busiest row overshoots above lr = {largest:.2g}; lower lr to that, or batch_size to {fits:,}"
        )


def in_memory(split: Split, config: Config) -> Config:
    """The config that records a split given in memory: no source to load again, no rule applied here.

    Raises
    ------
    ConfigError
        If the config filters the data, which nothing has done.
    """
    asked = [name for name in FILTERS if getattr(config, name)]
    if asked:
        raise ConfigError(
            f"{', '.join(asked)}: no effect on data in memory; filter while loading (fastrec.load) instead"
        )
    return config.override(data=MEMORY + split.train.name.removesuffix(" train"), split="given", validation=0.0)


def check_candidates(split: Split, config: Config) -> None:
    """Refuse candidates that cannot be held: those of the test part are drawn after training.

    Raises
    ------
    ConfigError
        If they take more than the memory of this machine.
    """
    rows = max(0 if split.candidates is not None else split.test.n_interactions, split.validation.n_interactions)
    need = 4 * config.candidates * rows
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return
    if need > memory:
        raise ConfigError(
            f"candidates = {config.candidates}: for {rows:,} positives they take {need / 1e9:,.0f} GB, and this "
            f"machine has {memory / 1e9:,.0f} GB; lower candidates"
        )
