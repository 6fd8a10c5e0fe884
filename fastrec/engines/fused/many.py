"""The pass for many negatives: 16 to some thousands a positive, drawn, scored and applied row by row.

One positive's negatives are drawn by address into a buffer of the first-level cache, scored four rows at a time, and
applied from there: no array of ids of a batch exists. For CCL, whose gradient is zero below the margin, negatives are
first looked at in 8 bits (``codes.py``).

Two forms of one kernel. lock_free applies each positive's samples as it goes, as one step of SGD or row-wise Adagrad on
the sum of their losses (Hogwild over users, as in ``lock_free.py``). Deterministic holds item rows still, updates each
user's row at the end of the user's run, and leaves the samples that have a gradient as entries; a second pass sums them
item by item in the order of rows. So neither threads nor where ranges are cut change a bit.

B batch rows, N negatives, U users, I items, D dim, R users in the batch, M entries.
Source: row-wise Adagrad: Gupta et al., "Training recommender systems at scale", arXiv 2010.11305, section 3.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastrec.engines.fused import codes as _codes
from fastrec.engines.fused.codes import encode_item, encode_user, within_reach
from fastrec.engines.fused.draw import draw_row, mark, row_size, unmark
from fastrec.engines.fused.rows import AT_ONCE, combine, dots, squared
from fastrec.engines.fused.weights import EPS
from fastrec.jit import inline, njit
from fastrec.lanes import prefetch, scratch
from fastrec.models import losses as forms

_ZERO, _ONE = np.float32(0.0), np.float32(1.0)
_1 = np.uint64(1)
ROWS_AHEAD = 16
"""Negatives between asking for a row and reading it."""
CODES_AHEAD = 48
"""The same for codes, of which a step takes eight."""


@inline
def _root(sums, at, gradient_square, lr):  # type: ignore[no-untyped-def]
    """Adagrad's rate for row ``at`` after a gradient of that mean square."""
    sums[at] += gradient_square
    return lr / (np.float32(math.sqrt(sums[at])) + EPS)


@inline
def _inverse(square):  # type: ignore[no-untyped-def]
    """1 / norm of a row; NaN where the square overflows, so that a diverging run is seen in its loss."""
    return _ONE / np.float32(math.sqrt(square)) + (square - square)


@inline
def _move_bias(bias, sums, at, gradient, lr, adagrad):  # type: ignore[no-untyped-def]
    if adagrad:
        lr = _root(sums, at, gradient * gradient, lr)
    bias[at] -= lr * gradient


@functools.cache
def kernel(
    dim: int, cosine: bool, adagrad: bool, loss: str, apart: bool, blended: bool = False, weighted: bool = False
) -> Any:
    """The pass over users for one dim, score, optimiser and loss.

    ``apart``: the deterministic form. ``blended``: to the user's row is added a multiple of the direction of the mean
    of the user's training items, taken at the start of the user's run and held fixed: it has no gradient.
    ``weighted``: rows have weights.
    """
    row_bytes = 4 * dim
    width = _codes.stride(dim)
    n_dim = np.float32(dim)
    below = np.float32((dim + 16) * 2.0**-23)  # of float32 scores: a candidate within rounding of the margin is one
    form = forms.get(loss)
    row_loss_of, sparse = form.many, form.sparse
    slanted = not form.relative  # in BPR and softmax they cancel, and Adagrad would blow up what rounding leaves
    biased = not cosine
    to_write = 0 if apart else 1

    @njit
    def train(  # type: ignore[no-untyped-def]
        users, positives, addresses, row_weights, indptr, items, n_negatives, epoch, seed, tag, p, q, biases, sums,
        shadow, numbers, scale, lr, l2, history, places, entries, lo, hi,
    ):  # fmt: skip
        """Rows [lo, hi) of a batch sorted by user, moved to where users change; returns (loss, first entry, entries).

        users, positives int32[B], addresses int64[B]; row_weights float32[B], or empty; indptr, items: the CSR that
        negatives avoid; p float32[U, D], q float32[I, D]; biases: of users, items and all; sums: Adagrad's, of p, q and
        the biases; shadow: inverse norms float32[I] (ones where scores are dots), codes and steps of ``codes.py``;
        numbers: the loss's two; history: (indptr, items, weight) of ``blended``.
        Deterministic form: places = (runs int32[B], old float32[R, D], losses float64[B], slopes float32[B]) and
        entries = (items, runs, gradients, scores), each [B * (1+N)], are filled, the range's from its first row on.
        """
        user_bias, item_bias, bias = biases
        p_sum, q_sum, user_sum, item_sum, bias_sum = sums
        inverse, codes, steps = shadow
        runs, old, losses, slopes = places
        e_items, e_runs, e_gradients, e_scores = entries
        a, b = numbers
        past, past_items, past_weight = history
        n_items, n = np.uint64(q.shape[0]), 1 + n_negatives
        while 0 < lo < users.shape[0] and users[lo] == users[lo - 1]:
            lo += 1
        while 0 < hi < users.shape[0] and users[hi] == users[hi - 1]:
            hi += 1
        size = row_size(n_negatives) + 64  # steps read and ask ahead past the last: valid items, whatever they are
        ids, near = np.zeros(size, np.int32), np.zeros(size, np.int32)
        x, e, spare = scratch(size), scratch(size), scratch(size)
        r, w, v, mean = scratch(dim), scratch(dim), scratch(dim), scratch(dim)
        mine = np.zeros(width, np.int16)
        taken = np.zeros((q.shape[0] >> 5) + 1, np.uint32)
        first = lo * n
        at = first
        value, product = 0.0, 1.0
        user, began, slope = np.int64(-1), lo, _ZERO
        start, stop, iu, run, turned = np.int64(0), np.int64(0), _ONE, np.int64(0), _ZERO
        for row in range(lo, hi):
            fresh = np.int64(users[row]) != user
            if fresh:
                unmark(taken, items, start, stop)
                user, began, slope, turned = np.int64(users[row]), row, _ZERO, _ZERO
                start, stop = indptr[user], indptr[user + 1]
                mark(taken, items, start, stop)
                if blended:
                    mean[:] = _ZERO
                    for k in range(past[user], past[user + 1]):
                        i = np.int64(past_items[k])
                        combine(mean, 0, _ONE, mean, 0, inverse[i], q, i, dim)
                    length = _inverse(squared(mean, 0, dim))
                    combine(mean, 0, length * past_weight, mean, 0, _ZERO, mean, 0, dim)
            if fresh or not apart:  # r: the user's row, of length 1 where scores are cosines
                if blended:
                    iu = _inverse(combine(r, 0, _ONE, p, user, _ONE, mean, 0, dim))
                    combine(r, 0, iu, r, 0, _ZERO, r, 0, dim)
                else:
                    if cosine:
                        iu = _inverse(squared(p, user, dim))
                    combine(r, 0, iu, p, user, _ZERO, p, user, dim)
                w[:] = _ZERO
                turned = _ZERO
                if apart:
                    run = np.int64(runs[row])
                    combine(old, run, _ONE, r, 0, _ZERO, r, 0, dim)
            ids[0] = positives[row]
            draw_row(np.uint64(addresses[row]), epoch, seed, tag, n_items, taken, items, start, stop, n_negatives, ids)
            m = n
            if sparse:  # keep what may exceed the margin, score that exactly, keep what does
                unit, slack = encode_user(r, mine, dim)
                near[0] = ids[0]
                m = 1
                for j in range(1, n, 8):
                    for k in range(j + CODES_AHEAD, j + CODES_AHEAD + 8):
                        prefetch(codes, np.int64(ids[k]), width, 0)
                    bits = within_reach(codes, steps, mine, ids, j, unit, slack, a - below, width)
                    k = j
                    while bits:
                        if bits & _1 and k < n:
                            near[m] = ids[k]
                            m += 1
                        bits >>= _1
                        k += 1
                for j in range(0, m, AT_ONCE):
                    dots(r, q, inverse, near, j, x, dim)
                kept = 1
                for j in range(1, m):
                    if x[j] > a:
                        near[kept], x[kept] = near[j], x[j]
                        kept += 1
                m = kept
                for j in range(m):
                    e[j] = x[j]
            else:
                for j in range(0, n, AT_ONCE):
                    for k in range(j + ROWS_AHEAD, j + ROWS_AHEAD + AT_ONCE):
                        prefetch(q, np.int64(ids[k]), row_bytes, to_write)
                    dots(r, q, inverse, ids, j, x, dim)
                if biased:
                    base = bias[0] + user_bias[user]
                    for j in range(n):
                        x[j] += base + item_bias[ids[j]]
                if cosine:
                    for j in range(n):
                        e[j] = x[j]
            before = product
            row_loss, product = row_loss_of(x, spare, m, a, b, product)
            if (apart or weighted) and product != before:
                row_loss += math.log(product)
                product = 1.0
            row_slope, row_scale = _ZERO, scale
            if weighted:
                row_loss *= row_weights[row]
                row_scale *= row_weights[row]
            for j in range(m):
                x[j] *= row_scale
                if slanted:
                    row_slope += x[j]
            # apply: w sums the user's gradient, from rows before each is updated
            for j in range(m):
                i = np.int64(near[j] if sparse else ids[j])
                g = x[j]
                if apart:
                    combine(w, 0, _ONE, w, 0, g * inverse[i], q, i, dim)
                    e_items[at], e_runs[at], e_gradients[at] = i, run, g
                    if cosine:
                        e_scores[at] = e[j]
                        turned += g * e[j]
                    at += 1
                elif cosine:
                    gi = g * inverse[i]
                    turned += g * e[j]
                    combine(w, 0, _ONE, w, 0, gi, q, i, dim)
                    row_lr = lr
                    if adagrad:
                        # the gradient gi (r - cosine * unit row) has this square, for both have length 1
                        row_lr = _root(q_sum, i, max(_ZERO, _ONE - e[j] * e[j]) * gi * gi / n_dim, lr)
                    keep = _ONE + row_lr * gi * e[j] * inverse[i]
                    inverse[i] = _inverse(combine(q, i, keep, q, i, -row_lr * gi, r, 0, dim))
                    if sparse:
                        encode_item(q, i, inverse[i], codes, steps, dim)
                else:
                    combine(w, 0, _ONE, w, 0, g, q, i, dim)
                    square = combine(v, 0, g, r, 0, l2, q, i, dim)
                    row_lr = _root(q_sum, i, square / n_dim, lr) if adagrad else lr
                    combine(q, i, _ONE, q, i, -row_lr, v, 0, dim)
                    _move_bias(item_bias, item_sum, i, g + l2 * item_bias[i], lr, adagrad)
            slope += row_slope
            if apart:
                losses[row], slopes[row] = row_loss, row_slope
                if row + 1 < hi and users[row + 1] == user:
                    continue
            else:
                value += row_loss
                began = row
            # the user's row
            decay = np.float32((row + 1 - began) * n) * l2
            if cosine:
                square = combine(v, 0, iu, w, 0, -turned * iu, r, 0, dim)
            else:
                square = combine(v, 0, _ONE, w, 0, decay, p, user, dim)
            row_lr = _root(p_sum, user, square / n_dim, lr) if adagrad else lr
            combine(p, user, _ONE, p, user, -row_lr, v, 0, dim)
            if biased:
                _move_bias(user_bias, user_sum, user, slope + decay * user_bias[user], lr, adagrad)
                if not apart:
                    _move_bias(bias, bias_sum, 0, slope + decay * bias[0], lr, adagrad)
            slope = _ZERO
        return value + math.log(product), first, at - first

    return train


@functools.cache
def items_kernel(dim: int, cosine: bool, adagrad: bool, coded: bool) -> Any:
    """The deterministic form's pass over items."""
    n_dim = np.float32(dim)

    @njit
    def update(firsts, counts, entries, old, q, item_bias, q_sum, item_sum, shadow, lr, l2, lo, hi):  # type: ignore[no-untyped-def]
        """Items [lo, hi): sum the entries of each in the order of rows, and update its row.

        firsts, counts int64[ranges]: where the users' pass left entries, in the order of rows.
        """
        e_items, e_runs, e_gradients, e_scores = entries
        inverse, codes, steps = shadow
        found = 0
        for piece in range(firsts.shape[0]):
            for at in range(firsts[piece], firsts[piece] + counts[piece]):
                found += lo <= e_items[at] < hi
        keys = np.empty(found, np.int64)
        if found < hi - lo:  # item << 32 | entry; sorted by comparing where items are many, by counting where few
            found = 0
            for piece in range(firsts.shape[0]):
                for at in range(firsts[piece], firsts[piece] + counts[piece]):
                    if lo <= e_items[at] < hi:
                        keys[found] = np.int64(e_items[at]) << 32 | at
                        found += 1
            keys.sort()
        else:
            begins = np.zeros(hi - lo + 1, np.int64)
            for piece in range(firsts.shape[0]):
                for at in range(firsts[piece], firsts[piece] + counts[piece]):
                    if lo <= e_items[at] < hi:
                        begins[e_items[at] - lo + 1] += 1
            for i in range(1, hi - lo + 1):
                begins[i] += begins[i - 1]
            for piece in range(firsts.shape[0]):
                for at in range(firsts[piece], firsts[piece] + counts[piece]):
                    if lo <= e_items[at] < hi:
                        i = e_items[at] - lo
                        keys[begins[i]] = np.int64(e_items[at]) << 32 | at
                        begins[i] += 1
        w = scratch(dim)
        k = 0
        while k < found:
            i, begin = keys[k] >> 32, k
            slope, turned = _ZERO, _ZERO
            w[:] = _ZERO
            while k < found and keys[k] >> 32 == i:
                at = keys[k] & 0xFFFFFFFF
                combine(w, 0, _ONE, w, 0, e_gradients[at], old, np.int64(e_runs[at]), dim)
                slope += e_gradients[at]
                if cosine:
                    turned += e_gradients[at] * e_scores[at]
                k += 1
            decay = np.float32(k - begin) * l2
            if cosine:
                square = combine(w, 0, inverse[i], w, 0, -turned * inverse[i] * inverse[i], q, i, dim)
            else:
                square = combine(w, 0, _ONE, w, 0, decay, q, i, dim)
            row_lr = _root(q_sum, i, square / n_dim, lr) if adagrad else lr
            square = combine(q, i, _ONE, q, i, -row_lr, w, 0, dim)
            if cosine:
                inverse[i] = _inverse(square)
                if coded:
                    encode_item(q, i, inverse[i], codes, steps, dim)
            else:
                _move_bias(item_bias, item_sum, i, slope + decay * item_bias[i], lr, adagrad)

    return update


@functools.cache
def refresh_kernel(dim: int, coded: bool) -> Any:
    """Norms and codes of item rows, from the rows."""

    @njit
    def refresh(q, shadow, lo, hi):  # type: ignore[no-untyped-def]
        """Inverse norms of rows [lo, hi), and their codes where those are kept."""
        inverse, codes, steps = shadow
        for i in range(lo, hi):
            inverse[i] = _inverse(squared(q, i, dim))
            if coded:
                encode_item(q, i, inverse[i], codes, steps, dim)

    return refresh
