"""Resolution of the options left at "auto" on this machine, and options without an effect."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from fastrec import models, optim
from fastrec.config import Config, preset, with_defaults
from fastrec.config.needs import DATA_NEEDS, NEEDS, TUNED, DataFacts, Facts, without_inert
from fastrec.data import splits
from fastrec.data.split import Split
from fastrec.engines.capabilities import Wish, choose
from fastrec.engines.processes import launched
from fastrec.errors import ConfigError
from fastrec.models import losses

MEMORY = "memory:"
"""What the recorded ``data`` of a run begins with that was given its data in memory: no name or path to run again."""
FILTERS = (
    *("user_col", "item_col", "rating_col", "time_col", "time_format", "where", "weight_col"),
    *("item_table", "user_table"),
    *("min_rating", "k_core", "unrated_negatives", "drop_overlap"),
)
"""Options that act while data are loaded."""
SPLITTING = ("split", "validation", "test_fraction", "split_seed")
"""Options that act while data are split."""
PATHS = ("data", "item_table", "user_table", "pretrained_gmf", "pretrained_mlp")
"""Options that may name a path; a run records it as absolute, so that its config works from any folder."""


def wish(config: Config, device: str, processes: int = 1) -> Wish:
    """The requirements of a config on an engine on a device, for so many processes that train together."""
    training = config.training
    return Wish(
        model=config.model.model,
        loss=config.optim.loss,
        optimizer=config.optim.optimizer,
        distribution=config.negatives.distribution,
        device=device.split(":")[0],
        precision=training.precision if training.precision != "auto" else "fp32",
        engine=training.engine,
        fused_mode=training.fused_mode,
        accumulate=training.accumulate,
        hard_negatives=config.negatives.hard_negatives,
        compile=training.compile,
        weighted=config.data.weight_col is not None,
        negatives_from=config.negatives.negatives_from,
        processes=processes,
    )


def resolve(config: Config) -> Config:
    """Settle every "auto" but the split's, and the defaults that depend on it; resolving twice changes nothing.

    Raises
    ------
    ConfigError
        If the device does not exist on this machine, compile finds no compiler, no backend takes the options together,
        an option that was given has no effect, or the environment is not that of a process of several.
    """
    from fastrec.batches.device import check_compiler, check_device

    world = launched().world
    device = check_device(config.training.device)
    own_device(device)
    if config.training.compile:
        check_compiler(device)
    engine = choose(wish(config, device, world)).engine
    precision = config.training.precision
    if precision == "auto":  # bf16 keeps a float32 master in the torch engine, and none in the fused one
        precision = "bf16" if device.startswith("cuda") and engine == "torch" else "fp32"
    became = {"device": device, "engine": engine, "precision": precision}
    asked = {**config.asked, **{k: config[k] for k in became if config[k] == "auto"}}
    said = _of_several(config, device, engine, world)
    config = config.settled(became | _absolute(config), asked=asked)
    choose(wish(config, device, world))
    config = with_defaults(config)
    config = config.settled({}, notes=tuple(dict.fromkeys((*config.notes, *said, *_misfits(config)))))
    model, values = models.model_class(config.model.model), config.values()
    rule = splits.get("auto" if config.split.split == "given" else config.split.split)
    facts = Facts(
        values=values,
        model_options=model.options,
        shared_weights=bool(model.output_weights or model.hidden_weights),
        output_weights=bool(model.output_weights),
        loss_options=losses.get(config.optim.loss).options,
        cosine=model.similarity == "cosine",
        decays=optim.get(config.optim.optimizer).decays,
        in_batch=losses.get(config.optim.loss).in_batch is not None,
        validates=rule.validates,
        takes_fraction=rule.takes_fraction,
        draws=rule.draws(config.split.validation),
    )
    return without_inert(config, NEEDS, facts)


def own_device(device: str) -> str:
    """The device of this process: of several, each takes the CUDA device of its local rank.

    Raises
    ------
    ConfigError
        If several processes were given one CUDA device, or there is none of the number of the local rank.
    """
    from fastrec.batches.device import check_device

    place = launched()
    if place.world == 1 or not device.startswith("cuda"):
        return device
    if device != "cuda":
        raise ConfigError(
            f"device = {device!r}: {place.world} processes take a CUDA device each, that of their local rank; use "
            "device = cuda"
        )
    return check_device(f"cuda:{place.local_rank}")


def _of_several(config: Config, device: str, engine: str, world: int) -> list[str]:
    """What a run of several processes has to say about its engine."""
    if world == 1:
        return []
    said = f"{world} processes: each trains its rows of every batch, with a copy of all weights"
    if config.training.engine == "auto" and (single := choose(wish(config, device)).engine) != engine:
        said += f"; engine = {engine}, because {single}, which auto takes in one process, does not train in several"
    return [said]


def absolute_path(value: str) -> str:
    """A path that exists as an absolute one; the name of a data set, and data in memory, as they are."""
    try:
        there = not value.startswith(MEMORY) and Path(value).exists()
    except (OSError, ValueError):  # a name that is too long; the reader refuses it by its own message
        return value
    return os.path.abspath(value) if there else value


def _absolute(config: Config) -> dict[str, Any]:
    return {name: absolute_path(config[name]) for name in PATHS if config[name] is not None}


def _misfits(config: Config) -> list[str]:
    """Values that a preset chose for another engine or optimiser than the one that later options ask for."""
    names = {o for o in config.origins.values() if o.startswith("preset ")}
    notes = []
    for origin in sorted(names):
        recipe = preset(origin.removeprefix("preset "))
        engine = choose(wish(recipe, "cpu")).engine
        old = {"engine": engine, "optimizer": recipe.optim.optimizer, "fused_mode": recipe.training.fused_mode}
        if engine != "fused" or config.training.engine != "fused":
            del old["fused_mode"]
        changed = [k for k, v in old.items() if config[k] != v]
        kept = [f"{k} = {config[k]}" for k in TUNED if config.origins.get(k) == origin]
        if changed and kept:
            was = ", ".join(f"{k} = {old[k]}" for k in changed)
            now = ", ".join(f"{k} = {config[k]}" for k in changed)
            notes.append(f"{origin} chose {', '.join(kept)} for {was}: they may not fit {now}; give them too")
    return notes


def loss_options(config: Config) -> dict[str, float]:
    """The options of a resolved config's loss, by name."""
    return {name: config[name] for name in losses.get(config.optim.loss).options}


def check_lr(config: Config, stream: Any) -> None:
    """Refuse an SGD whose summed mini-batches would overshoot: what was learned would depend on the batch.

    Raises
    ------
    ConfigError
        With the lr that fits.
    """
    from fastrec.engines.units import largest_lr

    training, lr = config.training, config.optim.lr
    sequential = training.engine == "fused" and training.fused_mode == "lock_free"
    if sequential or lr is None or not optim.get(config.optim.optimizer).sums:
        return
    rows = training.batch_size * training.accumulate
    form = losses.get(config.optim.loss).bind(loss_options(config), config.negatives.negatives, stream.sampler.n_items)
    largest = largest_lr(stream, rows, form)
    if lr > largest:
        fits = max(1, int(rows * largest / lr))
        raise ConfigError(
            f"lr = {lr:g}: SGD sums the gradients of {min(rows, stream.n_positives):,} positives per step, and the "
            f"busiest row overshoots above lr = {largest:.2g}; lower lr to that, or batch_size to {fits:,}"
        )


def in_memory(split: Split, config: Config) -> Config:
    """The config that records a split given in memory: no source to load again, no rule applied here.

    Raises
    ------
    ConfigError
        If the config filters or splits the data, which nothing has done.
    """
    asked = [name for name in FILTERS if config[name]]
    if asked:
        raise ConfigError(
            f"{', '.join(asked)}: no effect on data in memory; filter while loading (fastrec.load) instead"
        )
    asked = [n for n in SPLITTING if not config.origins.get(n, "preset ").startswith("preset ")]
    if asked:
        raise ConfigError(f"{', '.join(asked)}: no effect on a split; give it to the function that splits the data")
    kept = {k: v for k, v in config.origins.items() if k not in SPLITTING}
    data = MEMORY + split.train.name.removesuffix(" train")
    return config.settled({"data": data, "split": "given", "validation": 0.0}, origins=kept)


def settle_for(split: Split, config: Config) -> Config:
    """A resolved config with the options marked that have no effect on these data.

    Raises
    ------
    ConfigError
        If such an option was given.
    """
    facts = DataFacts(
        validation=split.validation.n_interactions > 0,
        test=split.test.n_interactions > 0,
        own_candidates=split.candidates is not None,
    )
    return without_inert(config, DATA_NEEDS, facts)


def check_candidates(split: Split, config: Config) -> None:
    """Refuse candidates that cannot be held: those of the test part are drawn after training.

    Raises
    ------
    ConfigError
        If they take more than the memory of this machine.
    """
    rows = max(0 if split.candidates is not None else split.test.n_interactions, split.validation.n_interactions)
    n = config.evaluation.candidates
    need = 4 * n * rows
    try:
        memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        return
    if need > memory:
        raise ConfigError(
            f"candidates = {n}: for {rows:,} positives they take {need / 1e9:,.0f} GB, and this "
            f"machine has {memory / 1e9:,.0f} GB; lower candidates"
        )
