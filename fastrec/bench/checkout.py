"""``benchmarks/`` of the source repository: found next to the package, loaded from its path, never imported by name.

The package does not depend on it: an installed wheel has no such folder.
"""

from __future__ import annotations

import importlib.util
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

from fastrec.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
"""The root of the repository, or what the package is installed in."""
NAME = "benchmarks"
WHERE = f"in {NAME}/ of the source repository: run from a checkout of it"


def find() -> Any:
    """The module ``benchmarks.cases`` of the checkout that this package is part of, or None.

    Raises
    ------
    ConfigError
        If another package named ``benchmarks`` was imported before.
    """
    folder = ROOT / NAME
    start = folder / "__init__.py"
    # site-packages may hold a folder of that name from anyone; only a checkout has pyproject.toml next to it
    if not (start.is_file() and (folder / "cases" / "__init__.py").is_file() and (ROOT / "pyproject.toml").is_file()):
        return None
    loaded = sys.modules.get(NAME)
    if loaded is None:
        spec = importlib.util.spec_from_file_location(NAME, start, submodule_search_locations=[str(folder)])
        assert spec is not None
        assert spec.loader is not None
        loaded = sys.modules[NAME] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
    elif Path(loaded.__file__ or "").resolve() != start:
        raise ConfigError(f"the package {NAME} was imported from {loaded.__file__}, not from {start}: remove that one")
    return import_module(f"{NAME}.cases")


def command(name: str) -> Any:
    """The function ``main`` of ``benchmarks/NAME.py``.

    Raises
    ------
    ConfigError
        If there is no checkout.
    """
    if find() is None:
        raise ConfigError(f"{name} is not in the installed package; it is {WHERE}")
    return import_module(f"{NAME}.{name}").main
