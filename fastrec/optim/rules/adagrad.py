"""Adagrad: Duchi et al., JMLR 2011."""

from __future__ import annotations

from typing import Any

import torch

from fastrec.optim.rule import Rule, Setting, register


def make(params: list[Any], setting: Setting) -> Any:
    """Adagrad with one accumulator per weight."""
    return torch.optim.Adagrad(params, lr=setting.lr, fused=not setting.capturable)


ADAGRAD = register(Rule("adagrad", make, captures=False, step_on_host=True))
