"""The base of every model: which weights are user rows, item rows and shared, scoring, and construction.

B batch rows, K items a row, C items, U users, I items, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fastrec.errors import ConfigError
from fastrec.models.parts import init
from fastrec.registry import Registry

Role = Literal["user", "item", "output", "hidden", "bias"]
"""What a weight is to the optimiser and to the L2 term: see ``Model``."""

_PAIRS_AT_ONCE = 1 << 16  # scores of score_all in flight: bounds its memory at 4 * widest layer * this
_M = TypeVar("_M", bound="type[Model]")


class Model(nn.Module):
    """Scores users against items. A subclass gives ``forward`` and says what each of its weights is.

    Parameters
    ----------
    n_users, n_items, dim : int

    Attributes
    ----------
    options : tuple of str
        Options of a run that the model uses, except ``dim`` and ``seed``; any other is refused. All but ``dropout``,
        which the engine applies, are arguments of ``__init__``.
    user_rows, item_rows : tuple of str
        Tables, or vectors, with a row per user or item. A sample decays only the rows it uses, by ``l2``; optimisers
        by rows move them row by row; 16-bit copies are made of the tables.
    output_weights : tuple of str
        Weights that every sample moves (h of GMF). ``output_l2`` decays them and ``output_lr`` scales their rate.
    hidden_weights : tuple of str
        Other shared weights, as an MLP's; decayed by ``output_l2``.
    global_biases : tuple of str
        Global biases, decayed by ``l2``.
    user_biases : tuple of str
        Those of ``user_rows`` that only add to all logits of a user. A loss of differences (BPR) leaves them and
        ``global_biases`` at 0.
    multiplies : bool
        Whether the forward pass multiplies matrices, so that autocast has something to do.
    similarity : {"dot", "cosine"}
        "cosine": scores are in [-1, 1] and do not depend on the lengths of rows, so that an L2 term has no effect.
    uses_history : bool
        Whether ``__init__`` takes ``history``, the CSR (indptr, items) of the training positives.
    captures : bool
        Whether a CUDA graph can hold the forward pass.
    """

    options: ClassVar[tuple[str, ...]] = ("init_std",)
    user_rows: ClassVar[tuple[str, ...]] = ()
    item_rows: ClassVar[tuple[str, ...]] = ()
    output_weights: ClassVar[tuple[str, ...]] = ()
    hidden_weights: ClassVar[tuple[str, ...]] = ()
    global_biases: ClassVar[tuple[str, ...]] = ()
    user_biases: ClassVar[tuple[str, ...]] = ()
    multiplies: ClassVar[bool] = False
    similarity: ClassVar[Literal["dot", "cosine"]] = "dot"
    uses_history: ClassVar[bool] = False
    captures: bool = True

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        super().__init__()
        self.n_users, self.n_items, self.dim = n_users, n_items, dim
        self.build_args: dict[str, Any] = {}
        self.gather: Any = F.embedding
        """(indices, table) -> rows; the engine puts a lower-precision gather here."""

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, K]: logits of users int32[B] against items int32[B, K]."""
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def cross(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B, C]: every user int32[B] against every item int32[C]. Cost: B * C forward passes of this model."""
        scores: Tensor = self(users, items.expand(users.numel(), -1))
        return scores

    def score_all(self, users: Tensor) -> Tensor:
        """float32[B, I]: every item's logit, a block of items at a time, since all pairs at once may not fit."""
        block = max(1, _PAIRS_AT_ONCE // max(1, users.numel()))
        items = torch.arange(self.n_items, device=users.device)
        return torch.cat([self(users, part.expand(users.numel(), -1)).float() for part in items.split(block)], 1)  # type: ignore[no-untyped-call]

    def vectors(self) -> tuple[Tensor, Tensor, Tensor] | None:
        """(users float32[U, D], items float32[I, D], item bias float32[I]), or None where no such vectors exist.

        Score = user . item + item bias, up to a constant per user.
        """
        return None

    def role_of(self, name: str) -> Role:
        """The role of the parameter of this name.

        Raises
        ------
        ConfigError
            If the class declares nothing for it.
        """
        stem = name.partition(".")[0]
        declared: dict[Role, tuple[str, ...]] = {
            "user": self.user_rows,
            "item": self.item_rows,
            "output": self.output_weights,
            "hidden": self.hidden_weights,
            "bias": self.global_biases,
        }
        for role, names in declared.items():
            if stem in names:
                return role
        raise ConfigError(
            f"{type(self).__name__}.{name} is declared neither in user_rows, item_rows, output_weights, "
            f"hidden_weights nor global_biases of class {type(self).__name__}; add it to the one "
            f"that describes it, so that L2 and optimisers know it"
        )

    def roles(self) -> dict[str, Role]:
        """The role of every parameter by name; raises ConfigError like ``role_of``."""
        return {name: self.role_of(name) for name, _ in self.named_parameters()}


_REGISTRY: Registry[type[Model]] = Registry("model", lambda cls: cls)


def register(name: str) -> Callable[[_M], _M]:
    """Class decorator: ``model = name`` builds this class; raises ConfigError if another class has the name."""

    def put(cls: _M) -> _M:
        _REGISTRY.put(name, cls)
        return cls

    return put


def registered() -> dict[str, type[Model]]:
    """Classes by name, of the modules imported so far; ``fastrec.models.model_class`` imports what is missing."""
    return _REGISTRY.values()


def normal(name: str, shape: tuple[int, ...], std: float, seed: int) -> nn.Parameter:
    """A parameter of N(0, std^2), addressed by (seed, name, row, column)."""
    return nn.Parameter(torch.from_numpy(init.normal(name, shape, std, seed)))


def uniform(name: str, shape: tuple[int, ...], bound: float, seed: int) -> nn.Parameter:
    """A parameter uniform in (-bound, bound), addressed by (seed, name, row, column)."""
    return nn.Parameter(torch.from_numpy(init.uniform(name, shape, bound, seed)))


def lecun(fan_in: int) -> float:
    """Bound of the LeCun-uniform distribution, from which the NCF code draws h."""
    return math.sqrt(3.0 / fan_in)


def starts_at_ones(output_init: str) -> bool:
    """Whether h starts from ones, as in MF, instead of LeCun-uniform, as in the NCF code.

    Raises
    ------
    ConfigError
        For another word than "one" and "lecun".
    """
    if output_init not in ("one", "lecun"):
        raise ConfigError(f"output_init = {output_init!r}: must be lecun or one")
    return output_init == "one"
