"""From a split and a config to a trained, evaluated run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.batches.stream import Stream
from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.base import Engine
from fastrec.errors import CheckpointError, ConfigError
from fastrec.optim.schedules import learning_rate
from fastrec.runs import Run, create, fingerprints, locked, open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.sampling import NegativeSampler
from fastrec.training.resolve import check_candidates, in_memory, resolve
from fastrec.training.tracking import Tracker
from fastrec.training.trainer import Trainer, clear_memory_errors


@dataclass(frozen=True)
class Result:
    """What a training run came to."""

    run: Run
    metrics: dict[str, dict[str, Any]]
    """Test metrics by protocol; empty for an interrupted run, or without a test part."""
    stopped: str
    """"all epochs", "early stopping" or "interrupted"."""
    epochs_done: int
    best_epoch: int | None
    """Epoch (from 1) whose weights are kept; None when they are the last."""
    best_validation: float | None
    seconds: float
    """Wall time of training, validation included."""
    samples_per_s: float
    """Samples over the time spent in training steps, drawing included; validation and checkpoints are not."""
    example_user: Any = None
    notes: list[str] = field(default_factory=list)


def fit(
    split: Split,
    config: Config,
    *,
    out: str | Path | None = None,
    progress: bool | None = None,
    loaded: bool = False,
) -> Result:
    """Train as the config says, keep the run, evaluate once on the test part.

    Parameters
    ----------
    split : Split
    config : Config
    out : path, optional
        The run folder, in place of ``config.out``.
    progress : bool, optional
        In place of ``config.progress``.
    loaded : bool
        Whether ``split`` is what the data options of ``config`` give (``job.prepare``); else the record says that the
        split was in memory.

    Raises
    ------
    ConfigError
        If the folder exists, options do not go together, or filters of the data are asked for that were not applied.
    FastrecError
        If training diverges or cannot go on; what was saved stays.
    """
    config = resolve(config if loaded else in_memory(split, config))
    check_candidates(split, config)
    with clear_memory_errors():
        engine = build_engine(split, config)  # before the folder: what cannot be built leaves none behind
    with clear_memory_errors(), _closing(engine, config.threads):
        run = create(out or config.out, config=config.to_dict(), split=split, toml=config.to_toml())
        with locked(run.path):
            run.record(engine=engine.describe(), avoided=config.avoid)
            return _train(run, split, config, engine, progress=config.progress if progress is None else progress)


def resume(path: str | Path, *, progress: bool | None = None, **given: Any) -> Result:
    """Go on with an interrupted run where its last checkpoint stands; on the CPU to the bit.

    Parameters
    ----------
    path : path
        A run folder.
    progress : bool, optional
        Show progress.
    **given
        Config fields that were given anew: those that decide the weights must be the run's own.

    Raises
    ------
    CheckpointError
        If there is nothing whole to go on from, config or data are not those of the run (the difference is shown), its
        draws are of another stream version, or another process trains it.
    """
    from fastrec.batches.device import check_device

    run = open_run(path)
    run.check_stream("go on with it")
    config = Config().override(**run.config)
    asked = config.override(**{k: v for k, v in given.items() if k not in ("data", "out")})
    check_device(asked.device)
    changes = config.differences(asked)
    if given.get("data", config.data) != config.data:
        changes.insert(0, f"data: {config.data!r} -> {given['data']!r}")
    if changes:
        raise CheckpointError(
            f"{run.path}: cannot go on under another config ({'; '.join(changes)}); leave these options out, or "
            "train anew"
        )
    if run.manifest.get("status") == "done":
        return _finished(run, config)
    shown = asked.progress if progress is None else progress
    with locked(run.path):
        run = open_run(path)  # another process may have ended it in between
        if run.manifest.get("status") == "done":
            return _finished(run, config)
        engine = build_engine(run.split(), asked)
        with clear_memory_errors(), _closing(engine, asked.threads):
            return _train(run, run.split(), asked, engine, progress=shown, again=True)


@contextlib.contextmanager
def _closing(engine: Engine, threads: int | None) -> Iterator[None]:
    """Torch at the asked number of threads, for this training alone; then the engine closed."""
    import torch

    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        engine.close()
        torch.set_num_threads(before)


def build_engine(split: Split, config: Config) -> Engine:
    """The engine of a resolved config, with initial weights."""
    from fastrec.batches.device import open_device
    from fastrec.engines.fused.engine import FusedEngine
    from fastrec.engines.minibatch.engine import TorchEngine

    kind = config.device.split(":")[0]
    stream = Stream(split.train.indptr, split.train.items, make_sampler(split, config), seed=config.seed)
    model = make_model(split, config)
    options: dict[str, Any] = {
        "batch_size": config.batch_size,
        "rate": make_rate(config, stream.n_positives),
        "loss": config.loss,
        "optimizer": config.optimizer,
        "l2": config.l2,
        "l2_h": config.l2_h,
        "lr_h": config.lr_h,
        "threads": config.threads,
    }
    if config.engine == "fused" and kind == "cuda":
        from fastrec.engines.fused.cuda import CudaEngine

        device = open_device(config.device)
        return CudaEngine(
            model, stream, device=device, precision=config.precision, seed=config.seed, graph=config.graph, **options
        )
    if config.engine == "fused":
        return FusedEngine(model, stream, mode=config.fused_mode, **options)
    return TorchEngine(
        model,
        stream,
        accumulate=config.accumulate,
        negatives=config.negatives,
        dropout=config.dropout,
        seed=config.seed,
        device=config.device,
        precision=config.precision,
        graph=config.graph,
        compile=config.compile,
        **options,
    )


def make_model(split: Split, config: Config) -> Any:
    """The model of a config with its initial weights, or those of the pretrained runs."""
    from fastrec import models
    from fastrec.models.gmf import GMF
    from fastrec.models.mlp import MLP
    from fastrec.models.neumf import NeuMF

    has = models.model_class(config.model).options
    sizes: dict[str, Any] = {"n_users": split.n_users, "n_items": split.n_items, "dim": config.dim, "seed": config.seed}
    options = {name: getattr(config, name) for name in has if name != "dropout"}
    model = models.build(config.model, **sizes, **options)
    given = (config.pretrained_gmf, config.pretrained_mlp)
    if not any(given):
        return model
    if not all(given) or not isinstance(model, NeuMF):
        raise ConfigError(
            "pretrained_gmf and pretrained_mlp go together, and with model = neumf: each names a run folder"
        )
    parts: list[Any] = []
    for path, kind in zip(given, (GMF, MLP)):
        run = open_run(str(path))
        if run.manifest["data"]["fingerprints"]["train"] != fingerprints(split)["train"]:
            raise ConfigError(f"{path}: was trained on other data; pretrain both parts on this run's training part")
        part = run.model()
        if not isinstance(part, kind):
            raise ConfigError(f"{path}: holds a {type(part).__name__}, where a {kind.__name__} is needed")
        parts.append(part)
    model.start_from(parts[0], parts[1], config.pretrained_alpha)
    return model


def make_sampler(split: Split, config: Config) -> NegativeSampler:
    """The sampler of training negatives."""
    held_out = {"train": (), "train+validation": (split.validation,), "all": (split.validation, split.test)}
    options: dict[str, Any] = {"exclude": [(p.indptr, p.items) for p in held_out[config.avoid]]}
    if config.distribution == "popularity":
        options |= {"distribution": "popularity", "alpha": config.popularity_alpha}
    return NegativeSampler(
        split.train.indptr,
        split.train.items,
        n_items=split.n_items,
        n_negatives=config.hard_negatives or config.negatives,
        seed=config.seed,
        on_full="skip",
        **options,
    )


def make_rate(config: Config, n_positives: int) -> Any:
    """Step -> learning rate, as the config's schedule says."""
    per_epoch = -(-n_positives // (config.batch_size * config.accumulate))

    def rate(step: int) -> float:
        return learning_rate(
            step,
            lr=config.lr,
            schedule=config.schedule,
            total=config.epochs * per_epoch,
            warmup=config.warmup,
            every=config.step_epochs * per_epoch,
            factor=config.step_factor,
        )

    return rate


def _train(run: Run, split: Split, config: Config, engine: Engine, *, progress: bool, again: bool = False) -> Result:
    checkpoints = Checkpoints(run.path / "checkpoints", config.keep)
    notes = _notes(split, config, engine)
    trainer = Trainer(
        engine,
        epochs=config.epochs,
        patience=config.patience,
        validate=_validation(split, config, engine),
        checkpoints=checkpoints,
        checkpoint_every=config.checkpoint_every,
        log_every=config.log_every,
        progress=progress,
        rate=make_rate(config, engine.n_positives),
        extra={"config": config.digest(), "data": run.manifest["data"]["fingerprints"]["split"]},
    )
    steps = checkpoints.steps()
    checkpoints.sweep()
    if strays := checkpoints.strays():
        notes.append(f"{checkpoints.folder}: ignored, not written by this run: {', '.join(strays)}")
    if again and steps:
        tensors, meta = checkpoints.load()
        for what in ("config", "data"):
            if meta[what] != trainer.extra[what]:
                raise CheckpointError(
                    f"{run.path}: the last checkpoint was written under another {what} (digest {meta[what][:12]}, the "
                    f"run's is {trainer.extra[what][:12]}); bring the run's own files back, or train anew"
                )
        trainer.resume(tensors, meta)
    tracker = Tracker(
        run.path, tensorboard=config.tensorboard, length=trainer.state.metrics_bytes, step=trainer.state.step
    )
    trainer.tracker = tracker
    try:
        if not trainer.state.step:
            tracker.options(config.to_dict())
        stopped = trainer.run()
        s = trainer.state
        best_epoch = s.best_epoch if trainer.selects and stopped != "interrupted" else None
        summary = {
            "stopped": stopped,
            "epochs_done": s.epoch,
            "best_epoch": best_epoch,
            "best_validation": s.best,
            "seconds": s.wall_s,
            "samples_per_s": s.total_samples / s.train_s if s.train_s else 0.0,
        }
        metrics: dict[str, dict[str, Any]] = {}
        if stopped != "interrupted":
            run.save_model(engine.model)
            metrics = _test(split, config, engine)
            for protocol, values in metrics.items():
                notes += [note for note in values.get("notes", ()) if note not in notes]
                numbers = {f"{protocol} {k}": v for k, v in values.items() if isinstance(v, float)}
                tracker.record("test", s.step, numbers)
    finally:
        tracker.close()
    notes += tracker.notes
    run.record(
        status="interrupted" if stopped == "interrupted" else "done",
        result={**summary, "metrics": metrics, "notes": notes},
    )
    return _result(run, summary, metrics, notes)


def _finished(run: Run, config: Config) -> Result:  # noqa: ARG001
    known = {f.name for f in fields(Result)}
    result = {k: v for k, v in run.manifest["result"].items() if k in known}
    metrics, notes = result.pop("metrics"), result.pop("notes")
    return _result(run, result, metrics, [*notes, f"{run.path} is done: there was nothing left to train"])


def _result(run: Run, summary: dict[str, Any], metrics: dict[str, dict[str, Any]], notes: list[str]) -> Result:
    users = run.split().train
    first = int(np.flatnonzero(users.degrees)[0])
    example = users.user_ids[first : first + 1].tolist()[0]  # text may be in an object array, without item()
    return Result(run=run, metrics=metrics, notes=notes, example_user=example, **summary)


def _notes(split: Split, config: Config, engine: Engine) -> list[str]:
    notes = [n for n in split.train.notes if not any(n in said for said in split.notes)] + list(split.notes)
    if slow := getattr(engine, "slow_path", None):
        notes.append(slow)
    left_out = getattr(getattr(engine, "stream", None), "n_left_out", 0)
    if left_out:
        notes.append(f"{left_out:,} training positives left out: their users have every item, so there is no negative")
    cold = split.train.degrees[split.validation.users] == 0
    if cold.any():
        notes.append(f"{cold.sum():,} of {cold.size:,} validation positives left out: their users are not in train")
    if config.patience and cold.all():
        what = "no validation positive of a user in train" if cold.size else "no validation part"
        notes.append(f"{what}: all epochs were trained and the last weights kept")
    if beyond := [k for k in config.cutoffs if k >= split.n_items]:
        notes.append(f"cutoffs {', '.join(map(str, beyond))}: there are {split.n_items:,} items, so every model hits")
    if config.avoid != "train":
        notes.append(f"negatives avoid {config.avoid}: training knows of held-out positives, which is a leak")
    return notes


def _validation(split: Split, config: Config, engine: Engine) -> Any:
    """() -> metrics of the model on the validation positives, each against candidates of its own; or None."""
    from fastrec.evaluation.score import selection_rows, validate

    frozen = selection_rows(split, n=config.candidates, seed=config.candidate_seed, threads=config.threads)
    return None if frozen is None else lambda: validate(engine.model, frozen, threads=config.threads)


def _test(split: Split, config: Config, engine: Engine) -> dict[str, dict[str, Any]]:
    from fastrec.evaluation.score import score_split

    return score_split(
        engine.model,
        split,
        cutoffs=config.cutoffs,
        n_candidates=config.candidates,
        candidate_seed=config.candidate_seed,
        threads=config.threads,
    )
