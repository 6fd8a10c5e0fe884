"""Shared fixtures, and what only ``make test-all`` runs; Numba's cache of a test run is the checkout's own.

``FASTREC_TESTS=all`` (``make test-all``) runs the tests marked slow too: the full form of what has a sampled form.
"""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Before fastrec (and so Numba) is imported; ``fastrec.jit`` makes kernels stale when their sources change.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".numba_cache"))

# Two workers on two processors have four OpenMP threads: idle ones sleep, and take no time from those that work.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import numpy as np  # noqa: E402
import pytest  # noqa: E402


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Deselect slow tests unless all are asked for, by ``FASTREC_TESTS=all`` or with ``-m``."""
    if os.environ.get("FASTREC_TESTS") == "all" or config.option.markexpr:
        return
    slow = [item for item in items if item.get_closest_marker("slow")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if not item.get_closest_marker("slow")]


def data_folder(name: str) -> Path:
    """Folder of a real data set, or a skip with the reason."""
    base = os.environ.get("FASTREC_DATA")
    if not base:
        pytest.skip("FASTREC_DATA is not set: it names the folder that holds the real data sets")
    folder = Path(base) / name
    if not folder.is_dir():
        pytest.skip(f"no folder {name} under FASTREC_DATA={base}")
    return folder


@pytest.fixture(scope="session")
def real_data():
    """``real_data(name)`` gives the folder of a real data set, or skips with the reason."""
    return data_folder


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(20170408)
