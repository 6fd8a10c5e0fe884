"""The kernels of the deterministic engine: a mini-batch step, bit-identical for any number of threads.

Two passes over a prepared batch. The first goes user by user: it scores the samples with the weights as they are, sums
each user's gradient and updates the user's row at once, keeping the old one. The second goes item by item over the
samples sorted by item, and sums from the old user rows. Every row's sum is one thread's and runs in the batch's
order; sums over all samples (loss, bias, h) run per chunk of CHUNK rows and then over the chunks. So where threads are
cut changes nothing. A third moves what all samples share, and lazy Adam's bias vectors, which move completely at each
step.

B batch rows, N negatives, S = B * (1+N) samples, U users, I items, D dim, R users in the batch.
"""

from __future__ import annotations

import functools
import math
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.engines.fused.prepare import SAMPLE_BITS
from fastrec.engines.fused.rules import ADAGRAD, ADAM, SGD, adagrad, adam, move_scalar
from fastrec.engines.fused.team import claim, count, wait
from fastrec.engines.units import SETTLED
from fastrec.jit import helper, njit
from fastrec.lanes import WIDTH, add_rows, dot, load, mul, prefetch, scratch, splat, square_of_sum, store
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


class Prepared(NamedTuple):
    """Batches of several steps, or of one step where a kernel has picked it (one dimension less)."""

    users: NDArray[np.int32]
    """int32[steps, B], ascending"""
    positives: NDArray[np.int32]
    """int32[steps, B]"""
    negatives: NDArray[np.int32]
    """int32[steps, B, N]"""
    runs: NDArray[np.int32]
    """int32[steps, B]: number of the user within the batch"""
    keys: NDArray[np.int64]
    """int64[steps, S]: item << 32 | sample, ascending"""
    weights: NDArray[np.float32]
    """float32[steps, B]: of each row's loss; or empty"""


class Sums(NamedTuple):
    """Sums that the passes of one step exchange."""

    old: NDArray[np.float32]
    """float32[R, D]: user rows before the step, times h in GMF"""
    g: NDArray[np.float32]
    """float32[S]: dloss/dlogit of the mean loss"""
    user_slopes: NDArray[np.float32]
    """float32[U], for lazy Adam: gradients of the user biases, zero between steps"""
    item_slopes: NDArray[np.float32]
    """float32[I], the same of the item biases"""
    losses: NDArray[np.float64]
    """float64[chunks]: summed loss"""
    slopes: NDArray[np.float64]
    """float64[chunks]: gradient of the global bias"""
    h_gradients: NDArray[np.float32]
    """float32[chunks, D]"""


class Scratch(NamedTuple):
    """Buffers of one thread, allocated before it claims anything."""

    x: Any
    """float32[1+N]: logits, then their gradients"""
    e: Any
    w: Any
    """float32[D]: gradient of a row"""
    ids: Any
    """int64[1+N]: the items of a positive"""
    rows: Any
    """int64[PIECE]: user rows of an item's samples"""
    gs: Any
    """float32[PIECE]: their gradients"""


@functools.cache
def users_kernel(dim: int, gmf: bool, kind: int, loss: str, weighted: bool) -> Any:
    """The first pass: score, sum and update users; ``weighted``: rows have weights."""
    form = loss_forms.get(loss)
    row_loss, pairs = form.row, form.pairs
    tail = (dim - 1) % WIDTH + 1
    main = dim - tail
    row_bytes = 4 * dim

    @helper
    def users_pass(batch, weights, firsts, seconds, sums, scratches, scale, lr, l2, chunk):  # type: ignore[no-untyped-def]
        """Score and update the users that begin in one chunk; fills the chunk's ``sums``, ``old`` and ``g``."""
        users, positives, negatives, runs, _, row_weights = batch
        p, q, h, user_bias, item_bias, bias = weights
        a, _, _, user_bias_a, _, _ = firsts
        b, _, _, user_bias_b, _, _ = seconds
        old, g, user_slopes, _, loss_sums, slopes, h_gradients = sums
        x, e, w, ids, _, _ = scratches
        n = 1 + negatives.shape[1]
        biased = item_bias.shape[0] > 0
        ahead = max(1, 10 // n)
        n_rows = users.shape[0]
        value, product, slope = 0.0, 1.0, 0.0
        h_gradients[chunk] = _ZERO
        row = chunk * CHUNK
        while 0 < row < n_rows and users[row] == users[row - 1]:  # that user began in an earlier chunk
            row += 1
        stop = min((chunk + 1) * CHUNK, n_rows)
        while row < stop:
            # A user's row is read once for all its positives, and kept as the other pass must see it.
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
                # Item rows come in no order: this is where memory is waited for, so rows are
                # asked for about 10 samples ahead.
                if row + ahead < n_rows:
                    prefetch(q, positives[row + ahead], row_bytes, 0)
                    for j in range(n - 1):
                        prefetch(q, negatives[row + ahead, j], row_bytes, 0)
                ids[0] = positives[row]
                for j in range(1, n):
                    ids[j] = negatives[row, j - 1]
                for j in range(n):
                    i = ids[j]
                    x[j] = dot(old, run, q, i, dim) + base + (item_bias[i] if biased else _ZERO)
                row_scale = scale * row_weights[row] if weighted else scale
                more, product = row_loss(x, e, n, 1.0 if weighted else product)
                if weighted:
                    more, product = (more + math.log(product)) * row_weights[row], 1.0
                value += more
                for j in range(n):
                    x[j] *= row_scale
                    g[row * n + j] = x[j]
                    if not pairs:  # in BPR they cancel, and Adagrad would blow up what rounding leaves
                        user_slope += x[j]
                add_rows(w, x, q, ids, n, dim)  # the item rows are in the first-level cache from the scores
                row += 1
            # The update: once per user of the chunk, and in no other thread, so without a lock.
            decay = l2 * np.float32((row - first) * n)
            if gmf:
                for d in range(dim):
                    h_gradients[chunk, d] += w[d] * p[u, d]
                    w[d] *= h[d]
            user_lr = lr
            if kind == ADAGRAD:
                square = square_of_sum(decay, p, u, w, 0, dim) / np.float32(dim)
                a[u, 0], divisor = adagrad(a[u, 0], square)
                user_lr = lr / divisor
            for d in range(dim):
                gradient = w[d] + decay * p[u, d]
                if kind == ADAM:
                    p[u, d], a[u, d], b[u, d] = adam(p[u, d], gradient, a[u, d], b[u, d], lr)
                else:
                    p[u, d] -= user_lr * gradient
            if biased:
                gradient = user_slope + decay * user_bias[u]
                if kind == ADAM:
                    user_slopes[u] = gradient
                else:
                    user_bias[u] = move_scalar(user_bias[u], gradient, user_bias_a, user_bias_b, u, lr, kind)
            slope += np.float64(user_slope)
        loss_sums[chunk] = value + math.log(product)
        slopes[chunk] = slope

    return users_pass


@functools.cache
def items_kernel(dim: int, kind: int) -> Any:
    """The second pass: sum and update items."""
    tail = (dim - 1) % WIDTH + 1
    main = dim - tail
    row_bytes = 4 * dim

    @helper
    def items_pass(batch, weights, firsts, seconds, sums, scratches, lr, l2, lo, hi):  # type: ignore[no-untyped-def]
        """Sorted samples [lo, hi), moved to where items change."""
        _, _, negatives, runs, keys, _ = batch
        _, q, _, _, item_bias, _ = weights
        _, a, _, _, item_bias_a, _ = firsts
        _, b, _, _, item_bias_b, _ = seconds
        old, g, _, item_slopes, _, _, _ = sums
        _, _, w, _, rows, gs = scratches
        n = np.uint32(1 + negatives.shape[1])
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
            # Old user rows are read in no order: those of up to PIECE samples are asked for before the first is used.
            for start in range(first, at, PIECE):
                m = min(PIECE, at - start)
                for k in range(m):
                    sample = np.uint32(keys[start + k] & _SAMPLE_MASK)
                    rows[k] = runs[sample // n]
                    prefetch(old, rows[k], row_bytes, 0)
                    gs[k] = g[sample]
                    slope += gs[k]
                add_rows(w, gs, old, rows, m, dim)
            # The update: each item is in one thread's piece only, so without a lock.
            decay = l2 * np.float32(at - first)
            item_lr = lr
            if kind == ADAGRAD:
                square = square_of_sum(decay, q, i, w, 0, dim) / np.float32(dim)
                a[i, 0], divisor = adagrad(a[i, 0], square)
                item_lr = lr / divisor
            for d in range(dim):
                gradient = w[d] + decay * q[i, d]
                if kind == ADAM:
                    q[i, d], a[i, d], b[i, d] = adam(q[i, d], gradient, a[i, d], b[i, d], lr)
                else:
                    q[i, d] -= item_lr * gradient
            if biased:
                gradient = slope + decay * item_bias[i]
                if kind == ADAM:
                    item_slopes[i] = gradient
                else:
                    item_bias[i] = move_scalar(item_bias[i], gradient, item_bias_a, item_bias_b, i, lr, kind)

    return items_pass


@helper
def biases_pass(bias, gradients, a, b, lr, lo, hi):  # type: ignore[no-untyped-def]
    """Elements [lo, hi) of a vector: lazy Adam moves all of it at each step; gradients are zero after it."""
    for k in range(lo, hi):
        bias[k], a[k], b[k] = adam(bias[k], gradients[k], a[k], b[k], lr)
        gradients[k] = _ZERO


@functools.cache
def shared_kernel(dim: int, gmf: bool, kind: int) -> Any:
    """The third pass's first piece: the chunks' sums and what all samples share."""

    @helper
    def shared_step(chunks, n_losses, weights, firsts, seconds, sums, lr, l2, output_l2, output_lr):  # type: ignore[no-untyped-def]
        """Move the global bias and h; returns the mean loss. Cost: chunks * dim additions by one thread."""
        bias, h, h_gradients = weights.bias, weights.h, sums.h_gradients
        slope, value = 0.0, 0.0
        h_lr = np.float32(lr * output_lr)
        if kind == SGD:  # summed over all samples, the step would overshoot
            lr, h_lr = min(lr, _SETTLED), min(h_lr, _SETTLED)
        for chunk in range(chunks):
            slope += sums.slopes[chunk]
            value += sums.losses[chunk]
        gradient = np.float32(slope) + np.float32(l2) * bias[0]
        bias[0] = move_scalar(bias[0], gradient, firsts.bias, seconds.bias, 0, lr, kind)
        if gmf:
            for chunk in range(1, chunks):
                for d in range(dim):
                    h_gradients[0, d] += h_gradients[chunk, d]
            for d in range(dim):
                gradient = h_gradients[0, d] + np.float32(output_l2) * h[d]
                h[d] = move_scalar(h[d], gradient, firsts.h, seconds.h, d, h_lr, kind)
        return value / n_losses

    return shared_step


@functools.cache
def kernel(dim: int, gmf: bool, kind: int, loss: str, weighted: bool = False) -> Any:
    """Many steps by a team of threads, for one dim, model, optimiser and loss: constants, so that rows unroll."""
    pairs = loss_forms.get(loss).pairs
    users_pass, items_pass = users_kernel(dim, gmf, kind, loss, weighted), items_kernel(dim, kind)
    shared_step = shared_kernel(dim, gmf, kind)

    @njit
    def train(  # type: ignore[no-untyped-def]
        me,
        n_threads,
        spins,
        counters,
        sizes,
        prepared,
        weights,
        firsts,
        seconds,
        sums,
        losses,
        lrs,
        l2,
        output_l2,
        output_lr,
    ):
        """Work of thread ``me`` in the steps over the batches [:len(sizes)]; it also does what other threads leave.

        counters int64[steps, counters_per_step(n_threads) * LINE] of zeros, shared by the team; sizes int64[steps]:
        rows; lrs float32[steps]; losses float64[steps] is filled with mean losses. firsts and seconds: the
        optimiser's states as Tables.
        """
        n = 1 + prepared.negatives.shape[2]
        claims = 3 * n_threads
        user_pieces = item_pieces = 0
        if kind == ADAM:  # without biases these are 0 too
            user_pieces, item_pieces = -(-weights.user_bias.shape[0] // SPAN), -(-weights.item_bias.shape[0] // SPAN)
        # before anything is claimed: a thread that has no memory left leaves its pieces to the others
        mine = Scratch(
            scratch(n), scratch(n), scratch(dim), np.empty(n, np.int64), np.empty(PIECE, np.int64),
            np.empty(PIECE, np.float32),
        )  # fmt: skip
        for step in range(sizes.shape[0]):
            at, b = counters[step], sizes[step]
            n_samples = b * n
            n_losses = b * (n - 1) if pairs else n_samples
            chunks, pieces = -(-b // CHUNK), -(-n_samples // GRAIN)
            scale, decay = np.float32(1.0 / n_losses), np.float32(l2 / n_samples)
            lr = lrs[step]
            batch = Prepared(
                prepared.users[step, :b], prepared.positives[step, :b], prepared.negatives[step, :b],
                prepared.runs[step, :b], prepared.keys[step, :n_samples], prepared.weights[step, :b],
            )  # fmt: skip
            # Users. Item rows are only read, so chunks need no order.
            turn = 0
            while True:
                piece, turn = claim(at, 0, turn, me, n_threads, chunks)
                if piece < 0:
                    break
                users_pass(batch, weights, firsts, seconds, sums, mine, scale, lr, decay, piece)
                count(at, claims)
            wait(at, claims, chunks, spins)
            # Items, once all users are scored: their rows change here.
            turn = 0
            while True:
                piece, turn = claim(at, n_threads, turn, me, n_threads, pieces)
                if piece < 0:
                    break
                lo, hi = piece * GRAIN, min((piece + 1) * GRAIN, n_samples)
                items_pass(batch, weights, firsts, seconds, sums, mine, lr, decay, lo, hi)
                count(at, claims + 1)
            wait(at, claims + 1, pieces, spins)
            # What all samples share, by one thread; the others move lazy Adam's bias vectors meanwhile.
            turn = 0
            while True:
                piece, turn = claim(at, 2 * n_threads, turn, me, n_threads, 1 + user_pieces + item_pieces)
                if piece < 0:
                    break
                if piece == 0:
                    losses[step] = shared_step(
                        chunks, n_losses, weights, firsts, seconds, sums, lr, l2, output_l2, output_lr
                    )  # fmt: skip
                elif piece <= user_pieces:
                    lo = (piece - 1) * SPAN
                    hi = min(lo + SPAN, weights.user_bias.shape[0])
                    biases_pass(
                        weights.user_bias, sums.user_slopes, firsts.user_bias, seconds.user_bias, lr, lo, hi
                    )  # fmt: skip
                else:
                    lo = (piece - 1 - user_pieces) * SPAN
                    hi = min(lo + SPAN, weights.item_bias.shape[0])
                    biases_pass(
                        weights.item_bias, sums.item_slopes, firsts.item_bias, seconds.item_bias, lr, lo, hi
                    )  # fmt: skip
                count(at, claims + 2)
            wait(at, claims + 2, 1 + user_pieces + item_pieces, spins)

    return train


def counters_per_step(n_threads: int) -> int:
    """Claims of each thread's share in the three passes, and pieces done in each."""
    return 3 * n_threads + 3
