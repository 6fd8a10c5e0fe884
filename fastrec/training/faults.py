"""Faults of a training: divergence, memory, compilation; with what to do about them, and for the record."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from fastrec.errors import FastrecError, shown
from fastrec.runs import Run


class Diverged(FastrecError):
    """The loss or the weights are NaN, infinite or absurd; the last checkpoint is from before."""


@contextlib.contextmanager
def recording_faults(run: Run) -> Iterator[None]:
    """Put into the manifest that training diverged or failed, and why; checkpoints and weights stay as they are."""
    try:
        yield
    except Exception as error:
        why = shown(str(error).strip() or type(error).__name__, 500)[1:-1]
        with contextlib.suppress(FastrecError):  # a full disk, which may be the error itself
            run.record(status="diverged" if isinstance(error, Diverged) else "failed", error=why)
        raise


@contextlib.contextmanager
def clear_memory_errors() -> Iterator[None]:
    """Say what to do when memory runs out, on the host or on the device, or torch.compile fails."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error)
        signs = ("out of memory", "can't allocate memory", "Cannot allocate memory")
        if isinstance(error, MemoryError) or any(sign in text for sign in signs):
            raise FastrecError(
                f"out of memory while training ({text.splitlines()[0] if text else 'host memory'}); lower batch_size "
                "or dim, or set accumulate"
            ) from error
        if type(error).__module__.startswith(("torch._inductor", "torch._dynamo")):
            why = text.strip().splitlines()[0] if text.strip() else type(error).__name__
            raise FastrecError(f"torch.compile cannot compile the model ({why}); leave compile out") from error
        raise
