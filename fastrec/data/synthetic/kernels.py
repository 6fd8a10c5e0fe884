"""The kernels of the synthetic log. IEEE sums, products, quotients and square roots only: the same on every machine.

U users, I items, E interactions, G topics. Item number ``k`` belongs to topic ``k % G`` and is the ``k // G``-th most
popular there; a permutation then hides both from its id. A user has three favourite topics. An interaction draws one of
them, or any, then an item of that topic by popularity: probabilistic latent semantic analysis run forwards.

Source: Hofmann, "Latent semantic models for collaborative filtering", ACM TOIS 22(1), 2004, section 3.
"""

from __future__ import annotations

import numpy as np

from fastrec.jit import inline, njit
from fastrec.sampling.philox import TAG_SYNTHETIC, philox4x32

# The slot block says what an address is for; its position is an interaction's, a user's or an item's index.
_DRAW, _USER, _ITEM = np.uint64(0), np.uint64(1 << 16), np.uint64(2 << 16)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(0xFFFF)
_32 = np.uint64(32)
_16 = np.uint64(16)
_ONE = np.uint64(1)
_2_32 = 4294967296.0

TASTE_TRIES, POPULAR_TRIES, ANY_TRIES = 8, 4, 12
"""Attempts at an item not yet in the row: by taste, by popularity only, by neither; then the exact finish."""

HEAD = 0.15
"""Where popularity bends, as a fraction of a topic's items: its first item is drawn (1 + 1 / HEAD)^2 = 59 times as
often as its last. With the fractions below, popularity ranks 99 candidates about as well as it does on MovieLens-1M."""

_FIRST, _SECOND, _THIRD = np.uint64(8), np.uint64(12), np.uint64(14)
"""Cumulative sixteenths of a user's interactions in the three favourite topics; the rest is any topic."""

FIRST_DAY, REGISTRATION_S = 946_684_800, 63_072_000
"""Users begin within the two years from 2000-01-01 UTC on."""


@inline
def _words(position, use, attempt, seed):  # type: ignore[no-untyped-def]
    """Four 32-bit words of the address (position, use, attempt) under TAG_SYNTHETIC."""
    p = np.uint64(position)
    return philox4x32(p & _LOW, p >> _32, np.uint64(0), use | np.uint64(attempt), seed, np.uint64(TAG_SYNTHETIC))


@inline
def _below(word, n):  # type: ignore[no-untyped-def]
    """A 32-bit word as an integer in [0, n); uniform to within n / 2^32."""
    return np.int64((word * np.uint64(n)) >> _32)


@inline
def _popular(word, n):  # type: ignore[no-untyped-def]
    """A rank in [0, n) with density proportional to 1 / (rank / n + HEAD)^2: its distribution inverted."""
    u = (np.float64(word) + 0.5) / _2_32
    rank = np.int64(HEAD * u / (1.0 + HEAD - u) * n)
    return rank if rank < n else n - 1


@inline
def _topic(word, n_topics):  # type: ignore[no-untyped-def]
    """A topic, low numbers more common: the smaller of two draws."""
    n = np.uint64(n_topics)
    return np.int64(min(((word >> _16) * n) >> _16, ((word & _HALF) * n) >> _16))


@inline
def second_topic(number, n_topics):  # type: ignore[no-untyped-def]
    """The second topic of an item number; its first topic again if it has only one."""
    rank = np.uint64(number // n_topics)
    shift = (((rank + _ONE) * np.uint64(0x9E3779B97F4A7C15)) >> _32) * np.uint64(n_topics) >> _32
    return (number % n_topics + np.int64(shift)) % n_topics


@inline
def _number(rank, topic, second, n_items, n_topics):  # type: ignore[no-untyped-def]
    """The item number of a rank in a topic, or of the item of that rank whose second topic it is."""
    if second:
        shift = second_topic(rank * n_topics, n_topics)
        other = rank * n_topics + (topic - shift + n_topics) % n_topics
        if other < n_items:
            return other
    return rank * n_topics + topic


@njit
def user_weights(seed, out, lo, hi):  # type: ignore[no-untyped-def]
    """Activity of users [lo, hi), float64: Lomax (Pareto II) of exponent 2, close to MovieLens-1M's quartiles."""
    for u in range(lo, hi):
        x = (np.float64(_words(u, _USER, 1, seed)[0]) + 0.5) / _2_32
        out[u] = 1.0 / np.sqrt(1.0 - x) - 1.0


@njit
def apportion(weights, total, cap, out):  # type: ignore[no-untyped-def]
    """Add ``total`` units to int64 ``out`` in proportion to weights, no entry above ``cap``; returns what did not fit.

    Sums run in one fixed order, so that the rounding is the same everywhere.
    """
    mass = 0.0
    for u in range(weights.shape[0]):
        if out[u] < cap:
            mass += weights[u]
    seen = 0.0
    given = 0
    rest = 0
    for u in range(weights.shape[0]):
        if out[u] < cap:
            seen += weights[u]
            upto = np.int64(np.float64(total) * (seen / mass))
            more = upto - given
            given = upto
            room = cap - out[u]
            if more > room:
                rest += more - room
                more = room
            out[u] += more
    return rest


@njit
def shuffled(seed, out):  # type: ignore[no-untyped-def]
    """Fill int32 ``out`` with a permutation of its indices (Fisher-Yates, inside out)."""
    for i in range(out.shape[0]):
        j = _below(_words(i, _ITEM, 0, seed)[0], i + 1)
        out[i] = out[j]
        out[j] = i


@njit
def item_facts(seed, ids, n_topics, first_year, last_year, first, second, years):  # type: ignore[no-untyped-def]
    """Fill topics and release year of each item id; recent years are commoner."""
    for number in range(ids.shape[0]):
        item = ids[number]
        first[item] = number % n_topics
        second[item] = second_topic(number, n_topics)
        w = _words(number, _ITEM, 1, seed)
        n = last_year - first_year + 1
        years[item] = last_year - min(_below(w[0], n), _below(w[1], n))


@inline
def _nth_free(seen, n):  # type: ignore[no-untyped-def]
    """The n-th (from 0) clear bit of a bitmap."""
    word = 0
    while True:
        taken = seen[word]
        free = 0
        for bit in range(64):
            if not (taken >> np.uint64(bit)) & _ONE:
                if n == free:
                    return word * 64 + bit
                free += 1
        n -= free
        word += 1


@inline
def _free_item(position, favourites, seen, taken, ids, n_topics, seed):  # type: ignore[no-untyped-def]
    """An item id whose bit in ``seen`` is clear, and the words that gave it. ``taken``: how many bits are set."""
    n_items = ids.shape[0]
    for attempt in range(TASTE_TRIES + POPULAR_TRIES + ANY_TRIES):
        w = _words(position, _DRAW, attempt, seed)
        if attempt < TASTE_TRIES + POPULAR_TRIES:
            part = w[0] >> np.uint64(28) if attempt < TASTE_TRIES else np.uint64(15)
            if part < _FIRST:
                topic = favourites[0]
            elif part < _SECOND:
                topic = favourites[1]
            elif part < _THIRD:
                topic = favourites[2]
            else:
                topic = _topic(w[2], n_topics)
            rank = _popular(w[1], (n_items - topic + n_topics - 1) // n_topics)
            second = (w[0] >> np.uint64(26)) & np.uint64(3) == np.uint64(0)
            item = np.int64(ids[_number(rank, topic, second, n_items, n_topics)])
        else:
            item = _below(w[1], n_items)
        if not (seen[item >> 6] >> np.uint64(item & 63)) & _ONE:
            return item, w
    w = _words(position, _DRAW, TASTE_TRIES + POPULAR_TRIES + ANY_TRIES, seed)
    return np.int64(_nth_free(seen, _below(w[1], n_items - taken))), w


@njit
def draw_rows(indptr, ids, n_topics, seed, seen, keys, times, items, timestamps, lo, hi):  # type: ignore[no-untyped-def]
    """Fill the rows of users [lo, hi): distinct items, ascending, and (if not empty) the time of each.

    Scratch of this range's own: ``seen`` uint64[I // 64 + 1], clear; ``keys`` and ``times`` int64[largest degree].
    """
    timed = timestamps.shape[0] > 0
    n_users = indptr.shape[0] - 1
    for u in range(lo, hi):
        a = indptr[u]
        degree = indptr[u + 1] - a
        w = _words(u, _USER, 0, seed)
        favourites = (_topic(w[0], n_topics), _topic(w[1], n_topics), _topic(w[2], n_topics))
        pauses = np.uint64(196608 // max(degree, 192))  # three of an hour to 12 days, whatever the degree
        clock = np.int64(FIRST_DAY) + _below(w[3], REGISTRATION_S)
        for s in range(degree):
            if (
                s < degree // 4 and u + s * n_users < ids.shape[0]
            ):  # each item is dealt to one user, so that none is unmet
                item, w = np.int64(ids[u + s * n_users]), _words(a + s, _DRAW, 0, seed)
            else:
                item, w = _free_item(a + s, favourites, seen, s, ids, n_topics, seed)
            seen[item >> 6] |= _ONE << np.uint64(item & 63)
            times[s] = clock
            clock += 1 + np.int64(w[0] & np.uint64(63))
            if (w[0] >> np.uint64(6)) & _HALF < pauses:
                clock += 3600 + np.int64(w[2] & np.uint64(0xFFFFF))
            # inside-out shuffle of the moments: the time of an interaction does not depend on how it was drawn
            j = _below(w[3], s + 1)
            keys[s] = (item << 32) | s
            keys[s] = (item << 32) | (keys[j] & 0xFFFFFFFF)
            keys[j] = (keys[j] >> 32 << 32) | s
        keys[:degree].sort()
        for s in range(degree):
            item = keys[s] >> 32
            seen[item >> 6] = np.uint64(0)
            items[a + s] = item
            if timed:
                timestamps[a + s] = times[keys[s] & 0xFFFFFFFF]
