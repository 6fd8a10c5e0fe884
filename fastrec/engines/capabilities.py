"""The one table of what trains what: model x loss x optimiser x distribution x device -> backend.

Whatever no row of ``BACKENDS`` takes is refused with the options that would do; nothing is chosen anywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from fastrec import models, optim
from fastrec.errors import ConfigError
from fastrec.models import losses
from fastrec.models.parts.loss import Loss


class Wish(NamedTuple):
    """The requirements of a run on an engine; every field is a column of the table."""

    model: str | None
    """A registered name, or None for a class that is not registered."""
    loss: str = "bce"
    optimizer: str = "adam"
    distribution: str = "uniform"
    device: str = "cpu"
    """Kind of device: "cpu" or "cuda"."""
    precision: str = "fp32"
    engine: str = "auto"
    fused_mode: str = "deterministic"
    accumulate: int = 1
    hard_negatives: int = 0
    compile: bool = False
    weighted: bool = False
    """Whether positives have weights (``weight_col``)."""
    negatives_from: str = "all"
    """Which items may be negatives: "all", or those "existing" at the time of the positive."""
    processes: int = 1
    """Processes that train together."""


@dataclass(frozen=True)
class Losses:
    """The losses that have some form, so that a new loss needs no entry here."""

    having: str
    has: Callable[[Loss], bool]

    def names(self) -> list[str]:
        """Their names."""
        return [name for name in losses.names() if self.has(losses.get(name))]


EVERY = Losses("any", lambda loss: True)  # noqa: ARG005
BY_LOGITS = Losses("from its logits only", lambda loss: loss.in_batch is None)
BY_ROW = Losses("with a Numba form", lambda loss: loss.row is not None)
BY_MANY = Losses("for many negatives", lambda loss: loss.many is not None and loss.row is None)
BY_TRITON = Losses("with a Triton form", lambda loss: loss.triton is not None)


@dataclass(frozen=True)
class Backend:
    """One row of the table: what a way of computing takes. An empty column takes everything.

    ``without`` lists (model, loss) pairs that are left out though both columns list them; ``divided`` are the losses
    that several processes compute, each from its rows of a batch.
    """

    name: str
    engine: str
    about: str
    models: tuple[str, ...] = ()
    losses: Losses = EVERY
    without: tuple[tuple[str, str], ...] = ()
    optimizers: tuple[str, ...] = ()
    distributions: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    precisions: tuple[str, ...] = ("fp32",)
    modes: tuple[str, ...] = ()
    divided: Losses = EVERY
    others: dict[str, tuple[Any, ...]] = field(default_factory=dict)
    """Further options by name, and the values it takes."""

    def columns(self) -> Iterator[tuple[str, Collection[Any]]]:
        """(field of ``Wish``, the values taken), most telling first; columns that take everything are left out."""
        listed: tuple[tuple[str, Collection[Any]], ...] = (
            ("model", self.models),
            ("loss", self.losses.names() if self.losses is not EVERY else ()),
            ("optimizer", self.optimizers),
            ("distribution", self.distributions),
            ("device", self.devices),
            ("precision", self.precisions),
            ("fused_mode", self.modes),
        )
        yield from ((name, values) for name, values in listed if values)
        yield from self.others.items()

    def refusals(self, wish: Wish) -> list[tuple[str, Collection[Any]]]:
        """(field, the values taken) of each column that does not take the wish; empty where the backend serves it."""
        found = [(name, values) for name, values in self.columns() if getattr(wish, name) not in values]
        if not found and (wish.model, wish.loss) in self.without:
            fit = [n for n in self.losses.names() if (wish.model, n) not in self.without]
            found.append(("loss", fit))
        if not found and wish.weighted and not self._weighs(losses.get(wish.loss)):
            found.append(("loss", [n for n in losses.names() if self._weighs(losses.get(n)) and _scored(wish, n)]))
        if not found and wish.processes > 1 and wish.loss not in self.divided.names():
            found.append(("loss", self.divided.names()))
        return found

    def _weighs(self, loss: Loss) -> bool:
        """Whether the form of a loss that this backend computes takes a weight for each row."""
        forms = (loss.row, loss.many) if self.engine == "fused" else (loss.rows,)
        return any(form is not None for form in forms)


def _scored(wish: Wish, loss: str) -> bool:
    """Whether a loss takes the scores of the wish's model."""
    return wish.model is None or models.model_class(wish.model).similarity in losses.get(loss).similarities


_ROWS = ("mf", "gmf")
_NCF = ("mf", "gmf", "mlp", "neumf")
_ONE: dict[str, tuple[Any, ...]] = {"processes": (1,)}
_PLAIN: dict[str, tuple[Any, ...]] = {"accumulate": (1,), "hard_negatives": (0,), "compile": (False,), **_ONE}
_UNWEIGHTED = {"weighted": (False,)}
_GMF_BPR = (("gmf", "bpr"),)

BACKENDS = (
    Backend(
        "fused-deterministic",
        "fused",
        "CPU: sample, score and update in one compiled pass, the same bytes for any number of threads",
        models=_ROWS,
        losses=BY_ROW,
        without=_GMF_BPR,
        optimizers=("sgd", "row-adagrad", "lazy-adam"),
        devices=("cpu",),
        modes=("deterministic",),
        others=_PLAIN,
    ),
    Backend(
        "fused-lock-free",
        "fused",
        "CPU: the same, Hogwild over users, the fastest; the same bytes with one thread only",
        models=_ROWS,
        losses=BY_ROW,
        without=_GMF_BPR,
        optimizers=("sgd", "row-adagrad"),
        devices=("cpu",),
        modes=("lock_free",),
        others=_PLAIN,
    ),
    Backend(
        "fused-many",
        "fused",
        "CPU: one compiled pass for tens to thousands of negatives, in either fused mode",
        models=("mf", "cosine-mf"),
        losses=BY_MANY,
        optimizers=("sgd", "row-adagrad"),
        distributions=("uniform",),
        devices=("cpu",),
        modes=("deterministic", "lock_free"),
        others=_PLAIN | {"negatives_from": ("all",)},
    ),
    Backend(
        "fused-cuda",
        "fused",
        "CUDA: the fused pass by Triton kernels, the same bytes in every run",
        models=_ROWS,
        losses=BY_TRITON,
        without=_GMF_BPR,
        optimizers=("sgd", "row-adagrad"),
        devices=("cuda",),
        precisions=("fp32", "bf16"),
        modes=("deterministic",),
        others=_PLAIN | _UNWEIGHTED,
    ),
    Backend(
        "cpu-kernels",
        "torch",
        "CPU: mini-batches by compiled kernels between torch's matrix products",
        models=_NCF,
        losses=BY_LOGITS,
        devices=("cpu",),
        others={"compile": (False,)},
    ),
    Backend(
        "cuda-kernels",
        "torch",
        "CUDA: mini-batches by Triton kernels and an Adam of our own",
        models=_NCF,
        losses=BY_TRITON,
        devices=("cuda",),
        precisions=("fp32", "bf16"),
        others={"compile": (False,), **_UNWEIGHTED, **_ONE},
    ),
    Backend(
        "autograd",
        "torch",
        "any device: mini-batches by torch's autograd, about 4 times slower than kernels",
        precisions=("fp32", "bf16", "fp16"),
        divided=BY_LOGITS,
    ),
)
"""In the order in which ``auto`` prefers them."""

SLOW_PATH = "no kernels for {what}: autograd, about 4 times slower"
"""What a run says once where only autograd serves it on a device that has kernels."""


def name_of(model: Any) -> str | None:
    """The name under which exactly this class is registered; None for any other, a subclass too."""
    from fastrec.models.parts.base import registered

    return next((name for name, cls in registered().items() if type(model) is cls), None)


DRAWS = ("distribution", "negatives_from")
"""Fields of a wish that say how negatives are drawn."""


def choose(wish: Wish) -> Backend:
    """The first backend that takes a wish.

    Raises
    ------
    ConfigError
        If there is none: the option, its value, and the values that the nearest backend takes.
    """
    form = losses.get(wish.loss)
    if wish.model is not None:
        similarity = models.model_class(wish.model).similarity
        if similarity not in form.similarities:
            fit = [name for name in losses.names() if similarity in losses.get(name).similarities]
            raise ConfigError(
                f"loss = {wish.loss!r}: is for {' or '.join(form.similarities)} scores, and model = {wish.model!r} "
                f"gives {similarity} scores; with it use {', '.join(fit)}"
            )
    if wish.distribution not in form.distributions:
        raise ConfigError(
            f"distribution = {wish.distribution!r}: loss = {wish.loss} takes {' or '.join(form.distributions)} "
            "negatives"
        )
    if wish.optimizer not in optim.names():
        raise ConfigError(f"optimizer = {wish.optimizer!r}: must be one of {', '.join(optim.names())}")
    rows = [b for b in BACKENDS if wish.engine in ("auto", b.engine)]
    refused = []
    for backend in rows:
        refusals = backend.refusals(wish)
        if not refusals:
            return backend
        refused.append((len(refusals), backend, refusals))
    if not rows:
        raise ConfigError(f"engine = {wish.engine!r}: must be one of auto, torch, fused")
    # the nearest: fewest refusals, and of those one that takes all but the negatives
    _, backend, refusals = min(
        refused,
        key=lambda e: (
            e[0],
            wish.weighted and wish.device not in e[1].devices,
            e[2][0][0] not in DRAWS,
        ),
    )
    name, values = refusals[0]
    where = f"engine = {backend.engine}" + (f" on {wish.device}" if wish.device in backend.devices else "")
    where += f" in {wish.processes} processes" if wish.processes > 1 and name != "processes" else ""
    where += f", fused_mode = {wish.fused_mode}," if backend.engine == "fused" and name != "fused_mode" else ""
    if name == "weighted":
        raise ConfigError(f"weight_col: {where} takes no weights; use engine = torch, or leave it out")
    raise ConfigError(
        f"{name} = {getattr(wish, name)!r}: {where} takes {' or '.join(map(repr, values))}"
        + ("; use engine = torch" if backend.engine == "fused" else "")
    )


def slow_path(wish: Wish, backend: Backend) -> str | None:
    """A note if a wish runs by autograd although its device has kernels for other wishes; else None."""
    if backend.name != "autograd" or wish.compile:
        return None
    near = [b.refusals(wish) for b in BACKENDS if b.engine == "torch" and b is not backend and wish.device in b.devices]
    reasons = min((r for r in near if r), key=len, default=[])
    if not reasons:
        return None
    what = "this model" if wish.model is None else ", ".join(f"{n} = {getattr(wish, n)}" for n, _ in reasons)
    return SLOW_PATH.format(what=what)


def table() -> list[tuple[str, ...]]:
    """The table as rows of text, its header first: for the docs, ``fastrec doctor`` and messages."""
    header = ("backend", "engine", "model", "loss", "optimiser", "negatives", "device", "precision", "processes")
    rows: list[tuple[str, ...]] = [header]
    for b in BACKENDS:
        pairs = "".join(f", not {m} with {n}" for m, n in b.without)
        cells = (b.models, b.optimizers, b.distributions, b.devices, b.precisions)
        shown = [", ".join(c) or "any" for c in cells]
        several = "1" if "processes" in b.others else "any"
        several += f", from 2 losses {b.divided.having}" if b.divided is not EVERY else ""
        rows.append((b.name, b.engine, shown[0], b.losses.having + pairs, *shown[1:], several))
    return rows
