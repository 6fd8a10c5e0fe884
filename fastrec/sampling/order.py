"""The stateless order of visit: a keyed bijection of positions, with random access, and the Cursor that walks it."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError
from fastrec.jit import inline, njit
from fastrec.sampling.philox import TAG_ORDER, philox4x32

ROUNDS = 6


class Cursor(NamedTuple):
    """Where training stands: two integers, and with them the whole data state."""

    epoch: int
    position: int
    """Index into the epoch's order of visit, 0 to n; not the position of a positive in the CSR."""


@inline
def _mix(x, key):  # type: ignore[no-untyped-def]
    """A 32-bit keyed hash (the finaliser of MurmurHash3 with a key added), as uint64."""
    low = np.uint64(0xFFFFFFFF)
    x = (x + key) & low
    x ^= x >> np.uint64(16)
    x = (x * np.uint64(0x85EBCA6B)) & low
    x ^= x >> np.uint64(13)
    x = (x * np.uint64(0xC2B2AE35)) & low
    return x ^ (x >> np.uint64(16))


@njit
def fill_order(n, keys, half, start, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[k] = pi(start + k) for k in [lo, hi): Feistel rounds over 2 * half bits, walked until below n."""
    mask = (np.uint64(1) << half) - np.uint64(1)
    top = np.uint64(n)
    for k in range(lo, hi):
        x = np.uint64(start + k)
        while True:
            left, right = x >> half, x & mask
            for r in range(keys.shape[0]):
                left, right = right, left ^ (_mix(right, keys[r]) & mask)
            x = (left << half) | right
            if x < top:
                break
        out[k] = np.int64(x)


@njit
def round_keys(seed, epoch, out):  # type: ignore[no-untyped-def]
    """The keys of one epoch's bijection: words of Philox under TAG_ORDER."""
    for k in range(out.shape[0]):
        words = philox4x32(np.uint64(k), np.uint64(0), epoch, np.uint64(0), seed, np.uint64(TAG_ORDER))
        out[k] = words[0]


class Order:
    """A permutation of [0, n) for each epoch, addressed by (seed, epoch): no epoch-sized array, random access.

    Parameters
    ----------
    n : int
        Number of positives.
    seed : int
        0 to 2^32-1.
    """

    def __init__(self, n: int, seed: int) -> None:
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed={seed}: must lie in 0 to 2^32-1")
        self.n, self.seed = int(n), int(seed)
        bits = max(2, (max(self.n, 2) - 1).bit_length())
        self._half = np.uint64(-(-bits // 2))

    def positions(self, epoch: int, start: int, stop: int, out: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """int64[stop - start]: the positions visited from ``start`` to ``stop`` (exclusive) of an epoch."""
        if not 0 <= start <= stop <= self.n:
            raise ConfigError(f"order of {self.n} positions: [{start}, {stop}) does not lie in it")
        keys = np.empty(ROUNDS, np.uint64)
        round_keys(np.uint64(self.seed), np.uint64(epoch), keys)
        if out is None:
            out = np.empty(stop - start, np.int64)
        fill_order(self.n, keys, self._half, start, out, 0, stop - start)
        return out
