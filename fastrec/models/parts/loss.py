"""The definition of a loss: its forms for torch, Numba and Triton side by side, and how its mean is taken.

B batch rows, N negatives.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import Tensor

from fastrec.errors import ConfigError
from fastrec.registry import Registry


@dataclass(frozen=True)
class Loss:
    """A loss over logits float32[B, 1+N] whose column 0 is the positive.

    Parameters
    ----------
    name : str
        ``loss = name`` in a config.
    mean : callable
        logits float[B, 1+N] -> the mean loss, a scalar. By this form, through autograd, every model trains. A loss with
        options takes the two ``numbers`` after the logits, until ``bind`` has put them in.
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
        have weights; left out, the torch engine refuses weights. Takes the two ``numbers`` as ``mean`` does.
    many : callable, optional
        ``row`` for the pass for many negatives: ``(x, e, n, a, b, product) -> (value, product)``, a and b the two
        ``numbers``. Left out: that pass refuses the loss.
    sparse : bool
        Only negatives that score above ``numbers[0]`` have a gradient, so that the pass looks at codes first.
    per_row : bool
        The mean is over rows instead of samples.
    similarities : tuple of str
        Scores that it takes: "dot", "cosine".
    distributions : tuple of str
        Distributions of negatives that it takes.
    corrected : callable, optional
        (loss, sampler, device) -> callable (logits, users, items, weights) -> mean loss, where negatives are not
        uniform; weights float32[B] or None.
    options : mapping
        Names of its options and their defaults.
    numbers : callable, optional
        (n_negatives, n_items, options by keyword) -> the two numbers that its forms take; raises ConfigError.
    without_effect : callable, optional
        (n_negatives, n_items) -> why its options change nothing there, and what to do; None where they do.
    bound : tuple of float
        The numbers that ``bind`` put in.
    """

    name: str
    mean: Callable[..., Tensor]
    mean_and_gradient: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
    row: Any = None
    triton: Literal["bce", "bpr"] | None = None
    pairs: bool = False
    in_batch: Callable[..., Any] | None = None
    rows: Callable[..., Tensor] | None = None
    many: Any = None
    sparse: bool = False
    per_row: bool = False
    similarities: tuple[str, ...] = ("dot",)
    distributions: tuple[str, ...] = ("uniform", "popularity", "weights")
    corrected: Callable[..., Any] | None = None
    options: Mapping[str, float] = field(default_factory=dict)
    numbers: Callable[..., tuple[float, float]] | None = None
    without_effect: Callable[[int, int], str | None] | None = None
    bound: tuple[float, float] = (0.0, 0.0)

    def bind(self, options: Mapping[str, float], n_negatives: int, n_items: int) -> Loss:
        """This loss with its options put in, so that ``mean`` and ``rows`` take the logits only.

        Raises
        ------
        ConfigError
            For an option that it does not have, or a value out of range.
        """
        if other := sorted(options.keys() - self.options.keys()):
            takes = f"takes {', '.join(self.options)}" if self.options else "has no options"
            raise ConfigError(f"{other[0]} = {options[other[0]]}: no effect, for loss = {self.name} {takes}")
        if self.numbers is None:
            return self
        bound = self.numbers(n_negatives, n_items, **{**self.options, **options})
        rows = None if self.rows is None else _with(self.rows, bound)
        return replace(self, mean=_with(self.mean, bound), rows=rows, bound=bound)

    @property
    def relative(self) -> bool:
        """Whether only differences of a user's logits count, so that user biases and global biases have gradient 0."""
        return self.pairs or self.per_row

    def weighted(self, logits: Tensor, weights: Tensor) -> Tensor:
        """The mean with each row's loss times its weight, float32[B]; the mean is over terms, not over weights."""
        assert self.rows is not None  # the capability table
        return (self.rows(logits) * weights).sum() / self.terms(*logits.shape)

    def terms(self, n_rows: int, n_columns: int) -> int:
        """Number of terms that the mean over a batch is taken of: samples, pairs, or rows (softmax)."""
        if self.per_row:
            return n_rows
        return n_rows * (n_columns - 1 if self.pairs else n_columns)


def _with(mean: Callable[..., Tensor], numbers: tuple[float, float]) -> Callable[..., Tensor]:
    def bound(logits: Tensor) -> Tensor:
        return mean(logits, *numbers)

    return bound


def above_zero(name: str, value: float) -> float:
    """An option of a loss that must be a finite number above 0.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not (math.isfinite(value) and value > 0):
        raise ConfigError(f"{name} = {value}: must be a finite number above 0")
    return value


_REGISTRY: Registry[Loss] = Registry("loss", lambda loss: loss.mean)


def register(loss: Loss) -> Loss:
    """Make a loss known by its name; raises ConfigError if another module has registered the name."""
    return _REGISTRY.put(loss.name, loss)


def registered() -> dict[str, Loss]:
    """Losses by name, of the modules imported so far; ``fastrec.models.losses.get`` imports what is missing."""
    return _REGISTRY.values()
