"""The one place for Numba flags, and the thread pool that runs kernels over row ranges.

Kernels are plain functions of arrays and scalars over a half-open row range ``[lo, hi)``. They are compiled with
``nogil`` and run by Python threads; Numba's own ``parallel=True`` is not used, because two Python threads inside it at
once can abort the process and a forked child dies in it.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from fastrec.arguments import whole
from fastrec.errors import ConfigError, FastrecError

F = TypeVar("F", bound=Callable[..., Any])


@cache
def _sources() -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every module of fastrec. Cost: about 1 ms, once."""
    root = Path(__file__).parent
    found = ((p.relative_to(root), p.stat()) for p in sorted(root.rglob("*.py")))
    return tuple((str(name), stat.st_mtime_ns, stat.st_size) for name, stat in found)


def _stamped(dispatcher: Any) -> Any:
    """Make the disk cache of a kernel stale when any module changes, not only its own.

    Numba looks at the file a kernel stands in, and so would run old machine code after an update of what the kernel
    inlines. The attribute is private to Numba: a Numba without it fails here, at import, and not by stale results.
    """
    if not hasattr(dispatcher, "stats"):  # NUMBA_DISABLE_JIT=1: the plain function, nothing to cache
        return dispatcher
    index = dispatcher._cache._cache_file
    index._source_stamp = (index._source_stamp, _sources())
    return dispatcher


def njit(function: F) -> F:
    """Compile a sampling or scoring kernel: releases the GIL, cached on disk, IEEE division, no fast math.

    The result keeps the plain Python function as ``.py_func``, which tests call.
    """
    # fastmath is named because Numba otherwise takes it from whichever kernel happens to compile this one first
    return cast(F, _stamped(numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=False)(function)))


def inline(function: F) -> F:
    """Compile a helper that is always inlined by LLVM into the kernel that calls it, and takes over its float flags."""
    return cast(F, numba.njit(nogil=True, error_model="numpy", forceinline=True)(function))


def njit_float(function: F) -> F:
    """Compile a floating-point kernel that may contract and reorder sums (``contract``, ``reassoc``, ``nsz``).

    Results still depend only on the arguments, on one machine with one set of versions: the same machine code runs for
    every thread. NaN and infinity are kept exact, so that a diverging run is seen.
    """
    flags = {"contract", "reassoc", "nsz"}
    return cast(F, _stamped(numba.njit(nogil=True, cache=True, error_model="numpy", fastmath=flags)(function)))


def triton_runs(kind: str) -> bool:
    """Whether Triton's kernels run on a kind of device: on "cuda", and under Triton's interpreter on any."""
    return kind == "cuda" or os.environ.get("TRITON_INTERPRET") == "1"


def available_threads() -> int:
    """Number of processors this process may run on (affinity respected), at least 1."""
    if hasattr(os, "sched_getaffinity"):
        return max(1, len(os.sched_getaffinity(0)))
    return max(1, os.cpu_count() or 1)


def resolve_threads(threads: int | None) -> int:
    """``None`` means every processor this process may use; anything below 1 is refused.

    Raises
    ------
    ConfigError
        If ``threads`` is below 1, or no whole number.
    """
    if threads is None:
        return available_threads()
    threads = whole("threads", threads)
    if threads < 1:
        raise ConfigError(f"threads={threads}: must be at least 1; leave it out to use all {available_threads()}")
    return threads


_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


class _HeldForEver:
    """Stands in for a lock whose holder is a thread that this process does not have."""

    def acquire(self, *_: Any, **__: Any) -> bool:
        raise FastrecError(
            "this process was forked while another thread was compiling, so a kernel that was not ready then can "
            "be neither compiled nor loaded; sample once before forking, or start processes by spawn or forkserver"
        )


def _after_fork() -> None:
    """In a forked child: no pool, since the workers do not exist; and no wait for a compiler that never ends.

    Numba and llvmlite hold a lock each while they compile. Held by another thread at the fork it would hang the child
    at its first new kernel, and LLVM is left half done, so fresh locks would not help: the child is told instead. What
    was compiled before the fork needs neither lock. The parent is left alone.
    """
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    if not all(holder._lock.acquire(blocking=False) for holder in (global_compiler_lock, ffi.lib._lock)):
        global_compiler_lock._lock = ffi.lib._lock._lock = _HeldForEver()
        ffi.ObjectRef.close = lambda _: None  # freeing what LLVM was at work on ends the child by a signal,
        libc = ctypes.CDLL(None)
        if hasattr(libc, "on_exit"):  # and so does LLVM's own end: the child exits with its status before that
            libc.on_exit(libc._exit, None)
        return
    for holder in (global_compiler_lock, ffi.lib._lock):
        holder._lock.release()


if hasattr(os, "register_at_fork"):  # at import: a fork that happens before the handler is one that nobody handles
    os.register_at_fork(after_in_child=_after_fork)


def _pool(workers: int) -> ThreadPoolExecutor:
    with _lock:
        pool = _pools.get(workers)
        if pool is None:
            pool = _pools[workers] = ThreadPoolExecutor(workers, thread_name_prefix=f"fastrec-{workers}")
        return pool


def run_ranges(work: Callable[[int, int], Any], n: int, threads: int, *, grain: int = 1) -> list[Any]:
    """Call ``work(lo, hi)`` over ``[0, n)`` cut into at most ``threads`` equal ranges, and return the results in order.

    The caller's thread works on the first range itself. Where the cuts fall must never change a result: kernels
    write disjoint rows. An exception in any range is raised here, after all ranges have ended.

    Parameters
    ----------
    work : callable
        Takes ``lo`` and ``hi`` (rows), releases the GIL inside.
    n : int
        Number of rows.
    threads : int
        Upper bound on the ranges.
    grain : int
        Fewest rows worth a thread of their own; cuts fall on multiples of it.
    """
    parts = max(1, min(threads, n // max(1, grain)))
    if parts == 1:
        return [work(0, n)] if n > 0 else []
    step = -(-n // parts)
    step = -(-step // grain) * grain
    bounds = [(lo, min(lo + step, n)) for lo in range(0, n, step)]
    futures = [_pool(threads - 1).submit(work, lo, hi) for lo, hi in bounds[1:]]
    try:
        first = work(*bounds[0])
    finally:
        others = [future.exception() for future in futures]  # waits for all: no range outlives the call
    for error in others:
        if error is not None:
            raise error
    return [first, *[future.result() for future in futures]]
