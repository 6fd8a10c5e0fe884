"""The models: MF, GMF, MLP and NeuMF, as torch modules over users int32[B] and items int32[B, K].

B batch rows, K items a row, U users, I items, D dim.
Source: He et al., "Neural Collaborative Filtering", WWW 2017, sections 3.2 to 3.4.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrec.errors import ConfigError
from fastrec.models import init

MODELS = ("mf", "gmf", "mlp", "neumf")
_PAIRS_AT_ONCE = 1 << 16  # MLP scores of score_all in flight: bounds its memory at 4 * widest layer * this


def _normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(init.normal(name, shape, std, seed)))


def _uniform(name: str, shape: tuple[int, ...], bound: float, seed: int) -> nn.Parameter:
    return nn.Parameter(torch.from_numpy(init.uniform(name, shape, bound, seed)))


def lecun(fan_in: int) -> float:
    """Bound of the LeCun-uniform distribution, which the NCF code draws h from."""
    return math.sqrt(3.0 / fan_in)


class Factors(nn.Module):
    """What the models share: sizes, how they were built, and where the rows of a table are gathered from."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        super().__init__()
        self.n_users, self.n_items, self.dim = n_users, n_items, dim
        self.build_args: dict[str, Any] = {}
        self.gather: Any = F.embedding
        """(indices, table) -> rows; the engine puts a lower-precision gather here."""

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: every user int32[B] against every item int32[C]. Cost: B * C forward passes of this model."""
        scores: Tensor = self(users, items.expand(users.numel(), -1))
        return scores

    def vectors(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """(users float32[U, D], items float32[I, D], item bias float32[I]), or None where no such vectors exist.

        Score = user . item + item bias, up to a constant a user.
        """
        return None


class GMF(Factors):
    """Generalised matrix factorisation: logit = sum_d h_d p_ud q_id + bias."""

    def __init__(
        self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.01, init_h: str = "lecun"
    ) -> None:
        super().__init__(n_users, n_items, dim)
        self.user_factors = _normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = _normal("item_factors", (n_items, dim), init_std, seed)
        self.h = nn.Parameter(torch.ones(dim)) if init_h == "one" else _uniform("h", (dim,), lecun(dim), seed)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]: one user row serves all K items."""
        p = self.gather(users, self.user_factors) * self.h
        q = self.gather(items, self.item_factors)
        return (q * p.unsqueeze(1)).sum(-1) + self.bias

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: one matrix product."""
        p = self.gather(users, self.user_factors) * self.h
        return p @ self.gather(items, self.item_factors).to(p.dtype).T + self.bias

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]: every item's logit."""
        return (self.user_factors[users.long()] * self.h) @ self.item_factors.T + self.bias

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """User factors; item factors times h; a zero bias for each item."""
        zeros = torch.zeros(self.n_items, device=self.h.device)
        return self.user_factors.detach(), (self.item_factors * self.h).detach(), zeros


class MF(Factors):
    """Matrix factorisation: logit = p_u . q_i + b_u + b_i + bias."""

    def __init__(self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.01) -> None:
        super().__init__(n_users, n_items, dim)
        self.user_factors = _normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = _normal("item_factors", (n_items, dim), init_std, seed)
        self.user_bias = nn.Parameter(torch.zeros(n_users))
        self.item_bias = nn.Parameter(torch.zeros(n_items))
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        p = self.gather(users, self.user_factors).to(self.bias.dtype)
        q = self.gather(items, self.item_factors)
        b_u = F.embedding(users, self.user_bias.unsqueeze(1))
        b_i = F.embedding(items, self.item_bias.unsqueeze(1)).squeeze(-1)
        return (q * p.unsqueeze(1)).sum(-1) + b_u + b_i + self.bias

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: one matrix product."""
        p = self.gather(users, self.user_factors).to(self.bias.dtype)
        b_u = F.embedding(users, self.user_bias.unsqueeze(1))
        b_i = F.embedding(items, self.item_bias.unsqueeze(1)).squeeze(-1)
        return p @ self.gather(items, self.item_factors).to(p.dtype).T + b_u + b_i + self.bias

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]."""
        u = users.long()
        return self.user_factors[u] @ self.item_factors.T + self.item_bias + self.user_bias[u].unsqueeze(1) + self.bias

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Factors as they are, and the item biases; the user's own bias is the constant left out."""
        return self.user_factors.detach(), self.item_factors.detach(), self.item_bias.detach()


class Tower(Factors):
    """The MLP over [user row; item row]: widths ``layers``, input first, ReLU after each layer.

    The first layer acts on a concatenation, so it is the sum of a user half and an item half. Where a batch asks for at
    least as many rows as the table has, the whole table goes through its half once and results are gathered: the same
    mathematics with fewer multiplications (at d=64 and 40,960 samples a fifth).
    """

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
        self.user_mlp = _normal("user_mlp", (n_users, half), init_std, seed)
        self.item_mlp = _normal("item_mlp", (n_items, half), init_std, seed)
        self.weights = nn.ParameterList()
        self.biases = nn.ParameterList()
        for k, (wide, narrow) in enumerate(itertools.pairwise(layers)):
            # Glorot-uniform, as in the NCF code
            self.weights.append(_uniform(f"weights.{k}", (narrow, wide), math.sqrt(6.0 / (wide + narrow)), seed))
            self.biases.append(nn.Parameter(torch.zeros(narrow)))
        self.drop: Callable[[Tensor, int], Tensor] | None = None
        """(activations [B, K, width], layer from 1) -> same; the engine puts addressed dropout here while training."""

    def _half(self, indices: Tensor, table: Tensor, weight: Tensor) -> Tensor:
        if indices.numel() >= table.shape[0]:
            return F.embedding(indices, F.linear(table, weight))
        rows = self.gather(indices, table)
        return F.linear(rows.to(weight.dtype) if not torch.is_autocast_enabled(rows.device.type) else rows, weight)

    def tower(self, users: Tensor, items: Tensor) -> Tensor:
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

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I], a block of items at a time: all pairs at once would not fit."""
        block = max(1, _PAIRS_AT_ONCE // max(1, users.numel()))
        items = torch.arange(self.n_items, device=users.device)
        return torch.cat([self(users, part.expand(users.numel(), -1)).float() for part in items.split(block)], 1)


class MLP(Tower):
    """NCF's MLP: logit = h . tower([p_u; q_i]) + bias."""

    def __init__(
        self, n_users: int, n_items: int, dim: int, *, seed: int, init_std: float = 0.01, layers: tuple[int, ...]
    ) -> None:
        super().__init__(n_users, n_items, dim, seed=seed, init_std=init_std, layers=layers)
        self.h = _uniform("h", (layers[-1],), lecun(layers[-1]), seed)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        return (self.tower(users, items).to(self.h.dtype) * self.h).sum(-1) + self.bias


class NeuMF(Tower):
    """GMF and MLP with tables of their own, joined under one h: logit = h . [p_u * q_i; tower] + bias."""

    def __init__(
        self,
        n_users: int,
        n_items: int,
        dim: int,
        *,
        seed: int,
        init_std: float = 0.01,
        init_h: str = "lecun",
        layers: tuple[int, ...],
    ) -> None:
        super().__init__(n_users, n_items, dim, seed=seed, init_std=init_std, layers=layers)
        self.user_factors = _normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = _normal("item_factors", (n_items, dim), init_std, seed)
        self.h = _uniform("h", (dim + layers[-1],), lecun(dim + layers[-1]), seed)
        if init_h == "one":
            self.h.data[:dim] = 1.0
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        p = self.gather(users, self.user_factors) * self.h[: self.dim]
        q = self.gather(items, self.item_factors)
        return (
            (q * p.unsqueeze(-2)).sum(-1) + self.tower(users, items).to(self.h.dtype) @ self.h[self.dim :] + self.bias
        )

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


def build(
    model: str,
    *,
    n_users: int,
    n_items: int,
    dim: int,
    seed: int,
    init_std: float = 0.01,
    init_h: str = "lecun",
    layers: tuple[int, ...] | list[int] = (),
) -> nn.Module:
    """A model with its initial weights, on the CPU, in float32.

    Parameters
    ----------
    model : {"mf", "gmf", "mlp", "neumf"}
    n_users, n_items : int
    dim : int
        Factors of MF and GMF, and of NeuMF's GMF part.
    seed : int
        0 to 2^32-1; with the name of each tensor it addresses every initial weight.
    init_std : float
        Standard deviation of the initial factors.
    init_h : {"lecun", "one"}
        h of GMF and of NeuMF's GMF part: LeCun-uniform, as the NCF code's, or ones, an MF's without biases.
    layers : sequence of int
        MLP and NeuMF: widths, that of [user; item] first. Empty: 4, 2 and 1 times ``dim``.

    Returns
    -------
    torch.nn.Module
        ``model(users int32[B], items int32[B, K]) -> float32[B, K]``; also ``score_all`` and ``vectors``.

    Raises
    ------
    ConfigError
        For an unknown model, impossible layers, or an ``init_h`` that the model has not.
    """
    args: dict[str, Any] = {"n_users": n_users, "n_items": n_items, "dim": dim, "seed": seed, "init_std": init_std}
    net: GMF | MF | MLP | NeuMF
    if init_h not in (("lecun", "one") if model in ("gmf", "neumf") else ("lecun",)):
        raise ConfigError(f"init_h = {init_h!r}: GMF and NeuMF have lecun and one, other models lecun alone")
    if model in ("gmf", "neumf"):
        args["init_h"] = init_h
    if model in ("mlp", "neumf"):
        args["layers"] = tuple(layers) or (4 * dim, 2 * dim, dim)
        net = (MLP if model == "mlp" else NeuMF)(**args)
    elif model == "gmf":
        net = GMF(**args)
    elif model == "mf":
        net = MF(**args)
    else:
        raise ConfigError(f"model = {model!r}: must be one of {', '.join(MODELS)}")
    net.build_args = {"model": model, **args}
    return net
