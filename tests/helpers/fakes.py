"""Small models and data for tests of what ranks, that obey the models' contract without being trained."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from fastrec.data import Interactions


class VectorModel(torch.nn.Module):
    """score = user . item + item bias, from given arrays."""

    def __init__(self, users: Any, items: Any, bias: Any = None) -> None:
        super().__init__()
        self.p = torch.nn.Parameter(torch.tensor(np.asarray(users, np.float32)))
        self.q = torch.nn.Parameter(torch.tensor(np.asarray(items, np.float32)))
        self.b = torch.nn.Parameter(torch.tensor(np.zeros(len(items)) if bias is None else bias, dtype=torch.float32))

    def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return (self.p[users.long()].unsqueeze(1) * self.q[items.long()]).sum(-1) + self.b[items.long()]

    def cross(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
        return self.score_all(users)[:, items.long()]

    def score_all(self, users: torch.Tensor) -> torch.Tensor:
        return self.p[users.long()] @ self.q.T + self.b

    def vectors(self) -> Any:
        return self.p.detach(), self.q.detach(), self.b.detach()


class Mlp(VectorModel):
    """The same scores from a model that has no vectors, as an MLP has none."""

    def vectors(self) -> Any:
        return None


def popularity(train: Interactions) -> VectorModel:
    """Every user gets the items in the order of their counts in ``train``."""
    return VectorModel(np.zeros((train.n_users, 1)), np.zeros((train.n_items, 1)), train.item_counts())


def interactions(rows: list[list[int]], n_items: int, name: str = "test", **fields: Any) -> Interactions:
    """Interactions from the items of each user."""
    indptr = np.cumsum([0, *map(len, rows)]).astype(np.int64)
    items = np.array([i for row in rows for i in sorted(row)], np.int32)
    fields = {"user_ids": np.arange(len(rows)), "item_ids": np.arange(n_items), **fields}
    return Interactions(indptr=indptr, items=items, name=name, **fields)


def random_parts(
    rng: np.random.Generator, n_users: int, n_items: int, most: tuple[int, ...] = (12, 3, 2)
) -> list[Interactions]:
    """Disjoint parts over the same users and items, with up to ``most[k]`` items a user in part k."""
    rows: list[list[list[int]]] = [[] for _ in most]
    for _ in range(n_users):
        shuffled = rng.permutation(n_items).tolist()
        for part, limit in zip(rows, most):
            n = int(rng.integers(0, limit + 1))
            part.append(sorted(shuffled[:n]))
            shuffled = shuffled[n:]
    return [interactions(part, n_items) for part in rows]
