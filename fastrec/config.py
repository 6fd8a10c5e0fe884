"""One flat, frozen Config: each field is a flag of ``fastrec train`` and a key of a TOML file.

A value comes from, in rising order: the default here, a preset, a TOML file, the command line.
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
import tomllib
import types
import typing
from dataclasses import asdict, dataclass, field, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any

from fastrec.errors import ConfigError, shown


def _option(default: Any, group: str, help: str, *, choices: tuple[str, ...] = (), result: bool = True) -> Any:
    """A field with its help text; ``result=False`` marks what cannot change the weights (folders, logging)."""
    return field(default=default, metadata={"group": group, "help": help, "choices": choices, "result": result})


@dataclass(frozen=True)
class Config:
    """Everything that decides a training run. Unknown keys, wrong types and impossible values raise ConfigError."""

    # data
    data: str = _option("ml-1m", "data", "name of a known set (see `fastrec data list`), a folder, or a file")
    user_col: str | None = _option(None, "data", "column of user ids, for CSV, TSV and Parquet")
    item_col: str | None = _option(None, "data", "column of item ids")
    rating_col: str | None = _option(None, "data", "column of ratings")
    time_col: str | None = _option(None, "data", "column of times, seconds since 1970 or datetimes")
    time_format: str | None = _option(
        None, "data", "how times are written: a strptime pattern, or the unit of numbers: s, ms, us, ns"
    )
    where: str | None = _option(
        None, "data", "keep the rows of a table for which this SQL expression is true: \"event = 'purchase'\""
    )
    item_table: str | None = _option(None, "data", "table of items: titles, genres and other fields by item id")
    user_table: str | None = _option(None, "data", "table of users: their fields by user id")
    drop_overlap: bool = _option(
        False, "data", "of a split that comes with the data, leave out test pairs that train has too"
    )
    min_rating: float | None = _option(None, "data", "keep only ratings of at least this as positives")
    k_core: int = _option(0, "data", "keep users and items with at least this many interactions, iterated; 0: all")
    unrated_negatives: bool = _option(False, "data", "films that only the catalogue lists may be drawn as negatives")
    split: str = _option(
        "auto",
        "data",
        "auto: the split that comes with the data, else leave-one-out; none: train on everything",
        choices=("auto", "leave-one-out", "ratio", "time", "given", "none"),
    )
    validation: float = _option(0.1, "data", "share of each user's training interactions kept for validation")
    test_share: float = _option(0.2, "data", "share of interactions tested, for the ratio and time splits")
    split_seed: int = _option(42, "data", "seed of the split, apart from --seed")

    # model
    model: str = _option("gmf", "model", "the model to train", choices=("mf", "gmf", "mlp", "neumf"))
    dim: int = _option(64, "model", "factors of MF and GMF; of NeuMF's GMF part; the last layer of an MLP")
    layers: tuple[int, ...] = _option((), "model", "MLP layer widths, input first; empty: 4, 2, 1 times --dim")
    dropout: float = _option(0.0, "model", "dropout after each MLP layer")
    init_std: float = _option(0.01, "model", "standard deviation of the initial factors")
    init_h: str = _option(
        "auto",
        "model",
        "h of GMF and NeuMF at the start: LeCun-uniform as the NCF code's, or ones, as in MF; auto: "
        "ones for a GMF of the torch engine, else LeCun",
        choices=("auto", "lecun", "one"),
    )
    pretrained_gmf: str | None = _option(None, "model", "run folder of a GMF to start NeuMF from")
    pretrained_mlp: str | None = _option(None, "model", "run folder of an MLP to start NeuMF from")
    pretrained_alpha: float = _option(0.5, "model", "weight of the pretrained GMF against the MLP (NCF, section 3.4.1)")

    # training
    engine: str = _option("auto", "training", "what computes the updates", choices=("auto", "torch", "fused"))
    fused_mode: str = _option(
        "deterministic",
        "training",
        "deterministic: bit-identical for any threads; lock_free: Hogwild, the fastest, on the CPU alone",
        choices=("deterministic", "lock_free"),
    )
    loss: str = _option("bce", "training", "the loss over [B, 1+N] logits", choices=("bce", "bpr", "softmax"))
    optimizer: str = _option(
        "adam",
        "training",
        "the update rule",
        choices=("adam", "adamw", "sgd", "adagrad", "lazy-adam", "row-adagrad"),
    )
    lr: float = _option(2e-3, "training", "learning rate")
    l2: float | None = _option(
        None,
        "training",
        "L2 on every factor, h and biases included, once a sample; left out: 0.003 for a GMF of the torch engine whose "
        "h starts at ones, else 0.0003",
    )
    l2_h: float | None = _option(
        None, "training", "L2 on h and MLP layers in place of l2; left out: 0.0002 for that GMF, else l2"
    )
    lr_h: float | None = _option(
        None,
        "training",
        "learning rate of h as a share of lr, for every sample moves h and few a row; left out: 0.1 for that "
        "GMF, else 1",
    )
    schedule: str = _option(
        "linear", "training", "of the learning rate", choices=("constant", "cosine", "linear", "step")
    )
    warmup: int = _option(0, "training", "steps of linear warm-up before the schedule")
    step_epochs: int = _option(10, "training", "epochs between drops of the step schedule")
    step_factor: float = _option(0.5, "training", "what each drop of the step schedule multiplies by")
    epochs: int = _option(30, "training", "passes over the training positives, at most")
    batch_size: int = _option(1024, "training", "positives a step; samples a step = batch size * (1 + negatives)")
    accumulate: int = _option(1, "training", "batches whose gradients are summed before an update")
    negatives: int = _option(4, "training", "negatives drawn for each positive, anew each epoch")
    distribution: str = _option(
        "uniform", "training", "what negatives are drawn from", choices=("uniform", "popularity")
    )
    popularity_alpha: float = _option(0.75, "training", "exponent of the popularity distribution")
    avoid: str = _option(
        "train",
        "training",
        "positives that negatives avoid; more than train is a leak, and the run's record names it",
        choices=("train", "train+validation", "all"),
    )
    hard_negatives: int = _option(0, "training", "keep the N highest-scored of this many drawn negatives; 0: off")
    patience: int = _option(5, "training", "epochs without a better validation NDCG@10 before stopping; 0: never")
    seed: int = _option(0, "training", "0 to 2^32-1: initial weights, order, negatives, dropout")
    device: str = _option("auto", "training", "auto (CUDA if present, else CPU), cpu, cuda, cuda:1, ...")
    precision: str = _option(
        "auto",
        "training",
        "auto: bf16 on CUDA, fp32 on CPU and in the fused engine, whose bf16 (CUDA) keeps no fp32 master",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    graph: bool = _option(True, "training", "capture the step as a CUDA graph", result=False)
    compile: bool = _option(False, "training", "compile the model with torch.compile")
    threads: int | None = _option(None, "training", "CPU threads; left out: every processor", result=False)

    # evaluation
    candidates: int = _option(99, "evaluation", "frozen negatives each positive is ranked against")
    candidate_seed: int = _option(0, "evaluation", "seed of the frozen candidates, apart from --seed")
    cutoffs: tuple[int, ...] = _option((5, 10, 20), "evaluation", "the K of HR@K, NDCG@K, MRR@K", result=False)

    # run
    out: str | None = _option(None, "run", "run folder, which must not exist; left out: runs/TIME-...", result=False)
    checkpoint_every: int = _option(
        0, "run", "steps between checkpoints; 0: one at the end of each epoch", result=False
    )
    keep: int = _option(2, "run", "last checkpoints kept (the best is kept besides)", result=False)
    log_every: int = _option(100, "run", "steps between reads of the loss, each one sync with the device", result=False)
    tensorboard: bool = _option(True, "run", "write TensorBoard files into the run folder", result=False)
    progress: bool = _option(True, "run", "show the progress bar", result=False)

    def __post_init__(self) -> None:
        for f in fields(self):
            object.__setattr__(self, f.name, _convert(f.name, getattr(self, f.name), _TYPES[f.name]))
            choices = f.metadata["choices"]
            if choices and getattr(self, f.name) not in choices:
                raise ConfigError(f"{f.name} = {shown(getattr(self, f.name))}: must be one of {', '.join(choices)}")
            if isinstance(getattr(self, f.name), str):
                _check_text(f.name, getattr(self, f.name))
        for name, low, high in _RANGES:
            value = getattr(self, name)
            if value is not None and not (math.isfinite(value) and low <= value <= high):
                ends = " to ".join(f"{end:,.0f}" if float(end).is_integer() else f"{end:g}" for end in (low, high))
                raise ConfigError(f"{name} = {value}: must lie in {ends}")
        if not self.cutoffs or min(self.cutoffs) < 1:
            raise ConfigError(f"cutoffs = {list(self.cutoffs)}: give at least one K, each at least 1")
        if max(self.cutoffs) > 1_000_000:
            raise ConfigError(f"cutoffs = {list(self.cutoffs)}: each K must lie in 1 to 1,000,000")
        if self.model not in ("gmf", "neumf") and self.init_h == "one":
            raise ConfigError(f"init_h = {self.init_h!r}: is an option of gmf and neumf, not of model = {self.model}")
        if self.model == "mf" and (self.l2_h is not None or self.lr_h not in (None, 1.0)):
            raise ConfigError(f"l2_h = {self.l2_h}, lr_h = {self.lr_h}: MF has no h; leave both out")
        if self.optimizer == "adamw" and self.l2_h is not None:
            raise ConfigError(f"l2_h = {self.l2_h}: AdamW decays every weight by l2; use another optimizer")
        if any(not 1 <= width <= 65536 for width in self.layers):
            raise ConfigError(f"layers = {list(self.layers)}: each width must lie in 1 to 65,536")
        if self.hard_negatives and self.hard_negatives < self.negatives:
            raise ConfigError(f"hard_negatives = {self.hard_negatives}: must be at least negatives = {self.negatives}")

    def override(self, **changes: Any) -> Config:
        """A copy with the given fields changed.

        Raises
        ------
        ConfigError
            For an unknown key (the closest one is named), a wrong type or an impossible value.
        """
        known = [f.name for f in fields(self)]
        for key in changes:
            if key not in known:
                close = difflib.get_close_matches(key.replace("-", "_"), known, 1)
                hint = f"; did you mean {close[0]!r}?" if close else f"; known keys: {', '.join(known)}"
                raise ConfigError(f"unknown option {shown(key)}{hint}")
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Every field as plain TOML and JSON types; None is left out."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(self).items() if v is not None}

    def to_toml(self) -> str:
        """The resolved config, grouped by comments, readable by ``read_toml``."""
        import tomli_w

        lines, values = [], self.to_dict()
        for group in dict.fromkeys(f.metadata["group"] for f in fields(self)):
            part = {f.name: values[f.name] for f in fields(self) if f.metadata["group"] == group and f.name in values}
            lines.append(f"# {group}\n{tomli_w.dumps(part)}")
        return "\n".join(lines)

    def digest(self) -> str:
        """sha256 over the fields that decide the weights: not folders, logging or thread counts."""
        decisive = {f.name for f in fields(self) if f.metadata["result"]}
        values = {k: v for k, v in self.to_dict().items() if k in decisive}
        return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()

    def differences(self, other: Config) -> list[str]:
        """One line for each decisive field in which the two differ, as ``key: mine -> other's``."""
        return [
            f"{f.name}: {getattr(self, f.name)!r} -> {getattr(other, f.name)!r}"
            for f in fields(self)
            if f.metadata["result"] and getattr(self, f.name) != getattr(other, f.name)
        ]


_TYPES = typing.get_type_hints(Config)
_BIG = float(2**31 - 1)
_RANGES = (
    ("min_rating", -1e15, 1e15),
    ("k_core", 0, _BIG),
    ("validation", 0, 0.9),
    ("test_share", 0.001, 0.9),
    ("split_seed", 0, 2**32 - 1),
    ("dim", 1, 65536),
    ("dropout", 0, 0.99),
    ("init_std", 0, 100),
    ("pretrained_alpha", 0, 1),
    ("lr", 0, 1e6),
    ("l2", 0, 1e6),
    ("l2_h", 0, 1e6),
    ("lr_h", 0, 1),
    ("warmup", 0, _BIG),
    ("step_epochs", 1, _BIG),
    ("step_factor", 0, 1),
    ("epochs", 1, 2**32 - 1),
    ("batch_size", 1, _BIG),
    ("accumulate", 1, _BIG),
    ("negatives", 1, 65536),
    ("popularity_alpha", 0, 10),
    ("hard_negatives", 0, 65536),
    ("patience", 0, _BIG),
    ("seed", 0, 2**32 - 1),
    ("threads", 1, 65536),
    ("candidates", 1, 65536),
    ("candidate_seed", 0, 2**32 - 1),
    ("checkpoint_every", 0, _BIG),
    ("keep", 1, _BIG),
    ("log_every", 1, _BIG),
)


def _check_text(name: str, value: str) -> None:
    """Text that no file name or record can hold is refused here, not after the work."""
    if not value.strip():
        raise ConfigError(f"{name} = {value!r}: is empty; leave it out")
    if "\0" in value or any("\ud800" <= c <= "\udfff" for c in value):
        raise ConfigError(f"{name} = {shown(value)}: holds a NUL or bytes that are not UTF-8")


def _convert(name: str, value: Any, wanted: Any) -> Any:
    """Check ``value`` against the annotation ``wanted``; whole numbers pass for float, lists for tuples."""
    options = typing.get_args(wanted) if isinstance(wanted, types.UnionType) else (wanted,)
    for option in options:
        if option is type(None) and value is None:
            return None
        if type(value) is int and abs(value) >= 2**63 and option in (int, float):
            raise ConfigError(f"{name} = {shown(value)}: does not fit 64 bits; give a smaller number")
        if option is float and isinstance(value, (int, float)) and not isinstance(value, bool):
            return float(value)
        if option is int and isinstance(value, int) and not isinstance(value, bool):
            return value
        if option in (str, bool) and isinstance(value, option):
            return value
        if (
            typing.get_origin(option) is tuple
            and isinstance(value, (list, tuple))
            and all(isinstance(v, int) and not isinstance(v, bool) and abs(v) < 2**63 for v in value)
        ):
            return tuple(value)
    words = {float: "a number", int: "a whole number", str: "text", bool: "true or false", type(None): "left out"}
    expected = " or ".join(words.get(o, "a list of whole numbers") for o in options)
    raise ConfigError(f"{name} = {shown(value)}: must be {expected}")


def parse_toml(data: bytes) -> dict[str, Any]:
    """Parse TOML that may be damaged or hostile.

    Raises
    ------
    ValueError
        With the reason: not UTF-8, no TOML, a number of thousands of digits, nested too deeply.
    """
    try:
        return tomllib.loads(data.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def read_toml(path: str | Path, base: Config | None = None) -> Config:
    """``base`` (the defaults) with the keys of a TOML file over it.

    Raises
    ------
    ConfigError
        If the file is missing, is no TOML, or has a key or value that Config refuses.
    """
    try:
        values = parse_toml(Path(path).read_bytes())
    except FileNotFoundError:
        raise ConfigError(f"{path}: no such config file") from None
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); name another config file") from None
    except ValueError as error:
        raise ConfigError(f"{path}: not a TOML file ({error})") from None
    tables = [key for key, value in values.items() if isinstance(value, dict)]
    if tables:
        raise ConfigError(
            f"{path}: the keys of a config stand without tables; remove the line [{shown(tables[0])[1:-1]}]"
        )
    try:
        return (base or Config()).override(**values)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def presets() -> list[str]:
    """Names of the presets that come with fastrec."""
    names = [p.name for p in files("fastrec").joinpath("presets").iterdir()]
    return sorted(name.removesuffix(".toml") for name in names if name.endswith(".toml"))


def preset(name: str, base: Config | None = None) -> Config:
    """A preset by name over ``base`` (the defaults)."""
    if name not in presets():
        raise ConfigError(f"no preset {name!r}; there are: {', '.join(presets())}")
    return read_toml(str(files("fastrec").joinpath("presets", f"{name}.toml")), base)
