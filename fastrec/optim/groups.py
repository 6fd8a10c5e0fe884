"""Groups of parameters, each with a fraction of the learning rate of its own."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def as_groups(params: Iterable[Any], **defaults: Any) -> list[dict[str, Any]]:
    """Parameters, or groups of them, as a ``torch.optim.Optimizer`` keeps them: each with every option."""
    groups = list(params)
    if not groups or not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    return [{**defaults, **g, "params": list(g["params"])} for g in groups]


def groups_of(model: Any, lr: float | Tensor, fraction: float, *, most: float | None = None) -> list[Any]:
    """The model's parameters in groups: its output weights have a rate that is ``fraction`` of the others'.

    Every sample moves the output weights (h) and few samples move a row, so h at a row's rate runs ahead of all rows.

    Parameters
    ----------
    model : Model
    lr : float or Tensor
    fraction : float
    most : float, optional
        Bound of the rate of weights that every sample moves; see ``engines.units``.
    """
    named, roles = dict(model.named_parameters()), model.roles()
    bounded = ("hidden", "bias") if most is not None else ()
    parts = [
        ([named[n] for n, r in roles.items() if r not in (*bounded, "output")], 1.0, None),
        ([named[n] for n, r in roles.items() if r in bounded], 1.0, most),
        ([named[n] for n, r in roles.items() if r == "output"], fraction, most),
    ]
    if fraction == 1.0 and most is None:
        return list(model.parameters())
    groups = [{"params": ps, "lr": lr * f, "fraction": f, "most": m} for ps, f, m in parts if ps]
    return groups if len(groups) > 1 or most is not None else list(model.parameters())


def set_lr(optimizer: Any, lr: float | Tensor) -> None:
    """Give each group its fraction of ``lr``; a tensor is read on its device, so that a CUDA graph may hold this."""
    for group in optimizer.param_groups:
        fraction, most, held = group.get("fraction", 1.0), group.get("most"), group["lr"]
        if not isinstance(held, Tensor):
            group["lr"] = lr * fraction if most is None else min(lr * fraction, most)
        elif not isinstance(lr, Tensor):
            held.fill_(lr * fraction if most is None else min(lr * fraction, most))
        elif held is not lr:
            torch.mul(lr, fraction, out=held)
            if most is not None:
                held.clamp_(max=most)
