"""The feed: the stream's own bytes, ordered behind events, and no way to hang."""

from __future__ import annotations

import gc
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch

from fastrec.batches.device import HostDevice
from fastrec.batches.feed import SLOTS, Feed, ResidentFeed
from fastrec.batches.stream import Stream
from fastrec.sampling.order import Cursor
from tests.helpers.training import make_stream


class LateDevice(HostDevice):
    """A stand-in for CUDA: two streams of queued work, each done as late as events allow, while the host runs ahead.

    A missing wait on any side then shows: stale rows, rows of a buffer filled again, or rows copied over while read.
    """

    kind = "late"

    def __init__(self) -> None:
        super().__init__()
        self.queues: dict[str, list[tuple[Any, Any]]] = {"compute": [], "copies": []}
        self.done = {"compute": 0, "copies": 0}
        self.lock = threading.RLock()

    def device_buffer(self, host: torch.Tensor) -> torch.Tensor:
        return torch.full_like(host, -7)

    def put(self, queue: str, after: Any, work: Any) -> tuple[str, int]:
        with self.lock:
            self.queues[queue].append((after, work))
            return queue, len(self.queues[queue])

    def run_until(self, event: Any) -> None:
        with self.lock:
            queue, count = event
            while self.done[queue] < count:
                after, work = self.queues[queue][self.done[queue]]
                if after is not None:
                    self.run_until(after)
                work()
                self.done[queue] += 1

    def copy(self, host: list[torch.Tensor], device: list[torch.Tensor], after: Any) -> Any:
        return self.put("copies", after, lambda: [t.copy_(s) for s, t in zip(host, device)])

    def wait(self, event: Any) -> None:
        self.put("compute", event, lambda: None)

    def launch(self, work: Any) -> None:
        self.put("compute", None, work)

    def record(self) -> Any:
        return "compute", len(self.queues["compute"])

    def wait_on_host(self, event: Any) -> None:
        if event is not None:
            self.run_until(event)

    def synchronize(self) -> None:
        self.run_until(self.record())


def drain(feed: Feed, cursor: Cursor, epochs: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    rows: list[Any] = []

    def read(batch: Any) -> None:
        rows.append(tuple(t.clone().numpy() for t in batch[:3]))

    while cursor.epoch < epochs:
        batch, cursor = feed.next(cursor)
        if isinstance(feed.device, LateDevice):
            feed.device.launch(lambda batch=batch: read(batch))
        else:
            read(batch)
        if cursor.position == feed.stream.n_positives:
            cursor = Cursor(cursor.epoch + 1, 0)
    feed.device.synchronize()
    return rows


def check(rows: list[Any], stream: Stream, cursor: Cursor, batch_size: int) -> None:
    for users, items, positions in rows:
        expected, after = stream.batch(cursor, batch_size)
        assert np.array_equal(users, expected.users)
        assert np.array_equal(items, expected.items)
        assert np.array_equal(positions, expected.positions)
        cursor = Cursor(after.epoch + 1, 0) if after.position == stream.n_positives else after


@pytest.mark.parametrize("device", [HostDevice, LateDevice])
@pytest.mark.parametrize(("batch_size", "block"), [(16, 1), (16, 50), (7, 1000), (1000, 1)])
def test_gives_what_the_stream_gives(device: Any, batch_size: int, block: int) -> None:
    stream = make_stream()
    feed = Feed(stream, batch_size=batch_size, device=device(), block=block)
    rows = drain(feed, Cursor(2, 0), 6)
    feed.close()
    assert len(rows) == 4 * -(-stream.n_positives // batch_size)
    check(rows, stream, Cursor(2, 0), batch_size)


class ConsumerDoesNotWait(LateDevice):
    def wait(self, event: Any) -> None:
        pass


class ThreadDoesNotWait(LateDevice):
    def wait_on_host(self, event: Any) -> None:
        pass


class CopyDoesNotWait(LateDevice):
    def copy(self, host: list[torch.Tensor], device: list[torch.Tensor], after: Any) -> Any:  # noqa: ARG002
        event = super().copy(host, device, None)
        self.run_until(event)
        return event


@pytest.mark.parametrize("device", [ConsumerDoesNotWait, ThreadDoesNotWait, CopyDoesNotWait])
def test_a_missing_wait_is_caught(device: Any) -> None:
    """The stand-in is able to fail: with any one of the three waits left out, wrong rows come through."""
    stream = make_stream()
    feed = Feed(stream, batch_size=16, device=device(), block=1)
    rows = drain(feed, Cursor(0, 0), 2)
    feed.close()
    with pytest.raises(AssertionError):
        check(rows, stream, Cursor(0, 0), 16)


def test_starts_at_any_cursor_and_jumps() -> None:
    stream = make_stream()
    feed = Feed(stream, batch_size=16, block=40)
    for cursor in (Cursor(1, 32), Cursor(1, 48), Cursor(5, 5), Cursor(0, 0), Cursor(0, 0)):
        batch, _ = feed.next(cursor)
        assert np.array_equal(batch.items.numpy(), stream.batch(cursor, 16)[0].items)
    feed.close()


class CountsCopies(LateDevice):
    """Lets a test wait until the feed's thread has queued a number of copies."""

    def __init__(self) -> None:
        super().__init__()
        self.queued = threading.Semaphore(0)

    def copy(self, host: list[torch.Tensor], device: list[torch.Tensor], after: Any) -> Any:
        event = super().copy(host, device, after)
        self.queued.release()
        return event

    def wait_for_ring(self) -> None:
        for _ in range(SLOTS):
            assert self.queued.acquire(timeout=30), "the feed's thread did not fill its slots"


def test_a_jump_does_not_copy_over_the_batch_that_is_being_read() -> None:
    """After a restart every slot is free at once, the one whose batch the device has yet to read too."""
    stream = make_stream()
    device = CountsCopies()
    feed = Feed(stream, batch_size=16, device=device, block=1)
    rows: list[Any] = []
    batch, _ = feed.next(Cursor(0, 0))
    device.launch(lambda: rows.append(tuple(t.clone().numpy() for t in batch[:3])))
    device.wait_for_ring()
    feed.next(Cursor(3, 32))
    device.wait_for_ring()
    device.run_until(("copies", len(device.queues["copies"])))  # as early as their events allow
    device.synchronize()
    feed.close()
    check(rows, stream, Cursor(0, 0), 16)


def test_an_exception_reaches_the_consumer_and_the_feed_can_go_on() -> None:
    stream = make_stream()
    feed = Feed(stream, batch_size=16, block=1)
    inner, calls = stream.read, []

    def read(*args: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) == 3:
            raise MemoryError("drawing failed")
        return inner(*args, **options)

    stream.read = read  # type: ignore[method-assign]
    cursor = Cursor(0, 0)
    for _ in range(2):
        _, cursor = feed.next(cursor)
    with pytest.raises(MemoryError, match="drawing failed"):
        feed.next(cursor)
    batch, _ = feed.next(cursor)
    assert np.array_equal(batch.items.numpy(), inner(0, 32, 48).items)
    feed.close()


def test_close_never_hangs() -> None:
    for consumed in range(6):
        feed = Feed(make_stream(), batch_size=4, block=1)
        cursor = Cursor(0, 0)
        for _ in range(consumed):
            _, cursor = feed.next(cursor)
        began = time.perf_counter()
        thread = feed._thread
        feed.close()
        feed.close()
        assert time.perf_counter() - began < 5
        assert thread is None or not thread.is_alive()


@pytest.mark.parametrize(("batch_size", "block"), [(16, 1), (16, 50), (7, 1000), (1000, 1)])
def test_a_resident_feed_gives_what_the_stream_gives(batch_size: int, block: int) -> None:
    stream = make_stream()

    class Resident:
        calls = 0

        def batch(self, epoch: int, start: int, stop: int) -> tuple[torch.Tensor, ...]:
            self.calls += 1
            batch = stream.read(epoch, start, stop)
            return tuple(torch.from_numpy(a) for a in batch)

    resident = Resident()
    feed = ResidentFeed(resident, stream.n_positives, batch_size=batch_size, block=block)
    cursor, rows = Cursor(2, 0), []
    while cursor.epoch < 4:
        batch, cursor = feed.next(cursor)
        rows.append(tuple(t.numpy() for t in batch[:3]))
        if cursor.position == stream.n_positives:
            cursor = Cursor(cursor.epoch + 1, 0)
    check(rows, stream, Cursor(2, 0), batch_size)
    assert resident.calls == 2 * -(-stream.n_positives // (batch_size * max(1, block // batch_size)))
    assert np.array_equal(feed.next(Cursor(9, 5))[0].items.numpy(), stream.batch(Cursor(9, 5), batch_size)[0].items)


def test_a_feed_that_nobody_closed_ends_its_thread() -> None:
    feed = Feed(make_stream(), batch_size=4, block=1)
    feed.next(Cursor(0, 0))
    thread = feed._thread
    assert thread is not None
    del feed
    gc.collect()
    thread.join(5)
    assert not thread.is_alive()


def test_a_slow_consumer_is_not_overtaken() -> None:
    """The ring has three slots: the thread may run ahead, but never into what is being read."""
    stream = make_stream()
    feed = Feed(stream, batch_size=8, block=1)
    batch, cursor = feed.next(Cursor(0, 0))
    time.sleep(0.3)
    assert np.array_equal(batch.items.numpy(), stream.batch(Cursor(0, 0), 8)[0].items)
    feed.close()
    assert cursor == Cursor(0, 8)
