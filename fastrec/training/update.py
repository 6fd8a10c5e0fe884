"""``fastrec.update``: go on from a trained run on newer data, in a run folder of its own."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Unpack

from fastrec import optim
from fastrec.config import COLUMNS, UPDATABLE, UPDATE_EPOCHS, Config, TrainOptions, parse_toml, restored
from fastrec.data import splits
from fastrec.data.earlier import numbered_as
from fastrec.data.grown import Grown, grow
from fastrec.data.interactions import Interactions
from fastrec.data.loading import is_frame, load, with_catalogued_items
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.evaluation.selection import Selection
from fastrec.files import COUNT, expect
from fastrec.runs import Run, open_run
from fastrec.runs.checkpoint import Checkpoints
from fastrec.runs.folder import CONFIG, MODEL
from fastrec.training.fit import Result, fit
from fastrec.training.job import cut
from fastrec.training.resolve import MEMORY, absolute_path, resolve
from fastrec.training.scoring import recorded_config
from fastrec.training.start import Start


def update(run: Run | str | Path, data: Any, *, positives: str = "all", **options: Unpack[TrainOptions]) -> Result:
    """Go on from a trained run with newer data, in a run folder of its own.

    Parameters
    ----------
    run : Run or path
        A finished run; it is not changed.
    data : path, name, frame or Interactions
        The log that the run was trained on plus what came since, or only the new part. It is filtered as the run's was;
        pairs that the run had already are merged.
    positives : {"all", "new"}
        What an epoch visits: every training positive, or only those that the run did not train on.
    **options
        Those of ``fastrec.config.UPDATABLE``; ``epochs`` (5 unless given) counts the update's own. Everything else is
        the run's.

    Returns
    -------
    Result
        Its folder names the parent (``run.manifest["update"]``).

    Raises
    ------
    CheckpointError
        If the run is not finished, of another stream version, or damaged.
    ConfigError
        For an option that is the run's own, or a model that cannot grow.
    DataError
        If the data cannot be read or numbered as the run's, or have no positive to train on.

    Notes
    -----
    Guarantee: users and items keep their numbers, newcomers follow in ascending order of id and start from the initial
    weights of their addresses. No pair that the run trained on is in the validation or test part. Epoch numbers go on
    after the run's last one, so that no draw repeats; the schedule of the learning rate is the update's own.
    """
    if positives not in ("all", "new"):
        raise ConfigError(f'positives = {positives!r}: must be "all" or "new"')
    parent = run if isinstance(run, Run) else open_run(run)
    parent.check_stream("update it")
    if parent.manifest.get("status") != "done":
        raise CheckpointError(
            f"{parent.path}: its training has not ended (status: {parent.manifest.get('status')}); end it with fastrec "
            f"train --resume {parent.path}, then update it"
        )
    config = resolve(_config(parent, data, options))
    grown = _grown(parent, data, config)
    if positives == "new" and not grown.untrained.size:
        raise DataError(
            f"{config.data.data}: has no training positive that {parent.path} did not train on; nothing to do"
        )
    start = _start(parent, grown, positives, config)
    return fit(grown.split, config, loaded=True, start=start)


def _config(parent: Run, data: Any, options: Mapping[str, Any]) -> Config:
    """The parent's config with what the update changes."""
    if fixed := [name for name in options if name not in UPDATABLE]:
        raise ConfigError(
            f"{', '.join(fixed)}: an update keeps the run's own; it takes {', '.join(UPDATABLE)}, or train again"
        )
    recorded = recorded_config(parent)
    # the weights are the parent's, whatever those began as
    kept = {k: v for k, v in recorded.to_dict().items() if not k.startswith("pretrained_")}
    config = restored(kept, f"run {parent.path}")
    if isinstance(data, str | os.PathLike):
        source = absolute_path(str(data))
        columns: dict[str, Any] = {}
    elif is_frame(data):
        source, columns = f"{MEMORY}frame", {}
    elif isinstance(data, Interactions):
        source, columns = MEMORY + data.name, dict.fromkeys(COLUMNS)
        if unused := [name for name in options if name in COLUMNS]:
            raise ConfigError(f"{', '.join(unused)}: no effect on Interactions; leave it out")
        if filters := [k for k in ("min_rating", "where") if config[k] is not None]:
            said = ", ".join(f"{k} = {config[k]!r}" for k in filters)
            raise ConfigError(
                f"{parent.path}: filters its data by {said}, and Interactions have no such columns any more; give the "
                "log as a path or a frame"
            )
    else:
        raise ConfigError(f"data is a {type(data).__name__}: give the path or name of a log, a frame or Interactions")
    given = {"epochs": UPDATE_EPOCHS, "out": None, **options}
    if "select" in given and given["select"] is not None:
        given["select"] = str(Selection.parse(given["select"]))
    if "device" in options and "precision" not in options and _asked_auto(parent, "precision"):
        given["precision"] = "auto"
    origins = {k: v for k, v in config.origins.items() if k not in columns} | {"data": ""}
    config = config.settled({"data": source, **columns}, origins=origins)
    return config.given(given)


def _asked_auto(parent: Run, name: str) -> bool:
    """Whether an option of the run is what "auto" became on its machine."""
    became = parse_toml(parent.verified(CONFIG).read_bytes()).get("resolved", {})
    return isinstance(became, dict) and name in became


def _grown(parent: Run, data: Any, config: Config) -> Grown:
    """The parent's split joined with the new data and split by its rule."""
    earlier = parent.split_with_times()
    new = _load(data, parent, config)
    how = earlier.how if config.split.split != "given" else "given"
    known = how in splits.names()  # a rule that can be applied again
    rule = (lambda interactions: cut(interactions, config)) if known else None
    return grow(
        earlier,
        new,
        rule,
        k_core=config.data.k_core,
        keep_items=config.data.unrated_negatives,
        needs_times=known and splits.get(how).needs_times,
    )


def _load(data: Any, parent: Run, config: Config) -> Interactions:
    """The new log under the parent's filters and numbers, with the tables of both."""
    if isinstance(data, Interactions):
        new = data
    else:
        new = load(data, **{name: config[name] for name in (*COLUMNS, "min_rating", "where")})
    if config.data.unrated_negatives and getattr(new.catalog, "movies", None) is not None:
        new = with_catalogued_items(new)
    new = numbered_as(new, parent.split())
    if not parent.tables():
        return new
    from fastrec.data.catalog import joined_tables

    return replace(new, catalog=joined_tables(parent.catalog(), new.catalog))


def _start(parent: Run, grown: Grown, positives: str, config: Config) -> Start:
    """Weights, state and numbers to go on from."""
    result, before = parent.manifest["result"], parent.manifest.get("update", {})
    epoch = before.get("first_epoch", 0) + result["epochs_done"]
    weights, state = parent.model().state_dict(), _state(parent)
    step = 0 if state is None else state[1]["step"]
    kept = result["best_epoch"]
    notes = [
        f"goes on from {parent.path}: weights of epoch {kept or epoch}"
        + (f", the best by validation; epoch numbers go on from {epoch}" if kept not in (None, epoch) else "")
    ]
    rule = config.optim.optimizer
    if state is None and not optim.get(rule).sums:
        notes.append(f"{parent.path} keeps no optimiser state (no checkpoint), so that of {rule} starts from zero")
    about = {
        "parent": str(parent.path.absolute()),
        "parent_weights": parent.manifest["files"][MODEL],
        "parent_split": parent.manifest["data"]["fingerprints"]["split"],
        "positives": positives,
        "optimizer_state": state is not None,
        "first_epoch": epoch,
        "first_step": step,
        "counts": grown.counts,
        "notes": notes,
    }
    return Start(epoch, step, grown.untrained if positives == "new" else None, weights, state, about)


def _state(parent: Run) -> tuple[dict[str, Any], dict[str, Any]] | None:
    """The optimiser state of the parent's last checkpoint, and its engine's record; None where it has no checkpoint."""
    checkpoints = Checkpoints(parent.path / "checkpoints")
    if not checkpoints.steps():
        return None
    tensors, meta = checkpoints.load()
    try:
        expect(meta.get("engine"), {"step": COUNT, "scaler?": object}, "engine")
    except ValueError as error:
        raise CheckpointError(
            f"{checkpoints.folder}: {error}; delete the folder to start the state from zero"
        ) from None
    return {k: v for k, v in tensors.items() if k.startswith("optimizer.")}, meta["engine"]
