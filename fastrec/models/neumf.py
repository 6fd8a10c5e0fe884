"""NeuMF: GMF and MLP joined.

B batch rows, K items a row, C items, U users, I items, D dim.
Source: He et al., "Neural Collaborative Filtering", WWW 2017, section 3.4.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from fastrec.errors import ConfigError
from fastrec.models.gmf import GMF
from fastrec.models.mlp import MLP
from fastrec.models.parts.base import lecun, normal, register, starts_at_ones, uniform
from fastrec.models.parts.mlp_layers import MLPLayers


@register("neumf")
class NeuMF(MLPLayers):
    """GMF and MLP with tables of their own, joined under one h: logit = h . [p_u * q_i; mlp] + bias."""

    options = ("init_std", "output_init", "layers", "dropout")
    user_rows, item_rows = ("user_mlp", "user_factors"), ("item_mlp", "item_factors")
    output_weights, hidden_weights, global_biases = ("h",), ("weights", "biases"), ("bias",)

    def __init__(
        self,
        n_users: int,
        n_items: int,
        dim: int,
        *,
        seed: int,
        init_std: float = 0.01,
        output_init: str = "lecun",
        layers: tuple[int, ...],
    ) -> None:
        super().__init__(n_users, n_items, dim, seed=seed, init_std=init_std, layers=layers)
        self.user_factors = normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = normal("item_factors", (n_items, dim), init_std, seed)
        self.h = uniform("h", (dim + layers[-1],), lecun(dim + layers[-1]), seed)
        if starts_at_ones(output_init):
            self.h.data[:dim] = 1.0
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        p = self.gather(users, self.user_factors) * self.h[: self.dim]
        q = self.gather(items, self.item_factors)
        logits: Tensor = (
            (q * p.unsqueeze(-2)).sum(-1) + self.mlp(users, items).to(self.h.dtype) @ self.h[self.dim :] + self.bias
        )
        return logits

    def start_from(self, gmf: GMF, mlp: MLP, alpha: float) -> None:
        """Copy both parts in; h is [alpha * h_gmf; (1 - alpha) * h_mlp], and the bias the same mixture.

        Source: NCF, section 3.4.1.

        Raises
        ------
        ConfigError
            If their sizes do not fit.
        """
        mine, given = self.state_dict(), {**mlp.state_dict(), **gmf.state_dict()}
        for name in (n for n in mine if n not in ("h", "bias")):  # in order: a set would name another at each run
            if name not in given or given[name].shape != mine[name].shape:
                found = list(given[name].shape) if name in given else "nothing"
                raise ConfigError(
                    f"pretrained {name}: NeuMF needs {list(mine[name].shape)}, the pretrained runs have {found}; train "
                    f"them with dim = {self.dim}, layers = {list(self.widths)} on the same data"
                )
        given["h"] = torch.cat((alpha * gmf.h.detach(), (1 - alpha) * mlp.h.detach()))
        given["bias"] = alpha * gmf.bias.detach() + (1 - alpha) * mlp.bias.detach()
        self.load_state_dict(given)
