"""The GPU twin in Triton: the same address, the same bytes, without leaving the device.

Nothing imports this module at start: it needs torch and triton. Negatives of every distribution and the order of visit;
what a host sampler checked and built is copied to the device once.

B batch rows, N negatives, U users, I items, E interactions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrec.arguments import as_int
from fastrec.errors import ConfigError
from fastrec.sampling.csr import check_csr
from fastrec.sampling.identity import identity
from fastrec.sampling.order import Order
from fastrec.sampling.philox import MAX_ATTEMPTS
from fastrec.sampling.sampler import NegativeSampler
from fastrec.sampling.triton_general import general_kernel, holds, words_of

BLOCK = 256
"""Rows (positions, for the order) a program."""


@triton.jit
def _lane(w0, w1, w2, w3, lane: tl.constexpr):  # type: ignore[no-untyped-def]
    if lane == 0:
        return w0
    if lane == 1:
        return w1
    if lane == 2:
        return w2
    return w3


@triton.jit
def _slot(  # type: ignore[no-untyped-def]
    w0,
    w1,
    w2,
    w3,
    lane: tl.constexpr,
    slot,
    position,
    epoch,
    seed,
    tag,
    items,
    bits,
    row_words,
    user,
    first,
    degree,
    n_items,
    live,
    BITMAP: tl.constexpr,
    ATTEMPTS: tl.constexpr,
    STEPS: tl.constexpr,
):
    """The negative of one slot; ``w0`` to ``w3`` are the words of attempt 0. Full rows: -1."""
    n = n_items.to(tl.uint64)
    threshold = (4294967296 - n_items) % n_items
    block = (slot >> 2) << 16
    pending = live & (degree < n_items)
    product = _lane(w0, w1, w2, w3, lane) * n
    item = (product >> 32).to(tl.int64)
    missed = (product & 0xFFFFFFFF).to(tl.int64) < threshold
    drawn = tl.where(pending, item, -1)
    pending = pending & (missed | holds(items, bits, row_words, user, first, degree, item, pending, BITMAP, STEPS))
    attempt = 1
    while (attempt < ATTEMPTS) & (tl.sum(pending.to(tl.int32)) > 0):
        a0, a1, a2, a3 = words_of(position, epoch, block | attempt, seed, tag)
        product = _lane(a0, a1, a2, a3, lane) * n
        item = (product >> 32).to(tl.int64)
        missed = (product & 0xFFFFFFFF).to(tl.int64) < threshold
        drawn = tl.where(pending, item, drawn)
        hit = holds(items, bits, row_words, user, first, degree, item, pending, BITMAP, STEPS)
        pending = pending & (missed | hit)
        attempt += 1
    # The exact finish: 64 bits from two attempts, scaled to a rank; a miss (1 in 2^33) takes the next two.
    attempt = ATTEMPTS
    while tl.sum(pending.to(tl.int32)) > 0:
        h0, h1, h2, h3 = words_of(position, epoch, block | attempt, seed, tag)
        l0, l1, l2, l3 = words_of(position, epoch, block | (attempt + 1), seed, tag)
        high, low = _lane(h0, h1, h2, h3, lane), _lane(l0, l1, l2, l3, lane)
        legal = tl.where(pending, n_items - degree, 1).to(tl.uint64)
        rank = ((high * legal + ((low * legal) >> 32)) >> 32).to(tl.int64)
        rest = ((high << 32) | low) * legal
        accepted = pending & (rest >= (0 - legal) % legal)
        where, left = first, degree
        for _ in range(STEPS + 1):  # how many items of the row are at or below the rank's find
            half = left >> 1
            mid = where + half
            value = tl.load(items + mid, mask=accepted & (left > 0), other=0).to(tl.int64) - (mid - first)
            below = (left > 0) & (value <= rank)
            where = tl.where(below, mid + 1, where)
            left = tl.where(below, left - half - 1, half)
        drawn = tl.where(accepted, rank + where - first, drawn)
        pending = pending & (rest < (0 - legal) % legal)
        attempt += 2
    return drawn


@triton.jit
def sample_kernel(  # type: ignore[no-untyped-def]
    indptr,
    items,
    bits,
    users,
    positions,
    epoch_at,
    out,
    n_rows,
    n_slots,
    stride,
    n_items,
    row_words,
    seed,
    tag,
    BITMAP: tl.constexpr,
    ATTEMPTS: tl.constexpr,
    STEPS: tl.constexpr,
    SIZE: tl.constexpr,
):
    """out[r * stride + s]: the negatives of SIZE rows and the four slots of one Philox block."""
    row = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    slot = tl.program_id(1) * 4
    live = row < n_rows
    zero = row * 0
    n_items = n_items + zero
    seed, tag, epoch = seed + zero, tag + zero, tl.load(epoch_at) + zero
    user = tl.load(users + row, mask=live, other=0).to(tl.int64)
    position = tl.load(positions + row, mask=live, other=0)
    first = tl.load(indptr + user)
    degree = tl.load(indptr + user + 1) - first
    w0, w1, w2, w3 = words_of(position, epoch, (slot >> 2) << 16, seed, tag)
    to = out + row * stride + slot
    for lane in tl.static_range(4):
        wanted = live & (slot + lane < n_slots)
        drawn = _slot(
            w0, w1, w2, w3, lane, slot, position, epoch, seed, tag, items, bits, row_words, user, first, degree,
            n_items, wanted, BITMAP, ATTEMPTS, STEPS,
        )  # fmt: skip
        tl.store(to + lane, drawn.to(tl.int32), mask=wanted)


@triton.jit
def _hashed(x, key, m):  # type: ignore[no-untyped-def]
    """The keyed hash of ``order.py``: x below 2^32 as uint64, scaled to [0, m)."""
    x = (x + key) & 0xFFFFFFFF
    x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
    x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
    return (x * m) >> 32


@triton.jit
def order_kernel(keys, out, start, count, n, a, b, ROUNDS: tl.constexpr, SIZE: tl.constexpr):  # type: ignore[no-untyped-def]
    """out[k] = pi(start + k): the rounds of ``order.py``, walked until all of the block are below n."""
    k = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    live = k < count
    zero = (k * 0).to(tl.uint64)
    x = tl.where(live, start + k, 0).to(tl.uint64)
    a, b = (a + k * 0).to(tl.uint64), (b + k * 0).to(tl.uint64)
    limit = (n + k * 0).to(tl.uint64)
    walking = live
    while tl.sum(walking.to(tl.int32)) > 0:
        left, right = x % a, x // a
        for r in tl.static_range(0, ROUNDS, 2):
            left = left + _hashed(right, tl.load(keys + r).to(tl.uint64) + zero, a)
            left = tl.where(left >= a, left - a, left)
            right = right + _hashed(left, tl.load(keys + r + 1).to(tl.uint64) + zero, b)
            right = tl.where(right >= b, right - b, right)
        x = tl.where(walking, right * a + left, x)
        walking = walking & (x >= limit)
    tl.store(out + k, x.to(tl.int64), mask=live)


class GpuSampler:
    """A host sampler's negatives, drawn on the device: equal to ``sampler.sample`` byte for byte.

    Parameters
    ----------
    sampler : NegativeSampler
        Its CSR, its weights, and its bitmap where it built one, are copied to the device.
    device : torch.device or str
        Where to draw; a CUDA device, or the CPU under Triton's interpreter.

    Notes
    -----
    Users and positions are trusted, not checked: a check would wait for the device. Cost: the bitmap or 4 bytes
    of device memory per positive, and 8 bytes per user; 20 bytes per item and 8 per positive more where weighted.
    """

    def __init__(self, sampler: NegativeSampler, device: torch.device | str) -> None:
        self.n_items, self.n_negatives = sampler.n_items, sampler.n_negatives
        self.seed, self.tag, self.device = sampler.seed, sampler.tag, torch.device(device)
        self.indptr = torch.tensor(sampler.indptr, device=self.device)
        self.items = torch.as_tensor(np.append(sampler.items, np.int32(0))).to(
            self.device
        )  # never empty: has an address
        bits, self._row_words = sampler.bitmap
        self._bits = torch.tensor(bits.view(np.int32), device=self.device) if bits.size else self.items
        self._bitmap = bits.size > 0
        widest = int(np.diff(sampler.indptr).max(initial=0))
        self._steps = max(0, widest - 1).bit_length()
        self._general = sampler.distribution != "uniform" or sampler.distinct
        self.distinct, self._weighted = sampler.distinct, sampler.distribution != "uniform"
        if self._general:
            unfit = np.zeros(max(1, sampler.n_users), np.uint8)
            unfit[sampler.skipped_users] = 1
            self._unfit = torch.tensor(unfit, device=self.device)
            tables: list[Any] = [np.zeros(1, np.int64)] * 4  # never read
            if (w := sampler.weights) is not None:
                tables = [w.cut.astype(np.int64), w.alias, w.of_items.view(np.int64), w.of_rows.view(np.int64)]
            self._tables = [torch.tensor(table, device=self.device) for table in tables]

    def sample(self, users: Tensor, epoch: int | Tensor, positions: Tensor, out: Tensor | None = None) -> Tensor:
        """Draw N negatives for each row.

        Parameters
        ----------
        users : int32[B]
        epoch : int or int64[1]
            A tensor on the device lets a CUDA graph be replayed for other epochs.
        positions : int64[B]
        out : int32[B, N], optional
            May be a slice of columns of a wider tensor, such as ``items[:, 1:]``.

        Returns
        -------
        int32[B, N]
            ``out``, or a new tensor.
        """
        n_rows = users.shape[0]
        if out is None:
            out = torch.empty((n_rows, self.n_negatives), dtype=torch.int32, device=self.device)
        if out.dtype != torch.int32 or tuple(out.shape) != (n_rows, self.n_negatives) or out.stride(1) != 1:
            raise ConfigError(f"out is {out.dtype}{list(out.shape)}; must be int32[{n_rows}, {self.n_negatives}]")
        if users.dtype != torch.int32 or positions.dtype != torch.int64 or positions.shape != users.shape:
            raise ConfigError("users must be int32[B] and positions int64[B]")
        storage = out.untyped_storage().data_ptr()
        users, positions = (x.clone() if x.untyped_storage().data_ptr() == storage else x for x in (users, positions))
        if not isinstance(epoch, Tensor):
            epoch = as_int("epoch", epoch)
            if not 0 <= epoch < 2**32:
                raise ConfigError(f"epoch={epoch}: must be in 0 to 2^32-1, the counter word it fills")
            epoch = torch.full((1,), epoch, dtype=torch.int64, device=self.device)
        args = (self.indptr, self.items, self._bits, users.contiguous(), positions.contiguous(), epoch, out)
        sizes = (n_rows, self.n_negatives, out.stride(0), self.n_items, self._row_words, self.seed, self.tag)
        form = {"BITMAP": self._bitmap, "ATTEMPTS": MAX_ATTEMPTS, "STEPS": self._steps, "SIZE": BLOCK}
        if n_rows and self._general:
            general_kernel[(triton.cdiv(n_rows, BLOCK),)](
                *args, *self._tables, self._unfit, *sizes, WEIGHTED=self._weighted, DISTINCT=self.distinct,
                ITEM_STEPS=self.n_items.bit_length(), **form,
            )  # fmt: skip
        elif n_rows:
            sample_kernel[(triton.cdiv(n_rows, BLOCK), triton.cdiv(self.n_negatives, 4))](*args, *sizes, **form)
        return out


class GpuOrder:
    """``order.positions`` on the device: equal byte for byte.

    Parameters
    ----------
    order : Order
    device : torch.device or str
    """

    def __init__(self, order: Order, device: torch.device | str) -> None:
        self.order, self.device = order, torch.device(device)
        self._epoch, self._keys = -1, torch.empty(0)

    def positions(self, epoch: int, start: int, stop: int, out: Tensor | None = None) -> Tensor:
        """int64[stop - start] on the device: the positions visited from ``start`` to ``stop`` of an epoch."""
        order = self.order
        epoch, start, stop = as_int("epoch", epoch), as_int("start", start), as_int("stop", stop)
        if not 0 <= start <= stop <= order.n:
            raise ConfigError(f"order of {order.n} positions: [{start}, {stop}) is not in it")
        if self._epoch != epoch:
            self._keys = torch.as_tensor(order.keys(epoch).astype(np.int64)).to(self.device)
            self._epoch = epoch
        count = stop - start
        if out is None:
            out = torch.empty(count, dtype=torch.int64, device=self.device)
        if out.dtype != torch.int64 or tuple(out.shape) != (count,) or not out.is_contiguous():
            raise ConfigError(f"out is {out.dtype}{list(out.shape)}; must be contiguous int64[{count}]")
        if count:
            grid = (triton.cdiv(count, BLOCK),)
            order_kernel[grid](
                self._keys, out, start, count, order.n, order.a, order.b, ROUNDS=self._keys.shape[0], SIZE=BLOCK
            )  # fmt: skip
        return out


class GpuStream:
    """Batches made on the device from a Cursor range: what the host's stream gives, with nothing copied per batch.

    Parameters
    ----------
    indptr : int64[U+1]
    items : int32[E]
        The CSR of training positives, on the host.
    sampler : NegativeSampler
        Uniform, over the same users.
    seed : int
        Of the order of visit.
    device : torch.device or str

    Raises
    ------
    ConfigError
        A sampler that skips users: their positives would have to be left out of the order.
    """

    def __init__(
        self, indptr: Any, items: Any, sampler: NegativeSampler, seed: int, device: torch.device | str
    ) -> None:
        if sampler.skipped_users.size:
            raise ConfigError(f"{sampler.skipped_users.size} users have no negative: drop their positives first")
        indptr, items = check_csr(indptr, items, sampler.n_items)
        if indptr.size - 1 != sampler.n_users:
            raise ConfigError(f"{indptr.size - 1} users, but the sampler has {sampler.n_users}; they must agree")
        self.sampler = GpuSampler(sampler, device)
        self.order = GpuOrder(Order(len(items), seed), device)
        users = np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))
        # packed: user and item are read by one gather
        self._identities = torch.as_tensor(identity(users, items)).to(self.order.device)

    def batch(self, epoch: int, start: int, stop: int) -> tuple[Tensor, Tensor, Tensor]:
        """(users int32[B], items int32[B, 1+N] with the positive in column 0, identities int64[B]) of [start, stop)."""
        positions = self._identities[self.order.positions(epoch, start, stop)]
        users = (positions >> 32).int()
        items = torch.empty((stop - start, 1 + self.sampler.n_negatives), dtype=torch.int32, device=self.order.device)
        items[:, 0] = positions & 0xFFFFFFFF
        self.sampler.sample(users, epoch, positions, items[:, 1:])
        return users, items, positions
