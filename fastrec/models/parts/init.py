"""Initial weights by address: each element is a function of (seed, name of the tensor, index)."""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from fastrec.jit import njit
from fastrec.sampling.philox import TAG_WEIGHTS, philox4x32

_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@njit
def _fill_normal(seed, table, std, out):  # type: ignore[no-untyped-def]
    """out[k] = std * Box-Muller of words k % 4 of block k // 4, in float64, rounded once."""
    for block in range((out.shape[0] + 3) // 4):
        b = np.uint64(block)
        words = philox4x32(b & _LOW, b >> _32, table, np.uint64(0), seed, np.uint64(TAG_WEIGHTS))
        for pair in range(2):
            a, c = (words[0], words[1]) if pair == 0 else (words[2], words[3])
            radius = std * math.sqrt(-2.0 * math.log((np.float64(a) + 0.5) * 2.0**-32))
            angle = 2.0 * math.pi * (np.float64(c) + 0.5) * 2.0**-32
            k = 4 * block + 2 * pair
            if k < out.shape[0]:
                out[k] = radius * math.cos(angle)
            if k + 1 < out.shape[0]:
                out[k + 1] = radius * math.sin(angle)


@njit
def _fill_uniform(seed, table, bound, out):  # type: ignore[no-untyped-def]
    for block in range((out.shape[0] + 3) // 4):
        b = np.uint64(block)
        words = philox4x32(b & _LOW, b >> _32, table, np.uint64(0), seed, np.uint64(TAG_WEIGHTS))
        for lane in range(min(4, out.shape[0] - 4 * block)):
            word = words[0] if lane == 0 else words[1] if lane == 1 else words[2] if lane == 2 else words[3]
            out[4 * block + lane] = bound * (2.0 * (np.float64(word) + 0.5) * 2.0**-32 - 1.0)


def normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> NDArray[np.float32]:
    """float32[shape] of N(0, std^2), addressed by (seed, name, index).

    The name's CRC-32 fills the epoch word, so that a tensor starts the same in every model that has one of its name.

    Guarantee: the first rows of a table do not depend on how many rows follow.
    """
    out = np.empty(math.prod(shape), np.float32)
    _fill_normal(np.uint64(seed), np.uint64(zlib.crc32(name.encode())), float(std), out)
    return out.reshape(shape)


def uniform(name: str, shape: tuple[int, ...], bound: float, seed: int) -> NDArray[np.float32]:
    """float32[shape] uniform in (-bound, bound), addressed like ``normal``."""
    out = np.empty(math.prod(shape), np.float32)
    _fill_uniform(np.uint64(seed), np.uint64(zlib.crc32(name.encode())), float(bound), out)
    return out.reshape(shape)
