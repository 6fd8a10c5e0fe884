"""The kernels of the deterministic engine: a mini-batch step, bit-identical for any number of threads.

Two passes over a prepared batch. The first goes user by user: it scores the samples with the weights as they are, sums
each user's gradient and updates the user's row at once, keeping the old one. The second goes item by item over the
samples sorted by item, and sums from the old user rows. Every row's sum is one thread's and runs in the batch's
order; sums over all samples (loss, bias, h) run per chunk of CHUNK rows and then over the chunks. So where threads are
cut changes nothing. A third moves what all samples share, and lazy Adam's bias vectors, which move whole at each step.

B batch rows, N negatives, S = B * (1+N) samples, U users, I items, D dim, R users in the batch.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numba
import numpy as np

from fastrec.engines.fused.prepare import SAMPLE_BITS
from fastrec.engines.fused.team import claim, count, wait
from fastrec.engines.fused.weights import EPS
from fastrec.engines.units import SETTLED
from fastrec.jit import inline, njit
from fastrec.lanes import WIDTH, fma, load, mul, prefetch, scratch, splat, store, total
from fastrec.models import losses as loss_forms

CHUNK = 128
"""Rows a partial sum covers, and a piece of the first pass: a constant, never B / threads."""

GRAIN = 1024
"""Samples of a piece of the second pass."""

SPAN = 4096
"""Biases of a piece of the third."""

PIECE = 32
"""Samples of an item whose user rows are asked for before the first is used."""

_ZERO = np.float32(0.0)
_SETTLED = np.float32(SETTLED)
_SAMPLE_MASK = (1 << SAMPLE_BITS) - 1


SGD, ADAGRAD, ADAM = range(3)
_B1, _B2 = np.float32(0.9), np.float32(0.999)
_C1, _C2 = np.float32(1 - 0.9), np.float32(1 - 0.999)
_ADAM_EPS = np.float32(1e-8)


@inline
def adam(value, gradient, first, second, size):  # type: ignore[no-untyped-def]
    """A weight and its two moments after one step; ``size`` is the rate times both bias corrections."""
    first = _B1 * first + _C1 * gradient
    second = _B2 * second + _C2 * gradient * gradient
    return value - size * first / (np.float32(math.sqrt(second)) + _ADAM_EPS), first, second


@inline
def move_scalar(value, gradient, a, b, at, rate, kind):  # type: ignore[no-untyped-def]
    """A weight that is a row of its own, after one step; a and b hold its state."""
    if kind == ADAGRAD:
        a[at] += gradient * gradient
        return value - gradient / (np.float32(math.sqrt(a[at])) + EPS) * rate
    if kind == ADAM:
        value, a[at], b[at] = adam(value, gradient, a[at], b[at], rate)
        return value
    return value - rate * gradient


helper = numba.njit(nogil=True, error_model="numpy")


@functools.cache
def kernel(dim: int, gmf: bool, kind: int, loss: str) -> Any:
    """Many steps by a team of threads, for one dim, model, optimiser and loss: constants, so that rows unroll."""
    form = loss_forms.get(loss)
    row_loss, pairs = form.row, form.pairs
    tail = (dim - 1) % WIDTH + 1
    main = dim - tail
    row_bytes = 4 * dim

    @helper
    def users_pass(  # type: ignore[no-untyped-def]
        users, positives, negatives, runs, p, q, h, user_bias, item_bias, bias, a, b, user_bias_a, user_bias_b,
        user_slopes, old, g, loss_sums, slopes, h_gradients, scale, rate, l2, lo, hi, x, e, w, ids,
    ):  # fmt: skip
        """Chunks [lo, hi): score, sum and update users.

        Fills old float32[R, D] (user rows before the step, times h in GMF), g float32[S] (dloss/dlogit of the mean),
        and per chunk loss_sums float64, slopes float64 and h_gradients float32[chunks, D]. x, e, w, ids are scratch.
        """
        n = 1 + negatives.shape[1]
        biased = item_bias.shape[0] > 0
        ahead = max(1, 10 // n)
        n_rows = users.shape[0]
        for chunk in range(lo, hi):
            value, product, slope = 0.0, 1.0, 0.0
            h_gradients[chunk] = _ZERO
            row = chunk * CHUNK
            while 0 < row < n_rows and users[row] == users[row - 1]:  # that user began in an earlier chunk
                row += 1
            stop = min((chunk + 1) * CHUNK, n_rows)
            while row < stop:
                u, run = np.int64(users[row]), np.int64(runs[row])
                for d in range(0, main, WIDTH):
                    v = load(p, u, d, WIDTH)
                    store(old, run, d, WIDTH, mul(v, load(h, 0, d, WIDTH)) if gmf else v)
                    store(w, 0, d, WIDTH, splat(_ZERO))
                v = load(p, u, main, tail)
                store(old, run, main, tail, mul(v, load(h, 0, main, tail)) if gmf else v)
                store(w, 0, main, tail, splat(_ZERO))
                base = bias[0] + (user_bias[u] if biased else _ZERO)
                first = row
                user_slope = _ZERO
                while row < n_rows and users[row] == u:
                    if row + ahead < n_rows:
                        prefetch(q, positives[row + ahead], row_bytes, 0)
                        for j in range(n - 1):
                            prefetch(q, negatives[row + ahead, j], row_bytes, 0)
                    ids[0] = positives[row]
                    for j in range(1, n):
                        ids[j] = negatives[row, j - 1]
                    for j in range(n):
                        i = ids[j]
                        s = mul(load(old, run, main, tail), load(q, i, main, tail))
                        for d in range(0, main, WIDTH):
                            s = fma(load(old, run, d, WIDTH), load(q, i, d, WIDTH), s)
                        x[j] = total(s) + base + (item_bias[i] if biased else _ZERO)
                    more, product = row_loss(x, e, n, product)
                    value += more
                    for j in range(n):
                        x[j] *= scale
                        g[row * n + j] = x[j]
                        if not pairs:  # in BPR they cancel, and Adagrad would blow up what rounding leaves
                            user_slope += x[j]
                    for d in range(0, main, WIDTH):
                        v = load(w, 0, d, WIDTH)
                        for j in range(n):
                            v = fma(splat(x[j]), load(q, ids[j], d, WIDTH), v)
                        store(w, 0, d, WIDTH, v)
                    v = load(w, 0, main, tail)
                    for j in range(n):
                        v = fma(splat(x[j]), load(q, ids[j], main, tail), v)
                    store(w, 0, main, tail, v)
                    row += 1
                decay = l2 * np.float32((row - first) * n)
                if gmf:
                    for d in range(dim):
                        h_gradients[chunk, d] += w[d] * p[u, d]
                        w[d] *= h[d]
                user_rate = rate
                if kind == ADAGRAD:
                    s = fma(splat(decay), load(p, u, main, tail), load(w, 0, main, tail))
                    s = mul(s, s)
                    for d in range(0, main, WIDTH):
                        v = fma(splat(decay), load(p, u, d, WIDTH), load(w, 0, d, WIDTH))
                        s = fma(v, v, s)
                    a[u, 0] += total(s) / np.float32(dim)
                    user_rate = rate / (np.float32(math.sqrt(a[u, 0])) + EPS)
                for d in range(dim):
                    gradient = w[d] + decay * p[u, d]
                    if kind == ADAM:
                        p[u, d], a[u, d], b[u, d] = adam(p[u, d], gradient, a[u, d], b[u, d], rate)
                    else:
                        p[u, d] -= user_rate * gradient
                if biased:
                    gradient = user_slope + decay * user_bias[u]
                    if kind == ADAM:
                        user_slopes[u] = gradient
                    else:
                        user_bias[u] = move_scalar(user_bias[u], gradient, user_bias_a, user_bias_b, u, rate, kind)
                slope += np.float64(user_slope)
            loss_sums[chunk] = value + math.log(product)
            slopes[chunk] = slope

    @helper
    def items_pass(  # type: ignore[no-untyped-def]
        keys, runs, n, q, item_bias, a, b, item_bias_a, item_bias_b, item_slopes, old, g, rate, l2, lo, hi, w, rows, gs
    ):
        """Sorted samples [lo, hi), moved to where items change: sum and update items."""
        biased = item_bias.shape[0] > 0
        n_samples = keys.shape[0]
        while 0 < lo < n_samples and keys[lo] >> SAMPLE_BITS == keys[lo - 1] >> SAMPLE_BITS:
            lo += 1
        while 0 < hi < n_samples and keys[hi] >> SAMPLE_BITS == keys[hi - 1] >> SAMPLE_BITS:
            hi += 1
        at = lo
        while at < hi:
            i = keys[at] >> SAMPLE_BITS
            first = at
            while at < hi and keys[at] >> SAMPLE_BITS == i:
                at += 1
            slope = _ZERO
            for d in range(0, main, WIDTH):
                store(w, 0, d, WIDTH, splat(_ZERO))
            store(w, 0, main, tail, splat(_ZERO))
            for start in range(first, at, PIECE):
                m = min(PIECE, at - start)
                for k in range(m):
                    sample = np.uint32(keys[start + k] & _SAMPLE_MASK)
                    rows[k] = runs[sample // n]
                    prefetch(old, rows[k], row_bytes, 0)
                    gs[k] = g[sample]
                    slope += gs[k]
                for d in range(0, main, WIDTH):
                    v = load(w, 0, d, WIDTH)
                    for k in range(m):
                        v = fma(splat(gs[k]), load(old, rows[k], d, WIDTH), v)
                    store(w, 0, d, WIDTH, v)
                v = load(w, 0, main, tail)
                for k in range(m):
                    v = fma(splat(gs[k]), load(old, rows[k], main, tail), v)
                store(w, 0, main, tail, v)
            decay = l2 * np.float32(at - first)
            item_rate = rate
            if kind == ADAGRAD:
                s = fma(splat(decay), load(q, i, main, tail), load(w, 0, main, tail))
                s = mul(s, s)
                for d in range(0, main, WIDTH):
                    v = fma(splat(decay), load(q, i, d, WIDTH), load(w, 0, d, WIDTH))
                    s = fma(v, v, s)
                a[i, 0] += total(s) / np.float32(dim)
                item_rate = rate / (np.float32(math.sqrt(a[i, 0])) + EPS)
            for d in range(dim):
                gradient = w[d] + decay * q[i, d]
                if kind == ADAM:
                    q[i, d], a[i, d], b[i, d] = adam(q[i, d], gradient, a[i, d], b[i, d], rate)
                else:
                    q[i, d] -= item_rate * gradient
            if biased:
                gradient = slope + decay * item_bias[i]
                if kind == ADAM:
                    item_slopes[i] = gradient
                else:
                    item_bias[i] = move_scalar(item_bias[i], gradient, item_bias_a, item_bias_b, i, rate, kind)

    @helper
    def biases_pass(bias, gradients, a, b, rate, lo, hi):  # type: ignore[no-untyped-def]
        """Elements [lo, hi) of a vector: lazy Adam moves all of it at each step; gradients are zero after it."""
        for k in range(lo, hi):
            bias[k], a[k], b[k] = adam(bias[k], gradients[k], a[k], b[k], rate)
            gradients[k] = _ZERO

    @helper
    def shared_step(chunks, n_losses, bias, h, states, loss_sums, slopes, h_gradients, rate, l2, h_l2, lr_h):  # type: ignore[no-untyped-def]
        """Move what every sample shares; returns the mean loss."""
        bias_a, bias_b, h_a, h_b = states
        slope, value = 0.0, 0.0
        h_rate = np.float32(rate * lr_h)
        if kind == SGD:  # summed over all samples, the step would overshoot
            rate, h_rate = min(rate, _SETTLED), min(h_rate, _SETTLED)
        for chunk in range(chunks):
            slope += slopes[chunk]
            value += loss_sums[chunk]
        gradient = np.float32(slope) + np.float32(l2) * bias[0]
        bias[0] = move_scalar(bias[0], gradient, bias_a, bias_b, 0, rate, kind)
        if gmf:
            for chunk in range(1, chunks):
                for d in range(dim):
                    h_gradients[0, d] += h_gradients[chunk, d]
            for d in range(dim):
                gradient = h_gradients[0, d] + np.float32(h_l2) * h[d]
                h[d] = move_scalar(h[d], gradient, h_a, h_b, d, h_rate, kind)
        return value / n_losses

    @njit
    def train(  # type: ignore[no-untyped-def]
        me, n_threads, spins, counters, sizes, users, positives, negatives, runs, keys, p, q, h, user_bias, item_bias,
        bias, firsts, seconds, old, g, user_slopes, item_slopes, loss_sums, slopes, h_gradients, losses, rates,
        l2, h_l2, lr_h,
    ):  # fmt: skip
        """Thread ``me``'s share of the steps over the batches [:len(sizes)]; whatever others leave is done here too.

        counters int64[steps, counters_per_step(n_threads) * LINE] of zeros, shared by the team; sizes int64[steps]:
        rows; users, positives, runs int32[steps, B], negatives int32[steps, B, N], keys int64[steps, S]; rates
        float32[steps]; losses float64[steps] is filled with mean losses. firsts and seconds: the optimiser's state of
        p, q, user_bias, item_bias, bias, h.
        """
        p_a, q_a, user_a, item_a, bias_a, h_a = firsts
        p_b, q_b, user_b, item_b, bias_b, h_b = seconds
        n = 1 + negatives.shape[2]
        claims = 3 * n_threads
        user_pieces = item_pieces = 0
        if kind == ADAM:  # without biases these are 0 too
            user_pieces, item_pieces = -(-user_bias.shape[0] // SPAN), -(-item_bias.shape[0] // SPAN)
        # before anything is claimed: a thread that has no memory left leaves its pieces to the others
        x, e, w, ids = scratch(n), scratch(n), scratch(dim), np.empty(n, np.int64)
        rows, gs = np.empty(PIECE, np.int64), np.empty(PIECE, np.float32)
        for step in range(sizes.shape[0]):
            at, b = counters[step], sizes[step]
            n_samples = b * n
            n_losses = b * (n - 1) if pairs else n_samples
            chunks, pieces = -(-b // CHUNK), -(-n_samples // GRAIN)
            scale, decay = np.float32(1.0 / n_losses), np.float32(l2 / n_samples)
            rate = rates[step]
            turn = 0
            while True:
                piece, turn = claim(at, 0, turn, me, n_threads, chunks)
                if piece < 0:
                    break
                users_pass(
                    users[step, :b], positives[step, :b], negatives[step, :b], runs[step, :b], p, q, h, user_bias,
                    item_bias, bias, p_a, p_b, user_a, user_b, user_slopes, old, g, loss_sums, slopes, h_gradients,
                    scale, rate, decay, piece, piece + 1, x, e, w, ids,
                )  # fmt: skip
                count(at, claims)
            wait(at, claims, chunks, spins)
            turn = 0
            while True:
                piece, turn = claim(at, n_threads, turn, me, n_threads, pieces)
                if piece < 0:
                    break
                items_pass(
                    keys[step, :n_samples], runs[step, :b], np.uint32(n), q, item_bias, q_a, q_b, item_a, item_b,
                    item_slopes, old, g, rate, decay, piece * GRAIN, min((piece + 1) * GRAIN, n_samples), w, rows, gs,
                )  # fmt: skip
                count(at, claims + 1)
            wait(at, claims + 1, pieces, spins)
            turn = 0
            while True:
                piece, turn = claim(at, 2 * n_threads, turn, me, n_threads, 1 + user_pieces + item_pieces)
                if piece < 0:
                    break
                if piece == 0:
                    losses[step] = shared_step(
                        chunks, n_losses, bias, h, (bias_a, bias_b, h_a, h_b), loss_sums, slopes, h_gradients, rate,
                        l2, h_l2, lr_h,
                    )  # fmt: skip
                elif piece <= user_pieces:
                    lo = (piece - 1) * SPAN
                    biases_pass(user_bias, user_slopes, user_a, user_b, rate, lo, min(lo + SPAN, user_bias.shape[0]))
                else:
                    lo = (piece - 1 - user_pieces) * SPAN
                    biases_pass(item_bias, item_slopes, item_a, item_b, rate, lo, min(lo + SPAN, item_bias.shape[0]))
                count(at, claims + 2)
            wait(at, claims + 2, 1 + user_pieces + item_pieces, spins)

    return train


def counters_per_step(n_threads: int) -> int:
    """Claims of each thread's share in the three passes, and pieces done in each."""
    return 3 * n_threads + 3
