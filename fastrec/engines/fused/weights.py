"""The weights of MF and GMF as NumPy views of the module's own parameters, with the optimiser's state next to them.

U users, I items, D dim.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import CheckpointError, ConfigError
from fastrec.models.gmf import GMF
from fastrec.models.mf import MF

EPS = np.float32(1e-10)
"""What Adagrad adds to the root, as the torch engine's."""


LINE = 64
"""Bytes of a cache line: rows that begin on one never straddle two."""


def aligned(rows: int, columns: int) -> NDArray[np.float32]:
    """float32[rows, columns] of undefined values that begins on a cache line and shares none with other memory."""
    memory = np.empty(-(-4 * rows * columns // LINE) * LINE + LINE, np.uint8)
    start = -memory.ctypes.data % LINE
    return memory[start : start + 4 * rows * columns].view(np.float32).reshape(rows, columns)


OPTIMIZERS: dict[str, dict[str, int]] = {
    "sgd": {},
    "row-adagrad": {"sum": 1},
    "lazy-adam": {"exp_avg": 2, "exp_avg_sq": 2},
}
"""State of each weight by its name in checkpoints, and of how many of its dimensions: 1 is one number a row."""


class Tables(NamedTuple):
    """The weights as kernels take them, or one state of the optimiser for each; what a model lacks is empty."""

    p: NDArray[np.float32]
    """float32[U, D]"""
    q: NDArray[np.float32]
    """float32[I, D]"""
    h: NDArray[np.float32]
    """float32[D]"""
    user_bias: NDArray[np.float32]
    """float32[U]"""
    item_bias: NDArray[np.float32]
    """float32[I]"""
    bias: NDArray[np.float32]
    """float32[1]"""


class Weights:
    """Views: what a kernel writes is what the module holds.

    MF and GMF share one form: logit = sum_d h_d p_ud q_id + b_u + b_i + bias, where MF has no h and GMF no b_u and b_i
    (empty arrays).

    Parameters
    ----------
    model : torch.nn.Module
        MF or GMF of ``fastrec.models``, on the CPU in float32.
    optimizer : {"sgd", "row-adagrad", "lazy-adam"}

    Raises
    ------
    ConfigError
        For any other model, device, dtype or optimiser.
    """

    def __init__(self, model: Any, optimizer: str) -> None:
        if optimizer not in OPTIMIZERS:
            raise ConfigError(
                f"optimizer = {optimizer!r}: the fused engine has {', '.join(OPTIMIZERS)}; use engine = torch"
            )
        if type(model) not in (MF, GMF):
            raise ConfigError(
                f"model {type(model).__name__}: the fused engine trains exactly MF and GMF; use engine = torch"
            )
        named = dict(model.named_parameters())
        for name, parameter in named.items():
            if parameter.device.type != "cpu" or str(parameter.dtype) != "torch.float32":
                raise ConfigError(
                    f"{name} is {parameter.dtype} on {parameter.device}: the fused engine trains float32 on the CPU"
                )
            if parameter.data_ptr() % LINE:
                parameter.data = parameter.data.clone()  # into torch's own memory, which begins on a cache line
        self.named = {name: parameter.detach().numpy() for name, parameter in named.items()}
        self.gmf = type(model) is GMF
        self.adagrad = optimizer == "row-adagrad"
        self.user_factors: NDArray[np.float32] = self.named["user_factors"]
        self.item_factors: NDArray[np.float32] = self.named["item_factors"]
        self.dim = self.user_factors.shape[1]
        self.h, self.user_bias, self.item_bias = map(self._view, ("h", "user_bias", "item_bias"))
        self.bias = self.named["bias"]
        self.optimizer = optimizer
        self.states: dict[str, dict[str, NDArray[np.float32]]] = {
            name: {key: np.zeros(a.shape[:dims], np.float32) for key, dims in OPTIMIZERS[optimizer].items()}
            for name, a in self.named.items()
        }
        self.sums = {name: states["sum"] for name, states in self.states.items() if "sum" in states}
        self.user_sum, self.item_sum, self.h_sum, self.user_bias_sum, self.item_bias_sum, self.bias_sum = map(
            self._sum, ("user_factors", "item_factors", "h", "user_bias", "item_bias", "bias")
        )

    def tables(self) -> Tables:
        """The weights as kernels take them."""
        return Tables(self.user_factors, self.item_factors, self.h, self.user_bias, self.item_bias, self.bias)

    def _view(self, name: str) -> NDArray[np.float32]:
        view: NDArray[np.float32] = self.named.get(name, np.empty(0, np.float32))
        return view

    def _sum(self, name: str) -> NDArray[np.float32]:
        return self.sums.get(name, np.empty(0, np.float32))


def restored(places: Mapping[str, Any], tensors: Mapping[str, Any]) -> Iterator[tuple[Any, NDArray[Any]]]:
    """Each array or tensor of ``places`` with the values of its name in a checkpoint, in its own shape.

    Raises
    ------
    CheckpointError
        If a tensor is missing or has another shape.
    """
    for key, place in places.items():
        if key not in tensors:
            raise CheckpointError(f"{key} is missing from the checkpoint; it holds {', '.join(sorted(tensors))}")
        values = np.asarray(tensors[key])
        if values.size != math.prod(place.shape):
            raise CheckpointError(f"{key} has shape {list(values.shape)}, the model's {list(place.shape)}")
        yield place, values.reshape(tuple(place.shape))
