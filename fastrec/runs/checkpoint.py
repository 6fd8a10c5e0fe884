"""Checkpoints: all that the next step depends on, complete or absent, each with the sha256 of its tensors.

``checkpoints/step-000000870.safetensors`` holds tensors; ``step-000000870.json``, written after it, makes it count.
``best-epoch-00007.safetensors`` holds the best weights so far; a checkpoint names the one it belongs with.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import re
from pathlib import Path
from typing import Any

from fastrec.errors import CheckpointError, DataError, FastrecError
from fastrec.files import (
    COUNT,
    SHA256,
    expect,
    load_tensors,
    make_folder,
    parse_json,
    reason,
    remove,
    sha256_file,
    write_bytes,
    write_tensors,
)

VERSION = 1
_BEST = {"file": re.compile(r"best-epoch-\d+\.safetensors"), "sha256": SHA256}
_BODY = {
    "step": COUNT,
    "sha256": SHA256,
    "trainer?": {str: object},
    "engine?": {str: object},
    "best?": (_BEST, None),
    "config?": str,
    "data?": str,
}
_OWN = re.compile(r"(step-(?P<step>[0-9]{9}|[1-9][0-9]{9,})|best-epoch-([0-9]{5}|[1-9][0-9]{5,}))\.(safetensors|json)")
"""Names of the files written here: nothing else in the folder is read or deleted."""
_LEFT = re.compile(rf"\.{_OWN.pattern}\.[0-9]+-[0-9]+\.part")
"""What a killed process leaves of them."""


class Checkpoints:
    """The checkpoints of one run.

    Parameters
    ----------
    folder : path
        Made when the first is written.
    keep : int
        How many of the last are kept, at least 1; best weights that one of them names are kept too.
    """

    def __init__(self, folder: Path, keep: int = 2) -> None:
        self.folder, self.keep = folder, max(1, keep)

    def steps(self) -> list[int]:
        """Steps of the checkpoints that count, ascending."""
        if self.folder.is_symlink():
            raise CheckpointError(
                f"{self.folder}: is a link, and checkpoints are deleted as new ones come: put a folder in its place"
            )
        return sorted(
            int(found["step"])
            for p in self.folder.glob("step-*.json")
            if (found := _OWN.fullmatch(p.name)) and p.is_file()
        )

    def strays(self) -> list[str]:
        """Names that look like a checkpoint's but are not, such as the copies that file synchronisers leave."""
        named = (p.name for pattern in ("step-*", "best-epoch-*") for p in self.folder.glob(pattern))
        return sorted(name for name in named if not _OWN.fullmatch(name))

    def sweep(self) -> None:
        """Remove the unfinished files of a killed process; only under the run's lock, where nobody writes them."""
        for path in list(self.folder.glob(".*.part")):
            if _LEFT.fullmatch(path.name):
                path.unlink(missing_ok=True)

    def save(self, step: int, tensors: dict[str, Any], meta: dict[str, Any]) -> Path:
        """Write the checkpoint of a step, then remove what ``keep`` leaves out.

        Raises
        ------
        FastrecError
            If it cannot be written (a full disk): the checkpoints before it are intact (see ``left``).
        """
        self._make_folder()
        path = self._tensors(step)
        body = {"version": VERSION, "step": step, "sha256": write_tensors(path, tensors), **meta}
        text = json.dumps(body, sort_keys=True)
        digest = hashlib.sha256(text.encode()).hexdigest()
        write_bytes(path.with_suffix(".json"), json.dumps({"body": text, "sha256": digest}).encode())
        self._prune()
        return path

    def save_best(self, epoch: int, weights: dict[str, Any]) -> dict[str, str]:
        """Write the best weights; returns what a checkpoint keeps to find them again."""
        self._make_folder()
        path = self.folder / f"best-epoch-{epoch:05d}.safetensors"
        return {"file": path.name, "sha256": write_tensors(path, weights)}

    def load_best(self, named: dict[str, str]) -> dict[str, Any]:
        """The best weights that a checkpoint names.

        Raises
        ------
        CheckpointError
            If the file is missing or damaged.
        """
        try:
            expect(named, _BEST, "best")
        except ValueError as error:
            raise CheckpointError(f"{self.folder}: a checkpoint names no best weights ({error}); train again") from None
        return self._read(self.folder / named["file"], named["sha256"], "train again")

    def left(self, resume: bool = True) -> str:
        """The checkpoints that a run can resume from, in words, for a message."""
        steps: list[int] = []
        with contextlib.suppress(FastrecError, OSError):
            steps = self.steps()
        if not steps:
            return "No checkpoint was written"
        how = f": resume with `fastrec train --resume {self.folder.parent}`" if resume else ""
        return f"The checkpoint of step {steps[-1]:,} is intact{how}"

    def load(self, step: int | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tensors and meta of a step's checkpoint, checked; of the last one unless a step is given.

        Raises
        ------
        CheckpointError
            If there is none, or it is damaged: the one before that is complete is named, and what to do.
        """
        steps = self.steps()
        if not steps:
            raise CheckpointError(f"{self.folder}: no checkpoint to go on from; train again")
        step = steps[-1] if step is None else step
        meta, path = self._meta(step), self._tensors(step)
        return self._read(path, meta["sha256"], self._offer(step)), meta

    def _make_folder(self) -> None:
        self.steps()  # refuses a link
        make_folder(self.folder)

    def _meta(self, step: int) -> dict[str, Any]:
        try:
            return self._checked(step)
        except (OSError, ValueError) as error:
            path = self._tensors(step).with_suffix(".json")
            raise CheckpointError(f"{path}: damaged ({reason(error)}); {self._offer(step)}") from None

    def _checked(self, step: int) -> dict[str, Any]:
        """The meta of a step; ValueError with the reason where it is damaged."""
        path = self._tensors(step).with_suffix(".json")
        outer = parse_json(path.read_bytes())
        expect(outer, {"body": str, "sha256": SHA256}, "checkpoint")
        if hashlib.sha256(outer["body"].encode()).hexdigest() != outer["sha256"]:
            raise ValueError("its sha256 does not fit its content")
        meta: dict[str, Any] = parse_json(outer["body"], allow_nan=True)
        expect(meta, {"version": int}, "checkpoint")
        if meta["version"] != VERSION:
            raise CheckpointError(
                f"{path}: checkpoint version {meta['version']}, this fastrec reads {VERSION}; continue with the "
                "fastrec that wrote it, or train again"
            )
        expect(meta, _BODY, "checkpoint")
        if meta["step"] != step:
            raise ValueError(f"it is that of step {meta['step']}")
        return meta

    def _read(self, path: Path, digest: str, offer: str) -> dict[str, Any]:
        try:
            found = sha256_file(path)
        except OSError as error:
            raise CheckpointError(f"{path}: cannot be read ({reason(error)}); {offer}") from None
        if found != digest:
            raise CheckpointError(f"{path}: damaged (sha256 {found[:12]}, recorded {digest[:12]}); {offer}")
        try:
            return load_tensors(path)
        except DataError as error:
            raise CheckpointError(f"{error}; {offer}") from None

    def _offer(self, step: int) -> str:
        """Advice on a damaged checkpoint, for a message."""
        for before in reversed([s for s in self.steps() if s < step]):
            with contextlib.suppress(CheckpointError, ValueError, OSError):
                if sha256_file(self._tensors(before)) == self._checked(before)["sha256"]:
                    json_file = self._tensors(step).with_suffix(".json")
                    return f"the one of step {before} is complete: delete {json_file} and resume to go on from there"
        return "no earlier one is complete: train again"

    def _tensors(self, step: int) -> Path:
        return self.folder / f"step-{step:09d}.safetensors"

    def _prune(self) -> None:
        kept = self.steps()[-self.keep :]
        names = {self._tensors(s).name for s in kept}
        for step in kept:
            with contextlib.suppress(CheckpointError, ValueError, OSError):
                best = self._checked(step).get("best")
                names |= {best["file"]} if best else set()
        names |= {self._tensors(s).with_suffix(".json").name for s in kept}
        # a json file first: without it the tensors do not count
        for path in sorted(self.folder.iterdir(), key=lambda p: p.suffix):
            if _OWN.fullmatch(path.name) and path.name not in names:
                with contextlib.suppress(FastrecError):  # costs space only; the next checkpoint tries again
                    remove(path)
