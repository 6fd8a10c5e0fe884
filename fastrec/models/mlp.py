"""MLP: NCF's multi-layer perceptron over [user row; item row].

B batch rows, K items a row, C items, U users, I items, D dim.
Source: He et al., "Neural Collaborative Filtering", WWW 2017, section 3.3.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastrec.models.parts.base import lecun, register, uniform
from fastrec.models.parts.mlp_layers import MLPLayers


@register("mlp")
class MLP(MLPLayers):
    """NCF's MLP: logit = h . mlp([p_u; q_i]) + bias."""

    options = ("init_std", "layers", "dropout")
    user_rows, item_rows = ("user_mlp",), ("item_mlp",)
    output_weights, hidden_weights, global_biases = ("h",), ("weights", "biases"), ("bias",)

    def __init__(
        self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.01, layers: tuple[int, ...]
    ) -> None:
        super().__init__(n_users, n_items, dim, seed=seed, init_std=init_std, layers=layers)
        self.h = uniform("h", (layers[-1],), lecun(layers[-1]), seed)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        return (self.mlp(users, items).to(self.h.dtype) * self.h).sum(-1) + self.bias
