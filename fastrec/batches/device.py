"""The seam to the device: pinned memory, copies, streams, events and graphs. CUDA behind it, or the host itself."""

from __future__ import annotations

import difflib
import os
import re
import shutil
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from fastrec.errors import ConfigError


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
        """The copy target of ``host``: here the same memory."""
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
        """Run ``work`` as warm-up for its capture."""
        work()

    def capture(self, work: Callable[[], None]) -> Callable[[], None]:
        """Record ``work`` without doing it; the result does it again on the same memory."""
        return work


class CudaDevice(HostDevice):
    """One CUDA device, with a copy stream next to the compute stream."""

    kind = "cuda"
    captures = True

    def __init__(self, name: str) -> None:
        self.device = torch.device(name)
        if self.device.index is None:
            self.device = torch.device("cuda", torch.cuda.current_device())
        self._copies = torch.cuda.Stream(self.device)  # type: ignore[no-untyped-call]

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
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
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
        event = torch.cuda.Event()  # type: ignore[no-untyped-call]
        event.record(torch.cuda.current_stream(self.device))
        return event

    def synchronize(self) -> None:
        """Wait for the compute stream."""
        torch.cuda.current_stream(self.device).synchronize()

    def warm_up(self, work: Callable[[], None]) -> None:
        """On a side stream, as torch.cuda.graphs asks."""
        side, main = torch.cuda.Stream(self.device), torch.cuda.current_stream(self.device)  # type: ignore[no-untyped-call]
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


_CUDA = r"cuda(:(0|[1-9][0-9]*))?"


def available_devices() -> list[str]:
    """Names of the devices of this machine: "cpu", and "cuda", "cuda:0", ... where torch finds them."""
    if not torch.cuda.is_available():
        return ["cpu"]
    return ["cpu", "cuda", *(f"cuda:{i}" for i in range(torch.cuda.device_count()))]


def check_device(name: str) -> str:
    """The device called ``name``; "auto" is CUDA where torch finds it, else the CPU.

    Raises
    ------
    ConfigError
        If there is no such device here; those that exist are named. No other spelling is accepted, so that a typing
        error never trains on the CPU.
    """
    devices = available_devices()
    if name == "auto":
        return "cuda" if "cuda" in devices else "cpu"
    if name in devices:
        return name
    if re.fullmatch(_CUDA, str(name)) and "cuda" not in devices:
        raise ConfigError(f"device = {name!r}: torch {torch.__version__} finds no CUDA device; use device = cpu")
    close = _closest(str(name))
    hint = f"did you mean {close!r}? The " if close not in (None, name) else "the "
    raise ConfigError(f"device = {name!r}: no such device; {hint}devices here are {', '.join(devices)}")


def _closest(name: str) -> str | None:
    plain = re.sub(r"^(gpu|nvidia)", "cuda", name.strip().lower())
    if re.fullmatch(_CUDA, plain):
        return plain
    for kind in ("cuda", "cpu"):
        if plain.startswith(kind):
            return kind
    return next(iter(difflib.get_close_matches(plain, ("cuda", "cpu", "auto"), 1)), None)


def check_compiler(device: str) -> None:
    """Refuse ``compile = True`` where torch.compile would fail at the first step: it calls the system's compiler.

    Raises
    ------
    ConfigError
        If there is no C++ compiler for the CPU, or no C compiler for Triton's launchers on CUDA.
    """
    if device.startswith("cuda"):
        asked = os.environ.get("CC")
        found = any(map(shutil.which, [asked] if asked else ["gcc", "clang"]))
        what, variable = "C compiler (gcc or clang)", "CC"
    else:
        from torch._inductor.cpp_builder import get_cpp_compiler
        from torch._inductor.exc import InvalidCxxCompiler

        what, variable = "C++ compiler (g++)", "CXX"
        try:
            found = bool(get_cpp_compiler())
        except InvalidCxxCompiler:
            found = False
    if not found:
        raise ConfigError(
            f"compile = True: torch.compile needs a {what}, and there is none here; install one, name it in the "
            f"environment variable {variable}, or leave compile out"
        )


def open_device(name: str) -> HostDevice:
    """Open a device by name, such as "cpu", "cuda" or "cuda:1" (see ``check_device``)."""
    name = check_device(name)
    return CudaDevice(name) if name.startswith("cuda") else HostDevice()
