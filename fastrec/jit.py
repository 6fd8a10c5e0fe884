"""The one place for Numba flags, and the thread pool that runs kernels over row ranges.

Kernels are plain functions of arrays and scalars over a half-open row range ``[lo, hi)``. They are compiled with
``nogil`` and run by Python threads; Numba's own ``parallel=True`` is not used, because two Python threads inside it at
once can abort the process and a forked child dies in it.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar, cast

import numba
import numpy as np
from llvmlite.binding import ffi
from numba.core.compiler_lock import global_compiler_lock

from fastrec.errors import ConfigError, FastrecError

F = TypeVar("F", bound=Callable[..., Any])


ROOMS = (
    *("errors", "config", "files", "jit", "lanes", "sampling", "data", "batches", "models", "optim", "engines"),
    *("runs", "evaluation", "training", "inference", "bench", "cli", "__main__"),
)
"""The rooms of the package in the order in which imports run: each may import from those before it."""


@cache
def _sources(room: str) -> tuple[tuple[str, int, int], ...]:
    """Name, time and size of every module that a kernel of this room may inline or take constants from.

    Those are the modules of the room and of the rooms before it. Cost: about 1 ms a room, once.
    """
    root = Path(__file__).parent
    found: list[Path] = []
    for name in ROOMS[: ROOMS.index(room) + 1]:
        found += [root / f"{name}.py"] if (root / f"{name}.py").exists() else sorted((root / name).rglob("*.py"))
    return tuple((str(p.relative_to(root)), p.stat().st_mtime_ns, p.stat().st_size) for p in found)


def _stamped(dispatcher: Any) -> Any:
    """Make the disk cache of a kernel stale when any module that it may depend on changes, not only its own.

    Numba looks at the file a kernel stands in, and so would run old machine code after an update of what the kernel
    inlines. The attribute is private to Numba: a Numba without it fails here, at import, and not by stale results.
    """
    if not hasattr(dispatcher, "stats"):  # NUMBA_DISABLE_JIT=1: the plain function, nothing to cache
        return dispatcher
    index = dispatcher._cache._cache_file
    parts = dispatcher.py_func.__module__.split(".")
    room = parts[1] if parts[0] == "fastrec" and len(parts) > 1 else ROOMS[-1]  # a kernel of someone else's: all
    index._source_stamp = (index._source_stamp, _sources(room))
    if dispatcher.py_func.__closure__ is not None:
        dispatcher._cache._index_key = _closure_key(dispatcher.py_func)
    return dispatcher


def _closure_key(function: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Key of a kernel made by a factory, in place of Numba's, which pickles what the kernel closes over.

    A compiled helper pickles to other bytes in each process, so that Numba would never find such a kernel on disk
    again. What tells two kernels of one factory apart is their constants and helpers by name; the sources are stamped.
    """
    constants = repr(_constants_of(function)).encode()

    def key(signature: Any, codegen: Any) -> tuple[Any, ...]:
        code = hashlib.sha256(function.__code__.co_code).hexdigest()
        return signature, codegen.magic_tuple(), (code, hashlib.sha256(constants).hexdigest())

    return key


def _constants_of(function: Any) -> list[Any]:
    """What a function closes over, by value, and functions by name with what they close over in turn."""
    found: list[Any] = []
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or ()):
        value = getattr(cell.cell_contents, "py_func", cell.cell_contents)
        if callable(value) and hasattr(value, "__code__"):
            value = (value.__module__, value.__qualname__, _constants_of(value))
        elif not isinstance(value, (bool, int, float, str, np.generic)):
            raise TypeError(
                f"{function.__qualname__} closes over {name} = {value!r}: a kernel may close over numbers, "
                "words and functions only, since these make its key on disk"
            )
        found.append((name, value))
    return found


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
        If ``threads`` is below 1.
    """
    if threads is None:
        return available_threads()
    if threads < 1:
        raise ConfigError(f"threads={threads}: must be at least 1; leave it out to use all {available_threads()}")
    return int(threads)


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
