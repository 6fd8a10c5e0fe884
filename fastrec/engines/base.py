"""The interface of every engine: progress from one cursor to the next, and its complete state."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

from fastrec.sampling.order import Cursor


class Progress(NamedTuple):
    """The result of one ``advance``."""

    cursor: Cursor
    """Where it ended; at the end of an epoch its position is the number of positives."""
    loss_sum: float
    """Mean loss of each step times the samples of that step, summed: ``loss_sum / n_samples`` is the mean loss."""
    n_samples: int
    """(user, item) scores trained, positives and negatives both."""
    n_positives: int
    n_steps: int


class Engine(Protocol):
    """Computes updates; knows nothing of epochs to come, files or screens."""

    model: Any
    """torch.nn.Module whose parameters are always current."""
    n_positives: int
    """Positives an epoch visits."""
    batch_size: int
    """Positives a step."""
    n_negatives: int
    """Negatives trained with each positive."""

    def advance(self, cursor: Cursor, n_steps: int) -> Progress:
        """Run up to ``n_steps`` steps from ``cursor``, not beyond its epoch."""
        ...

    def state(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Tensors (CPU, by name), and a dict fit for JSON: all that the next step depends on, except the cursor."""
        ...

    def load_state(self, tensors: dict[str, Any], meta: dict[str, Any]) -> None:
        """Put back what ``state`` gave."""
        ...

    def describe(self) -> dict[str, Any]:
        """Backend, device and precision, for the run's record."""
        ...

    def close(self) -> None:
        """End background threads; called once, also after an error."""
        ...
