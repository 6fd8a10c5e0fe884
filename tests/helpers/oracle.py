"""What a negative is, in plain Python integers, written from the definition alone: no kernel, no NumPy."""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence
from math import isqrt

M32 = 2**32 - 1
ATTEMPTS = 8
TAG_NEGATIVES, TAG_POPULARITY, TAG_ORDER = 1, 2, 3
TAG_CANDIDATES, TAG_VALIDATION, TAG_WEIGHTS, TAG_DROPOUT, TAG_ROUNDING = 4, 5, 6, 7, 8
TAG_EXISTING = 10


def philox(counter: Sequence[int], key: Sequence[int]) -> tuple[int, int, int, int]:
    """Philox4x32-10 (Salmon et al. 2011)."""
    c, k = list(counter), list(key)
    for _ in range(10):
        p0, p1 = c[0] * 0xD2511F53, c[2] * 0xCD9E8D57
        c = [(p1 >> 32) ^ c[1] ^ k[0], p1 & M32, (p0 >> 32) ^ c[3] ^ k[1], p0 & M32]
        k = [(k[0] + 0x9E3779B9) & M32, (k[1] + 0xBB67AE85) & M32]
    return tuple(c)


def _call(seed, tag, epoch, position, block, attempt):
    return philox((position & M32, position >> 32, epoch, block << 16 | attempt), (seed, tag))


def identity(user: int, item: int) -> int:
    """The position of a training positive."""
    return user << 32 | item


def _bounded(word: int, n: int) -> int | None:
    """Lemire: the candidate, or None where the word must be redrawn."""
    return None if word * n % 2**32 < (2**32 - n) % n else word * n >> 32


def _finish(bits_of_attempt, legal: int, step: int) -> int:
    attempt = ATTEMPTS
    while True:
        product = bits_of_attempt(attempt) * legal
        if product % 2**64 >= 2**64 % legal:
            return product >> 64
        attempt += step


def uniform(row, n_items, n_negatives, *, seed, epoch, position, tag=TAG_NEGATIVES, distinct=False) -> list[int]:
    """The N uniform negatives of one row; -1 throughout where there are too few."""
    if n_items - len(row) < (n_negatives if distinct else 1):
        return [-1] * n_negatives
    drawn: list[int] = []
    for slot in range(n_negatives):
        taken = set(row) | (set(drawn) if distinct else set())

        def word(attempt, slot=slot):
            return _call(seed, tag, epoch, position, slot // 4, attempt)[slot % 4]

        for attempt in range(ATTEMPTS):
            item = _bounded(word(attempt), n_items)
            if item is not None and item not in taken:
                break
        else:
            rank = _finish(lambda a, word=word: word(a) << 32 | word(a + 1), n_items - len(taken), 2)
            item = nth_outside(sorted(taken), rank)
        drawn.append(item)
    return drawn


def existing(row, first_times, time, n_negatives, *, seed, epoch, position, tag=TAG_EXISTING) -> list[int]:
    """N uniform negatives among the items whose ``first_times`` (None: never) are not after ``time``."""
    by_rank = sorted(
        (i for i, t in enumerate(first_times) if t is not None and t <= time), key=lambda i: first_times[i]
    )
    taken = sorted(rank for rank, item in enumerate(by_rank) if item in set(row))
    if len(by_rank) == len(taken):
        return [-1] * n_negatives
    drawn: list[int] = []
    for slot in range(n_negatives):

        def word(attempt, slot=slot):
            return _call(seed, tag, epoch, position, slot // 4, attempt)[slot % 4]

        for attempt in range(ATTEMPTS):
            rank = _bounded(word(attempt), len(by_rank))
            if rank is not None and rank not in taken:
                break
        else:
            wanted = _finish(lambda a, word=word: word(a) << 32 | word(a + 1), len(by_rank) - len(taken), 2)
            rank = nth_outside(taken, wanted)
        drawn.append(by_rank[rank])
    return drawn


def nth_outside(taken: Sequence[int], rank: int) -> int:
    """The rank-th (from 0) natural number that the ascending ``taken`` do not hold."""
    item = rank
    for t in taken:
        if t > item:
            break
        item += 1
    return item


def weighted(
    row, units, alias_table, n_negatives, *, seed, epoch, position, tag=TAG_POPULARITY, distinct=False
) -> list[int]:
    """The same for integer weights ``units`` and their alias table (cut, alias)."""
    n_items, (cut, alias) = len(units), alias_table
    if sum(units[i] > 0 and i not in set(row) for i in range(n_items)) < (n_negatives if distinct else 1):
        return [-1] * n_negatives
    drawn: list[int] = []
    for slot in range(n_negatives):
        taken = set(row) | (set(drawn) if distinct else set())

        def words(attempt, slot=slot):
            w = _call(seed, tag, epoch, position, slot // 2, attempt)
            return w[2 * (slot % 2)], w[2 * (slot % 2) + 1]

        for attempt in range(ATTEMPTS):
            first, second = words(attempt)
            item = _bounded(first, n_items)
            if item is not None:
                item = item if second < cut[item] else alias[item]
                if item not in taken:
                    break
        else:
            legal = [i for i in range(n_items) if i not in taken]
            unit = _finish(lambda a, words=words: words(a)[0] << 32 | words(a)[1], sum(units[i] for i in legal), 1)
            for item in legal:
                if unit < units[item]:
                    break
                unit -= units[item]
        drawn.append(item)
    return drawn


def order(n: int, seed: int, epoch: int) -> list[int]:
    """The whole order of visit of an epoch."""
    a = isqrt(n - 1) + 1
    b = -(-n // a)
    rounds = 6 if a >= 64 else 24
    keys = [_call(seed, TAG_ORDER, epoch, r, 0, 0)[0] for r in range(rounds)]

    def hashed(x, key, m):
        x = (x + key) & M32
        x = (x ^ x >> 16) * 0x85EBCA6B & M32
        x = (x ^ x >> 13) * 0xC2B2AE35 & M32
        return x * m >> 32

    result = []
    for position in range(n):
        while True:
            left, right = position % a, position // a
            for r in range(0, rounds, 2):
                left = (left + hashed(right, keys[r], a)) % a
                right = (right + hashed(left, keys[r + 1], b)) % b
            position = right * a + left
            if position < n:
                break
        result.append(position)
    return result


def validation_key(user: int, item: int, *, seed: int, draw: int) -> int:
    """64 bits by which a user's interactions are ordered; ``draw`` is 0 for validation and 1 for test."""
    words = _call(seed, TAG_VALIDATION, draw, identity(user, item), 0, 0)
    return words[1] << 32 | words[0]


def _weight_words(name: str, row: int, block: int, seed: int) -> tuple[int, int, int, int]:
    return _call(seed, TAG_WEIGHTS, zlib.crc32(name.encode()), row << 32 | block, 0, 0)


def uniform_weight(name: str, row: int, column: int, *, seed: int) -> float:
    """An initial weight of a table in (-1, 1); the model multiplies it by its bound."""
    word = _weight_words(name, row, column // 4, seed)[column % 4]
    return 2 * (word + 0.5) / 2**32 - 1


def normal_weight(name: str, row: int, column: int, *, seed: int) -> float:
    """An initial weight of N(0, 1), by Box and Muller; the model multiplies it by its deviation."""
    words = _weight_words(name, row, column // 4, seed)[column % 4 // 2 * 2 :][:2]
    radius, angle = math.sqrt(-2 * math.log((words[0] + 0.5) / 2**32)), 2 * math.pi * (words[1] + 0.5) / 2**32
    return radius * (math.sin(angle) if column % 2 else math.cos(angle))


def kept(
    position: int, layer: int, column: int, unit: int, *, n_columns: int, rate: float, seed: int, epoch: int
) -> bool:
    """Whether dropout keeps a unit: ``layer`` counts from 1, ``column`` is 0 for the positive, of ``n_columns``."""
    words = _call(seed, TAG_DROPOUT, epoch, position, layer * n_columns + column, unit // 4)
    return words[unit % 4] >= round(rate * 2**32)


def rounding_bits(step: int, table_row: int, column: int, *, seed: int) -> int:
    """16 bits that are added below a bfloat16; ``table_row`` is a user, or 2^31 + an item."""
    return _call(seed, TAG_ROUNDING, table_row, step, column // 4, 0)[column % 4] & 0xFFFF
