"""The models, one file each: a file in this folder that registers a class is a model.

Importing this package does not import torch; ``build`` and ``model_class`` do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from fastrec.errors import ConfigError
from fastrec.registry import Folder

if TYPE_CHECKING:
    from fastrec.models.parts.base import Model


_FOLDER: Folder[type[Model]] = Folder("model = ", __name__, "fastrec.models.parts.base")


def names() -> list[str]:
    """Names of the models, by their files and by ``register``."""
    return _FOLDER.names()


def model_class(name: str) -> type[Model]:
    """The class that is registered under a name.

    Raises
    ------
    ConfigError
        If there is none.
    """
    return _FOLDER.get(name)


def build(
    model: str,
    *,
    n_users: int,
    n_items: int,
    dim: int,
    seed: int,
    layers: Sequence[int] = (),
    history: tuple[Any, Any] | None = None,
    **options: Any,
) -> Model:
    """A model with its initial weights, on the CPU, in float32.

    Parameters
    ----------
    model : str
        A name of ``names()``.
    n_users, n_items : int
    dim : int
        Factors of MF and GMF, and of NeuMF's GMF part.
    seed : int
        0 to 2^32-1; with the name of each tensor it addresses every initial weight.
    layers : sequence of int
        MLP and NeuMF: widths, that of [user; item] first. Empty: 4, 2 and 1 times ``dim``.
    history : (int64[U+1], int32[E]), optional
        CSR of the training positives, for models that score by it; others do without.
    **options
        What the class lists in ``options``: ``init_std`` (standard deviation of the initial factors), ``output_init``
        (GMF and NeuMF: "lecun", as the NCF code's, or "one", an MF's without biases), or an option of its own.

    Returns
    -------
    Model
        ``model(users int32[B], items int32[B, K]) -> float32[B, K]``; also ``score_all`` and ``vectors``.

    Raises
    ------
    ConfigError
        For an unknown model, impossible layers, or an option that the model does not have.
    """
    cls = model_class(model)
    args: dict[str, Any] = {"n_users": n_users, "n_items": n_items, "dim": dim, "seed": seed, **options}
    if "layers" in cls.options:
        args["layers"] = tuple(layers) or (4 * dim, 2 * dim, dim)
    elif tuple(layers):
        raise ConfigError(f"layers = {list(layers)}: {model} has no layers; leave it out, or use mlp or neumf")
    for name in options:
        if name not in cls.options:
            raise ConfigError(
                f"{name} = {options[name]!r}: {model} has no such option; it has {', '.join(cls.options)}"
            )
    past: dict[str, Any] = {"history": history} if cls.uses_history else {}
    net = cls(**args, **past)
    net.build_args = {"model": model, **args}
    return net
