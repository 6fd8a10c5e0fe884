"""The weights of a run in use: vectors read without torch where the model has a form for it, else the model itself.

U users, I items, B pairs, D dim.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.data.split import Split
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.evaluation.full_ranking import Vectors, host, scoring
from fastrec.evaluation.metrics import check_scores
from fastrec.files import map_safetensors
from fastrec.inference.top_k import PAIRS_AT_ONCE
from fastrec.models.parts.host_vectors import FORMS, HostVectors, host_vectors
from fastrec.runs import Run

_PAIRS = 1 << 18
"""Pairs of vectors multiplied at a time."""


class Weights:
    """The vectors or the model of a run; read on first use.

    Parameters
    ----------
    run : Run
    split : Split
        Its sizes are checked against those of the weights.
    model : torch.nn.Module, optional
        In place of the run's.
    """

    def __init__(self, run: Run, split: Split, model: Any = None) -> None:
        self.run, self._sizes, self._given = run, (split.n_users, split.n_items), model

    @cached_property
    def model(self) -> Any:
        """torch.nn.Module on the CPU, or the one that was given."""
        return self.run.model() if self._given is None else self._given

    @cached_property
    def _host(self) -> HostVectors | None:
        """The vectors from the file, without torch; None for a model that has no such form."""
        name = self.run.manifest.get("model", {}).get("model")
        if self._given is not None or name not in FORMS:
            return None
        path = self.run.verified("model.safetensors")
        try:
            made = host_vectors(name, map_safetensors(path, verify=False)[0])
        except (DataError, ValueError) as error:
            raise CheckpointError(f"{path}: not the weights of a {name} ({error}); train again") from None
        if made is not None and (len(made.users), len(made.items)) != self._sizes:
            raise CheckpointError(
                f"{path}: has {len(made.users)} users and {len(made.items)} items, but the data of the run have "
                f"{self._sizes[0]} and {self._sizes[1]}; train again"
            )
        return made

    @cached_property
    def vectors_or_none(self) -> Vectors | None:
        """The vectors, checked; None where the model has none."""
        if self._host is not None:
            return Vectors.of(_Given(self._host))
        return Vectors.of(self.model)

    @property
    def vectors(self) -> Vectors:
        """The vectors.

        Raises
        ------
        ConfigError
            If the model has none.
        """
        if self.vectors_or_none is None:
            name = self.run.manifest.get("model", {}).get("model", "model")
            raise ConfigError(
                f"{self.run.path}: a {name} scores through a network and has no vectors whose dot product is the "
                "score; use recommend, similar and score, or train an mf or gmf"
            )
        return self.vectors_or_none

    @property
    def shared_bias(self) -> float:
        """The global bias, which is a part of every user's constant; of a model whose vectors NumPy reads."""
        if self._host is None:
            raise ConfigError(f"{self.run.path}: its vectors come from torch; open the run without a model of its own")
        return self._host.shared

    def constants(self, users: NDArray[np.int32]) -> NDArray[np.float32]:
        """float32[B]: what makes the vectors' score of each user the logit."""
        if self.vectors_or_none is None:
            return np.zeros(users.size, np.float32)
        if self._host is not None:
            return self._host.constants[users]
        first = np.zeros(users.size, np.int32)  # one pair of each user tells its constant
        return self._forward(users, first) - self._products(users, first)

    def pairs(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        """float32[B]: the logit of each pair."""
        if self._host is not None:
            return self._products(users, items) + self._host.constants[users]
        return self._forward(users, items)

    def _products(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        v, out = self.vectors, np.empty(users.size, np.float32)
        for lo in range(0, users.size, _PAIRS):
            u, i = users[lo : lo + _PAIRS], items[lo : lo + _PAIRS]
            np.einsum("bd,bd->b", v.users[u], v.items[i], out=out[lo : lo + _PAIRS])
            out[lo : lo + _PAIRS] += v.bias[i]
        return out

    def _forward(self, users: NDArray[np.int32], items: NDArray[np.int32]) -> NDArray[np.float32]:
        import torch

        out = np.empty(users.size, np.float32)
        with scoring(self.model) as device:
            for lo in range(0, users.size, PAIRS_AT_ONCE):
                part = slice(lo, lo + PAIRS_AT_ONCE)
                u, i = (torch.from_numpy(x[part].copy()).to(device) for x in (users, items))
                out[part] = host(self.model(u, i[:, None])[:, 0].float(), "the model's scores")
        check_scores(out, "the model's scores")
        return out

    @property
    def user_table(self) -> NDArray[np.float32]:
        """float32[U, D]: what makes users similar: vectors, or the user embeddings of a model without."""
        return self._table("users", "user_rows")

    @property
    def item_table(self) -> NDArray[np.float32]:
        """float32[I, D]: what makes items similar: vectors, or the item embeddings of a model without."""
        return self._table("items", "item_rows")

    def _table(self, side: str, rows: str) -> NDArray[np.float32]:
        if self.vectors_or_none is not None:
            table: NDArray[np.float32] = getattr(self.vectors_or_none, side)
            return table
        state = self.model.state_dict()
        tables = [host(state[name].float(), name) for name in getattr(self.model, rows) if state[name].ndim == 2]
        if not tables:
            raise ConfigError(f"{self.run.path}: its model declares no table of {side}, so there is nothing to compare")
        made = np.concatenate(tables, axis=1)
        check_scores(made, f"the model's {side}")
        return made


class _Given:
    """Vectors in the form that ``Vectors.of`` takes."""

    def __init__(self, made: HostVectors) -> None:
        self._made = made

    def vectors(self) -> tuple[Any, Any, Any]:
        """Users, items and item bias."""
        return self._made.users, self._made.items, self._made.bias
