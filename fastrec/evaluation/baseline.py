"""The definition of a baseline, the choice of its settings on validation, and models that score by rows.

B batch rows, K items a row, U users, I items, E interactions.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from fastrec.data.interactions import Interactions
from fastrec.registry import Registry


@dataclass(frozen=True)
class Baseline:
    """A model that is fitted in closed form or by a solver.

    Parameters
    ----------
    name : str
    about : str
        One line for the table.
    fit : callable
        (train, threads, **settings) -> a model that evaluation takes: ``score_all``, ``vectors`` and a call.
    grid : tuple of dict
        Settings to choose from on validation; the first where there is no validation part.
    n_bytes : callable
        (n_users, n_items, n_interactions) -> the most memory that a fit holds at a time.
    source : str
        Paper and section.
    prepare : callable, optional
        (train, threads) -> what the settings have in common, which ``fit`` takes as ``prepared``.
    """

    name: str
    about: str
    fit: Callable[..., Any]
    grid: tuple[dict[str, Any], ...]
    n_bytes: Callable[[int, int, int], int]
    source: str
    prepare: Callable[..., Any] | None = None


_REGISTRY: Registry[Baseline] = Registry("baseline", lambda baseline: baseline.fit)


def register(baseline: Baseline) -> Baseline:
    """Make a baseline known by its name; raises ConfigError if another module has registered the name."""
    return _REGISTRY.put(baseline.name, baseline)


def registered() -> dict[str, Baseline]:
    """Baselines by name, of the modules imported so far; ``baselines.get`` imports what is missing."""
    return _REGISTRY.values()


class RowScores(nn.Module):
    """A model that scores all items of a user at once, from the user's history.

    Parameters
    ----------
    train : Interactions
        The histories.
    fill : callable
        (users int32[B], out float32[B, I]) -> None: scores of every item.
    """

    def __init__(self, train: Interactions, fill: Callable[[NDArray[np.int32], NDArray[np.float32]], None]) -> None:
        super().__init__()
        self.n_users, self.n_items = train.n_users, train.n_items
        self._fill = fill

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]."""
        out = np.zeros((users.numel(), self.n_items), np.float32)
        self._fill(users.cpu().numpy().astype(np.int32), out)
        return torch.from_numpy(out)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]. Cost: the scores of all items once for each distinct user of the batch."""
        distinct, rows = torch.unique(users, return_inverse=True)
        out = torch.empty(items.shape, dtype=torch.float32)
        step = max(1, (1 << 24) // self.n_items)
        for lo in range(0, distinct.numel(), step):
            scores = self.score_all(distinct[lo : lo + step])
            mine = (rows >= lo) & (rows < lo + step)
            out[mine] = scores[rows[mine] - lo].gather(1, items[mine].long())
        return out

    def vectors(self) -> None:
        """There are none."""
        return None


class FactorScores(nn.Module):
    """score = user . item + item bias, from arrays."""

    def __init__(self, users: NDArray[Any], items: NDArray[Any], bias: NDArray[Any] | None = None) -> None:
        super().__init__()
        bias = np.zeros(len(items)) if bias is None else bias
        self._users, self._items, self._bias = (
            torch.from_numpy(np.ascontiguousarray(a, dtype=np.float32)) for a in (users, items, bias)
        )

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]."""
        return self._users[users.long()] @ self._items.T + self._bias

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]."""
        rows, at = self._users[users.long()].unsqueeze(1), items.long()
        return (rows * self._items[at]).sum(-1) + self._bias[at]

    def vectors(self) -> tuple[Tensor, Tensor, Tensor]:
        """(users float32[U, D], items float32[I, D], item bias float32[I])."""
        return self._users, self._items, self._bias
