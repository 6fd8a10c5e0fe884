"""What the options left at "auto" stand for on this machine."""

from __future__ import annotations

import os
from typing import Any

from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.capabilities import Wish, choose
from fastrec.errors import ConfigError

MEMORY = "memory:"
"""What the recorded ``data`` of a run begins with that was given its data in memory: no name or path to run again."""
FILTERS = (
    *("user_col", "item_col", "rating_col", "time_col", "time_format", "where", "item_table", "user_table"),
    *("min_rating", "k_core", "unrated_negatives", "drop_overlap"),
)
"""Options that act while data are loaded."""

GMF_WEIGHTS = {"init_h": "one", "lr_h": 0.1, "l2": 3e-3, "l2_h": 2e-4}
"""What a GMF of the torch engine has where nothing else is asked: with L2 on h like on the rows, Adam brings h to zero
before rows that few samples touch have grown, and every score is tied (Gowalla at l2 = 5e-4)."""
OTHER_WEIGHTS = {"init_h": "lecun", "lr_h": 1.0, "l2": 3e-4}


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
    by_rows = config.model == "gmf" and engine == "torch" and config.init_h != "lecun"
    given: dict[str, Any] = {k: v for k in ("l2", "l2_h", "lr_h") if (v := getattr(config, k)) is not None}
    given |= {} if config.init_h == "auto" else {"init_h": config.init_h}
    weights = GMF_WEIGHTS if by_rows else OTHER_WEIGHTS
    unused = {"l2_h"} if config.optimizer == "adamw" else set()  # it decays every weight alike
    return config.override(**{k: v for k, v in weights.items() if k not in unused} | given)


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
