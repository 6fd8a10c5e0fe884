"""GMF: generalised matrix factorisation.

B batch rows, K items a row, C items, U users, I items, D dim.
Source: He et al., "Neural Collaborative Filtering", WWW 2017, section 3.2.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastrec.models.parts.base import Model, lecun, normal, register, starts_at_ones, uniform


@register("gmf")
class GMF(Model):
    """Generalised matrix factorisation: logit = sum_d h_d p_ud q_id + bias."""

    options = ("init_std", "output_init")
    user_rows, item_rows = ("user_factors",), ("item_factors",)
    output_weights, global_biases = ("h",), ("bias",)

    def __init__(
        self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.01, output_init: str = "lecun"
    ) -> None:
        super().__init__(n_users, n_items, dim)
        self.user_factors = normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = normal("item_factors", (n_items, dim), init_std, seed)
        self.h = uniform("h", (dim,), lecun(dim), seed)
        if starts_at_ones(output_init):
            self.h.data[:] = 1.0
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]: one user row serves all K items."""
        p = self.gather(users, self.user_factors) * self.h
        q = self.gather(items, self.item_factors)
        logits: Tensor = (q * p.unsqueeze(1)).sum(-1) + self.bias
        return logits

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: one matrix product."""
        p = self.gather(users, self.user_factors) * self.h
        logits: Tensor = p @ self.gather(items, self.item_factors).to(p.dtype).T + self.bias
        return logits

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]: every item's logit."""
        return (self.user_factors[users.long()] * self.h) @ self.item_factors.T + self.bias

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """User factors; item factors times h; a zero bias for each item."""
        zeros = torch.zeros(self.n_items, device=self.h.device)
        return self.user_factors.detach(), (self.item_factors * self.h).detach(), zeros
