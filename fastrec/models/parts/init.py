"""Initial weights by address: each element is a function of (seed, name of the tensor, row, column).

The counter words are (column // 4, row, CRC-32 of the name, 0) under TAG_WEIGHTS; column c reads word c % 4. A vector
is a single row.
"""

from __future__ import annotations

import math
import zlib

import numpy as np
from numpy.typing import NDArray

from fastrec.jit import njit
from fastrec.sampling.philox import TAG_WEIGHTS, philox4x32


@njit
def _fill_normal(seed, table, std, out):  # type: ignore[no-untyped-def]
    """out[r, c] = std * Box-Muller of two words of the block (row r, c // 4), in float64, rounded once."""
    zero, tag = np.uint64(0), np.uint64(TAG_WEIGHTS)
    width = out.shape[1]
    for r in range(out.shape[0]):
        row = out[r]
        for block in range((width + 3) // 4):
            words = philox4x32(np.uint64(block), np.uint64(r), table, zero, seed, tag)
            for pair in range(2):
                a, c = (words[0], words[1]) if pair == 0 else (words[2], words[3])
                radius = std * math.sqrt(-2.0 * math.log((np.float64(a) + 0.5) * 2.0**-32))
                angle = 2.0 * math.pi * (np.float64(c) + 0.5) * 2.0**-32
                k = 4 * block + 2 * pair
                if k < width:
                    row[k] = radius * math.cos(angle)
                if k + 1 < width:
                    row[k + 1] = radius * math.sin(angle)


@njit
def _fill_uniform(seed, table, bound, out):  # type: ignore[no-untyped-def]
    """out[r, c] = word c % 4 of the block (row r, c // 4), scaled to (-bound, bound)."""
    zero, tag = np.uint64(0), np.uint64(TAG_WEIGHTS)
    width = out.shape[1]
    for r in range(out.shape[0]):
        row = out[r]
        for block in range((width + 3) // 4):
            words = philox4x32(np.uint64(block), np.uint64(r), table, zero, seed, tag)
            for lane in range(min(4, width - 4 * block)):
                word = words[0] if lane == 0 else words[1] if lane == 1 else words[2] if lane == 2 else words[3]
                row[4 * block + lane] = bound * (2.0 * (np.float64(word) + 0.5) * 2.0**-32 - 1.0)


def normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> NDArray[np.float32]:
    """float32[rows, columns] or float32[columns] of N(0, std^2), addressed by (seed, name, row, column).

    The name's CRC-32 fills the epoch word, so that a tensor starts the same in every model that has one of its name.

    Guarantee: an element does not depend on how many rows and columns there are.
    """
    out = np.empty(shape, np.float32)
    _fill_normal(np.uint64(seed), np.uint64(zlib.crc32(name.encode())), float(std), out.reshape(-1, shape[-1]))
    return out


def uniform(name: str, shape: tuple[int, ...], bound: float, seed: int) -> NDArray[np.float32]:
    """float32[rows, columns] or float32[columns] uniform in (-bound, bound), addressed like ``normal``.

    With a bound that follows from the width (LeCun, Glorot) another width scales the elements and does not redraw them.
    """
    out = np.empty(shape, np.float32)
    _fill_uniform(np.uint64(seed), np.uint64(zlib.crc32(name.encode())), float(bound), out.reshape(-1, shape[-1]))
    return out
