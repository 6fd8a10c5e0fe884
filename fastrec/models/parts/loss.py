"""The definition of a loss: its forms for torch, Numba and Triton side by side, and how its mean is taken.

B batch rows, N negatives.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from torch import Tensor

from fastrec.errors import ConfigError

_REGISTERED: dict[str, Loss] = {}


@dataclass(frozen=True)
class Loss:
    """A loss over logits float32[B, 1+N] whose column 0 is the positive.

    Parameters
    ----------
    name : str
        ``loss = name`` in a config.
    mean : callable
        logits float[B, 1+N] -> the mean loss, a scalar. By this form, through autograd, every model trains.
    mean_and_gradient : callable, optional
        logits -> (mean loss, its gradient by the logits, which may be written over them). Left out, autograd does it.
    row : callable, optional
        The form for the fused engine's CPU passes, an ``fastrec.jit.inline`` function ``(x, e, n, product) -> (value,
        product)`` that replaces the logits x[:n] of one positive by the gradients of their summed loss; see
        ``losses.bce``. Left out: the fused engine refuses the loss.
    triton : {"bce", "bpr"}, optional
        Which branch of the Triton kernels computes it. Left out: CUDA trains it by autograd.
    pairs : bool
        The mean is over B * N pairs instead of B * (1+N) samples, and the gradients of a row add up to zero, so that
        user biases and the global bias do not move.
    in_batch : callable, optional
        (indptr, items, n_items, device) -> callable (logits, cross, users, items, weights) -> mean loss, for a loss
        that also scores each row's user against the other rows' positives (``cross`` float32[B, B]); weights float32[B]
        or None.
    rows : callable, optional
        logits -> float[B], the summed loss of each row, so that the mean is their sum over ``terms``. With it rows can
        have weights; left out, the torch engine refuses weights.
    """

    name: str
    mean: Callable[[Tensor], Tensor]
    mean_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    row: Any = None
    triton: Literal["bce", "bpr"] | None = None
    pairs: bool = False
    in_batch: Callable[..., Any] | None = None
    rows: Callable[[Tensor], Tensor] | None = None

    @property
    def relative(self) -> bool:
        """Whether only differences of a user's logits count, so that user biases and global biases have gradient 0."""
        return self.pairs or self.in_batch is not None

    def weighted(self, logits: Tensor, weights: Tensor) -> Tensor:
        """The mean with each row's loss times its weight, float32[B]; the mean is over terms, not over weights."""
        assert self.rows is not None  # the capability table
        return (self.rows(logits) * weights).sum() / self.terms(*logits.shape)

    def terms(self, n_rows: int, n_columns: int) -> int:
        """Number of terms that the mean over a batch is taken of: samples, pairs, or rows (softmax)."""
        if self.in_batch is not None:
            return n_rows
        return n_rows * (n_columns - 1 if self.pairs else n_columns)


def register(loss: Loss) -> Loss:
    """Make a loss known by its name.

    Raises
    ------
    ConfigError
        If another loss has the name.
    """
    there = _REGISTERED.setdefault(loss.name, loss)
    if there is not loss and there.mean.__module__ != loss.mean.__module__:
        raise ConfigError(f"loss {loss.name!r} is registered by {there.mean.__module__} already")
    _REGISTERED[loss.name] = loss
    return loss


def registered() -> dict[str, Loss]:
    """Losses by name, of the modules imported so far; ``fastrec.models.losses.get`` imports what is missing."""
    return dict(_REGISTERED)
