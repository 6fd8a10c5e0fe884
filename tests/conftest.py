"""Shared fixtures; Numba's cache of a test run is the checkout's own."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

# Before fastrec (and so Numba) is imported; ``fastrec.jit`` makes kernels stale when their sources change.
os.environ.setdefault("NUMBA_CACHE_DIR", str(ROOT / ".numba_cache"))

import numpy as np  # noqa: E402
import pytest  # noqa: E402


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
