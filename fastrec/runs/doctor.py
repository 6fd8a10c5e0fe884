"""Report on this machine, row by row: what is missing or unreadable is reported in its row."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import fastrec
from fastrec.errors import FastrecError


def findings() -> list[tuple[str, str]]:
    """(what, found) rows: versions, CUDA, threads and data folders."""
    rows: tuple[tuple[str, Callable[[], str]], ...] = (
        ("fastrec", lambda: fastrec.__version__),
        ("python", lambda: f"{platform.python_version()} on {platform.platform()}"),
        ("numpy, numba", lambda: f"{_version('numpy')}, {_version('numba')}"),
        ("polars", lambda: _version("polars")),
        ("torch", lambda: str(_torch().__version__)),
        ("CUDA", _cuda),
        ("triton", lambda: _version("triton")),
        ("processors", _processors),
        ("FASTREC_DATA", lambda: os.environ.get("FASTREC_DATA", "not set")),
        ("cache", lambda: str(import_module("fastrec.data.datasets.registry").cache_dir())),
    )
    return [(what, _found(find)) for what, find in rows]


def _found(find: Callable[[], str]) -> str:
    try:
        return find()
    except ModuleNotFoundError as error:
        return f"{error.name} is not installed"
    except (ImportError, OSError, RuntimeError, FastrecError) as error:  # a broken torch raises any of the first three
        return f"not found: {' '.join(str(error).split())}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _torch() -> Any:
    return import_module("torch")


def _cuda() -> str:
    cuda = _torch().cuda
    if not cuda.is_available():
        return "not available"
    return ", ".join(cuda.get_device_name(i) for i in range(cuda.device_count()))


def _processors() -> str:
    usable = f"{import_module('fastrec.jit').available_threads()} usable"
    try:
        return f"{usable}; torch uses {_torch().get_num_threads()} threads"
    except (ImportError, OSError, RuntimeError):
        return usable
