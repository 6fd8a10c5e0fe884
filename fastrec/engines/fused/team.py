"""Threads that divide the pieces of many steps inside one compiled call, instead of synchronising in Python per pass.

Every piece is claimed by an atomic count, from the thread's own pieces first and then from the others'. So a thread
that comes late, or never, costs only speed: whoever is there does the work, and waits only for pieces that another has
begun. Waiting spins for some microseconds and then gives the processor away at each look.
"""

# ruff: noqa: ARG001 - Numba fixes the arguments of an intrinsic and of its builder.

from __future__ import annotations

import ctypes
import platform
from typing import Any

from llvmlite import binding, ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from fastrec.jit import inline

LINE = 8
"""int64 of a cache line: every counter has one of its own."""

SPINS = 2000
"""Looks before the first yield: some 30 to 60 microseconds, about what a hand-over between Python threads takes."""

_I32, _I64 = ir.IntType(32), ir.IntType(64)
_RELAX = {"x86_64": ("x86.sse2.pause", []), "aarch64": ("aarch64.hint", [1]), "arm64": ("aarch64.hint", [1])}
_give_way = types.ExternalFunction("fastrec_sched_yield", types.int32())
# by an address of this process, named again at each start, so that compiled code finds it after a stay on disk too
binding.add_symbol("fastrec_sched_yield", ctypes.cast(ctypes.CDLL(None).sched_yield, ctypes.c_void_p).value)


def _counter(context: Any, builder: Any, kind: Any, array: Any, at: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.gep(data, [builder.mul(at, _I64(LINE))])


@intrinsic
def count(typing: Any, counters: Any, at: Any) -> Any:
    """Add 1 to counter ``at`` and return what it was; what was written before is seen by whoever sees the new value."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        place = _counter(context, builder, signature.args[0], *args)
        return builder.atomic_rmw("add", place, _I64(1), "seq_cst")

    return types.int64(counters, types.int64), build


@intrinsic
def look(typing: Any, counters: Any, at: Any) -> Any:
    """Counter ``at``, and everything written before it was last counted."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load_atomic(_counter(context, builder, signature.args[0], *args), "seq_cst", 8)

    return types.int64(counters, types.int64), build


@intrinsic
def _relax(typing: Any) -> Any:
    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        if platform.machine() in _RELAX:
            name, numbers = _RELAX[platform.machine()]
            kind = ir.FunctionType(ir.VoidType(), [_I32] * len(numbers))
            hint = cgutils.get_or_insert_function(builder.module, kind, f"llvm.{name}")
            builder.call(hint, [_I32(number) for number in numbers])
        return context.get_dummy_value()

    return types.void(), build


@inline
def wait(counters, at, n, spins):  # type: ignore[no-untyped-def]
    """Return once counter ``at`` has reached ``n``."""
    looks = 0
    while look(counters, at) < n:
        looks += 1
        if looks < spins:
            _relax()
        else:
            _give_way()


@inline
def claim(counters, first, turn, me, n_threads, n):  # type: ignore[no-untyped-def]
    """Next piece of ``n`` that nobody has begun, and the turn it was found in; -1 when there is none left.

    Counters ``first`` to ``first + n_threads`` count the claims. ``turn`` is 0 at first, and then what the last
    call returned: 0 is the own.
    """
    while turn < n_threads:
        owner = (me + turn) % n_threads
        lo, hi = n * owner // n_threads, n * (owner + 1) // n_threads
        if lo < hi:
            piece = lo + count(counters, first + owner)
            if piece < hi:
                return piece, turn
        turn += 1
    return -1, turn
