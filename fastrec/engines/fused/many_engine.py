"""The engine over the pass for many negatives: batches from addresses, steps in either mode, state that resumes.

B batch rows, N negatives, U users, I items, D dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

from fastrec.engines.base import Progress
from fastrec.engines.fused import codes
from fastrec.engines.fused.many import items_kernel, kernel, refresh_kernel
from fastrec.engines.fused.prepare import look_up
from fastrec.engines.fused.weights import LINE, aligned, restored
from fastrec.engines.units import SETTLED, Units
from fastrec.errors import ConfigError
from fastrec.jit import resolve_threads, run_ranges
from fastrec.models import losses
from fastrec.sampling import identity
from fastrec.sampling.order import Cursor

MODES = ("deterministic", "lock_free")
OPTIMIZERS = ("sgd", "row-adagrad")
COSINE = ("user_factors", "item_factors")
DOT = (*COSINE, "user_bias", "item_bias", "bias")
_MOST_ENTRIES = 2**32 - 1


def _named(model: Any) -> dict[str, NDArray[np.float32]]:
    """The model's parameters as NumPy views, tables beginning on a cache line."""
    named = dict(model.named_parameters())
    if set(named) not in (set(COSINE), set(DOT)):
        raise ConfigError(
            f"model {type(model).__name__}: the fused pass for many negatives trains MF and CosineMF; "
            "use engine = torch for the others"
        )
    for name, parameter in named.items():
        if parameter.device.type != "cpu" or str(parameter.dtype) != "torch.float32":
            raise ConfigError(
                f"{name} is {parameter.dtype} on {parameter.device}: the fused engine trains float32 on the CPU"
            )
        if parameter.data_ptr() % LINE:
            parameter.data = parameter.data.clone()  # into torch's own memory, which begins on a cache line
    return {name: parameter.detach().numpy() for name, parameter in named.items()}


class ManyEngine:
    """Trains MF (dot products) and CosineMF on the CPU with tens to thousands of uniform negatives per positive.

    Parameters
    ----------
    model : torch.nn.Module
        MF or CosineMF; its parameters are trained in place.
    stream : Stream
        Its sampler draws uniformly, not distinct.
    batch_size : int
        Positives a step.
    lr : callable
        Step (from 0) -> learning rate; of SGD that of a single positive's loss.
    loss : str
        A loss with a ``many`` form.
    loss_options : mapping, optional
        Its options by name; what is left out has the loss's own default.
    mode : {"deterministic", "lock_free"}
    optimizer : {"sgd", "row-adagrad"}
    l2 : float
        Each positive adds ``l2 / 2`` times the squares of what it and its negatives use; see ``engines.units``. For
        dot products only: a cosine does not depend on the lengths of rows.
    threads : int, optional
        None means every processor.

    Raises
    ------
    ConfigError
        For a model, loss, optimiser, mode or sampler that it does not support.

    Notes
    -----
    Guarantee: the negatives are those of ``stream.sampler``. Deterministic mode gives the same bytes for any number of
    threads, any cuts into ``advance`` calls and any restart, on one machine with one set of versions; lock_free with
    one thread.
    Cost: 64 bytes of codes and 8 of norms an item for CCL; deterministic mode holds 16 bytes for each sample of a batch
    that has a gradient, which for softmax and BCE are all.
    """

    def __init__(
        self,
        model: Any,
        stream: Any,
        *,
        batch_size: int,
        lr: Callable[[int], float],
        loss: str = "ccl",
        loss_options: Mapping[str, float] | None = None,
        mode: str = "deterministic",
        optimizer: str = "row-adagrad",
        l2: float = 0.0,
        threads: int | None = None,
    ) -> None:
        if mode not in MODES:
            raise ConfigError(f"fused_mode = {mode!r}: must be one of {', '.join(MODES)}")
        if optimizer not in OPTIMIZERS:
            raise ConfigError(f"optimizer = {optimizer!r}: the pass for many negatives has {', '.join(OPTIMIZERS)}")
        self.named = _named(model)
        self.cosine = len(self.named) == len(COSINE)
        self.loss = losses.get(loss).bind(loss_options or {}, int(stream.n_negatives), stream.sampler.n_items)
        similarity = "cosine" if self.cosine else "dot"
        if self.loss.many is None or similarity not in self.loss.similarities:
            fit = [n for n in losses.names() if losses.get(n).many and similarity in losses.get(n).similarities]
            raise ConfigError(
                f"loss = {loss!r}: for {type(model).__name__}, whose scores are {similarity}, the pass for many "
                f"negatives takes {', '.join(fit)}"
            )
        if self.cosine and l2:
            raise ConfigError(f"l2 = {l2}: has no effect on cosines, which do not depend on the lengths of rows; set 0")
        sampler = stream.sampler
        if sampler.distribution != "uniform" or sampler.distinct:
            raise ConfigError(
                f"distribution = {sampler.distribution!r}, distinct = {sampler.distinct}: the pass for many negatives "
                "draws uniformly, with repeats; use engine = torch"
            )
        if getattr(model, "history_weight", 0.0):
            model.check_history(stream.indptr, stream.items_of)
        self.model, self.stream, self.batch_size, self.lr = model, stream, int(batch_size), lr
        self.n_negatives, self.n_positives = int(stream.n_negatives), int(stream.n_positives)
        self.mode, self.optimizer = mode, optimizer
        self._units = Units(self.loss, optimizer, 1 + self.n_negatives)
        self.l2 = (self._units.l2 if mode == "deterministic" else self._units.l2_of_sample)(float(l2))
        """Of a sample."""
        self.threads = resolve_threads(threads)
        self.step = 0
        rows = min(self.batch_size, self.n_positives)
        if mode == "deterministic" and rows * (1 + self.n_negatives) > _MOST_ENTRIES:
            raise ConfigError(
                f"batch_size = {batch_size} with negatives = {self.n_negatives}: a deterministic step takes up to "
                "2^32 - 1 samples; use a smaller batch"
            )
        self._weights()
        self._kernels()
        self._memory(rows)
        self._refresh()

    def _weights(self) -> None:
        none = np.empty(0, np.float32)
        self._p, self._q = self.named["user_factors"], self.named["item_factors"]
        self.dim, n_items = self._p.shape[1], self._q.shape[0]
        biases = DOT[2:]
        self._biases = tuple(self.named.get(name, none) for name in biases)
        self.sums = {
            name: np.zeros(a.shape[0], np.float32) for name, a in self.named.items() if self.optimizer == "row-adagrad"
        }
        self._sums = tuple(self.sums.get(name, none) for name in DOT)
        self._coded = self.loss.sparse
        kept = codes.empty(n_items, self.dim) if self._coded else (np.empty((0, 0), np.int8), none)
        self._shadow = (np.ones(n_items, np.float32), *kept)

    def _kernels(self) -> None:
        adagrad = self.optimizer == "row-adagrad"
        apart = self.mode == "deterministic"
        weight = float(getattr(self.model, "history_weight", 0.0))
        self._pairs = self.stream.users_of, self.stream.items_of
        self._history = (self.stream.indptr, self._pairs[1], np.float32(weight))
        weighted = self.stream.weights is not None
        self._train = kernel(self.dim, self.cosine, adagrad, self.loss.name, apart, weight > 0, weighted)
        self._update = items_kernel(self.dim, self.cosine, adagrad, self._coded) if apart else None

    def _memory(self, rows: int) -> None:
        apart = self.mode == "deterministic"
        self._positions, self._users = np.empty(rows, np.int64), np.empty(rows, np.int32)
        self._positives, self._runs = np.empty(rows, np.int32), np.empty(rows, np.int32)
        self._row_weights = np.empty(rows if self.stream.weights is not None else 0, np.float32)
        kept = rows if apart else 0
        users = min(rows, self._p.shape[0]) if apart else 0
        self._old, self._losses, self._slopes = aligned(users, self.dim), np.empty(kept), np.empty(kept, np.float32)
        size = kept * (1 + self.n_negatives)
        kinds = (np.int32, np.int32, np.float32, np.float32)
        self._entries = tuple(np.empty(size, kind) for kind in kinds)

    def _refresh(self) -> None:
        """Norms and codes from the rows: they are not state, a restart finds the same ones."""
        if self.cosine:
            refresh = refresh_kernel(self.dim, self._coded)
            run_ranges(lambda lo, hi: refresh(self._q, self._shadow, lo, hi), len(self._q), self.threads, grain=4096)

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Run up to ``n_steps`` steps, not beyond the cursor's epoch."""
        total, start, steps, columns = 0.0, cursor.position, 0, 1 + self.n_negatives
        self._refresh()  # the caller may have put other weights into the model
        while steps < n_steps and cursor.position < self.n_positives:
            stop = min(cursor.position + self.batch_size, self.n_positives)
            n = self._prepare(cursor.epoch, cursor.position, stop)
            asked = self.lr(self.step)
            lr = np.float32(self._units.step_lr(asked, n) if self.mode == "deterministic" else asked)
            step = self._step_apart if self.mode == "deterministic" else self._step_lock_free
            total += step(n, np.uint64(cursor.epoch), lr) * columns / self.loss.terms(1, columns)
            self.step += 1
            steps += 1
            cursor = Cursor(cursor.epoch, stop)
        n = cursor.position - start
        return Progress(cursor, total, n * columns, n, steps)

    def _prepare(self, epoch: int, start: int, stop: int) -> int:
        """Users, positives and addresses of a batch, sorted by user; returns its rows."""
        n, stream = stop - start, self.stream
        positions = self._positions[:n]
        stream.order.positions(epoch, start, stop, positions)
        if stream.eligible.size:
            positions[:] = stream.eligible[positions]
        positions.sort()
        if self._row_weights.size:
            self._row_weights[:n] = self.stream.weights[positions]
        look_up(positions, *self._pairs, self._users, self._positives, self._runs, 0, n)
        positions[:] = identity(self._users[:n], self._positives[:n])
        return n

    def _pass(self, n: int, epoch: np.uint64, lr: np.float32, scale: float, l2: float, biases: Any, sums: Any) -> Any:
        """(lo, hi) -> what the kernel returns for rows [lo, hi) of the batch."""
        s = self.stream.sampler
        numbers = tuple(map(np.float32, self.loss.bound))
        places = (self._runs[:n], self._old, self._losses, self._slopes)

        def work(lo: int, hi: int) -> Any:
            return self._train(
                self._users[:n], self._positives[:n], self._positions[:n], self._row_weights[:n], s.indptr, s.items,
                self.n_negatives, epoch, np.uint64(s.seed), np.uint64(s.tag), self._p, self._q, biases, sums,
                self._shadow, numbers, np.float32(scale), lr, np.float32(l2), self._history, places, self._entries,
                lo, hi,
            )  # fmt: skip

        return work

    def _step_lock_free(self, n: int, epoch: np.uint64, lr: np.float32) -> float:
        """One pass over the batch, in ranges of users; what all samples share is copied per range and merged."""
        user_bias, item_bias, bias = self._biases
        p_sum, q_sum, user_sum, item_sum, bias_sum = self._sums
        shared = (item_bias, bias, item_sum, bias_sum)

        def work(lo: int, hi: int) -> tuple[float, Any]:
            mine = shared if lo == 0 and hi == n else tuple(aligned(1, a.size)[0] for a in shared)
            for copy, array in zip(mine, shared):
                copy[:] = array
            biases, sums = (user_bias, mine[0], mine[1]), (p_sum, q_sum, user_sum, mine[2], mine[3])
            return self._pass(n, epoch, lr, 1.0, self.l2, biases, sums)(lo, hi)[0], mine

        done = run_ranges(work, n, self.threads, grain=64)
        if len(done) > 1:
            for array, *copies in zip(shared, *(mine for _, mine in done)):
                changes = [copy - array for copy in copies]
                # the bias settles within a batch in every range: changes are averaged, a sum would overshoot
                array += sum(changes) / np.float32(len(changes) if array is bias else 1)
        return float(sum(value for value, _ in done))

    def _step_apart(self, n: int, epoch: np.uint64, lr: np.float32) -> float:
        """Users, then items, then the global bias: a mini-batch step on the mean loss."""
        scale = 1.0 / self.loss.terms(n, 1 + self.n_negatives)
        l2 = self.l2 / (n * (1 + self.n_negatives))
        work = self._pass(n, epoch, lr, scale, l2, self._biases, self._sums)
        done = run_ranges(work, n, self.threads, grain=16)
        firsts, counts = (np.array([part[k] for part in done], np.int64) for k in (1, 2))
        item_bias, q_sum, item_sum = self._biases[1], self._sums[1], self._sums[3]

        def items(lo: int, hi: int) -> None:
            assert self._update is not None
            self._update(
                firsts, counts, self._entries, self._old, self._q, item_bias, q_sum, item_sum, self._shadow, lr,
                np.float32(l2), lo, hi,
            )  # fmt: skip

        run_ranges(items, len(self._q), self.threads, grain=64)
        if not self.cosine:
            bias, sums = self._biases[2], self._sums[4]
            gradient = np.float32(self._slopes[:n].sum(dtype=np.float64)) + np.float32(self.l2) * bias[0]
            if sums.size:
                sums[0] += gradient * gradient
                lr = lr / (np.sqrt(sums[0]) + np.float32(1e-10))
            else:
                lr = min(lr, np.float32(SETTLED))
            bias[0] -= lr * gradient
        return float(self._losses[:n].sum())

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Weights and the optimiser's state, named as the torch engine names them, and the step."""
        import torch

        tensors = {f"model.{name}": p.detach() for name, p in self.model.named_parameters()}
        for name, array in self.sums.items():
            shape = (-1, 1) if self.named[name].ndim == 2 else (-1,)
            tensors[f"optimizer.{name}.sum"] = torch.from_numpy(array).reshape(shape)
        return tensors, {"step": self.step}

    def load_state(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Put back what ``state`` gave.

        Raises
        ------
        CheckpointError
            If a tensor is missing or has another shape.
        """
        arrays = {f"model.{name}": array for name, array in self.named.items()}
        arrays |= {f"optimizer.{name}.sum": array for name, array in self.sums.items()}
        for array, values in restored(arrays, tensors):
            array[...] = values
        self.step = int(meta["step"])
        self._refresh()

    def describe(self) -> dict[str, Any]:
        """Backend, device and precision."""
        return {
            "engine": "fused",
            "pass": "many",
            "fused_mode": self.mode,
            "similarity": "cosine" if self.cosine else "dot",
            "device": "cpu",
            "precision": "fp32",
            "threads": self.threads,
            "numba": numba.__version__,
        }

    def close(self) -> None:
        """Nothing runs in the background."""
