"""The MLP that MLP and NeuMF share.

B batch rows, K items a row, C items, U users, I items, D dim.
Source: He et al., "Neural Collaborative Filtering", WWW 2017, section 3.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrec.errors import ConfigError
from fastrec.models.parts.base import Model, normal, uniform


class MLPLayers(Model):
    """The MLP over [user row; item row]: widths ``layers``, input first, ReLU after each layer.

    The first layer acts on a concatenation, so it is the sum of a user half and an item half. Where a batch asks for at
    least as many rows as the table has, the entire table goes through its half once and results are gathered: the same
    mathematics with fewer multiplications (at d=64 and 40,960 samples a fifth).
    """

    multiplies = True

    def __init__(
        self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float, layers: tuple[int, ...]
    ) -> None:
        super().__init__(n_users, n_items, dim)
        if len(layers) < 2 or layers[0] % 2:
            raise ConfigError(
                f"layers = {list(layers)}: give the width of [user; item], an even number, then at least one layer"
            )
        self.widths = tuple(layers)
        half = layers[0] // 2
        self.user_mlp = normal("user_mlp", (n_users, half), init_std, seed)
        self.item_mlp = normal("item_mlp", (n_items, half), init_std, seed)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for k, (wide, narrow) in enumerate(itertools.pairwise(layers)):
            # Glorot-uniform, as in the NCF code
            self.weights.append(uniform(f"weights.{k}", (narrow, wide), math.sqrt(6.0 / (wide + narrow)), seed))
            self.biases.append(nn.Parameter(torch.zeros(narrow)))
        self.drop: Callable[[Tensor, int], Tensor] | None = None
        """(activations [B, K, width], layer from 1) -> same; the engine puts addressed dropout here while training."""

    def _half(self, indices: Tensor, table: Tensor, weight: Tensor) -> Tensor:
        if indices.numel() >= table.shape[0]:
            return F.embedding(indices, F.linear(table, weight))
        rows = self.gather(indices, table)
        return F.linear(rows.to(weight.dtype) if not torch.is_autocast_enabled(rows.device.type) else rows, weight)

    def mlp(self, users: Tensor, items: Tensor) -> Tensor:
        """[B, K, last width] of the activations."""
        half = self.widths[0] // 2
        first = self.weights[0]
        u = self._half(users, self.user_mlp, first[:, :half])
        x = F.relu(self._half(items, self.item_mlp, first[:, half:]) + u.unsqueeze(-2) + self.biases[0])
        x = self.drop(x, 1) if self.drop is not None else x
        for k in range(1, len(self.weights)):
            x = F.relu(F.linear(x, self.weights[k], self.biases[k]))
            x = self.drop(x, k + 1) if self.drop is not None else x
        return x
