"""The manifest of a run folder: what it may hold, and the sha256 by which it guards itself."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.errors import CheckpointError, shown
from fastrec.files import COUNT, SHA256, expect, parse_json, reason

VERSION = 2
"""Version 1 differs by one thing: its manifest has no sha256 of itself. It is read; ``record`` makes it version 2."""
MANIFEST = "manifest.json"

MODEL_ARGS = {
    "model": str,
    "n_users": COUNT,
    "n_items": COUNT,
    "dim": COUNT,
    "seed": COUNT,
    "init_std?": float,
    "output_init?": str,
    "init_h?": str,  # the former name of output_init; see config.RENAMED
    "history_weight?": float,
    "scored_history_weight?": float,
    "layers?": [COUNT],
}
_DATA = {
    "name": str,
    "split": str,
    **dict.fromkeys(("n_users", "n_items", "n_train", "n_validation", "n_test"), COUNT),
    "fingerprints": dict.fromkeys(("train", "validation", "test", "split"), SHA256),
    "comparable": bool,
    "notes": [str],
}
_RESULT = {
    "stopped": str,
    "epochs_done": COUNT,
    "best_epoch": (COUNT, None),
    "best_validation": (float, None),
    "seconds": float,
    "samples_per_s": float,
    "epoch_samples_per_s?": (float, None),
    "metrics": {str: {str: object}},
    "notes": [str],
    "baselines?": {str: {str: object}},
}
_UPDATE = {
    "parent": str,
    "parent_weights": SHA256,
    "parent_split": SHA256,
    "positives": re.compile("all|new"),
    "optimizer_state": bool,
    "first_epoch": COUNT,
    "first_step": COUNT,
    "counts": {str: COUNT},
    "notes": [str],
}
"""Of a run that ``fastrec update`` made: where it began."""
_SCHEMA = {
    "status": str,
    "created": str,
    "files": {str: SHA256},
    "data": _DATA,
    "environment": {str: object},
    "catalog?": {str: [str]},
    "stream_version?": COUNT,
    "engine?": {str: object},
    "avoided?": str,
    "selection?": {str: object},
    "update?": _UPDATE,
    "model?": MODEL_ARGS,
    "result?": _RESULT,
    "error?": str,
}


def to_json(manifest: Mapping[str, Any]) -> tuple[bytes, dict[str, Any]]:
    """A manifest as the text of its file, with the sha256 of what it says; and as plain JSON values, without.

    Raises
    ------
    TypeError, ValueError
        If a value is not fit for JSON, NaN among them.
    """
    values = {**manifest, "fastrec": f"run {VERSION}"}
    plain: dict[str, Any] = json.loads(json.dumps(values, allow_nan=False, default=_plain))
    text = json.dumps({**plain, "sha256": _digest(plain)}, indent=2, ensure_ascii=False)
    # an argument of the command may not be Unicode: JSON can escape what UTF-8 cannot encode
    return text.encode("utf-8", "backslashreplace") + b"\n", plain


def read_manifest(path: Path) -> dict[str, Any]:
    """The manifest of a run folder, checked, without its digest.

    Raises
    ------
    CheckpointError
        If it is missing, damaged or of another version.
    """
    file = path / MANIFEST
    try:
        manifest = parse_json(file.read_bytes())
        expect(manifest, {"fastrec": str}, "manifest")
        kind = manifest["fastrec"]
        if kind in (f"run {VERSION}", "run 1"):
            digest = manifest.pop("sha256", None)
            if kind == f"run {VERSION}" and digest != _digest(manifest):
                raise ValueError(f"its sha256, {shown(digest)}, does not fit its content")
            expect(manifest, _SCHEMA, "manifest")
            result = manifest.get("result", {})
            scored = [row.get("metrics", {}) for row in result.get("baselines", {}).values()]
            for metrics in (result.get("metrics", {}), *scored):
                expect(metrics, {str: {str: object}}, "metrics")
                for protocol in metrics.values():
                    for name, value in protocol.items():
                        expect(value, float if "@" in name else object, f"metric {shown(name)}")
            if manifest["status"] == "done" and "result" not in manifest:
                raise ValueError("its status is done, but it has no result")
    except FileNotFoundError:
        raise CheckpointError(
            f"{path}: not a run folder, or one that was cut off while it was made (no {MANIFEST}); name another, or "
            "delete it and train again"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({reason(error)}); change its rights, or train again") from None
    except ValueError as error:
        raise CheckpointError(f"{file}: damaged ({error}); restore it from a copy, or train again") from None
    if kind not in (f"run {VERSION}", "run 1"):
        raise CheckpointError(
            f"{path}: made as {shown(kind)}, this fastrec reads 'run {VERSION}'; open it with that version"
        )
    checked: dict[str, Any] = manifest
    return checked


def _digest(manifest: Mapping[str, Any]) -> str:
    """sha256 of what a manifest says, whatever its layout and the order of its keys."""
    return hashlib.sha256(json.dumps(manifest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is not fit for JSON")
