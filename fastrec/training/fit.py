"""From a split and a config to a trained, evaluated run folder."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.base import Engine
from fastrec.engines.processes import Processes, joined
from fastrec.errors import CheckpointError, FastrecError
from fastrec.evaluation.selection import Selection, resolve_selection
from fastrec.runs import Run, create, locked, open_run, write_card
from fastrec.runs.checkpoint import Checkpoints
from fastrec.runs.folder import CARD
from fastrec.runs.shared import Shared
from fastrec.terminal import html_table
from fastrec.training.build import build_engine, make_lr
from fastrec.training.faults import clear_memory_errors, recording_faults
from fastrec.training.ranks import follow, lead, same_job, validation
from fastrec.training.resolve import PATHS, absolute_path, check_candidates, in_memory, resolve, settle_for
from fastrec.training.scoring import make_validator, metrics_of_test, recorded_config
from fastrec.training.start import Start
from fastrec.training.tracking import Tracker, telling_of_compilation
from fastrec.training.trainer import State, Trainer

if TYPE_CHECKING:
    from fastrec.inference.recommender import Recommender


@dataclass(frozen=True, repr=False)
class Result:
    """The result of a training run."""

    run: Run
    metrics: dict[str, dict[str, Any]]
    """Test metrics by protocol; empty for an interrupted run, or without a test part."""
    stopped: str
    """"all epochs", "early stopping" or "interrupted"."""
    epochs_done: int
    best_epoch: int | None
    """Epoch (from 1, of an update after its parent's) whose weights are kept; None when they are the last."""
    best_validation: float | None
    seconds: float
    """Wall time of training, validation included."""
    samples_per_s: float
    """Samples over the time spent in training steps, drawing included; validation and checkpoints are not."""
    epoch_samples_per_s: float | None = None
    """The same in the last epoch that this process ended, without the first step of a process, which compiles."""
    example_user: Any = None
    baselines: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By name, see ``evaluation.baseline_runs``; what ``training.baselines.add_baselines`` has added."""
    select: str | None = None
    """What the weights were selected by, such as ``full:NDCG@10``; None without a validation part."""
    notes: list[str] = field(default_factory=list)

    def recommender(self) -> Recommender:
        """The trained model in use: lists, similar items, vectors."""
        from fastrec.inference.recommender import Recommender

        return Recommender(self.run)

    def _facts(self) -> list[tuple[str, str]]:
        """A summary of the result as text."""
        figures = [
            (f"{name} ({protocol})", f"{value:.4f}")
            for protocol, part in self.metrics.items()
            for name, value in part.items()
            if name.endswith("@10")
        ]
        speed = f"{self.epochs_done} in {self.seconds:.1f} s, {self.samples_per_s:,.0f} samples/s"
        return [("run", str(self.run.path)), ("epochs", f"{speed} ({self.stopped})"), *figures]

    def __repr__(self) -> str:
        return f"Result({'; '.join(f'{name} {value}' for name, value in self._facts())})"

    def _repr_html_(self) -> str:
        return html_table([("result", ""), *self._facts()])


def fit(
    split: Split,
    config: Config,
    *,
    out: str | Path | None = None,
    progress: bool | None = None,
    loaded: bool = False,
    test: bool = True,
    shared: Shared | None = None,
    start: Start | None = None,
) -> Result:
    """Train as the config says, keep the run, evaluate once on the test part.

    Parameters
    ----------
    split : Split
    config : Config
    out : path, optional
        The run folder, in place of the config's ``out``.
    progress : bool, optional
        In place of the config's ``progress``.
    loaded : bool
        Whether ``split`` is what the data options of ``config`` give (``job.prepare``); else the record says that the
        split was in memory.
    test : bool
        False does not score the test part, as in a grid: ``score_test`` scores it later.
    shared : Shared, optional
        What keeps the data of several runs once.
    start : Start, optional
        Where an update begins (``training.update``); left out: from initial weights.

    Returns
    -------
    Result
        Under torchrun on every process: only rank 0 writes the run folder, which the others open at the end.

    Raises
    ------
    ConfigError
        If the folder exists, options do not go together, or filters of the data are asked for that were not applied.
    FastrecError
        If training diverges or cannot go on; what was saved stays.
    """
    config = settle_for(split, resolve(config if loaded else in_memory(split, config)))
    config = config.settled({"select": resolve_selection(config.evaluation.select, split)})
    check_candidates(split, config)
    shown = config.run.progress if progress is None else progress
    with joined() as processes:
        same_job(processes, config, split)
        return _fit(processes, split, config, start or Start(), out=out, progress=shown, test=test, shared=shared)


def _fit(
    processes: Processes,
    split: Split,
    config: Config,
    start: Start,
    *,
    out: str | Path | None,
    progress: bool,
    test: bool,
    shared: Shared | None,
) -> Result:
    telling = progress and processes.rank == 0
    with clear_memory_errors(), telling_of_compilation(telling):
        engine = build_engine(split, config, start, processes)  # before the folder: what cannot be built leaves none
    with clear_memory_errors(), _closing(engine, config.training.threads), telling_of_compilation(telling):
        if processes.rank:
            return _of_run(follow(config, engine, start, processes))
        kept = config.settled({}, inert=config.inert | {"out"})  # a run's own folder is not an option to run it again
        run = create(out or config.run.out, config=kept.to_dict(), split=split, toml=kept.to_toml(), shared=shared)
        with locked(run.path):
            start.record(run)
            run.record(engine=engine.describe(), avoided=config.negatives.exclude)
            with recording_faults(run):
                return _train(run, split, config, engine, start, processes, progress=progress, test=test)


def resume(path: str | Path, *, progress: bool | None = None, test: bool = True, **given: Any) -> Result:
    """Resume an interrupted run at its last checkpoint; on the CPU bit for bit.

    Parameters
    ----------
    path : path
        A run folder.
    progress : bool, optional
        Show progress.
    test : bool
        See ``fit``.
    **given
        Config fields that were given again: those that decide the weights must be the run's own.

    Raises
    ------
    CheckpointError
        If there is no complete checkpoint, config or data are not those of the run (the difference is shown), its
        draws are of another stream version, or another process trains it.
    """
    with joined() as processes:
        return _resume(processes, path, given, progress=progress, test=test)


def _resume(
    processes: Processes, path: str | Path, given: dict[str, Any], *, progress: bool | None, test: bool
) -> Result:
    from fastrec.batches.device import check_device

    run = open_run(path)
    run.check_stream("continue it")
    config = recorded_config(run)
    if given.get("select") is not None:
        given["select"] = str(Selection.parse(given["select"]))
    asked = config.given(
        {k: absolute_path(v) if k in PATHS else v for k, v in given.items() if k not in ("data", "out")}
    )
    check_device(asked.training.device)
    changes = config.differences(asked)
    if "data" in given and absolute_path(given["data"]) != absolute_path(config.data.data):
        changes.insert(0, f"data: {config.data.data!r} -> {given['data']!r}")
    if changes:
        raise CheckpointError(
            f"{run.path}: cannot go on under another config ({'; '.join(changes)}); leave these options out, or "
            "train again"
        )
    if run.manifest.get("status") == "done":
        return _finished(run)
    shown = asked.run.progress if progress is None else progress
    same_job(processes, config, run.split())
    if processes.rank:
        start = Start.recorded(run)
        engine = build_engine(_to_train(run, config), asked, start, processes)
        with clear_memory_errors(), _closing(engine, asked.training.threads):
            return _of_run(follow(asked, engine, start, processes))
    with locked(run.path):
        run = open_run(path)  # another process may have ended it in between
        if run.manifest.get("status") == "done":
            return _finished(run)
        start, split = Start.recorded(run), _to_train(run, config)
        engine = build_engine(split, asked, start, processes)
        closing = _closing(engine, asked.training.threads)
        with clear_memory_errors(), closing, telling_of_compilation(shown), recording_faults(run):
            run.record(status="training")
            return _train(run, run.split(), asked, engine, start, processes, progress=shown, test=test)


def _to_train(run: Run, config: Config) -> Split:
    """The split of a run, with times where its negatives follow them."""
    return run.split_with_times() if config.negatives.negatives_from == "existing" else run.split()


@contextlib.contextmanager
def _closing(engine: Engine, threads: int | None) -> Iterator[None]:
    """Torch at the asked number of threads, for this training only; then the engine closed."""
    import torch

    before = torch.get_num_threads()
    try:
        if threads is not None:
            torch.set_num_threads(threads)
        yield
    finally:
        engine.close()
        torch.set_num_threads(before)


def _train(
    run: Run,
    split: Split,
    config: Config,
    engine: Engine,
    start: Start,
    processes: Processes,
    *,
    progress: bool,
    test: bool = True,
) -> Result:
    checkpoints = Checkpoints(run.path / "checkpoints", config.run.keep)
    notes = _notes(split, config, engine) + start.about.get("notes", [])
    validator = make_validator(split, config, engine.model)
    if validator is not None:
        run.record(selection=validator.describe())
        notes += validator.notes
    trainer = Trainer(
        engine,
        epochs=start.epoch + config.training.epochs,
        patience=config.training.patience,
        validate=validation(config, processes, None if validator is None else lambda: validator(engine.model)),
        select=str(config.evaluation.select),
        checkpoints=checkpoints,
        checkpoint_every=config.run.checkpoint_every,
        log_every=config.run.log_every,
        progress=progress,
        lr=make_lr(config, engine.n_positives, start.step),
        extra={"config": config.digest(), "data": run.manifest["data"]["fingerprints"]["split"]},
        state=State(epoch=start.epoch, step=start.step),
        first=start.epoch,
        processes=processes,
    )
    steps = checkpoints.steps()
    checkpoints.sweep()
    if strays := checkpoints.strays():
        notes.append(f"{checkpoints.folder}: ignored, not written by this run: {', '.join(strays)}")
    lead(processes, run.path, steps[-1] if start.resumed and steps else None)
    if start.resumed and steps:
        tensors, meta = checkpoints.load()
        for what in ("config", "data"):
            if meta[what] != trainer.extra[what]:
                raise CheckpointError(
                    f"{run.path}: the last checkpoint was written under another {what} (digest {meta[what][:12]}, the "
                    f"run's is {trainer.extra[what][:12]}); restore the run's own files, or train again"
                )
        trainer.resume(tensors, meta)
    elif start.about:
        if start.resumed:
            raise CheckpointError(f"{run.path}: was cut off before its first checkpoint; delete it and update again")
        trainer.save()  # a resumed update begins with it, wherever the parent is then
    tracker = Tracker(
        run.path, tensorboard=config.run.tensorboard, length=trainer.state.metrics_bytes, step=trainer.state.step
    )
    trainer.tracker = tracker
    try:
        if not trainer.state.total_samples:
            tracker.options(config.to_dict())
        stopped = trainer.run()
        s = trainer.state
        best_epoch = s.best_epoch if trainer.selects and stopped != "interrupted" else None
        summary: dict[str, Any] = {
            "stopped": stopped,
            "epochs_done": s.epoch - start.epoch,
            "best_epoch": best_epoch,
            "best_validation": s.best,
            "seconds": s.wall_s,
            "samples_per_s": s.total_samples / s.train_s if s.train_s else 0.0,
            "epoch_samples_per_s": trainer.rate_of_epoch,
        }
        metrics: dict[str, dict[str, Any]] = {}
        run.save_model(engine.model)
        if stopped == "interrupted":
            notes.append(f"interrupted: the run's weights are those of its last checkpoint, step {s.step:,}")
        else:
            metrics = metrics_of_test(run, engine.model, config, notes) if test else {}
            for protocol, values in metrics.items():
                notes += [note for note in values.get("notes", ()) if note not in notes]
                numbers = {f"{protocol} {k}": v for k, v in values.items() if isinstance(v, float)}
                tracker.record("test", s.step, numbers)
            final = {f"{p} {k}": v for p, part in metrics.items() for k, v in part.items() if isinstance(v, float)}
            tracker.outcome(config.to_dict(), final)
        tracker.sync()  # before the manifest says that the run is done
    finally:
        tracker.close()
    notes += tracker.notes
    run.manifest.pop("error", None)  # of an earlier try
    run.record(
        status="interrupted" if stopped == "interrupted" else "done",
        result={**summary, "metrics": metrics, "notes": notes},
    )
    write_card(run)
    processes.tell("done")
    return _result(run, summary, metrics, notes)


def _finished(run: Run) -> Result:
    (result := _of_run(run)).notes.append(f"{run.path} is done: there was nothing left to train")
    return result


def _of_run(run: Run) -> Result:
    """The result that a run's manifest records."""
    known = {f.name for f in fields(Result)}
    result = {k: v for k, v in run.manifest["result"].items() if k in known}
    if not (run.path / CARD).exists():  # the process ended between the record and its card
        with contextlib.suppress(FastrecError):  # a read-only run is as good without
            write_card(run)
    metrics, notes = result.pop("metrics"), result.pop("notes")
    return _result(run, result, metrics, [*notes])


def _result(run: Run, summary: dict[str, Any], metrics: dict[str, dict[str, Any]], notes: list[str]) -> Result:
    users = run.split().train
    first = int(np.flatnonzero(users.degrees)[0])
    example = users.user_ids[first : first + 1].tolist()[0]  # text may be in an object array, without item()
    return Result(
        run=run,
        metrics=metrics,
        notes=notes,
        example_user=example,
        select=recorded_config(run).evaluation.select,
        **summary,
    )


def _notes(split: Split, config: Config, engine: Engine) -> list[str]:
    notes = [n for n in split.train.notes if not any(n in said for said in split.notes)]
    notes += [*split.notes, *config.notes]
    if slow := getattr(engine, "slow_path", None):
        notes.append(slow)
    left_out = getattr(getattr(engine, "stream", None), "n_left_out", 0)
    if left_out:
        late = config.negatives.negatives_from == "existing"
        why = "no other item had appeared by their time" if late else "their users have every item"
        notes.append(f"{left_out:,} training positives left out: {why}, so there is no negative")
    cold = split.train.degrees[split.validation.users] == 0
    if cold.any():
        notes.append(f"{cold.sum():,} of {cold.size:,} validation positives left out: their users are not in train")
    if config.training.patience and cold.all():
        what = "no validation positive of a user in train" if cold.size else "no validation part"
        notes.append(f"{what}, so no early stopping: all epochs were trained and the last weights kept")
    if beyond := [k for k in config.evaluation.cutoffs if k >= split.n_items]:
        notes.append(f"cutoffs {', '.join(map(str, beyond))}: there are {split.n_items:,} items, so every model hits")
    if config.negatives.exclude != "train":
        notes.append(
            f"negatives exclude {config.negatives.exclude}: training knows of held-out positives, which is a leak"
        )
    return notes
