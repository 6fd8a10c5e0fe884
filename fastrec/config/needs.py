"""The table of the requirements of options; an option that was given without an effect is refused.

What an engine, loss, optimiser, device or precision takes of the others is the capability table's
(``fastrec.engines.capabilities``); what a file takes of column names and filters is checked by its reader.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from fastrec.config.config import Config
from fastrec.errors import ConfigError


class Facts(NamedTuple):
    """The facts that decide whether an option has an effect."""

    values: Mapping[str, Any]
    """Every option, each "auto" settled."""
    model_options: Collection[str]
    """Options of a run that the model uses."""
    shared_weights: bool
    """Whether the model has output or hidden weights, which every sample moves."""
    output_weights: bool
    loss_options: Collection[str]
    """Options of a run that the loss takes."""
    cosine: bool
    """Whether the model's scores are cosines, which do not depend on the lengths of rows."""
    decays: bool
    """Whether the update rule decays every weight by itself."""
    in_batch: bool = False
    """Whether the loss takes the other positives of a batch as negatives."""
    validates: bool = True
    """Whether the split rule takes a validation part, a fraction to test, and a seed."""
    takes_fraction: bool = False
    draws: bool = True


class DataFacts(NamedTuple):
    """The facts known after the split."""

    validation: bool
    """Whether there is a validation part."""
    test: bool
    own_candidates: bool
    """Whether the split has the candidates of its test part."""


class Need(NamedTuple):
    """The requirement of some options."""

    options: tuple[str, ...]
    what: str
    """Ends the sentence "it needs ..."."""
    depends: tuple[str, ...]
    """Options that decide it."""
    met: Callable[[Any], bool]


OFF: dict[str, Any] = {
    "layers": (), "dropout": 0.0, "patience": 0, "history_weight": 0.0, "pretrained_gmf": None, "pretrained_mlp": None,
    "negatives_from": "all", "unrated_negatives": False,
}  # fmt: skip
"""Values that ask for nothing, which may be given anywhere; None may for every option."""


def _pretrained(f: Facts) -> bool:
    return bool(f.values["pretrained_gmf"] and f.values["pretrained_mlp"]) and f.values["model"] == "neumf"


def _uses(name: str) -> Callable[[Facts], bool]:
    return lambda f: name in f.model_options


def _takes(name: str) -> Callable[[Facts], bool]:
    return lambda f: name in f.loss_options


NEEDS = (
    Need(
        ("validation", "split_seed"),
        "a split that has a validation part, and split = none has none",
        ("split",),
        lambda f: f.validates,
    ),
    Need(("test_fraction",), "split = ratio or time", ("split",), lambda f: f.takes_fraction),
    Need(
        ("split_seed",),
        "a split that draws: split = ratio, or a validation part and a split other than time",
        ("split", "validation"),
        lambda f: f.draws,
    ),
    Need(
        ("popularity_alpha",),
        "distribution = popularity",
        ("distribution",),
        lambda f: f.values["distribution"] == "popularity",
    ),
    Need(
        ("negatives_from",),
        "distribution = uniform, the one that is drawn exactly among the items that exist",
        ("distribution",),
        lambda f: f.values["distribution"] == "uniform",
    ),
    Need(
        ("negatives_from",),
        "a loss without in-batch negatives, which are whatever the batch holds (bce or bpr)",
        ("loss",),
        lambda f: not f.in_batch,
    ),
    Need(
        ("unrated_negatives",),
        "negatives_from = all: an item without interactions has not appeared",
        ("negatives_from",),
        lambda f: f.values["negatives_from"] == "all",
    ),
    Need(("layers",), "a model with layers: mlp or neumf", ("model",), _uses("layers")),
    Need(("dropout",), "a model with layers to drop units of: mlp or neumf", ("model",), _uses("dropout")),
    Need(
        ("dim",),
        "layers to be left out, whose last width is the model's",
        ("model", "layers"),
        lambda f: f.values["model"] != "mlp" or not f.values["layers"],
    ),
    Need(
        ("history_weight", "scored_history_weight"),
        "a model that scores by the user's history: cosine-mf",
        ("model",),
        _uses("history_weight"),
    ),
    Need(("temperature",), "loss = softmax", ("loss",), _takes("temperature")),
    Need(("margin", "negative_weight"), "loss = ccl", ("loss",), _takes("margin")),
    Need(("calibration",), "loss = gbce", ("loss",), _takes("calibration")),
    Need(
        ("pretrained_gmf", "pretrained_mlp"),
        "the other of the two, for they go together, and model = neumf: each names a run folder",
        ("model", "pretrained_gmf", "pretrained_mlp"),
        _pretrained,
    ),
    Need(
        ("pretrained_alpha",),
        "pretrained_gmf and pretrained_mlp, with model = neumf",
        ("model", "pretrained_gmf", "pretrained_mlp"),
        _pretrained,
    ),
    Need(
        ("init_std",),
        "a model that draws its weights, and none pretrained",
        ("model", "pretrained_gmf", "pretrained_mlp"),
        lambda f: "init_std" in f.model_options and not _pretrained(f),
    ),
    Need(
        ("output_init",),
        "model = gmf or neumf, and no pretrained weights",
        ("model", "pretrained_gmf", "pretrained_mlp"),
        lambda f: "output_init" in f.model_options and not _pretrained(f),
    ),
    Need(("output_lr",), "a model with output weights h: gmf, mlp or neumf", ("model",), lambda f: f.output_weights),
    Need(
        ("output_l2",),
        "a model with output weights h or layers (gmf, mlp, neumf), and an optimizer other than adamw, which decays "
        "every weight by weight_decay",
        ("model", "optimizer"),
        lambda f: f.shared_weights and not f.decays,
    ),
    Need(
        ("l2",),
        "an optimizer other than adamw, which decays every weight by weight_decay, and scores that depend on the "
        "lengths of rows, unlike cosine-mf's",
        ("optimizer", "model"),
        lambda f: not f.decays and not f.cosine,
    ),
    Need(
        ("weight_decay",),
        "optimizer = adamw; the others take l2",
        ("optimizer",),
        lambda f: f.decays,
    ),
    Need(("step_epochs", "step_factor"), "schedule = step", ("schedule",), lambda f: f.values["schedule"] == "step"),
    Need(
        ("fused_mode",),
        "engine = fused",
        ("engine", "optimizer", "model", "loss", "device"),
        lambda f: f.values["engine"] == "fused",
    ),
    Need(
        ("graph",),
        "a CUDA device, precision other than fp16, and in the torch engine accumulate = 1",
        ("device", "precision", "accumulate"),
        lambda f: (
            f.values["device"].startswith("cuda")
            and (f.values["engine"] == "fused" or (f.values["accumulate"] == 1 and f.values["precision"] != "fp16"))
        ),
    ),
    Need(
        ("patience",),
        "a validation part",
        ("validation",),
        lambda f: f.values["validation"] > 0 or f.values["split"] in ("auto", "given"),
    ),
)

DATA_NEEDS = (
    Need(("patience",), "a validation part, and these data have none", ("data", "validation"), lambda d: d.validation),
    Need(
        ("candidates", "candidate_seed"),
        "a validation part, or a test part without candidates of its own",
        ("data", "validation"),
        lambda d: d.validation or (d.test and not d.own_candidates),
    ),
    Need(("cutoffs",), "a test part, and these data have none", ("data",), lambda d: d.test),
)

INHERITED = ("preset ", "run ")
"""What the origin of a value begins with that came with many others, from a preset or from the run that is updated."""

TUNED = ("lr", "l2", "output_lr", "output_l2", "init_std", "batch_size")
"""What a recipe chose for its engine and optimiser."""


def without_inert(config: Config, needs: tuple[Need, ...], facts: Facts | DataFacts) -> Config:
    """The config with the options that have no effect marked, so that no record keeps them.

    A preset's value, or one of the run that is updated, that a later option leaves without effect is noted.

    Raises
    ------
    ConfigError
        If such an option was given by flag, file or keyword, or by a preset that nothing has changed since.
    """
    inert, notes = set(config.inert), list(config.notes)
    for need in needs:
        if need.met(facts):
            continue
        for name in need.options:
            value = config[name]
            inert.add(name)
            if name not in config.origins or value is None or value == OFF.get(name):
                continue
            origin = config.origins[name]
            changed = [k for k in need.depends if not config.origins.get(k, "preset ").startswith(INHERITED)]
            if not origin.startswith(INHERITED) or not changed:
                where = f" ({origin})" if origin else ""
                raise ConfigError(
                    f"{name} = {_plain(value)!r}{where}: has no effect here; it needs {need.what}. Leave it out"
                    + "".join(f", or change {k} = {_plain(config[k])!r}" for k in need.depends[:1])
                )
            by = f"{changed[0]} = {_plain(config[changed[0]])}"
            notes.append(f"{name} = {_plain(value)!r} of {origin} is left out: no effect with {by}")
    return config.settled({}, inert=frozenset(inert), notes=tuple(dict.fromkeys(notes)))


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value
