"""fastrec: a fast, honest training engine for implicit-feedback recommenders.

Importing it loads neither torch nor polars: a public name is imported from its home when it is first used. The types of
the names are in ``__init__.pyi``.
"""

from importlib import import_module
from typing import Any

__version__ = "0.1.0"

_HOMES = {
    "fastrec.batches.adapters": ("BatchDataset",),
    "fastrec.config": ("Config",),
    "fastrec.data": ("Interactions", "Split", "leave_one_out", "load", "load_split", "ratio_split", "time_split"),
    "fastrec.errors": ("CheckpointError", "ConfigError", "DataError", "FastrecError", "MissingPackageError"),
    "fastrec.evaluation.comparison": ("compare",),
    "fastrec.evaluation.given_scores": ("evaluate_scores",),
    "fastrec.evaluation.score": ("evaluate",),
    "fastrec.inference.audit": ("audit",),
    "fastrec.inference.export": ("export",),
    "fastrec.inference.fold_in": ("fold_in",),
    "fastrec.inference.recommend": ("recommend",),
    "fastrec.inference.recommender": ("Recommender",),
    "fastrec.inference.report.write": ("report",),
    "fastrec.runs": ("open_run",),
    "fastrec.sampling": ("NegativeSampler",),
    "fastrec.training.job": ("train",),
    "fastrec.training.update": ("update",),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = sorted([*_HOME_OF, "__version__"])


def __getattr__(name: str) -> Any:
    if name in _HOME_OF:
        try:
            return getattr(import_module(_HOME_OF[name]), name)
        except ModuleNotFoundError as error:
            from fastrec.errors import MissingPackageError, not_installed

            if (error.name or "fastrec").partition(".")[0] == "fastrec":
                raise
            raise MissingPackageError(f"fastrec.{name}: {not_installed(error.name)}", name=error.name) from error
    raise AttributeError(f"module 'fastrec' has no attribute {name!r}")


def __dir__() -> list[str]:
    return __all__
