"""Run a module of ``benchmarks/workers/`` in a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

from fastrec.bench.checkout import ROOT
from fastrec.errors import FastrecError


def fresh_process(
    worker: str, *, timeout_s: float = 600, env: dict[str, str] | None = None, **options: Any
) -> dict[str, Any]:
    """The dict that a worker prints as its last line of JSON.

    Parameters
    ----------
    worker : str
        Name of a module in ``benchmarks/workers/``.
    env : dict
        Variables added to the environment.
    **options
        Its options, passed as one JSON argument.

    Raises
    ------
    FastrecError
        If the process fails, with the end of its standard error.
    """
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-m", f"benchmarks.workers.{worker}", json.dumps(options)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        cwd=ROOT,  # -m looks there first, so that no other package named benchmarks is found
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
    )
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        raise FastrecError(f"the worker {worker} ended with {done.returncode}: {done.stderr.strip()[-2000:]}")
    result: dict[str, Any] = json.loads(lines[-1])
    return result
