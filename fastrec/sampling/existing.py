"""Time-aware negatives: items that had appeared in train by the time of the positive, drawn exactly and by address.

Items are ranked by first appearance, so that what existed at a time is a prefix of the ranks; a positive's legal items
are that prefix less its user's row.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int, unmasked
from fastrec.errors import ConfigError, DataError
from fastrec.jit import njit, resolve_threads, run_ranges
from fastrec.sampling.csr import bitmap_of, check_csr, union
from fastrec.sampling.general import contains, pick, rank_select
from fastrec.sampling.kernels import BAD_POSITION, BAD_USER, OK
from fastrec.sampling.philox import MAX_ATTEMPTS, STREAM_VERSION, TAG_EXISTING, mulhi64, philox4x32
from fastrec.sampling.sampler import DEFAULT_MEMORY_BUDGET
from fastrec.sampling.sources import csr_of
from fastrec.sampling.vectors import output, read_only, vector

_LOW = np.uint64(0xFFFFFFFF)
_32, _16, _1, _2 = np.uint64(32), np.uint64(16), np.uint64(1), np.uint64(2)
_NEVER = np.iinfo(np.int64).max


@njit
def _first_times(items, times, first):  # type: ignore[no-untyped-def]
    """first[i] = the least time of item i; it begins as the greatest int64."""
    for e in range(items.shape[0]):
        first[items[e]] = min(first[items[e]], times[e])


@njit
def _count_legal(indptr, ranks, own_indptr, prefixes, legal, lo, hi):  # type: ignore[no-untyped-def]
    """legal[e] = ranks below prefixes[e] that the user's row does not hold, for the positives of users [lo, hi)."""
    for u in range(lo, hi):
        row = ranks[indptr[u] : indptr[u + 1]]
        for e in range(own_indptr[u], own_indptr[u + 1]):
            legal[e] = prefixes[e] - np.searchsorted(row, prefixes[e])


@njit
def _sort_rows(indptr, ranks, lo, hi):  # type: ignore[no-untyped-def]
    for u in range(lo, hi):
        ranks[indptr[u] : indptr[u + 1]].sort()


@njit
def sample_existing(  # type: ignore[no-untyped-def]
    taken, own, by_rank, users, positions, epoch, seed, tag, out, lo, hi
):
    """Fill rows [lo, hi) of ``out`` int32[B, N]; returns (status, rejections, exact finishes, rows skipped).

    ``taken`` is (indptr, ranks, bits, row_words): the rows that are never drawn, as ranks by first appearance; empty
    ``bits`` mean membership by binary search. ``own`` is (indptr, items, prefixes): the training positives, by which
    the low word of a position is found, and how many ranks existed at the time of each.
    """
    indptr, ranks, bits, row_words = taken
    own_indptr, own_items, prefixes = own
    rejections, finishes, skipped = 0, 0, 0
    for row in range(lo, hi):
        user, position = users[row], positions[row]
        if user < 0 or user >= indptr.shape[0] - 1:
            return BAD_USER, rejections, finishes, skipped
        item = position & np.int64(0xFFFFFFFF)
        e, end = own_indptr[user], own_indptr[user + 1]
        e += np.searchsorted(own_items[e:end], item)
        if position < 0 or position >> np.int64(32) != user or e == end or own_items[e] != item:
            return BAD_POSITION, rejections, finishes, skipped
        a, b = indptr[user], indptr[user + 1]
        b = a + np.searchsorted(ranks[a:b], prefixes[e])
        n = np.uint64(prefixes[e])
        legal = n - np.uint64(b - a)
        if legal == 0:
            out[row] = -1
            skipped += 1
            continue
        threshold = ((_1 << _32) - n) % n
        c0, c1 = np.uint64(position) & _LOW, np.uint64(position) >> _32
        opening = (c0, c0, c0, c0)
        for slot in range(out.shape[1]):
            word3, lane = np.uint64(slot >> 2) << _16, slot & 3
            if lane == 0:  # one call serves the first attempts of four slots
                opening = philox4x32(c0, c1, epoch, word3, seed, tag)
            rank = np.int64(-1)
            for attempt in range(MAX_ATTEMPTS):
                words = opening
                if attempt > 0:
                    words = philox4x32(c0, c1, epoch, word3 | np.uint64(attempt), seed, tag)
                m = pick(words, lane) * n
                drawn = np.int64(m >> _32)
                good = (m & _LOW) >= threshold
                if bits.shape[0]:
                    word = bits[np.uint64(user) * np.uint64(row_words) + np.uint64(drawn >> 5)]
                    good = good and (word >> np.uint32(drawn & 31)) & np.uint32(1) == 0
                else:
                    good = good and not contains(ranks, a, b, drawn)
                if good:
                    rank = drawn
                    break
                rejections += 1
            if rank < 0:
                finishes += 1
                word3 |= np.uint64(MAX_ATTEMPTS)
                while True:
                    high = philox4x32(c0, c1, epoch, word3, seed, tag)
                    low = philox4x32(c0, c1, epoch, word3 + _1, seed, tag)
                    word3 += _2
                    wanted, rest = mulhi64(pick(high, lane) << _32 | pick(low, lane), legal)
                    if rest >= (np.uint64(0) - legal) % legal:
                        break
                rank = rank_select(ranks, a, b, np.int64(wanted))
            out[row, slot] = by_rank[rank]
    return OK, rejections, finishes, skipped


class ExistingSampler:
    """Draws uniformly among the items that existed at the time of a positive, but for positives of its user.

    Parameters
    ----------
    indptr : integer[U+1]
    items : integer[E]
        The CSR of training positives, items strictly ascending within a row.
    times : integer[E]
        The time of each. An item appears at its first, and exists from then on, that time included.
    n_items : int
        Number of items I. Those without a training positive never exist.
    n_negatives : int
        Negatives a row N, 1 to 2^16.
    seed : int
        0 to 2^32-1.
    exclude : iterable of CSRs
        Further positives to avoid, as in ``NegativeSampler``.
    memory_budget : int
        Most bytes that a bitmap may take; 0 means none. No byte drawn depends on it.
    tag : int
        The TAG that keeps this use's numbers apart.

    Raises
    ------
    DataError
        A faulty CSR, or times that do not fit it.
    ConfigError
        An argument out of range.

    Notes
    -----
    Guarantee: a negative is a pure function of (seed, epoch, user, item, slot), of its user's row, and of the order of
    appearance up to the positive's time: what comes later changes nothing, new items among it. Uniform over the legal
    items. Any split of a call, any threads and any memory budget give the same bytes.

    Cost: 8 bytes per positive, and a bitmap of users by items where the budget allows it.
    """

    distribution = "existing"
    distinct = False

    def __init__(
        self,
        indptr: Any,
        items: Any,
        times: Any,
        *,
        n_items: int,
        n_negatives: int = 4,
        seed: int = 0,
        exclude: Iterable[Any] = (),
        memory_budget: int = DEFAULT_MEMORY_BUDGET,
        tag: int = TAG_EXISTING,
    ) -> None:
        self.n_items, self.n_negatives, self.seed = (
            as_int("n_items", n_items), as_int("n_negatives", n_negatives), as_int("seed", seed)
        )  # fmt: skip
        self.tag, self.memory_budget = as_int("tag", tag), as_int("memory_budget", memory_budget)
        if not 1 <= self.n_negatives <= 2**16:
            raise ConfigError(f"n_negatives={n_negatives}: must be in 1 to 2^16")
        if not (0 <= self.seed < 2**32 and 0 <= self.tag < 2**32):
            raise ConfigError(f"seed={seed}, tag={tag}: must be in 0 to 2^32-1, the key words they fill")
        if self.memory_budget < 0:
            raise ConfigError(f"memory_budget={memory_budget}: must be bytes, 0 for no bitmap")
        self._own = check_csr(indptr, items, self.n_items, copy=True)
        self.n_users = self._own[0].size - 1
        self._prefixes, self._by_rank, rank_of = self._appearance(times)
        rows = self._own
        for k, other in enumerate(exclude):
            far = check_csr(*csr_of(other, self.n_items, n_users=self.n_users)[:3], name=f"exclude[{k}]", copy=True)
            if far[0].size != rows[0].size:
                raise DataError(f"exclude[{k}] has {far[0].size - 1} users, the positives {self.n_users}; must agree")
            rows = union(rows, far)
        self._indptr, self._items = rows
        self._ranks = rank_of[self._items]
        _sort_rows(self._indptr, self._ranks, 0, self.n_users)
        self._bits, self._row_words, self._membership = bitmap_of(
            self._indptr, self._ranks, self.n_items, self.memory_budget
        )
        self._legal = np.empty(self._own[1].size, np.int64)
        _count_legal(self._indptr, self._ranks, self._own[0], self._prefixes, self._legal, 0, self.n_users)

    def _appearance(self, times: Any) -> tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]:
        """(items that existed at each positive, item of each rank, rank of each item)."""
        at = unmasked("times", times)
        if at.dtype.kind not in "iu" or at.shape != self._own[1].shape:
            n = self._own[1].size
            raise DataError(f"times are {at.dtype}{list(at.shape)}; must be integers, one for each of {n} positives")
        at = at.astype(np.int64)
        first = np.full(self.n_items, _NEVER)
        _first_times(self._own[1], at, first)
        by_rank = np.argsort(first, kind="stable").astype(np.int32)  # ties in ascending order of item
        rank_of = np.empty(self.n_items, np.int32)
        rank_of[by_rank] = np.arange(self.n_items, dtype=np.int32)
        prefixes = np.searchsorted(first[by_rank], at, side="right").astype(np.int32)
        return prefixes, by_rank, rank_of

    def __repr__(self) -> str:
        return (
            f"ExistingSampler({self.n_users} users x {self.n_items} items, {self._own[1].size} positives, "
            f"n_negatives={self.n_negatives}, seed={self.seed}; {self._membership})"
        )

    @property
    def indptr(self) -> NDArray[np.int64]:
        """int64[U+1]: row bounds of what is never drawn, ``exclude`` included; read-only."""
        return read_only(self._indptr)

    @property
    def items(self) -> NDArray[np.int32]:
        """int32[E]: items of what is never drawn, ``exclude`` included; read-only."""
        return read_only(self._items)

    @property
    def appearance(self) -> NDArray[np.int32]:
        """int32[I]: the items in the order of their first appearance, ties ascending; read-only."""
        return read_only(self._by_rank)

    @property
    def prefixes(self) -> NDArray[np.int32]:
        """int32[E]: how many items of ``appearance`` existed at the time of each training positive; read-only."""
        return read_only(self._prefixes)

    @property
    def served(self) -> NDArray[np.int64]:
        """int64[n]: CSR indices of the training positives that have a legal item, ascending."""
        return np.flatnonzero(self._legal > 0)

    @property
    def busiest(self) -> float:
        """The largest expected number of times that an item is drawn for one slot of a positive: the oldest items'."""
        return float((1 / self._legal[self._legal > 0]).sum() / max(1, self._legal.size))

    def sample(
        self, users: Any, *, epoch: int, positions: Any, out: Any = None, threads: int | None = 1
    ) -> NDArray[np.int32]:
        """Draw N negatives for each row.

        Parameters
        ----------
        users : integer[B]
        epoch : int
            0 to 2^32-1.
        positions : integer[B]
            Identities of training positives (``fastrec.sampling.identity``): they say at which time an item must exist.
        out : int32[B, N], optional
            C-contiguous memory to fill.
        threads : int, optional
            Threads of this call; None means all.

        Returns
        -------
        int32[B, N]
            Rows of positives without a legal item hold -1.

        Raises
        ------
        DataError
            An unknown user, or a position that is not a training positive of its user: the first is named.
        ConfigError
            An ``out`` of another shape, dtype or layout.
        """
        epoch = as_int("epoch", epoch)
        if not 0 <= epoch < 2**32:
            raise ConfigError(f"epoch={epoch}: must be in 0 to 2^32-1, the counter word it fills")
        users = vector("users", users, np.int32, self.n_users)
        positions = vector("positions", positions, np.int64, 2**63)
        if positions.shape != users.shape:
            raise ConfigError(f"positions has shape {positions.shape}, users {users.shape}; they must agree")
        shape = (users.size, self.n_negatives)
        given, out = out, np.empty(shape, np.int32) if out is None else output(out, shape)
        if given is not None:
            users = users.copy() if np.may_share_memory(out, users) else users
            positions = positions.copy() if np.may_share_memory(out, positions) else positions
        taken = (self._indptr, self._ranks, self._bits, self._row_words)
        own = (*self._own, self._prefixes)
        address = np.uint64(epoch), np.uint64(self.seed), np.uint64(self.tag)

        def work(lo: int, hi: int) -> Any:
            return sample_existing(taken, own, self._by_rank, users, positions, *address, out, lo, hi)

        for status, *_ in run_ranges(work, users.size, resolve_threads(threads), grain=2048):
            if status != OK:
                raise self._fault(users, positions)
        drawn: NDArray[np.int32] = out if given is None else given
        return drawn

    def _fault(self, users: NDArray[Any], positions: NDArray[Any]) -> DataError:
        """The first row at fault, in words."""
        for row, (user, position) in enumerate(zip(users.tolist(), positions.tolist())):
            if not 0 <= user < self.n_users:
                return DataError(f"users[{row}] = {user}: must be in [0, n_users={self.n_users})")
            held = self._own[1][self._own[0][user] : self._own[0][user + 1]]
            if position >> 32 != user or position & 0xFFFFFFFF not in held:
                return DataError(
                    f"positions[{row}] = {position}: is not the identity (user << 32 | item) of a training positive of "
                    f"user {user}, whose time is needed"
                )
        return DataError("users or positions changed during the call")

    def describe(self) -> dict[str, Any]:
        """What this sampler is, for a record, JSON-able."""
        return {
            "stream_version": STREAM_VERSION,
            "distribution": self.distribution,
            "distinct": False,
            "n_users": self.n_users,
            "n_items": self.n_items,
            "n_positives": int(self._items.size),
            "n_negatives": self.n_negatives,
            "seed": self.seed,
            "tag": self.tag,
            "without_legal_item": int((self._legal == 0).sum()),
            "membership": self._membership,
            "bitmap_bytes": int(self._bits.nbytes),
        }
