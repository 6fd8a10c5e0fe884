"""The one place for Numba flags, and the thread pool that runs kernels over row ranges.

Kernels are plain functions of arrays and scalars over a half-open row range ``[lo, hi)``. They are compiled with
``nogil`` and run by Python threads; Numba's own ``parallel=True`` is not used, because two Python threads inside it at
once can abort the process and a forked child dies in it.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import os
import pickle
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
from llvmlite.binding import ffi
from numba.core.caching import CompileResultCacheImpl, FunctionCache, UserWideCacheLocator
from numba.core.compiler_lock import global_compiler_lock

from fastrec.arguments import as_int
from fastrec.errors import ConfigError, FastrecError

F = TypeVar("F", bound=Callable[..., Any])
Kernel = Callable[..., Any]
"""A compiled function. Its arguments are not typed: Numba compiles one form per types that it is called with."""


ROOMS = (
    *("errors", "registry", "terminal", "arguments", "config", "files", "jit", "lanes", "sampling", "data"),
    *("batches", "models", "optim", "engines", "runs", "evaluation", "training", "inference", "bench", "cli"),
    "__main__",
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


_said: list[str] = []


def _say_once(message: str) -> None:
    """One warning a process, whatever number of kernels it concerns."""
    if not _said:
        _said.append(message)
        warnings.warn(f"fastrec: {message}; kernels are compiled in this process", RuntimeWarning, stacklevel=2)


class _Files(CompileResultCacheImpl):
    """Numba's choice of a cache folder, less one that it would make in the working directory, named ``~``."""

    def __init__(self, py_func: Callable[..., Any]) -> None:
        base = os.environ.get("XDG_CACHE_HOME", os.path.expanduser("~/.cache"))
        if not os.path.isabs(base):  # no HOME and no entry in passwd
            self._locator_classes = [c for c in self._locator_classes if c is not UserWideCacheLocator]
        super().__init__(py_func)


class _DiskCache(FunctionCache):
    """Numba's disk cache of a kernel; a fault in it costs a compilation, not the call."""

    _impl_class = _Files

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = self._loaded(sig, target_context)
        if found is None:
            while _waiting:
                _waiting.pop()()
        return found

    def _loaded(self, sig: Any, target_context: Any) -> Any:
        try:
            return super().load_overload(sig, target_context)
        except FastrecError:
            raise
        except Exception as error:  # a cut or foreign pickle may raise anything
            _say_once(f"the kernel cache in {self.cache_path} cannot be read ({_named(error)}) and is replaced")
            with contextlib.suppress(OSError):
                self.flush()
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        try:
            super().save_overload(sig, data)
        except (OSError, EOFError, ValueError, pickle.PickleError) as error:
            _say_once(f"the kernel cache in {self.cache_path} cannot be written ({_named(error)})")


_waiting: list[Callable[[], object]] = []
"""What to call before the next kernel that is compiled, because it is not on disk."""


@contextlib.contextmanager
def before_compiling(call: Callable[[], object]) -> Iterator[None]:
    """Call this once, before the first kernel that has to be compiled in this block, in whichever thread."""
    _waiting.append(call)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):  # it was called
            _waiting.remove(call)


def _named(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".partition("\n")[0]


def _cached(dispatcher: Any) -> Any:
    """Cache a kernel on disk where a folder can be written; stale when a module that it may depend on changes.

    Numba looks at the file that holds a kernel, and so would run old machine code after an update of what the kernel
    inlines. The attributes are private to Numba: a Numba without them fails here, at import, and not by stale results.
    """
    if not hasattr(dispatcher, "stats"):  # NUMBA_DISABLE_JIT=1: the plain function, nothing to cache
        return dispatcher
    try:
        cache = _DiskCache(dispatcher.py_func)
    except RuntimeError as error:
        if "no locator available" not in str(error):
            raise
        _say_once("no folder for the kernel cache can be written; set NUMBA_CACHE_DIR to one that can")
        return dispatcher
    parts = dispatcher.py_func.__module__.split(".")
    room = parts[1] if parts[0] == "fastrec" and len(parts) > 1 else ROOMS[-1]  # a kernel of someone else's: all
    files: Any = cache._cache_file
    files._source_stamp = (files._source_stamp, _sources(room))
    files.save = functools.partial(_save_by_key, files)
    if dispatcher.py_func.__closure__ is not None:
        cache._index_key = _closure_key(dispatcher.py_func)  # type: ignore[method-assign]
    dispatcher._cache = cache
    return dispatcher


def _save_by_key(files: Any, key: Any, data: Any) -> None:
    """Numba's ``IndexDataCacheFile.save`` with files that are named by what they hold.

    Numba numbers them by the index it has just read, so that two processes that compile two kernels of one factory at
    once write to one file, and the index then gives the one's machine code for the other's. An index entry that is
    lost to the other process costs a compilation.
    """
    names = files._load_index()
    if key not in names:
        names[key] = f"{files._index_name}.{hashlib.sha256(repr(key).encode()).hexdigest()[:16]}.nbc"
        files._save_index(names)
    files._save_data(names[key], data)


def _closure_key(function: Any) -> Callable[[Any, Any], tuple[Any, ...]]:
    """Key of a kernel made by a factory, in place of Numba's, which pickles what the kernel closes over.

    A compiled helper pickles to other bytes in each process, so that Numba would never find such a kernel on disk
    again. What tells two kernels of one factory apart is their constants and helpers by name; the sources are stamped.
    """
    content = _content(function)

    def key(signature: Any, codegen: Any) -> tuple[Any, ...]:
        return signature, codegen.magic_tuple(), content

    return key


def _content(function: Any) -> str:
    """Digest of the code of a function and of what it closes over."""
    code = function.__code__
    return hashlib.sha256(code.co_code + repr(_constants_of(function)).encode()).hexdigest()


def _named_by_content(function: F) -> F:
    """Give a kernel made by a factory a name of its own.

    Numba names machine code by the function's name and a count that starts again in each process. Parts of two kernels
    of one factory, compiled in two processes and loaded by a third, would be one symbol: LLVM keeps the first, so the
    second kernel would run the first's part.
    """
    if function.__closure__ is not None:
        function.__qualname__ += f"_{_content(function)[:16]}"
    return function


def _constants_of(function: Any) -> list[Any]:
    """The closure of a function: values, and functions by name with their own closures."""
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


def njit(function: Callable[..., Any]) -> Kernel:
    """Compile a sampling or scoring kernel: releases the GIL, cached on disk if possible, IEEE division, no fast math.

    The result keeps the plain Python function as ``.py_func``, which tests call.
    """
    # fastmath is named because Numba otherwise takes it from whichever kernel happens to compile this one first
    kernel: Kernel = _cached(numba.njit(nogil=True, error_model="numpy", fastmath=False)(_named_by_content(function)))
    return kernel


def inline(function: Callable[..., Any]) -> Kernel:
    """Compile a helper that is always inlined by LLVM into the kernel that calls it, and takes over its float flags."""
    kernel: Kernel = numba.njit(nogil=True, error_model="numpy", forceinline=True)(_named_by_content(function))
    return kernel


def helper(function: Callable[..., Any]) -> Kernel:
    """Compile a part of a kernel that is called once a piece, and so may take NamedTuples of arrays.

    Their references are counted once for hundreds of samples.
    """
    kernel: Kernel = numba.njit(nogil=True, error_model="numpy")(_named_by_content(function))
    return kernel


def njit_float(function: Callable[..., Any]) -> Kernel:
    """Compile a floating-point kernel that may contract and reorder sums (``contract``, ``reassoc``, ``nsz``).

    Results still depend only on the arguments, on one machine with one set of versions: the same machine code runs for
    every thread. NaN and infinity are kept exact, so that a diverging run is seen.
    """
    flags = {"contract", "reassoc", "nsz"}
    kernel: Kernel = _cached(numba.njit(nogil=True, error_model="numpy", fastmath=flags)(_named_by_content(function)))
    return kernel


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
        If ``threads`` is below 1, or not an integer.
    """
    if threads is None:
        return available_threads()
    threads = as_int("threads", threads)
    if threads < 1:
        raise ConfigError(f"threads={threads}: must be at least 1; leave it out to use all {available_threads()}")
    return threads


_lock = threading.Lock()
_pools: dict[int, ThreadPoolExecutor] = {}


class _HeldForEver:
    """Replaces a lock whose holder is a thread that this process does not have."""

    def acquire(self, *_: Any, **__: Any) -> bool:
        raise FastrecError(
            "this process was forked while another thread was compiling, so a kernel that was not ready then can "
            "be neither compiled nor loaded; sample once before forking, or start processes by spawn or forkserver"
        )


def _after_fork() -> None:
    """In a forked child: no pool, since the workers do not exist; and no wait for a compiler that never ends.

    Numba and llvmlite hold a lock each while they compile. Held by another thread at the fork it would hang the child
    at its first new kernel, and LLVM is left half done, so fresh locks would not help: the child is told instead. What
    was compiled before the fork needs neither lock. The parent is unchanged.
    """
    global _lock
    _lock = threading.Lock()
    _pools.clear()
    if not all(holder._lock.acquire(blocking=False) for holder in (global_compiler_lock, ffi.lib._lock)):
        global_compiler_lock._lock = ffi.lib._lock._lock = _HeldForEver()  # type: ignore[assignment]
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
    write disjoint rows. An exception in any range is raised here, after all ranges have ended. Where no thread can be
    had, as at the end of the interpreter, the caller's thread works on every range.

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
    unclaimed: dict[tuple[int, int], None] = dict.fromkeys(bounds)
    outcome: dict[tuple[int, int], tuple[Any, BaseException | None]] = {}

    def run(bound: tuple[int, int]) -> None:
        if unclaimed.pop(bound, False) is None:  # atomic: each range is worked on once
            try:
                outcome[bound] = work(*bound), None
            except BaseException as error:  # raised below, when all ranges have ended
                outcome[bound] = None, error

    futures = []
    for bound in bounds[1:]:
        try:
            futures.append(_pool(threads - 1).submit(run, bound))
        except RuntimeError:  # the interpreter is ending, or the system gives no more threads
            break
    for bound in (bounds[0], *bounds[len(futures) + 1 :]):
        run(bound)
    for future in futures:
        future.result()
    while len(outcome) < len(bounds):  # another thread took a range whose submission failed
        time.sleep(1e-4)
    for bound in bounds:
        error = outcome[bound][1]
        if error is not None:
            raise error
    return [outcome[bound][0] for bound in bounds]
