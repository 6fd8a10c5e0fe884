"""NegativeSampler: exact negatives by address, from any CSR of positives. Needs only NumPy and Numba."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_bool, as_float, as_int
from fastrec.errors import ConfigError, DataError
from fastrec.jit import resolve_threads, run_ranges
from fastrec.sampling.csr import bitmap_of, check_csr, filter_of, union
from fastrec.sampling.general import sample_general
from fastrec.sampling.kernels import BAD_POSITION, BAD_USER, BLOCK, sample_uniform
from fastrec.sampling.philox import STREAM_VERSION, TAG_NEGATIVES, TAG_POPULARITY
from fastrec.sampling.sources import csr_of
from fastrec.sampling.vectors import output, read_only, vector
from fastrec.sampling.weights import Weights, legal_counts, popularity

DEFAULT_ALPHA = 0.75
DEFAULT_MEMORY_BUDGET = 512 * 2**20
"""Bytes that a bitmap or a filter may take unless told: 2.8 MB for ML-1M, 200 MB for 100 M positives."""

_NO_POSITIONS = np.empty(0, np.int64)
_NO_CUT, _NO_ALIAS, _NO_SUMS = np.empty(0, np.uint32), np.empty(0, np.int32), np.empty(0, np.uint64)
_lock = threading.Lock()


def _fresh_lock() -> None:
    """A thread that held the lock at the fork does not exist in the child, and would never give it back."""
    global _lock
    _lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh_lock)


class NegativeSampler:
    """Draws items a user has no positive for, each a pure function of (seed, epoch, position, slot) and the user's row.

    Parameters
    ----------
    indptr : integer[U+1]
        Row bounds of the CSR of positives.
    items : integer[E]
        Item ids, strictly ascending within a row.
    n_items : int
        Number of items I, 1 to 2^31-1.
    n_negatives : int
        Negatives a row N, 1 to 2^16.
    seed : int
        0 to 2^32-1.
    distribution : {"uniform", "popularity", "weights"}
        Over a user's legal items: all alike; in proportion to ``count ** alpha`` with the item counts of this CSR; or
        in proportion to ``weights``.
    alpha : float, optional
        Exponent of ``"popularity"``, 0.75 unless given.
    weights : float[I], optional
        Item weights of ``"weights"``: finite, not negative. They are quantised to integers that sum to I * 2^32.
    distinct : bool
        The N negatives of a row differ: a slot also rejects the slots before it.
    exclude : iterable of CSRs
        Further positives to avoid, such as those of validation and test: each anything ``of`` takes, with the same
        users and items.
    on_full : {"raise", "skip"}
        What to do about users without enough legal items (none, or fewer than N where ``distinct``): refuse here, or
        fill their rows with -1.
    memory_budget : int
        Most bytes that a bitmap of users by items, or else a filter of the positives, may take; 0 means neither. Speed
        depends on it, no byte drawn does.
    tag : int, optional
        The TAG of ``philox.py`` that keeps this use's numbers apart; that of the distribution unless given.

    Raises
    ------
    DataError
        A faulty CSR or weights, or a user without enough legal items under ``on_full="raise"``: the first is named.
    ConfigError
        An argument out of range.

    Notes
    -----
    Guarantee: no negative is a positive of its user. Any split of a call into smaller ones, any number of threads, any
    order of rows and any memory budget give the same bytes; the first columns at a larger N are the columns at a
    smaller one; unequal (seed, epoch) pairs share no stream. The distribution over the legal items is exact: bounded
    rejection, then after 8 attempts a draw by rank among the legal items.

    Safe for many threads at once; the GIL is released; nothing global is touched; works in a forked child.

    Cost: 4 * ceil(I / 32) * U bytes of bitmap, or 2 bytes of filter per positive, where the budget allows it; speeds in
    ``benchmarks/README.md``.

    Source: Salmon et al., SC 2011 (Philox); Lemire, ACM TOMACS 29(1), 2019, section 4 (bounded integers).
    """

    def __init__(
        self,
        indptr: Any,
        items: Any,
        *,
        n_items: int,
        n_negatives: int = 4,
        seed: int = 0,
        distribution: str = "uniform",
        alpha: float | None = None,
        weights: Any = None,
        distinct: bool = False,
        exclude: Iterable[Any] = (),
        on_full: str = "raise",
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        tag: int | None = None,
    ) -> None:
        n_negatives, seed, memory_budget = (
            as_int("n_negatives", n_negatives), as_int("seed", seed), as_int("memory_budget", memory_budget)
        )  # fmt: skip
        if not 1 <= n_negatives <= 2**16:
            raise ConfigError(f"n_negatives={n_negatives}: must be in 1 to 2^16")
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed={seed}: must be in 0 to 2^32-1, the key word it fills")
        if distribution not in ("uniform", "popularity", "weights"):
            raise ConfigError(f'distribution={distribution!r}: must be "uniform", "popularity" or "weights"')
        if alpha is not None and distribution != "popularity":
            raise ConfigError(f'alpha={alpha} belongs to distribution="popularity", not {distribution!r}')
        if (weights is not None) != (distribution == "weights"):
            raise ConfigError(f'weights and distribution="weights" go together; distribution is {distribution!r}')
        if on_full not in ("raise", "skip"):
            raise ConfigError(f'on_full={on_full!r}: must be "raise" or "skip"')
        if memory_budget < 0:
            raise ConfigError(f"memory_budget={memory_budget}: must be bytes, 0 for no bitmap")
        if tag is None:
            tag = TAG_NEGATIVES if distribution == "uniform" else TAG_POPULARITY
        tag = as_int("tag", tag)
        if not 0 <= tag < 2**32:
            raise ConfigError(f"tag={tag}: must be in 0 to 2^32-1, the key word it fills")
        n_items = as_int("n_items", n_items)
        self._indptr, self._items = own = check_csr(indptr, items, n_items, copy=True)
        self.n_items, self.n_users = n_items, self._indptr.size - 1
        self.n_negatives, self.seed, self.tag = n_negatives, seed, tag
        self._merged = (0, 0)
        self.distribution, self.distinct, self.on_full = distribution, as_bool("distinct", distinct), on_full
        self.alpha = (
            (DEFAULT_ALPHA if alpha is None else as_float("alpha", alpha)) if distribution == "popularity" else None
        )
        self._excluded: list[tuple[int, int, int]] = []
        if not isinstance(exclude, Iterable):
            raise ConfigError(f"exclude is a {type(exclude).__name__}: must be a list of CSRs, such as [interactions]")
        for k, other in enumerate(exclude):
            name = f"exclude[{k}]"
            source = csr_of(other, self.n_items, n_users=self.n_users)
            far = check_csr(*source[:3], name=name, copy=True)
            if far[0].size != self._indptr.size:
                raise DataError(f"{name} has {far[0].size - 1} users, the positives {self.n_users}; they must agree")
            self._excluded.append((int(far[1].size), source.zeros, source.duplicates))
            self._indptr, self._items = union((self._indptr, self._items), far)
        self._weights = None
        if distribution != "uniform":
            if weights is None:
                weights = popularity(np.bincount(own[1], minlength=n_items), self.alpha or 0.0)
            self._weights = Weights(weights, self._items, self.n_items)
        self._unfit = self._find_unfit()
        self._fast = distribution == "uniform" and not distinct
        self.memory_budget = memory_budget
        self._filter = np.empty(0, np.uint32)
        self._bits, self._row_words, self._membership = self._bitmap(cached=self._fast)
        if not self._bits.size:
            other = "binary search in the CSR"
            if self._fast:
                self._filter, other = filter_of(self._indptr, self._items, memory_budget)
            self._membership = f"{other}; {self._membership}"
        self._counts = (0, 0, 0, 0)

    def __repr__(self) -> str:
        kind = self.distribution if self.alpha is None else f"{self.distribution}, alpha={self.alpha:g}"
        kind += ", distinct" if self.distinct else ""
        return (
            f"NegativeSampler({kind}: {self.n_users} users x {self.n_items} items, {self._items.size} positives, "
            f"n_negatives={self.n_negatives}, seed={self.seed}; {self._membership})"
        )

    @classmethod
    def of(cls, source: Any, *, n_items: int | None = None, **options: Any) -> NegativeSampler:
        """A sampler of an Interactions, scipy CSR, Arrow list array, Polars or pandas frame, or (indptr, items).

        Parameters
        ----------
        source : object
            Recognised by its shape (``fastrec.sampling.sources.csr_of``): none of those packages is imported.
        n_items : int, optional
            Number of items; required where the source does not know it.
        **options
            Those of the class; for a frame also ``user_col`` and ``item_col``.
        """
        columns = {k: options.pop(k) for k in ("user_col", "item_col") if k in options}
        read = csr_of(source, n_items, **columns)
        made = cls(read.indptr, read.items, n_items=read.n_items, **options)
        made._merged = (read.zeros, read.duplicates)
        return made

    def _find_unfit(self) -> NDArray[np.uint8]:
        """uint8[U]: 1 where a user has too few legal items; raises under ``on_full="raise"``."""
        need = self.n_negatives if self.distinct else 1
        legal = self.n_items - np.diff(self._indptr)
        if self._weights is not None:
            legal_counts(self._weights.units, self._indptr, self._items, legal)
        unfit = legal < need
        if self.on_full == "raise" and unfit.any():
            u = int(np.flatnonzero(unfit)[0])
            degree = int(self._indptr[u + 1] - self._indptr[u])
            more = f" ({int(unfit.sum())} such users)" if int(unfit.sum()) > 1 else ""
            what = "no negative exists" if need == 1 else f"there are not {need} distinct negatives"
            weighted = "" if self._weights is None else f", {int(legal[u])} of the others with a positive weight"
            raise DataError(
                f"user {u} has {degree} positives of n_items={self.n_items}{weighted}, so {what}{more}; "
                'pass on_full="skip" to leave such users out'
            )
        return unfit.astype(np.uint8)

    @property
    def indptr(self) -> NDArray[np.int64]:
        """int64[U+1]: row bounds of what is never drawn, ``exclude`` included; read-only."""
        return read_only(self._indptr)

    @property
    def items(self) -> NDArray[np.int32]:
        """int32[E]: items of what is never drawn, ``exclude`` included; read-only."""
        return read_only(self._items)

    @property
    def weights(self) -> Weights | None:
        """Integer weights and alias table; None where uniform."""
        return self._weights

    @property
    def skipped_users(self) -> NDArray[np.int64]:
        """int64[...]: users whose rows are filled with -1, ascending; training leaves their positives out."""
        return np.flatnonzero(self._unfit)

    def _bitmap(self, *, cached: bool) -> tuple[NDArray[np.uint32], int, str]:
        return bitmap_of(self._indptr, self._items, self.n_items, self.memory_budget, cached=cached)

    @property
    def bitmap(self) -> tuple[NDArray[np.uint32], int]:
        """(bits uint32[U * words], words per row): bit i % 32 of word i // 32 of a row; empty where beyond the budget.

        Read-only. Built at each call where this sampler draws by its filter.
        """
        bits, words = (self._bits, self._row_words) if self._bits.size else self._bitmap(cached=False)[:2]
        return read_only(bits), words

    def sample(
        self,
        users: Any,
        *,
        epoch: int,
        start: int | None = None,
        positions: Any = None,
        out: Any = None,
        threads: int | None = 1,
    ) -> NDArray[np.int32]:
        """Draw N negatives for each row.

        Parameters
        ----------
        users : integer[B]
            User of each row. int32 is taken as it is, anything else is copied.
        epoch : int
            0 to 2^32-1.
        start : int, optional
            Position of the first row; the others follow. Or else:
        positions : integer[B], optional
            Position of every row, 0 to 2^63-1; in training the index of the positive in the train CSR. Exactly one of
            the two is required. int64 is taken as it is.
        out : int32[B, N], optional
            C-contiguous memory to fill, such as ``tensor.numpy()`` of a pinned tensor. Where it shares memory with
            ``users`` or ``positions``, these are copied first.
        threads : int, optional
            Threads of this call only; None means all.

        Returns
        -------
        int32[B, N]
            ``out``, or a new array; torch, CuPy and Arrow take it without a copy (DLPack, array interface). Rows of
            users without enough legal items hold -1.

        Raises
        ------
        DataError
            An unknown user or a negative position: the first is named.
        ConfigError
            Neither or both of ``start`` and ``positions``; an ``out`` of another shape, dtype or layout.
        """
        if (start is None) == (positions is None):
            raise ConfigError(
                "give exactly one of start= and positions=: without it every batch would repeat one stream"
            )
        epoch = as_int("epoch", epoch)
        if not 0 <= epoch < 2**32:
            raise ConfigError(f"epoch={epoch}: must be in 0 to 2^32-1, the counter word it fills")
        users = vector("users", users, np.int32, self.n_users)
        pos = _NO_POSITIONS
        if positions is not None:
            pos = vector("positions", positions, np.int64, 2**63)
            if pos.shape != users.shape:
                raise ConfigError(f"positions has shape {pos.shape}, users {users.shape}; they must agree")
        else:
            start = as_int("start", start)
            if not 0 <= start <= 2**63 - 1 - users.size:
                raise ConfigError(f"start={start}: positions must be in 0 to 2^63-1")
        shape = (users.size, self.n_negatives)
        given, out = out, np.empty(shape, np.int32) if out is None else output(out, shape)
        if given is not None:  # bounds decide: all three are contiguous
            users = users.copy() if np.may_share_memory(out, users) else users
            pos = pos.copy() if np.may_share_memory(out, pos) else pos
        first, e, s, tag = np.int64(start or 0), np.uint64(epoch), np.uint64(self.seed), np.uint64(self.tag)
        if self._fast:
            any_full = self.on_full == "skip" and bool(self._unfit.any())
            positives = (self._indptr, self._items, self._bits, self._row_words, self._filter, self.n_items)

            def work(lo: int, hi: int) -> Any:
                return sample_uniform(positives, users, pos, first, (e, s, tag), any_full, out, lo, hi)
        else:
            w = self._weights
            tables = (_NO_CUT, _NO_ALIAS, _NO_SUMS, _NO_SUMS) if w is None else (w.cut, w.alias, w.of_items, w.of_rows)

            def work(lo: int, hi: int) -> Any:
                return sample_general(
                    self._indptr, self._items, self._bits, self._row_words, self.n_items, *tables, self._unfit, users,
                    pos, first, e, s, tag, self.distinct, out, lo, hi,
                )  # fmt: skip

        done = run_ranges(work, users.size, resolve_threads(threads), grain=4 * BLOCK)
        for status, *_ in done:
            if status == BAD_USER:
                row = int(np.flatnonzero((users < 0) | (users >= self.n_users))[0])
                raise DataError(f"users[{row}] = {users[row]} is not in [0, n_users={self.n_users})")
            if status == BAD_POSITION:
                row = int(np.flatnonzero(pos < 0)[0])
                raise DataError(f"positions[{row}] = {pos[row]}: positions count from 0")
        rejections, finishes, skipped = (sum(part[k] for part in done) for k in (1, 2, 3))
        draws = (users.size - skipped) * self.n_negatives
        with _lock:
            self._counts = tuple(x + y for x, y in zip(self._counts, (draws, rejections, finishes, skipped)))
        filled: NDArray[np.int32] = out if given is None else given
        return filled

    @property
    def stats(self) -> dict[str, int]:
        """Counts since construction: ``draws`` (negatives given), ``rejections`` (of attempts), ``exact_finishes``
        (draws that ended by rank), ``skipped`` (rows filled with -1). Equal for equal calls, whatever the threads."""
        with _lock:
            return dict(zip(("draws", "rejections", "exact_finishes", "skipped"), self._counts))

    def describe(self) -> dict[str, Any]:
        """Description of this sampler as JSON values; ``membership`` is what was built within memory_budget."""
        return {
            "stream_version": STREAM_VERSION,
            "distribution": self.distribution,
            "alpha": self.alpha,
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_positives": int(self._items.size),
            "n_negatives": self.n_negatives,
            "seed": self.seed,
            "tag": self.tag,
            "distinct": self.distinct,
            "zeros_dropped": self._merged[0],
            "duplicates_merged": self._merged[1],
            "excluded_csrs": [size for size, *_ in self._excluded],
            "excluded_zeros_dropped": [zeros for _, zeros, _ in self._excluded],
            "excluded_duplicates_merged": [duplicates for *_, duplicates in self._excluded],
            "on_full": self.on_full,
            "skipped_users": int(self._unfit.sum()),
            "membership": self._membership,
            "memory_budget_bytes": self.memory_budget,
            "bitmap_bytes": int(self._bits.nbytes),
            "filter_bytes": int(self._filter.nbytes),
            "weights_bytes": 0 if self._weights is None else self._weights.nbytes,
        }
