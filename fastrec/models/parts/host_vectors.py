"""Vectors of a saved model as NumPy arrays, without torch: what using a trained MF or GMF needs.

U users, I items, D dim.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Weights = Mapping[str, NDArray[Any]]


class HostVectors(NamedTuple):
    """logit = user . item + item bias + user constant."""

    users: NDArray[np.float32]
    items: NDArray[np.float32]
    bias: NDArray[np.float32]
    constants: NDArray[np.float32]
    shared: float = 0.0
    """The part of ``constants`` that every user has: the global bias."""


def _mf(w: Weights) -> HostVectors:
    constants = w["user_bias"] + w["bias"]
    return HostVectors(w["user_factors"], w["item_factors"], w["item_bias"], constants, float(w["bias"][0]))


def _gmf(w: Weights) -> HostVectors:
    users, items = w["user_factors"], w["item_factors"]
    constants = np.repeat(w["bias"].astype(np.float32), users.shape[0])
    return HostVectors(users, items * w["h"], np.zeros(items.shape[0], np.float32), constants, float(w["bias"][0]))


FORMS: dict[str, Callable[[Weights], HostVectors]] = {"mf": _mf, "gmf": _gmf}
"""Models whose saved tensors give their vectors without torch; others are built and asked for ``vectors()``."""


def host_vectors(model: str, weights: Weights) -> HostVectors | None:
    """The vectors of a model from its saved tensors; None for a model without a form here.

    Raises
    ------
    ValueError
        If a tensor is missing, or they do not fit one another.
    """
    if model not in FORMS:
        return None
    try:
        made = FORMS[model](weights)
    except KeyError as error:
        raise ValueError(f"there is no tensor {error}") from None
    users, items, bias, constants, _ = made
    fits = users.ndim == items.ndim == 2 and users.shape[1] == items.shape[1]
    if not fits or bias.shape != items.shape[:1] or constants.shape != users.shape[:1]:
        raise ValueError(f"shapes {[array.shape for array in made[:4]]} of users, items, bias and constants do not fit")
    if any(array.dtype != np.float32 for array in made[:4]):
        raise ValueError(f"tensors are {[str(array.dtype) for array in made[:4]]}, not float32")
    return made
