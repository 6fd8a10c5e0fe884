"""The random definition: Philox4x32-10, the address layout, and exact bounded integers.

Every random number has an address. The counter words are ``(position lo, position hi, epoch, slot block << 16 |
attempt)`` and the key words ``(seed, TAG)``, with one TAG per use. The position of a training positive is its
identity, ``user << 32 | item``. Slot ``s`` reads word ``s % 4`` of the block
``(s // 4, attempt)``, so one call serves four slots and columns nest. Coordinates are separate words, never added.

Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011, section 4; bounded integers after Lemire,
"Fast random integer generation in an interval", ACM TOMACS 29(1), 2019.
"""

from __future__ import annotations

import numpy as np

from fastrec.jit import inline

STREAM_VERSION = 2
"""Version of the layout in docs/stream.md. A change of any drawn byte bumps it, and CHANGELOG says so.

Version 1 addressed training positives by their row in the CSR, and weights by a running index."""

# One TAG per use of randomness: the second key word.
TAG_NEGATIVES = 1
TAG_POPULARITY = 2
TAG_ORDER = 3
TAG_CANDIDATES = 4
TAG_VALIDATION = 5
TAG_WEIGHTS = 6
TAG_DROPOUT = 7
TAG_ROUNDING = 8
TAG_SYNTHETIC = 9
TAG_EXISTING = 10
TAG_BOOTSTRAP = 11

MAX_ATTEMPTS = 8
"""T: after so many attempts of a slot (Lemire misses and rejections both count) the draw finishes exactly."""

_M0 = np.uint64(0xD2511F53)
_M1 = np.uint64(0xCD9E8D57)
_W0 = np.uint64(0x9E3779B9)
_W1 = np.uint64(0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_32 = np.uint64(32)


@inline
def philox4x32(c0, c1, c2, c3, k0, k1):  # type: ignore[no-untyped-def]
    """Philox4x32-10: four 32-bit words of counter and two of key, all as uint64, to four 32-bit words as uint64."""
    for _ in range(10):
        p0 = c0 * _M0
        p1 = c2 * _M1
        c0, c1, c2, c3 = ((p1 >> _32) ^ c1 ^ k0), (p1 & _LOW), ((p0 >> _32) ^ c3 ^ k1), (p0 & _LOW)
        k0 = (k0 + _W0) & _LOW
        k1 = (k1 + _W1) & _LOW
    return c0, c1, c2, c3


@inline
def mulhi64(a, b):  # type: ignore[no-untyped-def]
    """High and low 64 bits of the 128-bit product of two uint64."""
    a0, a1 = a & _LOW, a >> _32
    b0, b1 = b & _LOW, b >> _32
    low = a0 * b0
    middle = a1 * b0 + (low >> _32)
    other = a0 * b1 + (middle & _LOW)
    return a1 * b1 + (middle >> _32) + (other >> _32), other << _32 | low & _LOW
