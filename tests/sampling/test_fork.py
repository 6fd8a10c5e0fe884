"""A forked child samples or raises a FastrecError, whatever other threads of the parent do: no crash, no hang."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")

PARENT = """
import collections, os, signal, sys, threading, time, warnings
import numpy as np
import numba
from fastrec.errors import FastrecError
from fastrec.sampling import NegativeSampler

warnings.simplefilter("ignore", DeprecationWarning)  # forking beside threads is unsafe: that is the test
users = np.tile(np.arange(2), 5000)
make = lambda: NegativeSampler([0, 2, 3], [1, 4, 0], n_items=6)

def children(n, sample, refused=False):
    '''Fork n children, each of which samples and ends as programs end; what became of them.

    With ``refused``, no more than it takes to have one that fell into a compilation, and two others: a child that did
    not compiles.
    '''
    ends = collections.Counter()
    for k in range(n):
        time.sleep(0.013 * (k % 7))
        child = os.fork()
        if child == 0:
            try:
                sys.exit(0 if (sample() == EXPECTED).all() else 4)
            except FastrecError as error:
                sys.exit(3 if "forked while another thread was compiling" in str(error) else 5)
        for _ in range(12_000):  # about a minute, and none of the time that this process itself stands still
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                break
            time.sleep(0.005)
        else:
            os.kill(child, signal.SIGKILL)
            _, status = os.waitpid(child, 0)
        ends[os.waitstatus_to_exitcode(status)] += 1  # -9: it hung
        if refused and ends[3] and k >= 2:
            break
    return dict(ends)
"""

COMPILING = """
def compile_for_ever():
    while True:
        scope = {}
        exec("def f(x):\\n    for i in range(9):\\n        x = x * 3 + i\\n    return x", scope)
        numba.njit(scope["f"])(1)

threading.Thread(target=compile_for_ever, daemon=True).start()
"""


def ends(script: str, **env: str) -> dict[object, int]:
    done = subprocess.run(
        [sys.executable, "-c", PARENT + script],
        env={**os.environ, **env, "PYTHONPATH": str(ROOT)},
        cwd=ROOT, capture_output=True, text=True, timeout=900,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found: dict[object, int] = eval(done.stdout)
    return found


def test_forked_while_another_thread_compiles_and_the_kernels_are_not_compiled(tmp_path: Path) -> None:
    """The child needs the compiler, whose lock a thread holds that the child does not have."""
    script = (
        COMPILING + "EXPECTED = np.zeros(1)\n"
        "print(children(8, lambda: make().sample(users, epoch=0, start=0, threads=2) * 0, refused=True))"
    )
    found = ends(script, NUMBA_CACHE_DIR=str(tmp_path))
    assert found.keys() <= {0, 3}
    assert found.get(3, 0) > 0  # a fork did fall into a compilation


def test_forked_while_another_thread_compiles_and_the_kernels_are() -> None:
    script = (
        "EXPECTED = make().sample(users, epoch=0, start=0)\n" + COMPILING + ""
        "print(children(8, lambda: make().sample(users, epoch=0, start=0, threads=2)))"
    )
    assert ends(script) == {0: 8}


def test_forked_in_the_midst_of_threaded_sampling() -> None:
    script = (
        "s = make(); EXPECTED = s.sample(users, epoch=0, start=0)\n"
        "def sample_for_ever():\n"
        "    while True: s.sample(users, epoch=1, start=0, threads=3)\n"
        "[threading.Thread(target=sample_for_ever, daemon=True).start() for _ in range(3)]\n"
        "print(children(12, lambda: s.sample(users, epoch=0, start=0, threads=3)))"
    )
    assert ends(script) == {0: 12}
