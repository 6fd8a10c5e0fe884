"""The options of a Config as keywords, for type checkers and editors; a test compares them with the sections."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, TypedDict


class TrainOptions(TypedDict, total=False):
    """Keywords of ``fastrec.train``, whose first argument is ``data``."""

    user_col: str | None
    item_col: str | None
    rating_col: str | None
    time_col: str | None
    time_format: str | None
    where: str | None
    weight_col: str | None
    item_table: str | None
    user_table: str | None
    min_rating: float | None
    k_core: int
    drop_overlap: bool
    unrated_negatives: bool
    split: Literal["auto", "leave-one-out", "ratio", "time", "given", "none"]
    validation: float
    test_fraction: float
    split_seed: int
    negatives: int
    distribution: Literal["uniform", "popularity"]
    popularity_alpha: float
    negatives_from: Literal["all", "existing"]
    exclude: Literal["train", "train+validation", "all"]
    hard_negatives: int
    model: Literal["cosine-mf", "gmf", "mf", "mlp", "neumf"]
    dim: int
    layers: Sequence[int]
    dropout: float
    init_std: float | None
    output_init: Literal["lecun", "one"] | None
    history_weight: float
    scored_history_weight: float | None
    pretrained_gmf: str | None
    pretrained_mlp: str | None
    pretrained_alpha: float
    loss: Literal["bce", "bpr", "ccl", "gbce", "inbatch-softmax", "softmax"]
    temperature: float | None
    margin: float | None
    negative_weight: float | None
    calibration: float | None
    optimizer: Literal["adam", "adamw", "sgd", "adagrad", "lazy-adam", "row-adagrad"]
    lr: float | None
    l2: float | None
    output_l2: float | None
    output_lr: float | None
    weight_decay: float | None
    schedule: Literal["constant", "cosine", "linear", "step"]
    warmup: int
    step_epochs: int
    step_factor: float
    engine: Literal["auto", "torch", "fused"]
    fused_mode: Literal["deterministic", "lock_free"]
    epochs: int
    batch_size: int
    accumulate: int
    patience: int
    seed: int
    device: str
    precision: Literal["auto", "fp32", "bf16", "fp16"]
    graph: bool
    compile: bool
    threads: int | None
    candidates: int
    candidate_seed: int
    select: str | None
    baselines: bool
    cutoffs: Sequence[int]
    out: str | None
    checkpoint_every: int
    keep: int
    log_every: int
    tensorboard: bool
    progress: bool


class Options(TrainOptions, total=False):
    """Keywords of ``Config`` and ``Config.override``."""

    data: str
