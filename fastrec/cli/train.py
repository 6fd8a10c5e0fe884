"""``fastrec train``: a run from options, and its closing table."""

from __future__ import annotations

import argparse
import shlex
from pathlib import Path
from typing import Any

from fastrec import config as configs
from fastrec.cli import baselines, grid
from fastrec.cli.exits import EXIT_DATA, EXIT_INTERRUPTED, fail
from fastrec.cli.options import add_option, add_renamed, given
from fastrec.config import OPTIONS, SECTION_OF, Config
from fastrec.errors import ConfigError, DataNotFoundError
from fastrec.terminal import drop_unwritable, printable, say, table

FALLBACK = "synthetic-1m"
BRIEF = (
    *("data", "item_table", "where", "model", "dim", "loss", "lr", "epochs", "batch_size", "negatives", "engine"),
    *("device", "seed", "threads", "validation", "select", "baselines", "out"),
)
"""Options that ``--help`` lists; ``--help-all`` lists the rest too."""


def add_commands(commands: Any) -> None:
    """Add ``train``."""
    train = commands.add_parser(
        "train",
        usage="fastrec train [--data NAME|PATH] [--model MODEL] [--config FILE] [--resume RUN] [options]",
        help="train a model, evaluate it, leave a run folder",
        description="Train a model, evaluate it once on the test part, and leave a run folder. Every option is also a "
        "key of a TOML file (batch-size is batch_size there); later beats earlier: preset, file, command line.",
        brief=BRIEF,
    )
    train.add_argument("--config", metavar="FILE", help="TOML file of options")
    train.add_argument(
        "--preset", metavar="NAME", help=f"a recipe that comes with fastrec: {', '.join(configs.presets())}"
    )
    train.add_argument("--resume", metavar="RUN", help="resume an interrupted run where it stopped, bit for bit")
    train.add_argument(
        "--synthetic-if-missing",
        action="store_true",
        help=f"if the data are not found and cannot be fetched, use {FALLBACK} and say so (what `make train` does)",
    )
    grid.add_options(train)
    groups: dict[str, Any] = {}
    for name in OPTIONS:
        section = SECTION_OF[name]
        if section not in groups:
            groups[section] = train.add_argument_group(section)
        add_option(groups[section], name)
    add_renamed(train)
    train.set_defaults(run=_train, several=True)


def _train(args: argparse.Namespace) -> int:
    from fastrec.engines.processes import joined
    from fastrec.training.fit import resume
    from fastrec.training.resolve import resolve

    options = given(args)
    if args.resume:
        if args.preset or args.config or args.set or args.seeds is not None:
            raise ConfigError("--resume takes its config from the run; leave out --preset, --config, --set and --seeds")
        return finish(resume(args.resume, **options), [], every=options.get("baselines"))
    config = configs.preset(args.preset) if args.preset else Config()
    config = configs.read_toml(args.config, config) if args.config else config
    config = config.given(options)
    if args.set or args.seeds is not None:
        return grid.run_grid(args, config)
    if config.run.out and Path(config.run.out).exists():  # reported before minutes of loading, not after
        raise ConfigError(f"{config.run.out}: exists; every run gets a new folder, so that nothing is overwritten")
    config = resolve(config)
    with joined() as processes:
        return _train_new(config, processes, synthetic_if_missing=args.synthetic_if_missing)


def _train_new(config: Config, processes: Any, *, synthetic_if_missing: bool) -> int:
    from fastrec.training.fit import fit
    from fastrec.training.job import prepare
    from fastrec.training.ranks import in_turn
    from fastrec.training.tracking import telling_of_compilation

    try:
        with telling_of_compilation(config.run.progress and processes.rank == 0):
            split = in_turn(processes, config.data.data, lambda: prepare(config))
    except DataNotFoundError as error:
        if not (synthetic_if_missing and config.data.data == Config().data.data):
            raise
        missing = config.data.data
        said = f"{missing} was not found, so this is a run on {FALLBACK}: its figures say nothing about MovieLens"
        if processes.rank == 0:
            say(f"{said}\nwhy: {error}", flush=True)
        config = config.settled({"data": FALLBACK})
        return finish(fit(prepare(config), config, loaded=True), [said])
    if config.run.progress and processes.rank == 0:
        size = f"{split.n_users:,} users, {split.n_items:,} items"
        parts = _parts(split.how, {part: getattr(split, part).n_interactions for part in PARTS})
        say(f"{config.data.data}: {size}; {parts} ({split.how})", err=True, flush=True, keep="")
        say(_settled(config), err=True, flush=True, keep="")
    return finish(fit(split, config, loaded=True), [])


PARTS = ("train", "validation", "test")


def _parts(how: str, sizes: dict[str, int]) -> str:
    """The sizes of the parts of a split, and what validation and test are made of: they are not equally hard."""
    from fastrec.data.splits import roles

    about = dict(zip(PARTS[1:], roles(how)))
    shown = (f"{part} {n:,}" + (f" ({about[part]})" if n and part in about else "") for part, n in sizes.items())
    return ", ".join(shown)


def _settled(config: Config) -> str:
    """What each "auto" became, and the values that the model's defaults gave."""
    on = {**{k: config[k] for k in config.asked}, **configs.defaulted(config)}
    names = f"{config.model.model}, {config.optim.loss}, {config.optim.optimizer}"
    return f"{names}: " + ", ".join(f"{k} = {v}" for k, v in on.items())


def finish(result: Any, last: list[str], every: bool | None = None) -> int:
    """Score the baselines of a result, print its closing table, and give the exit code."""
    from fastrec.engines.processes import launched

    if launched().rank:  # rank 0 prints
        return EXIT_INTERRUPTED if result.stopped == "interrupted" else 0
    result = baselines.next_to(result, every)
    say("\n".join([summary(result), *last]), flush=True)
    if lost := drop_unwritable():
        fail(f"stdout: cannot be written ({lost}); the run is in {result.run.path}", EXIT_DATA)
    return EXIT_INTERRUPTED if result.stopped == "interrupted" else EXIT_DATA if lost else 0


ENDS = {
    "all epochs": "all that were asked for",
    "early stopping": "stopped early: no better validation {select}",
    "interrupted": "interrupted",
}
"""How a run says why it ended."""


def summary(result: Any) -> str:
    """The closing table of a training run: accuracy, speed, where it is, and what to type next."""
    from fastrec.data.splits import roles

    lines = baselines.lines(result) if result.metrics else []
    for note in (*result.notes, *baselines.notes(result)):
        lines.append(printable(f"note: {note}"))
    data, config, path = result.run.manifest["data"], result.run.config, _word(_path(result.run.path))
    ended = ENDS[result.stopped].format(select=result.select)
    validation, test = roles(data["split"])
    rows = [
        ("trained", f"{config['model']}, {_size(config)}, on {data['n_train']:,} interactions of {data['name']}"),
        ("samples/s, training", f"{result.epoch_samples_per_s or result.samples_per_s:,.0f} in the last epoch's steps"),
        ("time", f"{result.epochs_done} epochs in {result.seconds:.1f} s, validation included ({ended})"),
        ("run", str(result.run.path)),
    ]
    if result.best_epoch is not None:
        best = f"of epoch {result.best_epoch}, the best by validation {result.select} ({result.best_validation:.4f})"
        rows.insert(3, ("weights", best))
        rows.insert(4, ("validation", validation))
    if result.metrics:
        rows.insert(len(rows) - 1, ("test", test))
    lines.append(table(rows))
    if result.stopped == "interrupted":
        lines.append(f"go on:   fastrec train --resume {path}")
    user = str(result.example_user)
    option = f"--user={_word(user)}" if user.startswith("-") else f"--user {_word(user)}"
    lines.append(f"next:    fastrec recommend {path} {option} -k 10")
    return "\n".join(lines)


def _size(config: dict[str, Any]) -> str:
    return f"dim {config['dim']}" if "dim" in config else f"layers {' '.join(map(str, config['layers']))}"


def _word(text: str) -> str:
    """As one word of a shell command; what cannot be shown is escaped."""
    return printable(shlex.quote(text))


def _path(path: Path) -> str:
    return f"./{path}" if str(path).startswith("-") else str(path)
