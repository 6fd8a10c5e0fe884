"""Loading, splitting and describing interaction data. NumPy and Polars are imported on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from fastrec.data.catalog import Catalog
    from fastrec.data.cut import leave_one_out, ratio_split, time_split
    from fastrec.data.interactions import Interactions
    from fastrec.data.loading import has_split, load, load_split
    from fastrec.data.split import Split, add_validation

_EXPORTS = {
    "Catalog": "fastrec.data.catalog",
    "Interactions": "fastrec.data.interactions",
    "Split": "fastrec.data.split",
    "add_validation": "fastrec.data.split",
    "has_split": "fastrec.data.loading",
    "leave_one_out": "fastrec.data.cut",
    "load": "fastrec.data.loading",
    "load_split": "fastrec.data.loading",
    "ratio_split": "fastrec.data.cut",
    "time_split": "fastrec.data.cut",
}

__all__ = [
    "Catalog",
    "Interactions",
    "Split",
    "add_validation",
    "has_split",
    "leave_one_out",
    "load",
    "load_split",
    "ratio_split",
    "time_split",
]


def __getattr__(name: str) -> Any:
    if name in _EXPORTS:
        return getattr(import_module(_EXPORTS[name]), name)
    raise AttributeError(f"module 'fastrec.data' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)
