"""Adam: Kingma and Ba, ICLR 2015."""

from __future__ import annotations

from typing import Any

import torch

from fastrec.jit import triton_runs
from fastrec.optim.host_adam import HostAdam
from fastrec.optim.rule import Rule, Setting, register


def one_pass(params: list[Any], setting: Setting, weight_decay: float) -> Any:
    """Adam over gradients that are added to: one pass over memory that leaves them zero."""
    if not triton_runs(setting.device):
        return HostAdam(params, lr=float(setting.lr), weight_decay=weight_decay)
    from fastrec.optim.cuda_adam import DeviceAdam  # needs triton

    return DeviceAdam(params, lr=setting.lr, weight_decay=weight_decay, copies=setting.copies)


def make(params: list[Any], setting: Setting) -> Any:
    """Dense Adam: every row moves at every step."""
    if setting.added_to:
        return one_pass(params, setting, 0.0)
    return torch.optim.Adam(params, lr=setting.lr, fused=True, capturable=setting.capturable)


ADAM = register(Rule("adam", make))
