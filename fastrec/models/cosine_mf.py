"""CosineMF: matrix factorisation scored by the cosine of user and item rows, the user's history blended in if asked.

B batch rows, K items a row, U users, I items, D dim, E interactions.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from fastrec.errors import ConfigError
from fastrec.models.parts.base import Model, normal, register


@register("cosine-mf")
class CosineMF(Model):
    """score = cos(z_u, q_i) with z_u = p_u + history_weight * h_u: rows have directions only, and no bias.

    h_u has length 1 and the direction of the mean of q_i / |q_i| over the user's training items. It passes no gradient
    on: in training it is what the items were at the start of a step.

    Parameters
    ----------
    n_users, n_items, dim : int
    seed : int
    init_std : float
    history : (int64[U+1], int32[E]), optional
        CSR of the training positives; required where a weight is not 0, left aside where both are.
    history_weight : float
        In training. 0: no history. Rows p_u of N(0, init_std^2) have a length of about init_std * sqrt(D) and grow.
    scored_history_weight : float, optional
        In scoring (``vectors``, ``score_all``, ``cross``, and ``forward`` in evaluation mode); None: the same. What a
        user's row learns from a few positives is less certain than the mean of them, so scoring gains from more of it
        than training does (Gowalla: 3 in training, 7 in scoring).

    Raises
    ------
    ConfigError
        A history that is missing or of other users, or a weight below 0.

    Notes
    -----
    Source: Mao et al., "SimpleX", CIKM 2021, section 3.3 (average pooling), where the history's gradient is kept.
    """

    options = ("init_std", "history_weight", "scored_history_weight")
    user_rows, item_rows = ("user_factors",), ("item_factors",)
    similarity, uses_history = "cosine", True

    def __init__(
        self,
        n_users: int,
        n_items: int,
        dim: int,
        *,
        seed: int,
        init_std: float = 0.1,
        history: tuple[NDArray[Any], NDArray[Any]] | None = None,
        history_weight: float = 0.0,
        scored_history_weight: float | None = None,
    ) -> None:
        super().__init__(n_users, n_items, dim)
        scored = history_weight if scored_history_weight is None else scored_history_weight
        for name, weight in (("history_weight", history_weight), ("scored_history_weight", scored)):
            if not (np.isfinite(weight) and weight >= 0):
                raise ConfigError(f"{name} = {weight}: must be a finite number of at least 0")
        if history is None and (history_weight or scored):
            raise ConfigError(
                f"history_weight = {history_weight}, scored_history_weight = {scored} without a history: give the "
                "training positives"
            )
        self.user_factors = normal("user_factors", (n_users, dim), init_std, seed)
        self.item_factors = normal("item_factors", (n_items, dim), init_std, seed)
        self.history_weight, self.scored_history_weight = float(history_weight), float(scored)
        self._indptr, self._items = torch.zeros(1, dtype=torch.int64), torch.zeros(0, dtype=torch.int64)
        self.captures = not (history_weight or scored)
        if history is not None and not self.captures:
            if history[0].size != n_users + 1:
                raise ConfigError(f"history has {history[0].size - 1} users, the model {n_users}")
            self._indptr, self._items = (torch.from_numpy(a.astype(np.int64)) for a in history)

    def check_history(self, indptr: NDArray[Any], items: NDArray[Any]) -> None:
        """Refuse to train on other positives than those of the history.

        Raises
        ------
        ConfigError
            If they differ.
        """
        if not (np.array_equal(self._indptr.numpy(), indptr) and np.array_equal(self._items.numpy(), items)):
            raise ConfigError("the model's history is not the training part; build it from the same split")

    def _users(self, users: Tensor, weight: float) -> Tensor:
        """z_u of users [B] at a weight of the history."""
        p: Tensor = self.gather(users, self.user_factors).to(self.user_factors.dtype)
        if not weight:
            return p
        u = users.long().cpu()
        first, count = self._indptr[u], self._indptr[u + 1] - self._indptr[u]
        offsets = torch.cumsum(count, 0) - count
        at = torch.arange(int(count.sum())) + torch.repeat_interleave(first - offsets, count)
        unit = F.normalize(self.item_factors.detach(), dim=-1)
        past = F.embedding_bag(self._items[at].to(unit.device), unit, offsets.to(unit.device), mode="sum")
        blended: Tensor = p + weight * F.normalize(past, dim=-1)
        return blended

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        z = F.normalize(
            self._users(users, self.history_weight if self.training else self.scored_history_weight), dim=-1
        )
        q = F.normalize(self.gather(items, self.item_factors).to(z.dtype), dim=-1)
        return (q * z.unsqueeze(1)).sum(-1)

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: one matrix product."""
        z = F.normalize(self._users(users, self.scored_history_weight), dim=-1)
        return z @ F.normalize(self.gather(items, self.item_factors).to(z.dtype), dim=-1).T

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]."""
        return (
            F.normalize(self._users(users, self.scored_history_weight), dim=-1)
            @ F.normalize(self.item_factors, dim=-1).T
        )

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """Rows of length 1; no bias."""
        with torch.no_grad():
            everybody = torch.arange(self.n_users, device=self.user_factors.device)
            z = F.normalize(self._users(everybody, self.scored_history_weight), dim=-1)
            q = F.normalize(self.item_factors, dim=-1)
        return z, q, torch.zeros(self.n_items, device=q.device)
