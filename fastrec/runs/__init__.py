"""A run folder: configuration, data, weights and provenance; made, opened, verified."""

from fastrec.runs.files import aside, sha256_file, sync_folder, write_atomic, write_tensors
from fastrec.runs.folder import Run, create, describe, open_run
from fastrec.runs.provenance import environment, fingerprints

__all__ = [
    "Run",
    "aside",
    "create",
    "describe",
    "environment",
    "fingerprints",
    "open_run",
    "sha256_file",
    "sync_folder",
    "write_atomic",
    "write_tensors",
]
