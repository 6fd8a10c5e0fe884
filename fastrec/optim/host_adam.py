"""Adam on the CPU in one pass over memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec.jit import njit_float
from fastrec.optim.groups import as_groups


@njit_float
def _adam(p, m, v, g, size, b2, c1, c2, eps, root, keep, lo, hi):  # type: ignore[no-untyped-def]
    """One Adam update of elements [lo, hi), and their gradients back to zero, in one pass over memory."""
    p, m, v, g = p[lo:hi], m[lo:hi], v[lo:hi], g[lo:hi]  # from 0 on, the compiler sees no negative index and vectorises
    for k in range(p.shape[0]):
        x = g[k]
        a = m[k] + (x - m[k]) * c1
        b = b2 * v[k] + c2 * x * x
        m[k] = a
        v[k] = b
        p[k] = p[k] * keep - size * a / (np.sqrt(b) * root + eps)
        g[k] = 0


class HostAdam:
    """Dense Adam or AdamW on the CPU that leaves every gradient zero, for gradients that are added to.

    Cost: one pass over four arrays on the calling thread, where ``torch.optim.Adam(fused=True)`` and zeroing are two;
    and no OpenMP team, which stalls whenever another thread needs its core. It has the groups and the state of a
    ``torch.optim.Optimizer`` and is none: making one loads torch._dynamo.
    """

    zeroes_gradients = True
    step_on_host = True
    state_names = frozenset({"step", "exp_avg", "exp_avg_sq"})

    def __init__(
        self,
        params: Iterable[Any],
        lr: float = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        self.param_groups = as_groups(params, lr=lr, betas=betas, eps=eps, weight_decay=weight_decay)
        self.state: defaultdict[Tensor, dict[str, Tensor]] = defaultdict(dict)

    @torch.no_grad()
    def step(self) -> None:
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.int64)
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                t = int(state["step"])
                kind = p.numpy().dtype.type
                scalars = (group["lr"] / (1 - b1**t), b2, 1 - b1, 1 - b2, group["eps"], (1 - b2**t) ** -0.5)
                keep = 1 - group["lr"] * group["weight_decay"]
                arrays = [x.view(-1).numpy() for x in (p, state["exp_avg"], state["exp_avg_sq"], p.grad)]
                _adam(*arrays, *map(kind, (*scalars, keep)), 0, p.numel())
