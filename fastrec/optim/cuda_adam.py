"""Dense Adam on a CUDA device: one pass over weights, moments and gradients, which it leaves zero."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from fastrec.optim.groups import as_groups

SIZE = 1024


@triton.jit
def adam_kernel(  # type: ignore[no-untyped-def]
    p, m, v, g, copy, step, lr_at, n, b2, c1, c2, log_b1, log_b2, eps, weight_decay,
    COPIED: tl.constexpr, SIZE: tl.constexpr,
):  # fmt: skip
    """SIZE elements a program; ``c*`` are 1 - b*, ``log_b*`` binary logarithms: 1 - b2^t cancels in float32."""
    at = tl.program_id(0).to(tl.int64) * SIZE + tl.arange(0, SIZE)
    inside = at < n
    lr = tl.load(lr_at)
    t = tl.load(step).to(tl.float64)
    size = lr / (1.0 - tl.exp2(t * log_b1)).to(tl.float32)
    root = tl.sqrt((1.0 - tl.exp2(t * log_b2)).to(tl.float32))
    x = tl.load(g + at, mask=inside, other=0.0)
    a = tl.load(m + at, mask=inside, other=0.0)
    b = tl.load(v + at, mask=inside, other=0.0)
    value = tl.load(p + at, mask=inside, other=0.0)
    a += (x - a) * c1
    b = b2 * b + c2 * x * x
    value = value * (1.0 - lr * weight_decay) - size * a / (tl.sqrt(b) / root + eps)
    tl.store(p + at, value, mask=inside)
    tl.store(m + at, a, mask=inside)
    tl.store(v + at, b, mask=inside)
    tl.store(g + at, x * 0.0, mask=inside)
    if COPIED:
        tl.store(copy + at, value.to(copy.dtype.element_ty), mask=inside)


class DeviceAdam:
    """Dense Adam or AdamW for float32 parameters on a CUDA device whose gradients are added to.

    It has the groups and the state of ``torch.optim.Adam(capturable=True)``, whose fused kernel gives a program 65,536
    elements: too few programs for tables of this size. A CUDA graph may hold its step; rates are tensors there.
    Cost: 32 bytes of traffic a weight.

    Parameters
    ----------
    params : iterable of Parameter, or of groups
    lr : float or Tensor
    betas, eps, weight_decay
        As in ``torch.optim.AdamW``.
    copies : dict of Parameter to Tensor, optional
        16-bit copies that are to follow their weights.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        copies: dict[Tensor, Tensor] | None = None,
    ) -> None:
        self._copies = copies or {}
        self.param_groups = as_groups(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        held = [(group, p) for group in self.param_groups for p in group["params"] if p.grad is not None]
        for _, p in held:
            if not self.state[p]:
                self.state[p] = {
                    "step": torch.zeros((), device=p.device),
                    "exp_avg": torch.zeros_like(p),
                    "exp_avg_sq": torch.zeros_like(p),
                }
        torch._foreach_add_([self.state[p]["step"] for _, p in held], 1.0)
        for group, p in held:
            (b1, b2), lr, state = group["betas"], group["lr"], self.state[p]
            lr_at = lr if isinstance(lr, Tensor) else torch.full((), lr, device=p.device)
            copy = self._copies.get(p)
            adam_kernel[(triton.cdiv(p.numel(), SIZE),)](
                p, state["exp_avg"], state["exp_avg_sq"], p.grad, p if copy is None else copy, state["step"],
                lr_at, p.numel(), b2, 1 - b1, 1 - b2, math.log2(b1), math.log2(b2), group["eps"],
                group["weight_decay"], COPIED=copy is not None, SIZE=SIZE,
            )  # fmt: skip
