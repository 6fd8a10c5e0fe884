"""The seam to the device: pinned memory, copies, streams, events and graphs. CUDA behind it, or the host itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


class HostDevice:
    """The CPU: nothing is copied, so nothing has to wait; a step is called, not captured."""

    kind = "cpu"
    captures = False
    """Whether a step is worth capturing as a graph."""

    def __init__(self) -> None:
        self.device = torch.device("cpu")

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Memory that the feed's thread fills."""
        return torch.empty(shape, dtype=dtype)

    def device_buffer(self, host: Tensor) -> Tensor:
        """Where ``host`` is copied to: here the same memory."""
        return host

    def copy(self, host: list[Tensor], device: list[Tensor], after: Any) -> Any:
        """Queue copies behind the event ``after``; returns the event of their end."""

    def wait_on_host(self, event: Any) -> None:
        """Block the calling thread until ``event``."""

    def wait(self, event: Any) -> None:
        """Let later work of the compute stream wait for ``event``; the host goes on."""

    def record(self) -> Any:
        """An event behind all work given to the compute stream so far."""

    def synchronize(self) -> None:
        """Wait for the compute stream."""

    def warm_up(self, work: Callable[[], None]) -> None:
        """Do ``work`` as it has to be done before it is captured."""
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record ``work`` without doing it; the result does it again on the same memory."""
        return work


class CudaDevice(HostDevice):
    """One CUDA device, with a copy stream beside the compute stream."""

    kind = "cuda"
    captures = True

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        if self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._copies = torch.cuda.Stream(self.device)

    def host_buffer(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Pinned: the copy is asynchronous only then."""
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def device_buffer(self, host: Tensor) -> Tensor:
        """Memory of its own on the device."""
        return torch.empty_like(host, device=self.device, pin_memory=False)

    def copy(self, host: list[Tensor], device: list[Tensor], after: Any) -> Any:
        """Copies on the copy stream, overlapping the compute stream."""
        with torch.cuda.stream(self._copies):
            if after is not None:
                self._copies.wait_event(after)
            for source, target in zip(host, device):
                target.copy_(source, non_blocking=True)
            event = torch.cuda.Event()
            event.record(self._copies)
        return event

    def wait_on_host(self, event: Any) -> None:
        """Block until the copy is through: its pinned buffer is about to be written over."""
        if event is not None:
            event.synchronize()

    def wait(self, event: Any) -> None:
        """The compute stream waits; the host does not."""
        if event is not None:
            torch.cuda.current_stream(self.device).wait_event(event)

    def record(self) -> Any:
        """An event on the compute stream."""
        event = torch.cuda.Event()
        event.record(torch.cuda.current_stream(self.device))
        return event

    def synchronize(self) -> None:
        """Wait for the compute stream."""
        torch.cuda.current_stream(self.device).synchronize()

    def warm_up(self, work: Callable[[], None]) -> None:
        """On a side stream, as torch.cuda.graphs asks."""
        side, main = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)
        side.wait_stream(main)
        with torch.cuda.stream(side):
            work()
        main.wait_stream(side)

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """A CUDA graph: one launch for all kernels of ``work``."""
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            work()
        replay: Callable[[], None] = graph.replay
        return replay


def open_device(name: str) -> HostDevice:
    """The device of a resolved config: "cpu", "cuda", "cuda:1"."""
    return CudaDevice(name) if name.startswith("cuda") else HostDevice()
