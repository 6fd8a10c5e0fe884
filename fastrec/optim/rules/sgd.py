"""Plain stochastic gradient descent."""

from __future__ import annotations

from typing import Any

import torch

from fastrec.optim.rule import Rule, Setting, register


def make(params: list[Any], setting: Setting) -> Any:
    """SGD without momentum; the engine gives it ``lr`` times the number of the batch's loss terms."""
    return torch.optim.SGD(params, lr=setting.lr, fused=True)


SGD = register(Rule("sgd", make, sums=True))
