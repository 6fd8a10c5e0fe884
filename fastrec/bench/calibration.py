"""A fixed single-thread kernel, timed with everything else: how fast this machine is at this moment.

It never changes: neither the body, nor the flags (so they are written out here instead of taken from ``fastrec.jit``),
nor the table. A change would need a new ``REFERENCE_RATE`` and would cut the records in two.
"""

from __future__ import annotations

import time
from typing import Any

import numba
import numpy as np

STEPS = 1 << 22
TABLE_BITS = 18
REFERENCE_RATE = 5.4e8
"""Steps a second on the machine of the first records (2 cores of an Intel Xeon, model 167, KVM), 2026-11-23."""
EXPECTED = 550122412252

_table: Any = None


@numba.njit(nogil=True, cache=True, error_model="numpy")
def _kernel(table, steps):  # type: ignore[no-untyped-def]
    """A xorshift chain (latency of integer arithmetic) with an independent gather from 1 MiB (second-level cache)."""
    x = np.uint64(88172645463325252)
    total = np.uint64(0)
    for _ in range(steps):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
        total += np.uint64(table[x >> np.uint64(64 - 18)])
    return total


def calibration_rate() -> float:
    """Steps of the kernel a second, from one run of about 10 ms (compiled at the first call).

    Raises
    ------
    AssertionError
        If the kernel's result is not the known one: then it is not the same kernel.
    """
    global _table
    if _table is None:
        _table = np.arange(1 << TABLE_BITS, dtype=np.uint32)
        assert int(_kernel(_table, STEPS)) == EXPECTED, "the calibration kernel was changed"
    started = time.perf_counter()
    _kernel(_table, STEPS)
    return STEPS / (time.perf_counter() - started)
