"""The deterministic engine: mini-batch steps, bit-identical for any number of threads, equal to the torch engine's."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastrec.engines.fused.passes import CHUNK, Prepared, Sums, counters_per_step, kernel
from fastrec.engines.fused.prepare import Block
from fastrec.engines.fused.rules import ADAGRAD, ADAM, SGD
from fastrec.engines.fused.team import LINE, SPINS
from fastrec.engines.fused.weights import Tables, Weights, aligned
from fastrec.jit import available_threads, run_ranges

KINDS = {"sgd": SGD, "row-adagrad": ADAGRAD, "lazy-adam": ADAM}
_STATEFUL = ("user_factors", "item_factors", "h", "user_bias", "item_bias", "bias")


def correction(step: int) -> float:
    """Both bias corrections of Adam as one factor, at a step from 1."""
    return math.sqrt(1 - 0.999**step) / (1 - 0.9**step)


def _state(weights: Weights, name: str, which: int) -> NDArray[np.float32]:
    """An optimiser's first or second state of a weight, a table for a table; empty where it has none."""
    states = list(weights.states.get(name, {}).values())
    table = name.endswith("factors")
    if which >= len(states):
        return np.empty((0, 0) if table else 0, np.float32)
    return states[which].reshape(-1, 1) if table and states[which].ndim == 1 else states[which]


class Deterministic:
    """Steps of the deterministic engine.

    Parameters
    ----------
    weights : Weights
    block : Block
        Batches that the steps are on.
    loss : str
        A loss that has a ``row`` form, as a mean over the step's samples or pairs.
    l2, output_l2 : float
        L2 of the rows and biases, and of h.
    output_lr : float
        Learning rate of h as a fraction of ``lr``.
    threads : int
        Changes the speed and nothing else.
    """

    def __init__(
        self, weights: Weights, block: Block, *, loss: str, l2: float, output_l2: float, output_lr: float, threads: int
    ) -> None:
        self.weights, self.block, self.threads = weights, block, threads
        self._options = (l2, output_l2, output_lr)
        self._kind = KINDS[weights.optimizer]
        self._train = kernel(weights.dim, weights.gmf, self._kind, loss, block.weights.shape[1] > 0)
        steps, rows = block.users.shape
        chunks = -(-rows // CHUNK)
        self._counters = np.zeros((steps, counters_per_step(threads) * LINE), np.int64)
        self._losses = np.empty(steps)
        self._states = tuple(Tables(*(_state(weights, name, which) for name in _STATEFUL)) for which in range(2))
        adam = self._kind == ADAM
        self._sums = Sums(
            old=aligned(min(rows, weights.user_factors.shape[0]), weights.dim),
            g=np.empty(rows * (1 + block.negatives.shape[2]), np.float32),
            user_slopes=np.zeros(weights.user_bias.size if adam else 0, np.float32),
            item_slopes=np.zeros(weights.item_bias.size if adam else 0, np.float32),
            losses=np.empty(chunks),
            slopes=np.empty(chunks),
            h_gradients=np.empty((chunks, weights.dim if weights.gmf else 0), np.float32),
        )

    def run(self, sizes: NDArray[np.int64], lrs: list[float], first: int) -> NDArray[np.float64]:
        """Train on the first ``len(sizes)`` batches of the block, in order; returns the mean loss of each.

        ``first``: steps done before.
        """
        w, b = self.weights, self.block
        l2, output_l2, output_lr = self._options
        spins = SPINS if self.threads <= available_threads() else 0
        if self._kind == ADAM:
            lrs = [lr * correction(first + k + 1) for k, lr in enumerate(lrs)]
        moved = np.array(lrs, np.float32)
        self._counters[: sizes.size] = 0

        prepared = Prepared(b.users, b.positives, b.negatives, b.runs, b.keys, b.weights)

        def work(me: int, _: int) -> None:
            self._train(
                me, self.threads, spins, self._counters, sizes, prepared, w.tables(), *self._states, self._sums,
                self._losses, moved, l2, output_l2, output_lr,
            )  # fmt: skip

        run_ranges(work, self.threads, self.threads)
        return self._losses[: sizes.size]
