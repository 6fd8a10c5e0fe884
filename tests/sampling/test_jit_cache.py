"""A kernel is compiled again when a module that it inlines has changed, although its own file has not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastrec.jit import before_compiling, njit

PACKAGE = Path(__file__).resolve().parents[2] / "fastrec"


def compiled_and_loaded(root: Path, cache: Path) -> tuple[int, int]:
    """Kernels of the order that a fresh process compiled, and that it took from the disk."""
    code = (
        "from fastrec.sampling.order import Order; import fastrec.sampling.order as o\n"
        "Order(10, 1).positions(0, 0, 10)\n"
        "kernels = [k for k in vars(o).values() if hasattr(k, 'stats')]\n"
        "print(sum(sum(k.stats.cache_misses.values()) for k in kernels),"
        " sum(sum(k.stats.cache_hits.values()) for k in kernels))"
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    done = subprocess.run([sys.executable, "-c", code], env=env, cwd=root, capture_output=True, text=True, check=True)
    misses, hits = done.stdout.split()
    return int(misses), int(hits)


def test_a_change_elsewhere_in_the_package_makes_the_cache_stale(tmp_path: Path) -> None:
    shutil.copytree(PACKAGE, tmp_path / "fastrec", ignore=shutil.ignore_patterns("__pycache__"))
    assert compiled_and_loaded(tmp_path, tmp_path / "cache")[0] > 0
    again = compiled_and_loaded(tmp_path, tmp_path / "cache")
    assert again[0] == 0
    assert again[1] > 0
    philox = tmp_path / "fastrec" / "sampling" / "philox.py"
    philox.write_text(philox.read_text() + "\n# changed\n")
    assert compiled_and_loaded(tmp_path, tmp_path / "cache")[0] > 0


FACTORY = """
import sys
from fastrec.jit import inline, njit

def make(k):
    @inline
    def helper(x):
        return x * k

    @njit
    def kernel(x):
        return helper(x) + 1

    return kernel

for k in map(int, sys.argv[1:]):
    kernel = make(k)
    assert kernel(3) == 3 * k + 1
    print(sum(kernel.stats.cache_misses.values()), sum(kernel.stats.cache_hits.values()))
"""


def test_a_kernel_of_a_factory_is_found_on_disk_by_what_it_closes_over(tmp_path: Path) -> None:
    """Numba pickles a helper to other bytes in each process, and would compile such a kernel in every one of them."""
    (tmp_path / "factory.py").write_text(FACTORY)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(PACKAGE.parent)}

    def run(*constants: str) -> list[str]:
        command = [sys.executable, str(tmp_path / "factory.py"), *constants]
        return subprocess.run(command, env=env, capture_output=True, text=True, check=True).stdout.splitlines()

    assert run("2", "5") == ["1 0", "1 0"]
    assert run("2", "7", "5") == ["0 1", "1 0", "0 1"]


def test_kernels_of_one_factory_from_two_processes_are_two_symbols(tmp_path: Path) -> None:
    """Each was the first that its process compiled, which is all that Numba names machine code by.

    The part that both call is too long for LLVM to inline it.
    """
    body = "".join(f"        x = x * {i} % {i + 90} + (x >> {i % 5} if x % {i} == 1 else {i})\n" for i in range(2, 90))
    long = FACTORY.replace("        return x * k\n", f"        y = x * k\n{body}        return y if x >= 0 else x\n")
    (tmp_path / "factory.py").write_text(
        long.replace("@inline", "@part").replace("import inline", "import helper as part")
    )
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(PACKAGE.parent)}
    for constants, found in ((["2"], ["1 0"]), (["5"], ["1 0"]), (["2", "5"], ["0 1", "0 1"])):
        command = [sys.executable, str(tmp_path / "factory.py"), *constants]
        done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
        assert (done.stdout.splitlines(), done.returncode) == (found, 0), done.stderr


def test_a_kernel_may_not_close_over_what_makes_no_key() -> None:
    table = np.zeros(3)
    with pytest.raises(TypeError, match="closes over table"):

        @njit
        def kernel(k):  # type: ignore[no-untyped-def]
            return table[k]


def test_a_process_with_a_stale_index_writes_over_no_other_kernel(tmp_path: Path) -> None:
    """Two processes that compile at once each know an index without the other's kernel."""
    (tmp_path / "factory.py").write_text(FACTORY)
    env = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path / "cache"), "PYTHONPATH": str(PACKAGE.parent)}

    def run(constant: str) -> dict[str, bytes]:
        command = [sys.executable, str(tmp_path / "factory.py"), constant]
        subprocess.run(command, env=env, capture_output=True, text=True, check=True)
        return {p.name: p.read_bytes() for p in (tmp_path / "cache").rglob("factory.make*.nbc")}

    first = run("2")
    for index in (tmp_path / "cache").rglob("factory.make*.nbi"):
        index.unlink()
    both = run("5")
    assert first.items() < both.items()


def test_only_a_kernel_that_is_not_on_disk_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("numba.core.config.CACHE_DIR", str(tmp_path))
    said: list[int] = []

    def kernel(constant: int) -> Callable[[int], int]:
        def add(x):  # type: ignore[no-untyped-def]
            return x + constant

        return njit(add)

    for constant in (7, 7, 8):  # compiled, loaded, compiled
        with before_compiling(lambda: said.append(constant)):  # noqa: B023
            assert kernel(constant)(1) == 1 + constant
            kernel(constant)(1)
    assert said == [7, 8]
    with before_compiling(lambda: said.append(0)):
        pass
    kernel(9)(1)
    assert said == [7, 8], "the block is over"
