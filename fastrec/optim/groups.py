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


def output_apart(model: Any, lr: float | Tensor, fraction: float) -> list[Any]:
    """The model's parameters, its output weights in a group of their own whose rate is ``fraction`` of the others'.

    Every sample moves the output weights (h) and few samples move a row, so h at a row's rate runs ahead of all rows.
    """
    named = dict(model.named_parameters())
    output = [named.pop(name) for name, role in model.roles().items() if role == "output"]
    if fraction == 1.0 or not output:
        return list(model.parameters())
    return [
        {"params": list(named.values()), "fraction": 1.0},
        {"params": output, "lr": lr * fraction, "fraction": fraction},
    ]


def set_lr(optimizer: Any, lr: float | Tensor) -> None:
    """Give each group its fraction of ``lr``; a tensor is read on its device, so that a CUDA graph may hold this."""
    for group in optimizer.param_groups:
        fraction, held = group.get("fraction", 1.0), group["lr"]
        if not isinstance(held, Tensor):
            group["lr"] = lr * fraction
        elif not isinstance(lr, Tensor):
            held.fill_(lr * fraction)
        elif held is not lr:
            torch.mul(lr, fraction, out=held)
