"""The run folder: made by ``create``, opened and verified by ``open_run``.

``config.toml``, ``data.safetensors`` (the split, with ids and titles), ``items.parquet`` and ``users.parquet`` (the
source's tables, where it has them), ``model.safetensors`` (the weights), ``results.parquet`` (the rank of each test
positive), ``manifest.json`` (sha256 of those, provenance, results), ``metrics.jsonl``, ``checkpoints/``, and
TensorBoard's ``events.out.tfevents...``.
"""

from __future__ import annotations

import functools
import os
import re
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fastrec.config import RENAMED, parse_toml, recorded
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, ConfigError, DataError, FastrecError, shown
from fastrec.files import (
    expect,
    load_tensors,
    make_folder,
    reason,
    sha256_file,
    sweep,
    sync_folder,
    write_bytes,
    write_tensors,
)
from fastrec.runs.manifest import MANIFEST, MODEL_ARGS, read_manifest, to_json
from fastrec.runs.provenance import describe, environment, split_name
from fastrec.runs.shared import Shared
from fastrec.runs.split_file import open_split, save_split
from fastrec.sampling import STREAM_VERSION

if TYPE_CHECKING:
    from fastrec.data.catalog import Catalog

CONFIG, DATA, MODEL = "config.toml", "data.safetensors", "model.safetensors"
RESULTS, CARD = "results.parquet", "README.md"
TABLES = {"items": ("items.parquet", "item"), "users": ("users.parquet", "user")}
"""The tables of a run: file, and column of ids."""


class Run:
    """A run folder that is complete as far as it goes; made by ``create`` or ``open_run``.

    Attributes
    ----------
    path : Path
        The folder.
    config : dict
        The resolved options of ``config.toml`` by their flat names.
    manifest : dict
        ``manifest.json``; change it by ``record``.
    """

    def __init__(
        self, path: Path, config: dict[str, Any], manifest: dict[str, Any], split: Split | None = None
    ) -> None:
        self.path, self.config, self.manifest = path, config, manifest
        self._split = split

    def __repr__(self) -> str:
        return f"Run({str(self.path)!r})"

    @property
    def stream_version(self) -> int:
        """Stream version of the run's draws: initial weights, split, negatives."""
        return int(self.manifest.get("stream_version", 1))  # runs of version 1 do not record it

    def check_stream(self, to: str) -> None:
        """Refuse a run whose draws this fastrec cannot continue or rebuild.

        Parameters
        ----------
        to : str
            What was asked for, for the message: "continue it".

        Raises
        ------
        CheckpointError
            If the run is of another stream version.
        """
        if self.stream_version != STREAM_VERSION:
            raise CheckpointError(
                f"{self.path}: its draws are of stream version {self.stream_version}, and this fastrec draws version "
                f"{STREAM_VERSION}, so it cannot {to}; it still evaluates and recommends, or train again"
            )

    def record(self, **fields: Any) -> None:
        """Put fields into the manifest and write it, atomically.

        Raises
        ------
        ConfigError
            If a value is not fit for JSON, NaN among them.
        """
        try:
            text, manifest = to_json({**self.manifest, **fields})
        except (TypeError, ValueError, RecursionError) as error:
            raise ConfigError(f"{self.path / MANIFEST}: cannot record {sorted(fields)}: {error}") from None
        write_bytes(self.path / MANIFEST, text)
        self.manifest = manifest

    def save_model(self, model: Any) -> None:
        """Write the weights of a model that ``models.build`` made, and how to build it into the manifest.

        Guarantee: equal weights give equal bytes; the file has no time, path or other trace of its making.
        """
        digest = write_tensors(self.path / MODEL, model.state_dict())
        self.record(model=dict(model.build_args), files={**self.manifest["files"], MODEL: digest})

    def model(self) -> Any:
        """torch.nn.Module on the CPU with the saved weights.

        Raises
        ------
        CheckpointError
            If there are no weights yet, or they are not the recorded ones.
        """
        from fastrec.models import build, model_class

        if MODEL not in self.manifest["files"]:
            status = self.manifest.get("status")
            end = f"end the training with fastrec train --resume {self.path}, or train again"
            raise CheckpointError(
                f"{self.path}: has no weights yet (status: {status}); "
                + ("train again with a lower lr or a higher l2" if status == "diverged" else end)
            )
        path, args = self.verified(MODEL), self.manifest.get("model", {})
        try:
            weights = load_tensors(path)
            expect(args, MODEL_ARGS, "model")
            # sizes that are in no tensor would be allocated before they are found wrong
            most = max((n for weight in weights.values() for n in weight.shape), default=0)
            sizes = [args["n_users"], args["n_items"], args["dim"], *args.get("layers", ())]
            if max(sizes) > 2 * most or len(sizes) > 3 + len(weights):
                raise ValueError(f"sizes {shown(sizes)}, but no tensor has a side above {most}")
            train = self.split().train if model_class(args["model"]).uses_history else None
            args = {RENAMED.get(name, name): value for name, value in args.items()}
            model = build(**args, history=None if train is None else (train.indptr, train.items))
            model.load_state_dict(weights)
        except (RuntimeError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"{self.path / MODEL}: does not fit the model that {MANIFEST} describes ({error}); train again"
            ) from None
        return model

    def split(self) -> Split:
        """The split that was trained on, read once; without times and catalog: ``split_with_times`` has those.

        Raises
        ------
        CheckpointError
            If the file is not the recorded one.
        """
        if self._split is None:
            self._split = self._open_split(times=False)
        return self._split

    def split_with_times(self) -> Split:
        """The split with the times of its interactions; without, where data had none or an earlier fastrec wrote them.

        Raises
        ------
        CheckpointError
            If the file is not the recorded one.
        """
        return self._open_split(times=True)

    def _open_split(self, *, times: bool) -> Split:
        path = self.verified(DATA)
        try:
            return open_split(path, verify=False, times=times)  # verified by its sha256
        except DataError as error:
            raise CheckpointError(f"{path}: not the data of a run ({error}); train again") from None

    def catalog(self) -> Catalog:
        """The tables of items and users that the source came with: titles, years, genres, user fields, other columns.

        A table that the run does not keep is None; ``tables`` tells which it keeps without reading them.

        Raises
        ------
        CheckpointError
            If a table is not the recorded one.
        """
        from fastrec.data.catalog import Catalog
        from fastrec.data.tables import read_frame_file

        found = {}
        for name, (file, key) in TABLES.items():
            if file in self.manifest["files"]:
                path = self.verified(file)
                try:
                    found[name] = read_frame_file(path, key)
                except DataError as error:
                    raise CheckpointError(f"{error}, or train again") from None
        return Catalog(movies=found.get("items"), users=found.get("users"))

    def tables(self) -> dict[str, list[str]] | None:
        """Columns of the tables of ``catalog`` by "items" and "users"; None if an earlier fastrec made the run."""
        found: dict[str, list[str]] | None = self.manifest.get("catalog")
        return found

    def verified(self, name: str) -> Path:
        """Path of a file of this run whose bytes are the recorded ones.

        Raises
        ------
        CheckpointError
            If it is missing or altered.
        """
        path, recorded = self.path / name, self.manifest["files"].get(name)
        try:
            found = sha256_file(path)
        except OSError as error:
            raise CheckpointError(
                f"{path}: cannot be read ({reason(error)}); restore it from a copy, or train again"
            ) from None
        if found != recorded:
            raise CheckpointError(
                f"{path}: is not the file this run wrote (sha256 {found[:12]}, recorded {str(recorded)[:12]}): it was "
                "altered, or a crash came in between; restore it from a copy, resume with fastrec train --resume "
                f"{self.path}, or train again"
            )
        return path


def create(
    out: str | os.PathLike[str] | None,
    *,
    config: Mapping[str, Any],
    split: Split,
    toml: str | None = None,
    root: str | os.PathLike[str] = "runs",
    shared: Shared | None = None,
) -> Run:
    """Make a run folder with its configuration, data and provenance.

    Parameters
    ----------
    out : path or None
        The folder, which must not exist; None makes ``root/YYYYmmdd-HHMMSS-model-data``, with -2, -3, ... where taken.
    config : mapping
        The resolved options, as TOML types; None values are left out.
    split : Split
        What is trained on; it is kept in the folder, so that the run needs nothing else.
    toml : str, optional
        The text of config.toml where it is more than ``config``: nested in sections, with what was asked for.
    root : path
        Where folders without a name are made.
    shared : Shared, optional
        What keeps the data and tables of all runs of a grid once.

    Returns
    -------
    Run
        With ``status`` "training".

    Raises
    ------
    ConfigError
        If ``out`` exists.
    FastrecError
        If the folder cannot be written; nothing is left behind then.
    """
    path = _new_folder(out, Path(root), config, split)
    try:
        if toml is None:
            import tomli_w

            toml = tomli_w.dumps({k: v for k, v in config.items() if v is not None})
        files = {CONFIG: write_bytes(path / CONFIG, toml.encode())}
        catalog = _save_data(path, split, files, shared)
        run = Run(path, recorded(parse_toml(toml.encode())), {}, split)
        run.record(
            status="training",
            created=time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            data=describe(split),
            catalog=catalog,
            environment=environment(),
            stream_version=STREAM_VERSION,
            files=files,
        )
    except BaseException:
        shutil.rmtree(path, ignore_errors=True)
        raise
    return run


def _save_data(path: Path, split: Split, files: dict[str, str], shared: Shared | None) -> dict[str, list[str]]:
    """Write the split and the tables of its catalogue, put their sha256 into ``files``, and return the columns."""
    put = (lambda file, write: write(file)) if shared is None else shared.put
    files[DATA] = put(path / DATA, lambda file: save_split(file, split))
    catalog, columns = split.train.catalog, {}
    frames = {} if catalog is None else {"items": catalog.movies, "users": catalog.users}
    for name, frame in frames.items():
        if frame is not None:
            from fastrec.data.tables import write_frame

            file = TABLES[name][0]
            files[file] = put(path / file, functools.partial(write_frame, frame=frame))
            columns[name] = list(frame.columns)
    return columns


def open_run(path: str | os.PathLike[str]) -> Run:
    """Open a run folder; config.toml and the manifest are checked here, data and weights when they are read.

    A manifest has a sha256 of its own content, so that a flipped bit of a metric is found. The manifest of a run that
    an earlier fastrec made ("run 1") has none: such a folder opens, its config, data and weights are verified as
    always, and of its manifest only the types are checked, not the figures.

    Parts of files that a killed run left are removed.

    Raises
    ------
    CheckpointError
        If it is not a run folder, incomplete, altered or of another version; the message says what to do.
    """
    path = Path(path)
    if not _is_folder(path):
        near = sorted(p.parent.name for p in path.parent.glob(f"*/{MANIFEST}"))[-3:] if path.parent.is_dir() else []
        hint = f"; the latest in {path.parent} are {', '.join(near)}" if near else "; fastrec train makes one"
        raise CheckpointError(f"{path}: no such run folder{hint}")
    own = (CONFIG, DATA, MODEL, RESULTS, CARD, MANIFEST, "metrics.jsonl", *(file for file, _ in TABLES.values()))
    sweep(path, "|".join(map(re.escape, own)))
    if not (path / "checkpoints").is_symlink():  # files that are not its own
        sweep(path / "checkpoints", r"(step-\d+|best-epoch-\d+)\.(safetensors|json)")
    run = Run(path, {}, read_manifest(path))
    try:
        run.config = recorded(parse_toml(run.verified(CONFIG).read_bytes()))
    except ValueError as error:
        raise CheckpointError(f"{path / CONFIG}: not TOML ({error}); train again") from None
    except OSError as error:
        raise CheckpointError(f"{path / CONFIG}: cannot be read ({reason(error)}); change its rights") from None
    return run


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({reason(error)}); name another run folder") from None


def _new_folder(out: str | os.PathLike[str] | None, root: Path, config: Mapping[str, Any], split: Split) -> Path:
    if out is not None:
        if not _make(Path(out)):
            raise ConfigError(
                f"{out}: exists; every run gets a new folder, so that nothing is overwritten: name another, or leave "
                "--out away"
            )
        return Path(out)
    data = Path(str(config.get("data") or split_name(split))).name
    stem = "-".join([time.strftime("%Y%m%d-%H%M%S"), str(config.get("model", "model")), data])
    stem = re.sub(r"[^A-Za-z0-9._-]+", "-", stem)
    for n in range(1, 10_000):
        path = root / (stem if n == 1 else f"{stem}-{n}")
        if _make(path):
            return path
    raise ConfigError(f"{root / stem}: ten thousand runs of this second exist; name a folder with --out")


def _make(path: Path) -> bool:
    """Make a folder that survives a power cut; False where the name is taken."""
    try:
        make_folder(path.parent)
        path.mkdir()
        try:
            sync_folder(path.parent)
        except OSError:
            path.rmdir()
            raise
    except FileExistsError:
        return False
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be made ({reason(error)}); name another folder with --out") from None
    except FastrecError as error:
        raise ConfigError(f"{path}: cannot be made: {error}, with --out") from None
    return True
