"""Kernels of the top-k selection over a tile of scores (hide what a user has seen, keep the k best, sort them), and of
the logistic regression that folds a user in.

B rows, T items of the tile, K kept per row. A heap's root is its worst entry: the lowest score, of equal ones the
highest item. The regression is in float64, by one thread, in a fixed order: equal input gives equal bytes.
"""

from __future__ import annotations

import math

import numpy as np

from fastrec.jit import inline, njit, njit_float

_AT_ONCE = 64


@njit
def hide(scores, first, place, allowed, users, indptr, items, lo, hi):  # type: ignore[no-untyped-def]
    """In rows [lo, hi) of the tile that starts at candidate ``first``, put the items of each user below every score.

    ``place`` int32[I] is the number of candidates below each item and ``allowed`` bool[I] whether it is one itself.
    """
    end = first + scores.shape[1]
    for row in range(lo, hi):
        user = users[row]
        at, stop = indptr[user], indptr[user + 1]
        above = stop
        while at < above:
            middle = (at + above) // 2
            if place[items[middle]] < first:
                at = middle + 1
            else:
                above = middle
        while at < stop and place[items[at]] < end:
            if allowed[items[at]]:
                scores[row, place[items[at]] - first] = -np.inf
            at += 1


@inline
def _worse(score_a, item_a, score_b, item_b):  # type: ignore[no-untyped-def]
    return score_a < score_b or (score_a == score_b and item_a > item_b)


@inline
def _sink(scores, items, size):  # type: ignore[no-untyped-def]
    """Move the root of a heap of ``size`` down to its place."""
    score, item = scores[0], items[0]
    at = 0
    while True:
        child = 2 * at + 1
        if child >= size:
            break
        if child + 1 < size and _worse(scores[child + 1], items[child + 1], scores[child], items[child]):
            child += 1
        if not _worse(scores[child], items[child], score, item):
            break
        scores[at], items[at] = scores[child], items[child]
        at = child
    scores[at], items[at] = score, item


@inline
def _rise(scores, items, at):  # type: ignore[no-untyped-def]
    """Move the entry ``at`` of a heap up to its place."""
    score, item = scores[at], items[at]
    while at > 0:
        parent = (at - 1) // 2
        if not _worse(score, item, scores[parent], items[parent]):
            break
        scores[at], items[at] = scores[parent], items[parent]
        at = parent
    scores[at], items[at] = score, item


@njit_float
def push(scores, bias, first, best_scores, best_items, counts, lo, hi):  # type: ignore[no-untyped-def]
    """Offer the tile's items to the heaps of rows [lo, hi): score + ``bias`` float32[T]; -inf is not a candidate."""
    n, k = scores.shape[1], best_scores.shape[1]
    for row in range(lo, hi):
        heap_scores, heap_items = best_scores[row], best_items[row]
        size = counts[row]
        for start in range(0, n, _AT_ONCE):
            part, own = scores[row, start : start + _AT_ONCE], bias[start : start + _AT_ONCE]
            if size == k:
                worst = heap_scores[0]
                above = np.float32(0.0)  # a float counter: an int64 one would widen each comparison
                for c in range(part.shape[0]):
                    above += np.float32(part[c] + own[c] > worst)
                if above == 0.0:
                    continue
            for c in range(part.shape[0]):
                score = part[c] + own[c]
                if size < k:
                    if score > -np.inf:
                        heap_scores[size], heap_items[size] = score, first + start + c
                        _rise(heap_scores, heap_items, size)
                        size += 1
                elif score > heap_scores[0]:  # an equal one comes later, so it is worse
                    heap_scores[0], heap_items[0] = score, first + start + c
                    _sink(heap_scores, heap_items, k)
        counts[row] = size


@njit
def finish(best_scores, best_items, counts, lo, hi):  # type: ignore[no-untyped-def]
    """Sort the heaps of rows [lo, hi), best first."""
    for row in range(lo, hi):
        scores, items = best_scores[row], best_items[row]
        for size in range(counts[row] - 1, 0, -1):
            score, item = scores[size], items[size]
            scores[size], items[size] = scores[0], items[0]
            scores[0], items[0] = score, item
            _sink(scores, items, size)


@njit
def logistic_loss(rows, offsets, labels, weights, x):  # type: ignore[no-untyped-def]
    """Sum of weight * (softplus(z) - label * z) with z = rows[k] . x + offset, in the order of the rows."""
    total = 0.0
    for k in range(rows.shape[0]):
        z = offsets[k]
        for j in range(x.shape[0]):
            z += rows[k, j] * x[j]
        total += weights[k] * (max(z, 0.0) + math.log1p(math.exp(-abs(z))) - labels[k] * z)
    return total


@njit
def logistic_slopes(rows, offsets, labels, weights, x, l2, gradient, curvature):  # type: ignore[no-untyped-def]
    """Fill the gradient [D] and the lower half of the second derivatives [D, D] of ``logistic_loss`` + l2/2 |x|^2."""
    n = x.shape[0]
    for j in range(n):
        gradient[j] = l2 * x[j]
        for i in range(n):
            curvature[j, i] = l2 if i == j else 0.0
    for k in range(rows.shape[0]):
        row = rows[k]
        z = offsets[k]
        for j in range(n):
            z += row[j] * x[j]
        p = 0.5 * (1.0 + math.tanh(0.5 * z))
        slope, bend = weights[k] * (p - labels[k]), weights[k] * p * (1.0 - p)
        for j in range(n):
            gradient[j] += slope * row[j]
            part = bend * row[j]
            own = curvature[j]
            for i in range(j + 1):
                own[i] += part * row[i]


@njit
def solve_positive(matrix, vector):  # type: ignore[no-untyped-def]
    """Replace ``vector`` [D] by the solution of matrix . x = vector, by Cholesky; uses up the lower half."""
    n = vector.shape[0]
    for j in range(n):
        for i in range(j, n):
            total = matrix[i, j]
            for k in range(j):
                total -= matrix[i, k] * matrix[j, k]
            matrix[i, j] = math.sqrt(total) if i == j else total / matrix[j, j]
    for i in range(n):
        for k in range(i):
            vector[i] -= matrix[i, k] * vector[k]
        vector[i] /= matrix[i, i]
    for i in range(n - 1, -1, -1):
        for k in range(i + 1, n):
            vector[i] -= matrix[k, i] * vector[k]
        vector[i] /= matrix[i, i]
