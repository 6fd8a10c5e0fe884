"""The sections of a Config. Each field is an option: a flag, a TOML key and a keyword of the same name.

Names are unique over all sections, so that a flat key is enough to say which option is meant.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

_BIG = float(2**31 - 1)
SEED = (0, 2**32 - 1)


def _option(
    default: Any,
    help: str,
    *,
    choices: tuple[str, ...] = (),
    range: tuple[float, float] | None = None,
    result: bool = True,
) -> Any:
    """A field with its help text; ``result=False`` marks what cannot change the weights (folders, logging)."""
    return field(default=default, metadata={"help": help, "choices": choices, "range": range, "result": result})


@dataclass(frozen=True)
class Data:
    """The source, and the rows and columns that are kept."""

    data: str = _option("ml-1m", "name of a known set (see `fastrec data list`), a folder, or a file")
    user_col: str | None = _option(None, "column of user ids, for CSV, TSV and Parquet")
    item_col: str | None = _option(None, "column of item ids")
    rating_col: str | None = _option(None, "column of ratings")
    time_col: str | None = _option(None, "column of times, seconds since 1970 or datetimes")
    time_format: str | None = _option(
        None, "how times are written: a strptime pattern, or the unit of numbers: s, ms, us, ns"
    )
    where: str | None = _option(
        None, "keep the rows of a table for which this SQL expression is true: \"event = 'purchase'\""
    )
    weight_col: str | None = _option(
        None, "column of weights of at least 0, by which the loss of a positive and its negatives is multiplied"
    )
    item_table: str | None = _option(None, "table of items: titles, genres and other fields by item id")
    user_table: str | None = _option(None, "table of users: their fields by user id")
    min_rating: float | None = _option(None, "keep only ratings of at least this as positives", range=(-1e15, 1e15))
    k_core: int = _option(
        0, "keep users and items with at least this many interactions, iterated; 0: all", range=(0, _BIG)
    )
    drop_overlap: bool = _option(False, "of a split that comes with the data, leave out test pairs that train has too")
    unrated_negatives: bool = _option(False, "items that only the catalogue lists may be drawn as negatives")


@dataclass(frozen=True)
class Split:
    """The division into train, validation and test."""

    split: str = _option(
        "auto",
        "auto: the split that comes with the data (given), else leave-one-out; ratio; time; none: train on everything",
    )
    validation: float = _option(
        0.1,
        "fraction of each user's training interactions kept for validation; 0: none, and no early stopping",
        range=(0, 0.9),
    )
    test_fraction: float = _option(
        0.2, "fraction of interactions tested, for the ratio and time splits", range=(0.001, 0.9)
    )
    split_seed: int = _option(42, "seed of the split, separate from --seed", range=SEED)


@dataclass(frozen=True)
class Negatives:
    """The negatives of a positive."""

    negatives: int = _option(
        4,
        "negatives drawn for each positive, new ones each epoch; left out with softmax, ccl or gbce: 64",
        range=(1, 65536),
    )
    distribution: str = _option("uniform", "what negatives are drawn from", choices=("uniform", "popularity"))
    popularity_alpha: float = _option(0.75, "exponent of the popularity distribution", range=(0, 10))
    negatives_from: str = _option(
        "all",
        "what may be drawn: every item, or those that had appeared in train by the time of the positive; uniform only",
        choices=("all", "existing"),
    )
    exclude: str = _option(
        "train",
        "positives that are never drawn as negatives; more than train is a leak, and the run's record names it",
        choices=("train", "train+validation", "all"),
    )
    hard_negatives: int = _option(
        0, "draw this many negatives and keep the --negatives highest-scored; 0: off", range=(0, 65536)
    )


@dataclass(frozen=True)
class Model:
    """The model and its initial weights."""

    model: str = _option("gmf", "the model to train")
    dim: int = _option(
        64, "factors of MF and GMF; of NeuMF's GMF part; the last layer of an MLP without --layers", range=(1, 65536)
    )
    layers: tuple[int, ...] = _option((), "MLP layer widths, input first; empty: 4, 2, 1 times --dim")
    dropout: float = _option(0.0, "dropout after each MLP layer", range=(0, 0.99))
    init_std: float | None = _option(
        None, "standard deviation of the initial factors; left out: by the model", range=(0, 100)
    )
    output_init: str | None = _option(
        None,
        "h of GMF and NeuMF at the start: LeCun-uniform as in the NCF code, or ones as in MF; left out: by the model",
        choices=("lecun", "one"),
    )
    history_weight: float = _option(
        0.0,
        "weight of the user's training items in a cosine-mf's user vector, next to the user's own row; 0: none",
        range=(0, 1000),
    )
    scored_history_weight: float | None = _option(
        None, "the same in scoring, where more of it serves than in training; left out: as in training", range=(0, 1000)
    )
    pretrained_gmf: str | None = _option(None, "run folder of a GMF to start NeuMF from")
    pretrained_mlp: str | None = _option(None, "run folder of an MLP to start NeuMF from")
    pretrained_alpha: float = _option(
        0.5, "weight of the pretrained GMF against the MLP (NCF, section 3.4.1)", range=(0, 1)
    )


@dataclass(frozen=True)
class Optim:
    """The loss and the update rule."""

    loss: str = _option("bce", "the loss over [B, 1+N] logits")
    temperature: float | None = _option(
        None, "of the softmax: scores are divided by it; left out: 1, or .1 for cosines", range=(1e-4, 1e4)
    )
    margin: float | None = _option(
        None, "of ccl: negatives with a higher cosine are pushed away; left out: .8", range=(-1, 0.9999)
    )
    negative_weight: float | None = _option(
        None, "of ccl: weight of the mean over the negatives against the positive; left out: 150", range=(1e-6, 1e6)
    )
    calibration: float | None = _option(
        None,
        "of gbce, its t: 0 is BCE, 1 undoes all that drawing few negatives does to the scores; left out: .75",
        range=(0, 1),
    )
    optimizer: str = _option("adam", "the update rule")
    lr: float | None = _option(
        None,
        "learning rate; of sgd the step of one sample, whatever the batch; left out: by model and optimizer",
        range=(0, 1e6),
    )
    l2: float | None = _option(
        None,
        "L2 per training positive on the user's rows, biases and h, spread over the 1 + negatives item rows; left out: "
        "by the model",
        range=(0, 1e6),
    )
    output_l2: float | None = _option(
        None, "L2 on h and MLP layers in place of l2; left out: by the model, else l2", range=(0, 1e6)
    )
    output_lr: float | None = _option(
        None,
        "learning rate of h as a fraction of lr, since every sample moves h and few move a row; left out: by the model",
        range=(0, 1),
    )
    weight_decay: float | None = _option(
        None, "decoupled decay of every weight at each step; of adamw only, in place of l2", range=(0, 1e6)
    )
    schedule: str = _option("linear", "of the learning rate", choices=("constant", "cosine", "linear", "step"))
    warmup: int = _option(0, "steps of linear warm-up before the schedule", range=(0, _BIG))
    step_epochs: int = _option(10, "epochs between drops of the step schedule", range=(1, _BIG))
    step_factor: float = _option(0.5, "what each drop of the step schedule multiplies by", range=(0, 1))


@dataclass(frozen=True)
class Training:
    """Engine, number of updates, and device."""

    engine: str = _option("auto", "what computes the updates", choices=("auto", "torch", "fused"))
    fused_mode: str = _option(
        "deterministic",
        "of the fused engine; deterministic: bit-identical for any threads; lock_free: Hogwild, the fastest, on the "
        "CPU only",
        choices=("deterministic", "lock_free"),
    )
    epochs: int = _option(30, "passes over the training positives, at most", range=(1, 2**32 - 1))
    batch_size: int = _option(
        1024, "positives per step; samples per step = batch size * (1 + negatives)", range=(1, _BIG)
    )
    accumulate: int = _option(1, "batches whose gradients are summed before an update", range=(1, _BIG))
    patience: int = _option(5, "epochs without a better --select before stopping; 0: never", range=(0, _BIG))
    seed: int = _option(0, "0 to 2^32-1: initial weights, order, negatives, dropout", range=SEED)
    device: str = _option("auto", "auto (CUDA if present, else CPU), cpu, cuda, cuda:1, ...")
    precision: str = _option(
        "auto",
        "auto: bf16 on CUDA, fp32 on CPU and in the fused engine, whose bf16 (CUDA) keeps no fp32 master",
        choices=("auto", "fp32", "bf16", "fp16"),
    )
    graph: bool = _option(True, "capture the step as a CUDA graph", result=False)
    compile: bool = _option(False, "compile the model with torch.compile")
    threads: int | None = _option(None, "CPU threads; left out: every processor", range=(1, 65536), result=False)


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of a model."""

    candidates: int = _option(99, "frozen negatives each positive is ranked against", range=(1, 65536))
    candidate_seed: int = _option(0, "seed of the frozen candidates, separate from --seed", range=SEED)
    select: str | None = _option(
        None,
        "what validation measures and the best epoch is kept by: PROTOCOL:METRIC@K, such as candidates:HR@10; "
        "left out: full:NDCG@10",
    )
    baselines: bool = _option(False, "fit and score every baseline, not only popularity and EASE", result=False)
    cutoffs: tuple[int, ...] = _option((5, 10, 20), "the K of HR@K, NDCG@K, MRR@K", result=False)


@dataclass(frozen=True)
class RunOptions:
    """The output of a run, in files and on the terminal."""

    out: str | None = _option(None, "run folder, which must not exist; left out: runs/TIME-...", result=False)
    checkpoint_every: int = _option(
        0, "steps between checkpoints; 0: one at the end of each epoch", range=(0, _BIG), result=False
    )
    keep: int = _option(2, "last checkpoints kept (the best is kept too)", range=(1, _BIG), result=False)
    log_every: int = _option(
        100, "steps between reads of the loss, each one sync with the device", range=(1, _BIG), result=False
    )
    tensorboard: bool = _option(True, "write TensorBoard files into the run folder", result=False)
    progress: bool = _option(True, "show the progress bar", result=False)
