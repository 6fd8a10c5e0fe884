"""Adam that moves only the rows with a gradient in this step."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from fastrec.optim.rule import Rule, Setting, register


class LazyAdam(torch.optim.Optimizer):
    """Adam whose moments and weights move only in rows that have a gradient in this step.

    Written over dense gradients with a row mask: no dynamic shape, so that a CUDA graph can hold it.
    The bias correction counts all steps, as in ``torch.optim.SparseAdam``, which refuses dense gradients.
    """

    def __init__(
        self,
        params: Iterable[Any],
        lr: float | Tensor = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
    ) -> None:
        super().__init__(params, {"lr": lr, "betas": betas, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update of every row that has a gradient."""
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                state, g = self.state[p], p.grad
                if not state:
                    state["step"] = torch.zeros((), dtype=torch.float64, device=p.device)  # 1 - b2 cancels in float32
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                touched = (g != 0).any(1, keepdim=True) if p.dim() == 2 else torch.ones_like(g, dtype=torch.bool)
                m, v = state["exp_avg"], state["exp_avg_sq"]
                m.copy_(torch.where(touched, b1 * m + (1 - b1) * g, m))
                v.copy_(torch.where(touched, b2 * v + (1 - b2) * g * g, v))
                size = (1 - b2 ** state["step"]).sqrt() / (1 - b1 ** state["step"])
                p.sub_(torch.where(touched, group["lr"] * size.to(p.dtype) * m / (v.sqrt() + group["eps"]), 0.0))


def make(params: list[Any], setting: Setting) -> Any:
    """Lazy Adam."""
    return LazyAdam(params, lr=setting.lr)


LAZY_ADAM = register(Rule("lazy-adam", make))
