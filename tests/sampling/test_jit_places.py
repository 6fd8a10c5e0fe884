"""Kernels where nothing can be cached, where the cache is damaged, and where the interpreter is ending."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[2] / "fastrec"
USE = """
import sys
{first}
import numpy as np
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Order
assert sorted(Order(9, 1).positions(0, 0, 9)) == list(range(9))
print(Order(9, 1).positions(0, 0, 9).tolist())
"""


def copy_to(folder: Path) -> Path:
    shutil.copytree(PACKAGE, folder / "there" / "fastrec", ignore=shutil.ignore_patterns("__pycache__"))
    return folder / "there"


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return copy_to(tmp_path)


@pytest.fixture(scope="module")
def used(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A copy that has filled the folder ``cache`` next to it, and what it printed."""
    root = copy_to(tmp_path_factory.mktemp("used"))
    done = run(root, NUMBA_CACHE_DIR=str(root.parent / "cache"))
    assert (done.returncode, done.stderr) == (0, "")
    return root, done.stdout


def run(root: Path, first: str = "", **env: str | None) -> subprocess.CompletedProcess[str]:
    gone = ("NUMBA_CACHE_DIR", "HOME", "XDG_CACHE_HOME", "PYTHONPATH")
    kept = {k: v for k, v in os.environ.items() if k not in gone}
    kept |= {"PYTHONPATH": str(root), "PYTHONDONTWRITEBYTECODE": "1", **{k: v for k, v in env.items() if v is not None}}
    cwd = root.parent / "cwd"
    cwd.mkdir(exist_ok=True)
    code = USE.format(first=first)
    return subprocess.run([sys.executable, "-c", code], env=kept, cwd=cwd, capture_output=True, text=True)


def forbid(root: Path) -> None:
    """No cache next to the modules, for root too: a file where the folder would be."""
    for folder in {p.parent for p in (root / "fastrec").rglob("*.py")}:
        (folder / "__pycache__").write_text("")


def test_without_any_folder_to_cache_in_it_works_and_says_so_once(copied: Path) -> None:
    forbid(copied)
    done = run(copied, HOME=os.devnull)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")
    assert done.stderr.count("RuntimeWarning: fastrec: ") == 1
    assert list((copied.parent / "cwd").iterdir()) == []


@pytest.mark.parametrize("home", [None, "relative"])
def test_without_a_home_no_folder_appears_in_the_working_directory(copied: Path, home: str | None) -> None:
    forbid(copied)
    nobody = "import os, pwd\ndef no(*_): raise KeyError\npwd.getpwuid = no"  # a user without an entry in passwd
    done = run(copied, nobody, HOME=home)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: fastrec: ") == 1
    assert list((copied.parent / "cwd").iterdir()) == []


@pytest.mark.parametrize("suffix", [".nbi", ".nbc"])
@pytest.mark.parametrize("size", [0, 40])
def test_a_cut_cache_file_is_replaced(used: tuple[Path, str], tmp_path: Path, suffix: str, size: int) -> None:
    root, expected = used
    cache = shutil.copytree(root.parent / "cache", tmp_path / "cache")
    files = sorted(cache.rglob(f"*{suffix}"))
    assert files
    for file in files:
        file.write_bytes(file.read_bytes()[:size])
    done = run(root, NUMBA_CACHE_DIR=str(cache))
    assert (done.returncode, done.stdout) == (0, expected), done.stderr
    assert done.stderr.count("RuntimeWarning: fastrec: ") == 1
    again = run(root, NUMBA_CACHE_DIR=str(cache))
    assert (again.stdout, again.stderr) == (expected, ""), "the cache was not replaced"


def test_a_cache_folder_that_vanishes_and_cannot_be_made_again_costs_no_call(copied: Path) -> None:
    cache = copied.parent / "cache"
    first = "import fastrec.sampling.order, shutil, pathlib\n"
    first += f"shutil.rmtree({str(cache)!r}); pathlib.Path({str(cache)!r}).write_text('')"
    done = run(copied, first, NUMBA_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("RuntimeWarning: fastrec: ") == 1


LATE = """
import atexit, sys, threading, time
import numpy as np
from fastrec.sampling import NegativeSampler
s = NegativeSampler([0, 2, 3], [1, 4, 0], n_items=6)
users = np.tile(np.arange(2, dtype=np.int32), 40_000)
expected = s.sample(users, epoch=0, start=0)
s.sample(users, epoch=0, start=0, threads=3)

def sample(n):
    for _ in range(n):
        if not np.array_equal(s.sample(users, epoch=0, start=0, threads=int(sys.argv[2])), expected):
            print("wrong", flush=True)

if sys.argv[1] == "atexit":
    atexit.register(sample, 3)
else:
    for _ in range(3):
        threading.Thread(target=sample, args=(200,), daemon=sys.argv[1] == "daemon").start()
    time.sleep(0.05)
"""


@pytest.mark.parametrize("threads", ["3", "5"])  # a pool that is there, and one that is not
@pytest.mark.parametrize("kind", ["daemon", "thread", "atexit"])
def test_the_interpreter_ends_while_a_thread_samples(kind: str, threads: str) -> None:
    done = subprocess.run(
        [sys.executable, "-c", LATE, kind, threads], cwd=PACKAGE.parent, capture_output=True, text=True
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_ranges_are_worked_on_once_where_threads_cannot_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrec import jit

    class Full:
        def submit(self, *_: object) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(jit, "_pool", lambda _: Full())
    seen: list[tuple[int, int]] = []
    assert jit.run_ranges(lambda lo, hi: seen.append((lo, hi)) or lo, 10, 4) == [0, 3, 6, 9]
    assert seen == [(0, 3), (3, 6), (6, 9), (9, 10)]

    def fails(lo: int, _: int) -> int:
        seen.append((lo, lo))
        raise ValueError(str(lo))

    with pytest.raises(ValueError, match="0"):
        jit.run_ranges(fails, 10, 4)
    assert len(seen) == 8
