"""Learning rates as pure functions of the step, and optimisers."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fastrec.errors import ConfigError
from fastrec.jit import njit_float, triton_runs

SCHEDULES = ("constant", "cosine", "linear", "step")


def learning_rate(
    step: int,
    *,
    lr: float,
    schedule: str = "constant",
    total: int = 0,
    warmup: int = 0,
    every: int = 0,
    factor: float = 0.5,
) -> float:
    """Learning rate of a step, a pure function: a resumed run needs no scheduler state.

    Parameters
    ----------
    step : int
        From 0.
    lr : float
        The peak.
    schedule : {"constant", "cosine", "linear", "step"}
        After the warm-up: unchanged; half a cosine, or a line, down to 0 at ``total``; times ``factor`` each ``every``.
    total : int
        Steps of the whole run; cosine and linear need it.
    warmup : int
        Steps over which the rate rises in equal parts to ``lr``, counted in ``total``.
    every : int
        Steps between drops of "step", counted from the end of the warm-up.
    factor : float
        What each drop multiplies by.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    if schedule == "step":
        return lr * factor ** ((step - warmup) // max(1, every))
    if schedule not in SCHEDULES:
        raise ConfigError(f"schedule = {schedule!r}: must be one of {', '.join(SCHEDULES)}")
    share = min(1.0, (step - warmup) / max(1, total - warmup))
    return lr * (0.5 * (1.0 + math.cos(math.pi * share)) if schedule == "cosine" else 1.0 - share)


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


def as_groups(params: Iterable[Any], **defaults: Any) -> list[dict[str, Any]]:
    """Parameters, or groups of them, as a ``torch.optim.Optimizer`` keeps them: each with every option."""
    groups = list(params)
    if not groups or not isinstance(groups[0], dict):
        groups = [{"params": groups}]
    return [{**defaults, **g, "params": list(g["params"])} for g in groups]


class HostAdam:
    """Dense Adam or AdamW on the CPU that leaves every gradient zero, for gradients that are added to.

    Cost: one pass over four arrays on the calling thread, where ``torch.optim.Adam(fused=True)`` and zeroing are two;
    and no OpenMP team, which stalls whenever another thread needs its core. It has the groups and the state of a
    ``torch.optim.Optimizer`` and is none: making one loads torch._dynamo.
    """

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
                _adam(*arrays, *map(kind, (*scalars, keep)), 0, p.numel())  # type: ignore[call-arg]


class RowAdagrad(torch.optim.Optimizer):
    """Adagrad with one accumulator a row: the mean square of its gradient. Vectors have one an element.

    Rows without gradient do not move, so the dense form equals the sparse one.
    Cost: r = 4 bytes of state a row instead of 4 a weight.
    Source: EXACT_ROWWISE_ADAGRAD of FBGEMM.
    """

    def __init__(self, params: Iterable[Any], lr: float | Tensor = 1e-2, eps: float = 1e-10) -> None:
        super().__init__(params, {"lr": lr, "eps": eps})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]  # noqa: ARG002
        """One update of every parameter that has a gradient."""
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is None:
                    continue
                state = self.state[p]
                if not state:
                    shape = (p.shape[0], 1) if p.dim() == 2 else p.shape
                    state["sum"] = torch.zeros(shape, dtype=torch.float32, device=p.device)
                square = p.grad * p.grad
                state["sum"] += square.mean(1, keepdim=True) if p.dim() == 2 else square
                p.sub_(p.grad / (state["sum"].sqrt() + group["eps"]) * group["lr"])


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


def h_apart(model: torch.nn.Module, lr: float | Tensor, share: float) -> list[Any]:
    """The model's parameters, with h in a group of its own whose rate is ``share`` times that of the others.

    Every sample moves h and the few of its own a row, so h at a row's rate runs ahead of all rows.
    """
    named = dict(model.named_parameters())
    h = named.pop("h", None)
    if share == 1.0 or h is None:
        return list(model.parameters())
    return [{"params": list(named.values()), "share": 1.0}, {"params": [h], "lr": lr * share, "share": share}]


def set_rate(optimizer: torch.optim.Optimizer | HostAdam, lr: float | Tensor) -> None:
    """Give each group its share of ``lr``; a tensor is read on its device, so that a CUDA graph may hold this."""
    for group in optimizer.param_groups:
        share, held = group.get("share", 1.0), group["lr"]
        if not isinstance(held, Tensor):
            group["lr"] = lr * share
        elif not isinstance(lr, Tensor):
            held.fill_(lr * share)
        elif held is not lr:
            torch.mul(lr, share, out=held)


def make_optimizer(
    name: str,
    params: Iterable[Any],
    *,
    lr: float | Tensor,
    l2: float = 0.0,
    added_to: bool = False,
    copies: dict[Tensor, Tensor] | None = None,
) -> Any:
    """An optimiser by its config name.

    Parameters
    ----------
    name : {"adam", "adamw", "sgd", "adagrad", "lazy-adam", "row-adagrad"}
    params : iterable of Parameter, or of groups
    lr : float or Tensor
        A tensor where a CUDA graph reads it.
    l2 : float
        AdamW's decoupled decay; the other optimisers get their L2 with the loss.
    added_to : bool
        Gradients are buffers that are added to: Adam and AdamW then zero them as they go.
    copies : dict of Parameter to Tensor, optional
        16-bit copies of weights, which Adam and AdamW on a CUDA device write as they go where ``added_to``.
    """
    params = list(params)
    first = params[0]["params"][0] if isinstance(params[0], dict) else params[0]
    on_cuda = first.device.type == "cuda"  # capturable: a CUDA graph may hold the step
    if added_to and name in ("adam", "adamw"):
        decay = l2 if name == "adamw" else 0.0
        if not triton_runs(first.device.type):
            return HostAdam(params, lr=float(lr), weight_decay=decay)
        from fastrec.optim.cuda_adam import DeviceAdam  # needs triton

        return DeviceAdam(params, lr=lr, weight_decay=decay, copies=copies)
    if name == "adam":
        return torch.optim.Adam(params, lr=lr, fused=True, capturable=on_cuda)
    if name == "adamw":
        return torch.optim.AdamW(params, lr=lr, weight_decay=l2, fused=True, capturable=on_cuda)
    if name == "sgd":
        return torch.optim.SGD(params, lr=lr, fused=True)
    if name == "adagrad":
        return torch.optim.Adagrad(params, lr=lr, fused=not on_cuda)
    if name == "lazy-adam":
        return LazyAdam(params, lr=lr)
    if name == "row-adagrad":
        return RowAdagrad(params, lr=lr)
    raise ConfigError(f"optimizer = {name!r}: must be one of adam, adamw, sgd, adagrad, lazy-adam, row-adagrad")
