"""From a resolved config to an engine: stream, sampler, model with initial weights, learning rate."""

from __future__ import annotations

from typing import Any

from fastrec.batches.stream import Stream
from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.engines.base import Engine
from fastrec.engines.capabilities import choose
from fastrec.engines.processes import ONE, Processes
from fastrec.errors import ConfigError, DataError
from fastrec.models import losses
from fastrec.optim.schedules import learning_rate
from fastrec.runs import fingerprints, open_run
from fastrec.sampling import ExistingSampler, NegativeSampler
from fastrec.training.resolve import check_lr, loss_options, own_device, wish
from fastrec.training.start import Start


def build_engine(split: Split, config: Config, start: Start | None = None, processes: Processes = ONE) -> Engine:
    """The engine of a resolved config, with initial weights; of an update at its start, with the state there.

    Raises
    ------
    ConfigError
        If what one process can train, several cannot; or the loss has no effect of its own on these data.
    """
    start, loss = start or Start(), losses.get(config.optim.loss)
    if loss.without_effect and (why := loss.without_effect(config.negatives.negatives, split.n_items)):
        raise ConfigError(f"loss = {config.optim.loss}: has no effect of its own: {why}")
    if processes.world > 1:  # a resumed run may have been one process
        choose(wish(config, config.training.device, processes.world))
    sampler, train = make_sampler(split, config), split.train
    seed, weights = config.training.seed, train.weights
    stream = Stream(train.indptr, train.items, sampler, seed=seed, weights=weights, only=start.only)
    check_lr(config, stream)
    model = make_model(split, config)
    start.fill(model)
    decays = "l2" in config.inert  # adamw decays every weight by itself, and cosines do not depend on lengths
    options: dict[str, Any] = {
        "batch_size": config.training.batch_size,
        "lr": make_lr(config, stream.n_positives, start.step),
        "loss": config.optim.loss,
        "optimizer": config.optim.optimizer,
        "l2": 0.0 if decays else config.optim.l2 or 0.0,
        "output_l2": None if decays else config.optim.output_l2,
        "output_lr": config.optim.output_lr,
        "threads": config.training.threads,
    }
    engine = _engine_of(model, stream, config, processes, options)
    start.restore(engine)
    return engine


def _engine_of(model: Any, stream: Stream, config: Config, processes: Processes, options: dict[str, Any]) -> Engine:
    from fastrec.batches.device import open_device
    from fastrec.engines.fused.engine import FusedEngine
    from fastrec.engines.minibatch.engine import TorchEngine

    kind = config.training.device.split(":")[0]
    if config.training.engine == "fused" and kind == "cuda":
        from fastrec.engines.fused.cuda import CudaEngine

        device = open_device(config.training.device)
        return CudaEngine(
            model,
            stream,
            device=device,
            precision=config.training.precision,
            seed=config.training.seed,
            graph=config.training.graph,
            **options,
        )
    if choose(wish(config, kind)).name == "fused-many":
        from fastrec.engines.fused.many_engine import ManyEngine

        for unused in ("output_l2", "output_lr"):  # of h, which its models do not have
            del options[unused]
        return ManyEngine(model, stream, mode=config.training.fused_mode, loss_options=loss_options(config), **options)
    if config.training.engine == "fused":
        return FusedEngine(model, stream, mode=config.training.fused_mode, **options)
    return TorchEngine(
        model,
        stream,
        loss_options=loss_options(config),
        weight_decay=config.optim.weight_decay or 0.0,
        accumulate=config.training.accumulate,
        negatives=config.negatives.negatives,
        dropout=config.model.dropout,
        seed=config.training.seed,
        device=own_device(config.training.device),
        processes=processes,
        precision=config.training.precision,
        graph=config.training.graph,
        compile=config.training.compile,
        **options,
    )


def make_model(split: Split, config: Config) -> Any:
    """The model of a config with its initial weights, or those of the pretrained runs."""
    from fastrec import models
    from fastrec.models.gmf import GMF
    from fastrec.models.mlp import MLP
    from fastrec.models.neumf import NeuMF

    has = models.model_class(config.model.model).options
    sizes: dict[str, Any] = {
        "n_users": split.n_users,
        "n_items": split.n_items,
        "dim": config.model.dim,
        "seed": config.training.seed,
    }
    options = {name: config[name] for name in has if name != "dropout"}
    if options.get("scored_history_weight", 0.0) is None:
        options["scored_history_weight"] = options["history_weight"]
    model = models.build(config.model.model, **sizes, history=(split.train.indptr, split.train.items), **options)
    given = (config.model.pretrained_gmf, config.model.pretrained_mlp)
    if not all(given):
        return model
    assert isinstance(model, NeuMF)  # fastrec.config.needs
    parts: list[Any] = []
    for path, kind in zip(given, (GMF, MLP)):
        run = open_run(str(path))
        if run.manifest["data"]["fingerprints"]["train"] != fingerprints(split)["train"]:
            raise ConfigError(f"{path}: was trained on other data; pretrain both parts on this run's training part")
        part = run.model()
        if not isinstance(part, kind):
            raise ConfigError(f"{path}: holds a {type(part).__name__}, where a {kind.__name__} is needed")
        parts.append(part)
    model.start_from(parts[0], parts[1], config.model.pretrained_alpha)
    return model


def make_sampler(split: Split, config: Config) -> NegativeSampler | ExistingSampler:
    """The sampler of training negatives.

    Raises
    ------
    DataError
        If negatives are to be time-aware and the training part has no times.
    """
    held_out = {"train": (), "train+validation": (split.validation,), "all": (split.validation, split.test)}
    options: dict[str, Any] = {"exclude": [(p.indptr, p.items) for p in held_out[config.negatives.exclude]]}
    n_negatives = config.negatives.hard_negatives or config.negatives.negatives
    train = split.train
    if config.negatives.negatives_from == "existing":
        if train.timestamps is None:
            raise DataError(
                f"{train.name}: has no times, and negatives_from = existing needs them; load a log with a time column "
                "(--time-col), or leave the option out"
            )
        sizes: dict[str, Any] = {"n_items": split.n_items, "n_negatives": n_negatives, "seed": config.training.seed}
        return ExistingSampler(train.indptr, train.items, train.timestamps, **sizes, **options)
    if config.negatives.distribution == "popularity":
        options |= {"distribution": "popularity", "alpha": config.negatives.popularity_alpha}
    return NegativeSampler(
        train.indptr,
        train.items,
        n_items=split.n_items,
        n_negatives=n_negatives,
        seed=config.training.seed,
        on_full="skip",
        **options,
    )


def make_lr(config: Config, n_positives: int, first_step: int = 0) -> Any:
    """Step -> learning rate, as the config's schedule says; it begins at ``first_step``."""
    per_epoch = -(-n_positives // (config.training.batch_size * config.training.accumulate))

    peak = config.optim.lr
    assert peak is not None, "resolve gives every run a learning rate"

    def lr(step: int) -> float:
        return learning_rate(
            max(0, step - first_step),
            lr=peak,
            schedule=config.optim.schedule,
            total=config.training.epochs * per_epoch,
            warmup=config.optim.warmup,
            every=config.optim.step_epochs * per_epoch,
            factor=config.optim.step_factor,
        )

    return lr
