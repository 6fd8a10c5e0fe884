"""fastrec: a fast, honest training engine for implicit-feedback recommenders.

Importing it loads neither torch nor polars: the names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrec.config import Config
    from fastrec.data import Interactions, Split, leave_one_out, load, load_split, ratio_split, time_split
    from fastrec.errors import CheckpointError, ConfigError, DataError, FastrecError
    from fastrec.evaluation.score import evaluate
    from fastrec.sampling import NegativeSampler
    from fastrec.training.job import train

__version__ = "0.1.0"

_HOMES = {
    "Config": "fastrec.config",
    "CheckpointError": "fastrec.errors",
    "ConfigError": "fastrec.errors",
    "DataError": "fastrec.errors",
    "FastrecError": "fastrec.errors",
    "Interactions": "fastrec.data",
    "NegativeSampler": "fastrec.sampling",
    "Split": "fastrec.data",
    "evaluate": "fastrec.evaluation.score",
    "leave_one_out": "fastrec.data",
    "load": "fastrec.data",
    "load_split": "fastrec.data",
    "ratio_split": "fastrec.data",
    "time_split": "fastrec.data",
    "train": "fastrec.training.job",
}

__all__ = [
    "CheckpointError",
    "Config",
    "ConfigError",
    "DataError",
    "FastrecError",
    "Interactions",
    "NegativeSampler",
    "Split",
    "__version__",
    "evaluate",
    "leave_one_out",
    "load",
    "load_split",
    "ratio_split",
    "time_split",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'fastrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
