"""AdamW, whose weight decay is decoupled: Loshchilov and Hutter, ICLR 2019."""

from __future__ import annotations

from typing import Any

import torch

from fastrec.optim.rule import Rule, Setting, register
from fastrec.optim.rules.adam import one_pass


def make(params: list[Any], setting: Setting) -> Any:
    """Dense AdamW."""
    if setting.added_to:
        return one_pass(params, setting, setting.weight_decay)
    return torch.optim.AdamW(
        params, lr=setting.lr, weight_decay=setting.weight_decay, fused=True, capturable=setting.capturable
    )


ADAMW = register(Rule("adamw", make, decays=True))
