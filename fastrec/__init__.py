"""fastrec: a fast, honest training engine for implicit-feedback recommenders.

Importing it loads neither torch nor polars: the names below are resolved on first use.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_EXPORTS = {
    "NegativeSampler": "fastrec.sampling",
    "Interactions": "fastrec.data",
}

__all__ = ["NegativeSampler", "__version__", "Interactions"]  # noqa: RUF022


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'fastrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
