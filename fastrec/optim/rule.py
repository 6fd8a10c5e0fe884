"""The definition of an update rule, and the registry of rules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from fastrec.registry import Registry


@dataclass(frozen=True)
class Setting:
    """Device and settings of an optimiser.

    Parameters
    ----------
    lr : float or Tensor
        A tensor where a CUDA graph reads it.
    weight_decay : float
        Decoupled decay, for rules that have it; the others get their L2 with the loss.
    device : str
        Kind of device, "cpu" or "cuda".
    added_to : bool
        Gradients are buffers that are added to: an optimiser that zeroes them as it goes saves a pass.
    copies : dict of Parameter to Tensor, optional
        16-bit copies of weights, which an optimiser on a CUDA device may write as it goes where ``added_to``.
    """

    lr: float | Tensor
    weight_decay: float = 0.0
    device: str = "cpu"
    added_to: bool = False
    copies: dict[Tensor, Tensor] | None = None

    @property
    def capturable(self) -> bool:
        """Whether a CUDA graph may hold the step."""
        return self.device == "cuda"


@dataclass(frozen=True)
class Rule:
    """An update rule.

    Parameters
    ----------
    name : str
        ``optimizer = name`` in a config.
    make : callable
        (parameters or groups, Setting) -> an object with ``param_groups``, ``state`` and ``step()``, as a
        ``torch.optim.Optimizer`` has. ``zeroes_gradients = True`` on it says that ``step`` leaves gradients zero.
    decays : bool
        It takes ``weight_decay`` itself, and no L2 is added to the loss.
    captures : bool
        A CUDA graph can hold its step.
    step_on_host : bool
        Its step count stays on the host on any device.
    state_by_row : bool
        Its state of a table may have one number per row.
    sums : bool
        Its step is proportional to the gradient, which is the batch's sum: ``lr`` is the step of one sample, whatever
        the batch. A rule that divides by the gradient's own size has the same step for the sum and the mean.
    """

    name: str
    make: Callable[[list[Any], Setting], Any]
    decays: bool = False
    captures: bool = True
    step_on_host: bool = False
    state_by_row: bool = False
    sums: bool = False


_REGISTRY: Registry[Rule] = Registry("optimizer", lambda rule: rule.make)


def register(rule: Rule) -> Rule:
    """Make a rule known by its name; raises ConfigError if another module has registered the name."""
    return _REGISTRY.put(rule.name, rule)


def registered() -> dict[str, Rule]:
    """Rules by name, of the modules imported so far; ``fastrec.optim.get`` imports what is missing."""
    return _REGISTRY.values()
