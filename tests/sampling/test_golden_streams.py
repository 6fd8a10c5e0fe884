"""The drawn bytes are pinned: a change of any needs a new STREAM_VERSION and a new entry, made on purpose."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fastrec.sampling import STREAM_VERSION

ROOT = Path(__file__).resolve().parents[2]
SCRIPT = ROOT / "scripts" / "golden_streams.py"
GOLDEN = json.loads((ROOT / "tests" / "golden" / "streams.json").read_text())
PRINT = f"import runpy, json; print(json.dumps(runpy.run_path({str(SCRIPT)!r})['streams']()))"


def streams_of(**environment: str) -> dict:
    env = {**os.environ, **environment, "PYTHONPATH": str(ROOT)}
    out = subprocess.run([sys.executable, "-c", PRINT], capture_output=True, text=True, check=True, env=env)
    return json.loads(out.stdout)


def test_streams_are_those_of_this_version() -> None:
    assert streams_of() == GOLDEN[str(STREAM_VERSION)]


def test_another_processor_draws_the_same(tmp_path: Path) -> None:
    """Compiled for a plain x86-64 or ARM without wide vectors, the kernels give the same bytes."""
    plain = streams_of(NUMBA_CPU_NAME="generic", NUMBA_CPU_FEATURES="", NUMBA_CACHE_DIR=str(tmp_path))
    assert plain == GOLDEN[str(STREAM_VERSION)]
