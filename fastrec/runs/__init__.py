"""A run folder: configuration, data, weights and provenance; made, opened, verified."""

from fastrec.runs.card import write_card
from fastrec.runs.folder import Run, create, open_run
from fastrec.runs.lock import locked
from fastrec.runs.provenance import describe, environment, fingerprints
from fastrec.runs.split_file import is_split_file, open_split, save_split

__all__ = [
    "Run",
    "create",
    "describe",
    "environment",
    "fingerprints",
    "is_split_file",
    "locked",
    "open_run",
    "open_split",
    "save_split",
    "write_card",
]
