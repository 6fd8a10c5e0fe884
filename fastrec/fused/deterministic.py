"""The deterministic engine: mini-batch steps, bit-identical for any number of threads, equal to the torch engine's.

Two passes over a prepared batch. The first goes user by user: it scores the samples with the weights as they are, sums
each user's gradient and updates the user's row at once, keeping the old one. The second goes item by item over the
samples sorted by item, and sums from the old user rows. Every row's sum is one thread's and runs in the batch's
order; sums over all samples (loss, bias, h) run per chunk of CHUNK rows and then over the chunks. So where threads are
cut changes nothing.

B batch rows, N negatives, S = B * (1+N) samples, U users, I items, D dim, R users in the batch.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

from fastrec.fused.gradients import BCE, BPR, loss_gradient, scratch
from fastrec.fused.prepare import SAMPLE_BITS, Batch
from fastrec.fused.simd import WIDTH, fma, load, mul, prefetch, splat, store, total
from fastrec.fused.weights import EPS, Weights, aligned
from fastrec.jit import inline, njit, run_ranges

CHUNK = 256
"""Rows a partial sum covers: a constant, never B / threads."""

PIECE = 32
"""Samples of an item whose user rows are asked for before the first is used."""

_ZERO = np.float32(0.0)
_SAMPLE_MASK = (1 << SAMPLE_BITS) - 1


@inline
def move_scalar(value, gradient, sums, at, rate, adagrad):  # type: ignore[no-untyped-def]
    """A weight that is a row of its own, after one step of SGD or Adagrad."""
    if adagrad:
        sums[at] += gradient * gradient
        return value - gradient / (np.float32(math.sqrt(sums[at])) + EPS) * rate
    return value - rate * gradient


@functools.cache
def kernels(dim: int, gmf: bool, adagrad: bool) -> tuple[Any, Any]:
    """The two passes for one dim, model and optimiser: constants of the compiled code, so that rows unroll."""
    tail = (dim - 1) % WIDTH + 1
    main = dim - tail
    row_bytes = 4 * dim

    @njit
    def users_pass(  # type: ignore[no-untyped-def]
        users, positives, negatives, runs, p, q, h, user_bias, item_bias, bias, user_sum, user_bias_sum,
        old, g, loss_sums, slopes, h_gradients, loss, scale, rate, l2, lo, hi,
    ):  # fmt: skip
        """Chunks [lo, hi): score, sum and update users.

        Fills old float32[R, D] (user rows before the step, times h in GMF), g float32[S] (dloss/dlogit of the mean),
        and per chunk loss_sums float64, slopes float64 and h_gradients float32[chunks, D].
        """
        n = 1 + negatives.shape[1]
        x, e = scratch(n), scratch(n)
        w, ids = scratch(dim), np.empty(n, np.int64)
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
                    more, product = loss_gradient(x, e, n, loss, product)
                    value += more
                    for j in range(n):
                        x[j] *= scale
                        g[row * n + j] = x[j]
                        if loss == BCE:  # in BPR they cancel, and Adagrad would blow up what rounding leaves
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
                if adagrad:
                    s = fma(splat(decay), load(p, u, main, tail), load(w, 0, main, tail))
                    s = mul(s, s)
                    for d in range(0, main, WIDTH):
                        v = fma(splat(decay), load(p, u, d, WIDTH), load(w, 0, d, WIDTH))
                        s = fma(v, v, s)
                    user_sum[u] += total(s) / np.float32(dim)
                    user_rate = rate / (np.float32(math.sqrt(user_sum[u])) + EPS)
                for d in range(dim):
                    p[u, d] -= user_rate * (w[d] + decay * p[u, d])
                if biased:
                    gradient = user_slope + decay * user_bias[u]
                    user_bias[u] = move_scalar(user_bias[u], gradient, user_bias_sum, u, rate, adagrad)
                slope += np.float64(user_slope)
            loss_sums[chunk] = value + math.log(product)
            slopes[chunk] = slope

    @njit
    def items_pass(keys, runs, n, q, item_bias, item_sum, item_bias_sum, old, g, rate, l2, lo, hi):  # type: ignore[no-untyped-def]
        """Sorted samples [lo, hi), moved to where items change: sum and update items."""
        biased = item_bias.shape[0] > 0
        n_samples = keys.shape[0]
        w = scratch(dim)
        rows, gs = np.empty(PIECE, np.int64), np.empty(PIECE, np.float32)
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
            if adagrad:
                s = fma(splat(decay), load(q, i, main, tail), load(w, 0, main, tail))
                s = mul(s, s)
                for d in range(0, main, WIDTH):
                    v = fma(splat(decay), load(q, i, d, WIDTH), load(w, 0, d, WIDTH))
                    s = fma(v, v, s)
                item_sum[i] += total(s) / np.float32(dim)
                item_rate = rate / (np.float32(math.sqrt(item_sum[i])) + EPS)
            for d in range(dim):
                q[i, d] -= item_rate * (w[d] + decay * q[i, d])
            if biased:
                gradient = slope + decay * item_bias[i]
                item_bias[i] = move_scalar(item_bias[i], gradient, item_bias_sum, i, rate, adagrad)

    return users_pass, items_pass


class Deterministic:
    """Steps of the deterministic engine.

    Parameters
    ----------
    weights : Weights
    batch_size : int
        Most positives a step has.
    n_negatives : int
    loss : int
        BCE or BPR, as a mean over the step's samples or pairs.
    l2, l2_h : float
        L2 of the rows and biases, and of h.
    lr_h : float
        Share of the rate by which h moves.
    threads : int
        Changes the speed and nothing else.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        batch_size: int,
        n_negatives: int,
        loss: int,
        l2: float,
        l2_h: float,
        lr_h: float,
        threads: int,
    ) -> None:
        self.weights, self.loss, self.l2, self.threads = weights, loss, l2, threads
        self.l2_h, self.lr_h = l2_h, lr_h
        self._users_pass, self._items_pass = kernels(weights.dim, weights.gmf, weights.adagrad)
        chunks = -(-batch_size // CHUNK)
        self._old = aligned(min(batch_size, weights.user_factors.shape[0]), weights.dim)
        self._g = np.empty(batch_size * (1 + n_negatives), np.float32)
        self._loss_sums, self._slopes = np.empty(chunks), np.empty(chunks)
        self._h_gradients = np.empty((chunks, weights.dim if weights.gmf else 0), np.float32)

    def step(self, batch: Batch, rate: float) -> float:
        """Train on one prepared batch; returns the mean loss times the samples."""
        w = self.weights
        n = 1 + batch.negatives.shape[1]
        n_samples = batch.n * n
        n_losses = batch.n * (n - 1) if self.loss == BPR else n_samples
        chunks = -(-batch.n // CHUNK)
        scale, step, l2 = np.float32(1.0 / n_losses), np.float32(rate), np.float32(self.l2 / n_samples)

        def users(lo: int, hi: int) -> None:
            self._users_pass(
                batch.users, batch.positives, batch.negatives, batch.runs, w.user_factors, w.item_factors, w.h,
                w.user_bias, w.item_bias, w.bias, w.user_sum, w.user_bias_sum, self._old, self._g, self._loss_sums,
                self._slopes, self._h_gradients, self.loss, scale, step, l2, lo, hi,
            )  # fmt: skip

        def items(lo: int, hi: int) -> None:
            self._items_pass(
                batch.keys, batch.runs, np.uint32(n), w.item_factors, w.item_bias, w.item_sum, w.item_bias_sum,
                self._old, self._g, step, l2, lo, hi,
            )  # fmt: skip

        run_ranges(users, chunks, self.threads)
        run_ranges(items, n_samples, self.threads, grain=1024)
        slope = np.float32(self._slopes[:chunks].sum())
        self._move("bias", slope + np.float32(self.l2) * w.bias, step)
        if w.gmf:
            gradient = self._h_gradients[:chunks].sum(0) + np.float32(self.l2_h) * w.h
            self._move("h", gradient, np.float32(rate * self.lr_h))
        return float(self._loss_sums[:chunks].sum()) / n_losses * n_samples

    def _move(self, name: str, gradient: Any, rate: np.float32) -> None:
        """One step of a weight that every sample shares."""
        value = self.weights.named[name]
        if self.weights.adagrad:
            sums = self.weights.sums[name]
            sums += gradient * gradient
            value -= gradient / (np.sqrt(sums) + EPS) * rate
        else:
            value -= rate * gradient
