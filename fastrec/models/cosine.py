"""CosineMF: matrix factorisation scored by the cosine of user and item rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from fastrec.models.nets import Factors, _normal


class CosineMF(Factors):
    """score = p_u . q_i / (|p_u| |q_i|): rows have directions only, and no bias.

    Source: Mao et al., "SimpleX", CIKM 2021, section 3.3.
    """

    def __init__(self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.1) -> None:
        super().__init__(n_users, n_items, dim)
        self.user_factors = _normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = _normal("item_factors", (n_items, dim), init_std, seed)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        p = F.normalize(self.gather(users, self.user_factors), dim=-1)
        q = F.normalize(self.gather(items, self.item_factors), dim=-1)
        return (q * p.unsqueeze(1)).sum(-1)

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: one matrix product."""
        p = F.normalize(self.gather(users, self.user_factors), dim=-1)
        return p @ F.normalize(self.gather(items, self.item_factors), dim=-1).T

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]."""
        p = F.normalize(self.user_factors[users.long()], dim=-1)
        return p @ F.normalize(self.item_factors, dim=-1).T

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of length 1; no bias."""
        zeros = torch.zeros(self.n_items, device=self.item_factors.device)
        p, q = (F.normalize(table.detach(), dim=-1) for table in (self.user_factors, self.item_factors))
        return p, q, zeros
