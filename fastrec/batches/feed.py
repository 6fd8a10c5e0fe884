"""The feed: a background thread draws batches a few blocks ahead into a ring of buffers, and copies them to the device.

One block holds several small batches, so that the thread's Python costs little; the numbers do not depend on it.
"""

from __future__ import annotations

import queue
import threading
import time
import weakref
from typing import Any, NamedTuple

import torch
from torch import Tensor

from fastrec.batches.device import HostDevice
from fastrec.batches.slices import Slices
from fastrec.batches.stream import Batch, Stream
from fastrec.errors import FastrecError
from fastrec.sampling.order import Cursor

BLOCK = 1 << 15  # positives per block at least: half a millisecond of drawing, against some 50 us of Python
SLOTS = 3  # one being read, one ready, one being filled
_TICK_S = 0.2  # how often a waiting side looks whether the other still lives


class DeviceBatch(NamedTuple):
    """One batch on the device."""

    users: Tensor
    """int32[B]"""
    items: Tensor
    """int32[B, 1+N]"""
    positions: Tensor
    """int64[B]"""
    weights: Tensor | None = None
    """float32[B], of a run whose positives have weights"""


class _Slot:
    """Buffers of one block, and the events that guard them."""

    def __init__(self, device: HostDevice, rows: int, columns: int) -> None:
        shapes = [((rows,), torch.int32), ((rows, columns), torch.int32), ((rows,), torch.int64)]
        self.host = [device.host_buffer(shape, dtype) for shape, dtype in shapes]
        self.device = [device.device_buffer(t) for t in self.host]
        self.arrays = Batch(*(t.numpy() for t in self.host))
        self.copied: Any = None
        """The copy's end: before it, the host buffers may not be written."""
        self.consumed: Any = None
        """The last reader's end: before it, the device buffers may not be written."""
        self.start = self.stop = Cursor(0, 0)


class Feed:
    """Batches in order from any cursor, drawn ahead.

    Parameters
    ----------
    stream : Stream or Slices
    batch_size : int
        Positives a batch; the tail of an epoch is shorter.
    device : HostDevice, optional
        Where batches go.
    threads : int
        Threads of the sampler.
    block : int
        Positives a block at least.

    Raises
    ------
    Whatever the thread raised, from ``next``.

    Notes
    -----
    Guarantee: ``next`` returns within ticks once the thread has died, raised or been closed; ``close`` always returns.
    The batch that ``next`` gave is valid until the next call.
    """

    def __init__(
        self,
        stream: Stream | Slices,
        *,
        batch_size: int,
        device: HostDevice | None = None,
        threads: int = 1,
        block: int = BLOCK,
    ) -> None:
        self.stream, self.batch_size, self.threads = stream, batch_size, threads
        self.device = device or HostDevice()
        rows = min(batch_size * max(1, block // batch_size), stream.n_positives)
        self._rows = max(batch_size, rows // batch_size * batch_size)
        size = min(self._rows, stream.n_positives)
        self._slots = [_Slot(self.device, size, 1 + stream.n_negatives) for _ in range(SLOTS)]
        self._thread: threading.Thread | None = None
        self._end: Any = None
        self._slot: _Slot | None = None
        self._cursor = Cursor(-1, -1)
        self.wait_s = 0.0
        """Time that consumers spent waiting for a block."""

    def next(self, cursor: Cursor) -> tuple[DeviceBatch, Cursor]:
        """The batch that begins at ``cursor``, and the cursor after it.

        A cursor other than the last one returned starts the drawing there.
        """
        if self._thread is None or cursor != self._expected():
            self._restart(cursor)
        if self._slot is not None and cursor != self._slot.start and cursor.position in (0, self._slot.stop.position):
            self._give_back()
        slot = self._slot or self._take(cursor)
        lo = cursor.position - slot.start.position
        hi = min(lo + self.batch_size, slot.stop.position - slot.start.position)
        batch = DeviceBatch(*(t[lo:hi] for t in slot.device))
        self._cursor = Cursor(cursor.epoch, slot.start.position + hi)
        return batch, self._cursor

    def _expected(self) -> Cursor:
        """The cursor after the last batch."""
        epoch, position = self._cursor
        return Cursor(epoch + 1, 0) if position == self.stream.n_positives else self._cursor

    def close(self) -> None:
        """End the thread. Returns always; the feed can be used again."""
        if self._thread is not None:
            self._end()
            self._thread.join()
        self._thread, self._slot = None, None

    def _restart(self, cursor: Cursor) -> None:
        self.close()
        stopping = threading.Event()
        self._free: queue.Queue[_Slot | None] = queue.Queue()
        self._ready: queue.Queue[_Slot | BaseException] = queue.Queue()
        for slot in self._slots:
            slot.consumed = self.device.record()  # whoever read it last may still be at it
            self._free.put(slot)
        arguments = (self.stream, self.device, self._rows, self.threads, cursor, self._free, self._ready, stopping)
        self._thread = threading.Thread(target=_work, args=arguments, name="fastrec-feed", daemon=True)
        self._end = weakref.finalize(self, _stop, stopping, self._free)
        self._thread.start()

    def _take(self, cursor: Cursor) -> _Slot:
        began = time.perf_counter()
        while True:
            try:
                item = self._ready.get(timeout=_TICK_S)
                break
            except queue.Empty:
                if self._thread is None or not self._thread.is_alive():
                    raise FastrecError("the feed's thread has ended without an error; this is a bug") from None
        self.wait_s += time.perf_counter() - began
        if isinstance(item, BaseException):
            self.close()
            raise item
        assert item.start == cursor, (item.start, cursor)
        self.device.wait(item.copied)
        self._slot = item
        return item

    def _give_back(self) -> None:
        slot = self._slot
        assert slot is not None
        slot.consumed = self.device.record()
        self._slot = None
        self._free.put(slot)


class ResidentFeed:
    """Batches drawn on the device itself, a block at a time: data and sampler are there, and the host copies nothing.

    Parameters
    ----------
    resident : GpuStream
        ``batch(epoch, start, stop)`` gives users, items and positions on the device.
    n_positives : int
        Positives an epoch visits.
    batch_size : int
        Positives a batch.
    block : int
        Positives a block at least: a few launches serve many small batches.
    """

    wait_s = 0.0

    def __init__(self, resident: Any, n_positives: int, *, batch_size: int, block: int = 1 << 18) -> None:
        self._resident, self._n, self.batch_size = resident, n_positives, batch_size
        self._rows = batch_size * max(1, block // batch_size)
        self._start, self._stop = Cursor(-1, 0), 0
        self._block: tuple[Tensor, ...] = ()

    def next(self, cursor: Cursor) -> tuple[DeviceBatch, Cursor]:
        """The batch that begins at ``cursor``, and the cursor after it."""
        epoch, position = cursor
        if epoch != self._start.epoch or not self._start.position <= position < self._stop:
            self._start, self._stop = cursor, min(position + self._rows, self._n)
            self._block = self._resident.batch(epoch, position, self._stop)
        lo = position - self._start.position
        hi = min(lo + self.batch_size, self._stop - self._start.position)
        return DeviceBatch(*(t[lo:hi] for t in self._block)), Cursor(epoch, self._start.position + hi)

    def close(self) -> None:
        """Nothing runs in the background."""


def _stop(stopping: threading.Event, free: Any) -> None:
    stopping.set()
    free.put(None)  # wakes the thread


def _work(
    stream: Stream | Slices,
    device: HostDevice,
    rows: int,
    threads: int,
    cursor: Cursor,
    free: Any,
    ready: Any,
    stopping: Any,
) -> None:
    """The thread: fill slots in order until told to stop; an exception ends it and is handed over last.

    It holds no reference to the feed, so that a feed nobody closed is still collected, and ends its thread.
    """
    try:
        while not stopping.is_set():
            try:
                slot = free.get(timeout=_TICK_S)
            except queue.Empty:
                continue
            if slot is None:
                return
            device.wait_on_host(slot.copied)
            stop = min(cursor.position + rows, stream.n_positives)
            n = stop - cursor.position
            stream.read(cursor.epoch, cursor.position, stop, slot.arrays, threads=threads)
            slot.copied = device.copy([t[:n] for t in slot.host], [t[:n] for t in slot.device], slot.consumed)
            slot.start, slot.stop = cursor, Cursor(cursor.epoch, stop)
            ready.put(slot)
            cursor = Cursor(cursor.epoch, stop) if stop < stream.n_positives else Cursor(cursor.epoch + 1, 0)
    except BaseException as error:
        ready.put(error)
