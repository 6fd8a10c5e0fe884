"""MF: matrix factorisation with biases.

B batch rows, K items a row, C items, U users, I items, D dim.
Source: Koren et al., "Matrix factorization techniques for recommender systems", IEEE Computer 2009.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrec.models.parts.base import Model, normal, register


@register("mf")
class MF(Model):
    """Matrix factorisation: logit = p_u . q_i + b_u + b_i + bias."""

    user_rows, item_rows = ("user_factors", "user_bias"), ("item_factors", "item_bias")
    global_biases, user_biases = ("bias",), ("user_bias",)

    def __init__(self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.01) -> None:
        super().__init__(n_users, n_items, dim)
        self.user_factors = normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = normal("item_factors", (n_items, dim), init_std, seed)
        self.user_bias = nn.Parameter(torch.zeros(n_users))
        self.item_bias = nn.Parameter(torch.zeros(n_items))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        p = self.gather(users, self.user_factors).to(self.bias.dtype)
        q = self.gather(items, self.item_factors)
        b_u = F.embedding(users, self.user_bias.unsqueeze(1))
        b_i = F.embedding(items, self.item_bias.unsqueeze(1)).squeeze(-1)
        logits: Tensor = (q * p.unsqueeze(1)).sum(-1) + b_u + b_i + self.bias
        return logits

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: one matrix product."""
        p = self.gather(users, self.user_factors).to(self.bias.dtype)
        b_u = F.embedding(users, self.user_bias.unsqueeze(1))
        b_i = F.embedding(items, self.item_bias.unsqueeze(1)).squeeze(-1)
        logits: Tensor = p @ self.gather(items, self.item_factors).to(p.dtype).T + b_u + b_i + self.bias
        return logits

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]."""
        u = users.long()
        return self.user_factors[u] @ self.item_factors.T + self.item_bias + self.user_bias[u].unsqueeze(1) + self.bias

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Factors as they are, and the item biases; the user's own bias is the constant left out."""
        return self.user_factors.detach(), self.item_factors.detach(), self.item_bias.detach()
