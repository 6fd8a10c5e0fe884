"""NegativeSampler: exact negatives by address, from any CSR of positives. Needs NumPy and Numba alone."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError
from fastrec.jit import resolve_threads, run_ranges
from fastrec.sampling import kernels
from fastrec.sampling.csr import check_csr, union
from fastrec.sampling.distinct import sample_distinct
from fastrec.sampling.philox import TAG_NEGATIVES

_NO_POSITIONS = np.empty(0, dtype=np.int64)


class NegativeSampler:
    """Draws items a user has no positive for, each a pure function of (seed, epoch, position, slot).

    Parameters
    ----------
    indptr : integer[U+1]
        Row bounds of the CSR of positives.
    items : integer[E]
        Item ids, strictly ascending within a row.
    n_items : int
        Number of items I, 1 to 2^31-1.
    n_negatives : int
        Negatives a row N.
    seed : int
        0 to 2^32-1.
    distinct : bool
        No item twice in a row: slot s also rejects the slots before it.
    exclude : sequence of (indptr, items)
        Further CSRs over the same users whose items are not drawn either, such as validation and test positives.
    on_full : {"raise", "skip"}
        What to do about users with too few legal items (none, or fewer than N if ``distinct``): refuse here, or
        fill their rows with -1.
    tag : int
        The use of randomness (``fastrec.sampling.philox.TAG_...``): uses with unequal tags share no stream.

    Raises
    ------
    DataError
        A faulty CSR, or a full user under ``on_full="raise"``.
    ConfigError
        An argument out of range.
    """

    def __init__(
        self,
        indptr: Any,
        items: Any,
        *,
        n_items: int,
        n_negatives: int = 4,
        seed: int = 0,
        distinct: bool = False,
        exclude: Sequence[tuple[Any, Any]] = (),
        on_full: str = "raise",
        tag: int = TAG_NEGATIVES,
    ) -> None:
        if n_negatives < 1:
            raise ConfigError(f"n_negatives={n_negatives}: must be at least 1")
        if not 0 <= seed < 2**32:
            raise ConfigError(f"seed={seed}: must lie in 0 to 2^32-1, the key word it fills")
        if on_full not in ("raise", "skip"):
            raise ConfigError(f'on_full={on_full!r}: must be "raise" or "skip"')
        self.indptr, self.items = check_csr(indptr, items, n_items)
        for k, (more_indptr, more_items) in enumerate(exclude):
            more = check_csr(more_indptr, more_items, n_items, name=f"exclude[{k}]")
            if more[0].size != self.indptr.size:
                raise DataError(f"exclude[{k}] has {more[0].size - 1} users, the positives {self.indptr.size - 1}")
            self.indptr, self.items = union((self.indptr, self.items), more)
        self.n_items = int(n_items)
        self.n_users = self.indptr.size - 1
        self.n_negatives = int(n_negatives)
        self.seed = int(seed)
        self.distinct, self.tag = bool(distinct), int(tag)
        needed = self.n_negatives if distinct else 1
        full = np.flatnonzero(n_items - np.diff(self.indptr) < needed)
        if full.size and on_full == "raise":
            raise DataError(
                f"user {full[0]} has {np.diff(self.indptr)[full[0]]} positives of n_items={n_items}, so "
                f"{'no negative exists' if needed == 1 else f'there are not {needed} distinct negatives'}"
                f"{f' ({full.size} such users)' if full.size > 1 else ''}; "
                'pass on_full="skip" to leave such users out'
            )
        self._lock = threading.Lock()
        self._draws = self._rejections = self._finishes = 0

    def sample(
        self,
        users: Any,
        *,
        epoch: int,
        start: int | None = None,
        positions: Any = None,
        out: NDArray[np.int32] | None = None,
        threads: int | None = 1,
    ) -> NDArray[np.int32]:
        """Draw N negatives for each row.

        Parameters
        ----------
        users : integer[B]
            User of each row.
        epoch : int
            0 to 2^32-1.
        start : int
            Position of the first row; the others follow. Or else:
        positions : int64[B]
            Position of every row. Exactly one of the two is required.
        out : int32[B, N], optional
            C-contiguous memory to fill, such as that of a pinned tensor.
        threads : int, optional
            Threads of this call alone; None means all.

        Returns
        -------
        int32[B, N]
            ``out``, or a new array.
        """
        users = np.ascontiguousarray(users, dtype=np.int32)
        if (start is None) == (positions is None):
            raise ConfigError(
                "give exactly one of start= and positions=: without it every batch would repeat one stream"
            )
        pos = _NO_POSITIONS if positions is None else np.ascontiguousarray(positions, dtype=np.int64)
        if positions is not None and pos.shape != users.shape:
            raise ConfigError(f"positions has shape {pos.shape}, users {users.shape}; they must agree")
        if users.size and (int(users.min()) < 0 or int(users.max()) >= self.n_users):
            row = int(np.flatnonzero((users < 0) | (users >= self.n_users))[0])
            raise DataError(f"users[{row}] = {users[row]} does not lie in [0, n_users={self.n_users})")
        if out is None:
            out = np.empty((users.size, self.n_negatives), dtype=np.int32)
        first, e, s = np.int64(start or 0), np.uint64(epoch), np.uint64(self.seed)

        def work(lo: int, hi: int) -> tuple[int, int]:
            if self.distinct:
                ranks, tag = np.empty(self.n_negatives, np.int64), np.uint64(self.tag)
                return sample_distinct(
                    self.indptr, self.items, self.n_items, users, pos, first, e, s, tag, out, ranks, lo, hi
                )
            return kernels.sample_uniform(
                self.indptr, self.items, self.n_items, users, pos, first, e, s, np.uint64(self.tag), out, lo, hi
            )

        done = run_ranges(work, users.size, resolve_threads(threads), grain=4096)
        with self._lock:
            self._draws += out.size
            self._rejections += sum(r for r, _ in done)
            self._finishes += sum(f for _, f in done)
        return out

    @property
    def stats(self) -> dict[str, int]:
        """Counts since construction: ``draws``, ``rejections``, ``exact_finishes``."""
        with self._lock:
            return {"draws": self._draws, "rejections": self._rejections, "exact_finishes": self._finishes}
