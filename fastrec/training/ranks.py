"""One run by several processes: rank 0 makes the folder, evaluates, writes and prints; the others train with it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np

from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.base import Engine
from fastrec.engines.processes import Processes
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.runs import Run, fingerprints, open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.start import Start
from fastrec.training.trainer import State, Trainer

_T = TypeVar("_T")


def in_turn(processes: Processes, source: str, load: Callable[[], _T]) -> _T:
    """Load on rank 0 first unless ``source`` is a path: a named set may be fetched, and the others then find it."""
    first = processes.world > 1 and not Path(source).exists()
    if first and processes.rank:
        processes.tell(None)
    try:
        return load()
    finally:
        if first and not processes.rank:
            processes.tell("loaded")  # also after an error, which the others then run into themselves


def same_job(processes: Processes, config: Config, split: Split) -> None:
    """Refuse processes that were given other options or data than rank 0: their weights would drift apart.

    Raises
    ------
    ConfigError, DataError
        On every process, with the ranks that differ.
    """
    if processes.world == 1:
        return
    for what, digest, error in (
        ("options", config.digest(), ConfigError),
        ("data", fingerprints(split)["split"], DataError),
    ):
        if other := _others(processes, digest):
            raise error(
                f"{what}: rank {', '.join(map(str, other))} of {processes.world} was given others than rank 0; start "
                "all processes by the same command, on the same data"
            )


def _others(processes: Processes, digest: str) -> list[int]:
    import torch

    found = processes.gather(torch.from_numpy(np.frombuffer(digest.encode(), np.uint8).copy()))
    return [rank for rank, value in enumerate(found) if not torch.equal(value, found[0])]


def validation(
    config: Config, processes: Processes, validate: Callable[[], dict[str, float]] | None
) -> Callable[[], dict[str, float]] | None:
    """The validation of an epoch: by rank 0, the only one with a ``validate``, whose metrics every process gets."""
    if config.evaluation.select is None or processes.world == 1:
        return validate

    def told() -> dict[str, float]:
        found = None if validate is None else {name: float(value) for name, value in validate().items()}
        metrics: dict[str, float] = processes.tell(found)
        return metrics

    return told


def lead(processes: Processes, folder: Path, step: int | None) -> None:
    """On rank 0: tell the others the run folder, and the step of the checkpoint to go on from.

    Raises
    ------
    CheckpointError
        If a process does not see the folder.
    """
    if processes.world > 1:
        _check_seen(processes, Path(processes.tell({"run": str(folder.resolve()), "step": step})["run"]))


def _check_seen(processes: Processes, folder: Path) -> None:
    if processes.any(not folder.is_dir()):
        raise CheckpointError(
            f"{folder}: rank 0 made this run folder and another process does not see it; give an --out on a file "
            "system that every machine mounts under one path"
        )


def follow(config: Config, engine: Engine, start: Start, processes: Processes) -> Run:
    """On every rank but 0: train what rank 0 trains, write nothing; the run, once rank 0 has finished it."""
    told = processes.tell(None)
    folder = Path(told["run"])
    _check_seen(processes, folder)
    trainer = Trainer(
        engine,
        epochs=start.epoch + config.training.epochs,
        patience=config.training.patience,
        validate=validation(config, processes, None),
        select=str(config.evaluation.select),
        checkpoint_every=config.run.checkpoint_every,
        log_every=config.run.log_every,
        progress=False,
        processes=processes,
        keeps=False,
        state=State(epoch=start.epoch, step=start.step),
    )
    if told["step"] is not None:
        trainer.resume(*Checkpoints(folder / "checkpoints").load(told["step"]))
    elif start.about:
        trainer.save()  # checks the weights, as rank 0 does
    trainer.run()
    processes.tell(None)
    return open_run(folder)
