"""Dropout by address: which units are dropped is a function of (seed, epoch, position, layer, column, unit).

B batch rows, K items a row, W width.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec.errors import ConfigError
from fastrec.jit import njit, resolve_threads, run_ranges
from fastrec.sampling.philox import TAG_DROPOUT, philox4x32


@njit
def fill_kept(seed, epoch, layer, positions, limit, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[r, k, w] = whether word w % 4 of block w // 4 is at least ``limit``; one block serves four units.

    Counter: position lo, position hi, epoch, ((layer * K + k) << 16 | w // 4).
    """
    low = np.uint64(0xFFFFFFFF)
    columns, width = out.shape[1], out.shape[2]
    n_blocks, full = (width + 3) // 4, width // 4
    words = np.empty((4, n_blocks), np.uint32)  # apart by lane: LLVM then draws several blocks at once
    a, b, c, e = words[0], words[1], words[2], words[3]
    least = np.uint32(limit)
    for r in range(lo, hi):
        position = np.uint64(positions[r])
        p0, p1 = position & low, position >> np.uint64(32)
        for k in range(columns):
            slot = np.uint64(layer * columns + k) << np.uint64(16)
            for n in range(n_blocks):
                drawn = philox4x32(p0, p1, epoch, slot | np.uint64(n), seed, np.uint64(TAG_DROPOUT))
                a[n], b[n], c[n], e[n] = drawn[0], drawn[1], drawn[2], drawn[3]
            row = out[r, k]
            for n in range(full):
                row[4 * n] = a[n] >= least
                row[4 * n + 1] = b[n] >= least
                row[4 * n + 2] = c[n] >= least
                row[4 * n + 3] = e[n] >= least
            for w in range(4 * full, width):
                row[w] = words[w % 4, w // 4] >= least


class AddressedDropout:
    """Inverted dropout whose mask is recomputed from addresses: no generator, so that a resumed run drops the same.

    Parameters
    ----------
    rate : float
        Fraction of units dropped, 0 to 0.99; the others grow by 1 / (1 - rate).
    seed : int
        0 to 2^32-1.
    threads : int, optional
        CPU threads of the mask.
    """

    def __init__(self, rate: float, seed: int, *, threads: int | None = None) -> None:
        self.rate, self.seed = rate, seed
        self.limit = np.uint64(round(rate * 2**32))
        """A unit is dropped where its word is below."""
        self._threads = resolve_threads(threads)
        self._epoch: Any = 0
        self._positions: Any = None

    def at(self, epoch: int, positions: Tensor) -> None:
        """Set the batch: its epoch, and int64[B] positions."""
        self._epoch, self._positions = epoch, positions

    def __call__(self, x: Tensor, layer: int) -> Tensor:
        """[B, K, W] with units dropped."""
        return x * self.kept(x.shape, layer).to(x.dtype).mul_(1.0 / (1.0 - self.rate))

    @staticmethod
    def check(layer: int, columns: int, width: int) -> None:
        """Raise ConfigError where a layer's units have no addresses of their own."""
        if (layer + 1) * columns > 65536 or width > 4 * 65536:
            raise ConfigError(
                f"dropout: layer {layer} of {columns} columns and width {width} has no address; shrink it"
            )

    def kept(self, shape: torch.Size, layer: int) -> Tensor:
        """bool[B, K, W]: the mask."""
        rows, columns, width = shape
        self.check(layer, columns, width)
        if self._positions.device.type != "cpu":
            from fastrec.models.parts.dropout_cuda import kept

            return kept(self.seed, self._epoch, layer, self._positions, int(self.limit), (rows, columns, width))
        out = np.empty((rows, columns, width), np.bool_)
        positions, seed, epoch = self._positions.numpy(), np.uint64(self.seed), np.uint64(int(self._epoch))

        def work(lo: int, hi: int) -> None:
            fill_kept(seed, epoch, layer, positions, self.limit, out, lo, hi)

        run_ranges(work, rows, self._threads, grain=64)
        return torch.from_numpy(out)
