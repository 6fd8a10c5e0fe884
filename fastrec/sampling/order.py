"""The stateless order of visit: a keyed bijection of positions, with random access, and the Cursor that walks it.

A position x of n is written as (left, right) = (x mod a, x div a) with a = ceil(sqrt(n)) and b = ceil(n / a). Six
rounds add to one part a keyed hash of the other, left modulo a, right modulo b, in turn; where a < 64 it is 24 rounds,
because over so few values six leave a bias that a chi-square test sees. A result of n or more (fewer than a of the
a * b there are) walks on through the same rounds. Each round is a bijection whatever the hash, so all together are.

Source: Black and Rogaway, "Ciphers with arbitrary finite domains", CT-RSA 2002, section 5 (generalised Feistel) and
section 4 (cycle walking); the hash is the finaliser of MurmurHash3 (Appleby, 2011) with the key added.
"""

from __future__ import annotations

from math import isqrt
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int, memory
from fastrec.errors import ConfigError
from fastrec.jit import inline, njit
from fastrec.sampling.philox import TAG_ORDER, philox4x32
from fastrec.sampling.simd import ORDER_LANES, order_step

ROUNDS, SMALL_ROUNDS = 6, 24
MAX_POSITIONS = 2**62
_32 = np.uint64(32)


class Cursor(NamedTuple):
    """The position of training: two integers, and with them the entire data state."""

    epoch: int
    position: int
    """Index into the epoch's order of visit, 0 to n; not the position of a positive in the CSR."""


@inline
def _hashed(x, key, m):  # type: ignore[no-untyped-def]
    """A keyed 32-bit hash of ``x`` uint32, scaled to [0, m)."""
    x = np.uint32(x + key)
    x = np.uint32(x ^ (x >> np.uint32(16)))
    x = np.uint32(x * np.uint32(0x85EBCA6B))
    x = np.uint32(x ^ (x >> np.uint32(13)))
    x = np.uint32(x * np.uint32(0xC2B2AE35))
    return np.uint32((np.uint64(x) * np.uint64(m)) >> _32)


@inline
def _added(x, y, m):  # type: ignore[no-untyped-def]
    """(x + y) mod m for x, y < m <= 2^31."""
    s = np.uint32(x + y)
    return min(s, np.uint32(s - m))  # s - m wraps round to a large number where s < m


@inline
def _walked(position, n, a, b, keys):  # type: ignore[no-untyped-def]
    """The rounds over one position, repeated until the result is below n."""
    wide = np.int64(a)
    while True:
        left, right = np.uint32(position % wide), np.uint32(position // wide)
        for r in range(0, keys.shape[0], 2):
            left = _added(left, _hashed(right, keys[r], a), a)
            right = _added(right, _hashed(left, keys[r + 1], b), b)
        position = np.int64(right) * wide + np.int64(left)
        if position < n:
            return position


@njit
def fill_order(n, a, b, keys, start, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[k] = pi(start + k) for k in [lo, hi)."""
    wide = np.int64(a)
    k = lo
    if a >= ORDER_LANES:
        left, right = (start + lo) % wide, (start + lo) // wide
        while k + ORDER_LANES <= hi:
            over = order_step(np.uint32(left), np.uint32(right), a, b, keys, n, out, k)
            if over:  # once in sqrt(n) positions
                for j in range(k, k + ORDER_LANES):
                    if out[j] >= n:
                        out[j] = _walked(out[j], n, a, b, keys)
            k += ORDER_LANES
            left += ORDER_LANES
            if left >= wide:
                left -= wide
                right += 1
    for j in range(k, hi):
        out[j] = _walked(np.int64(start + j), n, a, b, keys)


@njit
def round_keys(seed, epoch, out):  # type: ignore[no-untyped-def]
    """The keys of one epoch's bijection: word 0 of the Philox blocks at positions 0, 1, ... under TAG_ORDER."""
    for k in range(out.shape[0]):
        words = philox4x32(np.uint64(k), np.uint64(0), epoch, np.uint64(0), seed, np.uint64(TAG_ORDER))
        out[k] = words[0]


class Order:
    """A permutation of [0, n) for each epoch, addressed by (seed, epoch): no epoch-sized array, random access.

    Parameters
    ----------
    n : int
        Number of positives, 0 to 2^62.
    seed : int
        0 to 2^32-1.

    Notes
    -----
    Guarantee: a bijection at every n; ``positions(e, i, j)`` equals ``positions(e, 0, n)[i:j]``; unequal (seed, epoch)
    pairs have keys of their own. Cost: about 1 ns a position, no memory but the result.
    """

    def __init__(self, n: int, seed: int) -> None:
        n, seed = as_int("n", n), as_int("seed", seed)
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed={seed}: must be in 0 to 2^32-1")
        if not 0 <= n <= MAX_POSITIONS:
            raise ConfigError(f"n={n}: an order has 0 to 2^62 positions")
        self.n, self.seed = n, seed
        self.a = isqrt(max(self.n, 1) - 1) + 1
        self.b = -(-max(self.n, 1) // self.a)

    def keys(self, epoch: int) -> NDArray[np.uint32]:
        """uint32[6 or 24]: the round keys of one epoch."""
        epoch = as_int("epoch", epoch)
        if not 0 <= epoch < 2**32:
            raise ConfigError(f"epoch={epoch}: must be in 0 to 2^32-1, the counter word it fills")
        out = np.empty(ROUNDS if self.a >= ORDER_LANES else SMALL_ROUNDS, np.uint32)
        round_keys(np.uint64(self.seed), np.uint64(epoch), out)
        return out

    def positions(self, epoch: int, start: int, stop: int, out: NDArray[np.int64] | None = None) -> NDArray[np.int64]:
        """The positions visited from ``start`` to ``stop`` (exclusive) of an epoch.

        Parameters
        ----------
        epoch : int
            0 to 2^32-1.
        start, stop : int
            Range of the order of visit, within 0 to n.
        out : int64[stop - start], optional
            C-contiguous memory to fill.

        Returns
        -------
        int64[stop - start]
            ``out``, or a new array.
        """
        start, stop = as_int("start", start), as_int("stop", stop)
        if not 0 <= start <= stop <= self.n:
            raise ConfigError(f"order of {self.n} positions: [{start}, {stop}) is not in it")
        keys = self.keys(epoch)
        if out is None:
            out = np.empty(stop - start, np.int64)
        out = memory("out", out)
        if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
            raise ConfigError(f"out is a {type(out).__name__}; must be a NumPy array int64[{stop - start}]")
        if out.dtype != np.int64 or out.shape != (stop - start,) or not out.flags.carray:
            raise ConfigError(
                f"out is {out.dtype}{list(out.shape)}; must be C-contiguous, writeable int64[{stop - start}]"
            )
        fill_order(self.n, np.uint32(self.a), np.uint32(self.b), keys, start, out, 0, stop - start)
        return out

    def batch(self, epoch: int, k: int, batch_size: int, *, rank: int = 0, world: int = 1) -> tuple[int, int]:
        """The range [start, stop) of the order that one rank takes of the epoch's k-th batch.

        The ranks' ranges together are the batch exactly: nothing is padded, repeated or dropped, and sizes differ by
        one at most. The last batch of an epoch is the shorter rest.

        Parameters
        ----------
        epoch : int
            0 to 2^32-1; the ranges are the same in every epoch, their content is not.
        k : int
            Which batch, 0 to ceil(n / batch_size) - 1.
        batch_size : int
            Positives of a batch over all ranks.
        rank, world : int
            This rank, 0 to world - 1, of so many.
        """
        k, batch_size, rank, world = (
            as_int("k", k), as_int("batch_size", batch_size), as_int("rank", rank), as_int("world", world)
        )  # fmt: skip
        if batch_size < 1 or world < 1 or not 0 <= rank < world:
            raise ConfigError(f"batch_size={batch_size}, rank={rank}, world={world}: need sizes of 1 and rank < world")
        if not 0 <= k * batch_size < self.n:
            raise ConfigError(f"batch {k} of {batch_size} is not in the {self.n} positions of epoch {epoch}")
        start = k * batch_size
        size = min(batch_size, self.n - start)
        return start + size * rank // world, start + size * (rank + 1) // world
