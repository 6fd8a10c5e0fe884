"""The kernels of ranking: how many items score as high as a positive, counted without sorting.

Scores in float32 decide, except within their own rounding error of the positive's: there both are computed again as
strictly ordered float64 sums. So ranks from vectors are the same for any BLAS, block, thread count and machine, and
equal vectors always tie.

B rows, C candidates, I items, D dim.
"""

from __future__ import annotations

import numpy as np

from fastrec.jit import njit, njit_float

_AT_ONCE = 256
"""Scores counted before a look at whether any was close: few enough that a second look costs little."""


@njit
def exact_score(user_vectors, item_vectors, item_bias, user, item):  # type: ignore[no-untyped-def]
    """Float64 dot product plus bias; four sums in a fixed order, because one would wait for itself at each step."""
    d = user_vectors.shape[1]
    a = b = c = e = 0.0
    k = 0
    while k + 4 <= d:
        a += np.float64(user_vectors[user, k]) * np.float64(item_vectors[item, k])
        b += np.float64(user_vectors[user, k + 1]) * np.float64(item_vectors[item, k + 1])
        c += np.float64(user_vectors[user, k + 2]) * np.float64(item_vectors[item, k + 2])
        e += np.float64(user_vectors[user, k + 3]) * np.float64(item_vectors[item, k + 3])
        k += 4
    while k < d:
        a += np.float64(user_vectors[user, k]) * np.float64(item_vectors[item, k])
        k += 1
    return ((a + b) + (c + e)) + np.float64(item_bias[item])


@njit
def recount(user_vectors, item_vectors, item_bias, user, positive, first, scores, low, high):  # type: ignore[no-untyped-def]
    """Of items ``first``, ``first + 1``, ... with ``scores`` in ``low`` to ``high``: how many score as high exactly."""
    exact = exact_score(user_vectors, item_vectors, item_bias, user, positive)
    ahead = 0
    for c in range(scores.shape[0]):
        if low <= scores[c] <= high:
            ahead += exact_score(user_vectors, item_vectors, item_bias, user, first + c) >= exact
    return ahead


@njit_float
def candidate_ranks(  # type: ignore[no-untyped-def]
    user_vectors, item_vectors, item_bias, margins, users, positives, candidates, out, lo, hi
):
    """Fill ``out[lo:hi]`` with the rank of each positive among its row of candidates (-1 is padding)."""
    n, d = candidates.shape[1], user_vectors.shape[1]
    scores = np.empty(n, np.float32)
    for row in range(lo, hi):
        user, positive = users[row], positives[row]
        target = np.float32(0.0)
        for k in range(d):
            target += user_vectors[user, k] * item_vectors[positive, k]
        target += item_bias[positive]
        margin = margins[user]
        ahead = 0
        close = 0
        for c in range(n):
            item = candidates[row, c]
            if item < 0:
                scores[c] = -np.inf
                continue
            score = np.float32(0.0)
            for k in range(d):
                score += user_vectors[user, k] * item_vectors[item, k]
            score += item_bias[item]
            scores[c] = score
            ahead += score - target > margin
            close += abs(score - target) <= margin
        if close:
            exact = exact_score(user_vectors, item_vectors, item_bias, user, positive)
            for c in range(n):
                if abs(scores[c] - target) <= margin:
                    item = candidates[row, c]
                    ahead += exact_score(user_vectors, item_vectors, item_bias, user, item) >= exact
        out[row] = 1 + ahead


@njit
def take(scores, bias, users, indptr, items, out, lo, hi):  # type: ignore[no-untyped-def]
    """For rows [lo, hi) of ``scores`` [B, I], of ``users``: write the score of each user's items, in CSR order."""
    for row in range(lo, hi):
        for k in range(indptr[users[row]], indptr[users[row] + 1]):
            out[k] = scores[row, items[k]] + bias[items[k]]


@njit
def hide(scores, users, indptr, items, lo, hi):  # type: ignore[no-untyped-def]
    """For rows [lo, hi) of ``scores`` [B, I], of ``users``: put each user's items below every score."""
    for row in range(lo, hi):
        for k in range(indptr[users[row]], indptr[users[row] + 1]):
            scores[row, items[k]] = -np.inf


@njit_float
def count_ahead(  # type: ignore[no-untyped-def]
    user_vectors, item_vectors, item_bias, margins, scores, bias, users, indptr, items, targets, out, lo, hi
):
    """For each positive of ``users[lo:hi]`` (CSR ``indptr``, ``items``), count the items that score as high.

    ``targets`` holds the positives' own scores, ``out`` takes the counts, both in CSR order. ``scores`` [B, I] lack
    ``bias`` [I] and hold -inf where an item does not count. With no vectors (D = 0) scores compare as they are.
    """
    n_items, d = scores.shape[1], user_vectors.shape[1]
    row_scores = np.empty(n_items, np.float32)
    for row in range(lo, hi):
        user = users[row]
        margin = margins[user]
        for c in range(n_items):
            row_scores[c] = scores[row, c] + bias[c]
        for k in range(indptr[user], indptr[user + 1]):
            low, high = targets[k] - margin, targets[k] + margin
            ahead = 0
            for start in range(0, n_items, _AT_ONCE):
                part = row_scores[start : start + _AT_ONCE]  # a slice: the loop over it vectorises, over a range not
                over, reach = np.float32(0.0), np.float32(0.0)  # float counters: int64 ones would widen each compare
                for c in range(part.shape[0]):
                    over += np.float32(part[c] > high)
                    reach += np.float32(part[c] >= low)
                if reach == over:
                    ahead += np.int64(over)
                elif d:
                    ahead += np.int64(over)
                    ahead += recount(user_vectors, item_vectors, item_bias, user, items[k], start, part, low, high)
                else:
                    ahead += np.int64(reach)
            out[k] = ahead
