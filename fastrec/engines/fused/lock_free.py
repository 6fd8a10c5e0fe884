"""The lock-free engine: Hogwild over users, one compiled pass that scores and updates a positive at a time.

A step's batch is sorted by user and cut between users into one range a thread, so user rows are each thread's own; item
rows are shared and updated without locks. What every sample touches (item biases, h, the global bias) is copied per
thread and merged after the batch: as shared cache lines they cost more than all factors together.

A positive and its N negatives are scored with the rows as they are, then all 1+N samples are applied, each as a step of
plain SGD (or Adagrad) on its own loss plus ``l2 / 2`` times the squares of what it uses. So the learning rate is that
of single samples: a mini-batch over S samples, whose loss is a mean, takes S times as much for the same movement.

B batch rows, N negatives, U users, I items, D dim.
Source: Niu et al., "Hogwild!", NIPS 2011; the SGD recipe is that of Rendle et al., "Neural collaborative filtering vs.
matrix factorization revisited", RecSys 2020, section 4.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.engines.fused.prepare import Batch
from fastrec.engines.fused.rules import adagrad
from fastrec.engines.fused.weights import Tables, Weights, aligned
from fastrec.jit import njit, run_ranges
from fastrec.lanes import WIDTH, dot, fma, load, mul, prefetch, scratch, splat, store, total
from fastrec.models import losses

_ZERO = np.float32(0.0)
_ONE = np.float32(1.0)


@functools.cache
def kernel(dim: int, gmf: bool, by_row: bool, loss: str, weighted: bool = False) -> Any:
    """The pass for one dim, model, optimiser and loss: constants of the compiled code, so that rows unroll.

    ``weighted``: rows have weights."""
    form = losses.get(loss)
    row_loss, pairs = form.row, form.pairs
    tail = (dim - 1) % WIDTH + 1
    main = dim - tail
    row_bytes = 4 * dim

    @njit
    def train(  # type: ignore[no-untyped-def]
        users, positives, negatives, row_weights, weights, sums, lr, l2, h_lr, output_l2, lo, hi
    ):
        """Train rows [lo, hi) of a batch, moved to where users change; returns the summed loss.

        ``sums`` holds Adagrad's accumulators, one a row, as Tables. The phases of a row are not functions of their own:
        each would take some ten arrays, whose references Numba counts, and a row at D=64, N=4 takes a few 100 ns.
        """
        p, q, h, user_bias, item_bias, bias = weights
        p_sum, q_sum, h_sum, user_sum, item_sum, bias_sum = sums
        n = 1 + negatives.shape[1]
        x, e = scratch(n), scratch(n)
        lrs, items = np.full(n, lr, np.float32), np.empty(n, np.int64)
        w, r = scratch(dim), scratch(dim)
        biased = item_bias.shape[0] > 0
        ahead = max(1, 10 // n)
        while 0 < lo < users.shape[0] and users[lo] == users[lo - 1]:
            lo += 1
        while 0 < hi < users.shape[0] and users[hi] == users[hi - 1]:
            hi += 1
        value, product = 0.0, 1.0
        user_l2, output_l2 = l2 * np.float32(n), output_l2 * np.float32(n)
        for row in range(lo, hi):
            if row + ahead < hi:
                prefetch(q, positives[row + ahead], row_bytes, 1)
                for j in range(n - 1):
                    prefetch(q, negatives[row + ahead, j], row_bytes, 1)
            u = np.int64(users[row])
            items[0] = positives[row]
            for j in range(1, n):
                items[j] = negatives[row, j - 1]
            # The scores: r is the user's row, times h in GMF. Item rows come in no order, so they are asked for 10
            # samples ahead, to write: most are written within the next microsecond.
            for d in range(0, main, WIDTH):
                store(r, 0, d, WIDTH, mul(load(p, u, d, WIDTH), load(h, 0, d, WIDTH)) if gmf else load(p, u, d, WIDTH))
            store(
                r, 0, main, tail, mul(load(p, u, main, tail), load(h, 0, main, tail)) if gmf else load(p, u, main, tail)
            )
            base = bias[0] + (user_bias[u] if biased else _ZERO)
            for j in range(n):
                i = items[j]
                x[j] = dot(r, 0, q, i, dim) + base + (item_bias[i] if biased else _ZERO)
            if weighted:
                more, factor = row_loss(x, e, n, 1.0)
                value += (more + math.log(factor)) * row_weights[row]
                for j in range(n):
                    x[j] *= row_weights[row]
            else:
                more, product = row_loss(x, e, n, product)
                value += more
            slope = _ZERO
            if not pairs:  # in BPR they cancel, and Adagrad would blow up what rounding leaves
                for j in range(n):
                    slope += x[j]
            if by_row:
                for j in range(n):
                    i = items[j]
                    g = splat(x[j])  # ``square_of_sum`` of passes.py costs 2 to 4 % of this kernel at D=64
                    c = splat(l2)
                    v = fma(g, load(r, 0, main, tail), mul(c, load(q, i, main, tail)))
                    s = mul(v, v)
                    for d in range(0, main, WIDTH):
                        v = fma(g, load(r, 0, d, WIDTH), mul(c, load(q, i, d, WIDTH)))
                        s = fma(v, v, s)
                    q_sum[i], divisor = adagrad(q_sum[i], total(s) / np.float32(dim))
                    lrs[j] = lr / divisor
            # The item rows: one pass reads each for w, the sum of g * item row, and updates it, while it is in the
            # first-level cache. Another thread may have written it since it was scored: Hogwild takes that.
            for d in range(0, main, WIDTH):
                rv = load(r, 0, d, WIDTH)
                wv = splat(_ZERO)
                for j in range(n):
                    v = load(q, items[j], d, WIDTH)
                    wv = fma(splat(x[j]), v, wv)
                    v = mul(v, splat(_ONE - lrs[j] * l2))
                    store(q, items[j], d, WIDTH, fma(splat(-lrs[j] * x[j]), rv, v))
                store(w, 0, d, WIDTH, wv)
            rv = load(r, 0, main, tail)
            wv = splat(_ZERO)
            for j in range(n):
                v = load(q, items[j], main, tail)
                wv = fma(splat(x[j]), v, wv)
                v = mul(v, splat(_ONE - lrs[j] * l2))
                store(q, items[j], main, tail, fma(splat(-lrs[j] * x[j]), rv, v))
            store(w, 0, main, tail, wv)
            # The user's row, this thread's own, and h, whose gradient is (user row) * w
            if by_row:
                square = _ZERO
                for d in range(dim):
                    g1 = w[d] * h[d] + user_l2 * p[u, d] if gmf else w[d] + user_l2 * p[u, d]
                    square += g1 * g1
                p_sum[u], divisor = adagrad(p_sum[u], square / np.float32(dim))
                user_lr = lr / divisor
                for d in range(dim):
                    old = p[u, d]
                    g1 = w[d] * h[d] + user_l2 * old if gmf else w[d] + user_l2 * old
                    p[u, d] = old - user_lr * g1
                    if gmf:
                        g1 = w[d] * old + output_l2 * h[d]
                        h_sum[d], divisor = adagrad(h_sum[d], g1 * g1)
                        h[d] -= h_lr / divisor * g1
            elif gmf:
                for d in range(dim):
                    old = p[u, d]
                    p[u, d] = old - lr * (w[d] * h[d] + user_l2 * old)
                    h[d] -= h_lr * (w[d] * old + output_l2 * h[d])
            else:
                shrink, step = splat(_ONE - lr * user_l2), splat(-lr)
                for d in range(0, main, WIDTH):
                    store(p, u, d, WIDTH, fma(step, load(w, 0, d, WIDTH), mul(shrink, load(p, u, d, WIDTH))))
                store(p, u, main, tail, fma(step, load(w, 0, main, tail), mul(shrink, load(p, u, main, tail))))
            # The biases: copies of this thread where they are shared (see the module's docstring).
            if biased:
                for j in range(n):
                    i = items[j]
                    g1 = x[j] + l2 * item_bias[i]
                    if by_row:
                        item_sum[i], divisor = adagrad(item_sum[i], g1 * g1)
                        item_bias[i] -= lr / divisor * g1
                    else:
                        item_bias[i] -= lr * g1
                g1 = slope + user_l2 * user_bias[u]
                if by_row:
                    user_sum[u], divisor = adagrad(user_sum[u], g1 * g1)
                    user_bias[u] -= lr / divisor * g1
                else:
                    user_bias[u] -= lr * g1
            g1 = slope + user_l2 * bias[0]
            if by_row:
                bias_sum[0], divisor = adagrad(bias_sum[0], g1 * g1)
                bias[0] -= lr / divisor * g1
            else:
                bias[0] -= lr * g1
        return value + math.log(product)

    return train


def _private(array: NDArray[np.float32]) -> NDArray[np.float32]:
    """A copy whose cache lines no other thread writes to: a plain one of four bytes shares its line with the next."""
    copy: NDArray[np.float32] = aligned(1, array.size)[0]
    copy[:] = array
    return copy


class LockFree:
    """Steps of the lock-free engine over shared weights.

    Parameters
    ----------
    weights : Weights
    loss : str
        A loss that has a ``row`` form.
    l2, output_l2 : float
        L2 of the rows and biases, and of h.
    output_lr : float
        Learning rate of h as a fraction of ``lr``.
    weighted : bool
        Whether rows have weights.
    threads : int
        Ranges a batch is cut into; with one the result is bit-for-bit reproducible.
    """

    def __init__(
        self,
        weights: Weights,
        *,
        loss: str,
        l2: float,
        output_l2: float,
        output_lr: float,
        threads: int,
        weighted: bool = False,
    ) -> None:
        self.weights, self.l2, self.threads = weights, np.float32(l2), threads
        self.output_l2, self.output_lr = np.float32(output_l2), output_lr
        self._train = kernel(weights.dim, weights.gmf, weights.adagrad, loss, weighted)

    def step(self, batch: Batch, lr: float) -> float:
        """Train on one prepared batch; returns its summed loss."""
        w = self.weights
        shared = (w.h, w.item_bias, w.bias, w.h_sum, w.item_bias_sum, w.bias_sum)

        def work(lo: int, hi: int) -> tuple[float, Any]:
            mine = shared if lo == 0 and hi == batch.users.size else tuple(map(_private, shared))
            h, item_bias, bias, h_sum, item_sum, bias_sum = mine
            weights = Tables(w.user_factors, w.item_factors, h, w.user_bias, item_bias, bias)
            sums = Tables(w.user_sum, w.item_sum, h_sum, w.user_bias_sum, item_sum, bias_sum)
            value = self._train(
                batch.users, batch.positives, batch.negatives, batch.weights, weights, sums, np.float32(lr),
                self.l2, np.float32(lr * self.output_lr), self.output_l2, lo, hi,
            )  # fmt: skip
            return value, mine

        done = run_ranges(work, batch.users.size, self.threads, grain=256)
        if len(done) > 1:
            for array, *copies in zip(shared, *(mine for _, mine in done)):
                changes = [copy - array for copy in copies]
                # h and the bias settle many times over within a batch, in every range: their changes are averaged,
                # for a sum would overshoot as many times as there are ranges. The others' parts add up.
                settled = array is w.h or array is w.bias
                array += sum(changes) / np.float32(len(changes) if settled else 1)
        return float(sum(value for value, _ in done))
