"""The command line: ``fastrec`` and ``python -m fastrec``. Thin: each command calls one function of the library."""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import types
import typing
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import fastrec
from fastrec import config as configs
from fastrec.config import Config
from fastrec.errors import ConfigError, DataNotFoundError, FastrecError
from fastrec.terminal import (
    Parser,
    drop_unwritable,
    ended_by_signals,
    fill_closed,
    joined,
    printable,
    say,
    say_json,
    table,
)

EXIT_DATA, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130
FALLBACK = "synthetic-1m"
METAVARS = {
    "data": "NAME|PATH",
    "out": "RUN_DIR",
    "device": "NAME",
    "pretrained_gmf": "RUN",
    "pretrained_mlp": "RUN",
}
"""What stands for a value in the help, where the type alone would say too little."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (data or run at fault), 2 (usage) or 130 (interrupted)."""
    fill_closed()
    commands = parser()
    args = commands.parse_args(joined(list(sys.argv[1:] if argv is None else argv), commands))
    try:
        with ended_by_signals():  # as Ctrl-C: what was half made is taken away
            code = int(args.run(args) or 0)
    except ConfigError as error:
        code = _fail(error, EXIT_USAGE)
    except FastrecError as error:
        code = _fail(error, EXIT_DATA)
    except KeyboardInterrupt:
        code = _fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        code = 0
    except (ImportError, OSError, MemoryError) as error:  # what the system refuses is no fault of the program
        code = _fail(_refused(error), EXIT_DATA)
    lost = drop_unwritable()
    return _fail(f"stdout: cannot be written ({lost})", EXIT_DATA) if lost and not code else code


def _fail(error: Exception | str, code: int) -> int:
    lines = "\n" if isinstance(error, DataNotFoundError) else ""  # it lists its sources, one a line
    say(printable(f"fastrec: {error}", lines), err=True)
    return code


def _refused(error: Exception) -> str:
    """One line for what the system refuses: a package, a file, memory."""
    if isinstance(error, ModuleNotFoundError):
        return f"{error.name} is not installed, and this command needs it; `fastrec doctor` shows what was found"
    if isinstance(error, ImportError):
        return f"{error.name or 'a package'} cannot be loaded ({error}); `fastrec doctor` shows what was found"
    if isinstance(error, OSError):
        place = error.filename if error.filename is not None else "the system refused"
        return f"{os.fsdecode(place) if isinstance(place, (str, bytes)) else place}: {error.strerror or error}"
    return f"out of memory ({str(error) or 'host memory'}); use less data, or a smaller dim or batch-size"


def parser() -> argparse.ArgumentParser:
    """The whole command line, built from Config so that flags and TOML keys cannot drift apart."""
    top = Parser(
        prog="fastrec",
        description="Train, evaluate and use implicit-feedback recommenders, fast and honestly.",
        epilog="Start with `fastrec train`; then `fastrec recommend RUN --user 1`.",
    )
    top.add_argument("--version", action="version", version=f"fastrec {fastrec.__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)
    _data_commands(commands)
    _train_command(commands)
    _run_commands(commands)
    doctor = commands.add_parser(
        "doctor",
        help="say what torch, CUDA, threads and data folders were found",
        description="Say which versions, devices, threads and data folders fastrec finds here; changes nothing.",
    )
    doctor.set_defaults(run=_doctor)
    return top


def _data_commands(commands: Any) -> None:
    about = "Named data sets are looked for under $FASTREC_DATA/NAME, then in the cache (see `fastrec doctor`)."
    data = commands.add_parser("data", help="fetch, list and describe data sets", description=about).add_subparsers(
        title="commands", metavar="COMMAND", required=True
    )
    listing = data.add_parser("list", help="the named sets, and where each was found", description=about)
    listing.set_defaults(run=_data_list)
    fetch = data.add_parser(
        "fetch",
        help="download a named set into the cache, checked against its pinned hash",
        description="Download a named set from its publisher or a mirror, check it against its pinned hash, unpack it "
        "into the cache and print where it lies. A download that was cut goes on where it stopped; a set that is here "
        "already is not fetched again.",
    )
    fetch.add_argument("name", help="such as ml-1m")
    fetch.set_defaults(run=_data_fetch)
    info = data.add_parser(
        "info",
        help="counts of users, items and interactions, and what was left out",
        description="Load a log as `fastrec train` would and say what is in it: counts, times, titles, and what was "
        "merged or left out. Formats are found by looking: MovieLens .dat, ml-100k, MovieLens csv, the NCF paper's "
        "files, adjacency lists, and tables with named columns: CSV, TSV, JSON lines, Parquet, Arrow IPC, folders and "
        "globs of them; text also as .gz or .zst.",
    )
    info.add_argument("data", metavar="NAME|PATH", help="a known set, a folder, or a file")
    for f in fields(Config):
        cutting = {"split", "validation", "test_share", "split_seed", "drop_overlap"}
        if f.metadata["group"] == "data" and f.name not in {"data", *cutting}:
            _add_option(info, f.name, f.metadata)
    info.set_defaults(run=_data_info)


def _train_command(commands: Any) -> None:
    train = commands.add_parser(
        "train",
        usage="fastrec train [--data NAME|PATH] [--model MODEL] [--config FILE] [--resume RUN] [options]",
        help="train a model, evaluate it, leave a run folder",
        description="Train a model, evaluate it once on the test part, and leave a run folder. Every option is also a "
        "key of a TOML file (batch-size is batch_size there); later beats earlier: preset, file, command line.",
    )
    train.add_argument("--config", metavar="FILE", help="TOML file of options")
    train.add_argument(
        "--preset", metavar="NAME", help=f"a recipe that comes with fastrec: {', '.join(configs.presets())}"
    )
    train.add_argument("--resume", metavar="RUN", help="go on with an interrupted run where it stopped, to the bit")
    train.add_argument(
        "--synthetic-if-missing",
        action="store_true",
        help=f"if the data cannot be had, go on with {FALLBACK} and say so (what `make train` does)",
    )
    groups: dict[str, Any] = {}
    for f in fields(Config):
        name = f.metadata["group"]
        if name not in groups:
            groups[name] = train.add_argument_group(name)
        _add_option(groups[name], f.name, f.metadata)
    train.set_defaults(run=_train)


def _add_option(group: Any, name: str, metadata: Any) -> None:
    hint = typing.get_type_hints(Config)[name]
    plain = [o for o in typing.get_args(hint) if o is not type(None)] if isinstance(hint, types.UnionType) else [hint]
    kind, default = plain[0], getattr(Config(), name)
    given = " ".join(map(str, default)) if isinstance(default, tuple) else default
    shown = "" if default in (None, ()) or kind is bool else f" (default {given})"
    options: dict[str, Any] = {
        "default": argparse.SUPPRESS,
        "help": metadata["help"].replace("%", "%%") + shown,
        "dest": name,
    }
    if kind is bool:
        options["action"] = argparse.BooleanOptionalAction
    elif typing.get_origin(kind) is tuple:
        options |= {"type": int, "nargs": "+", "metavar": "N"}
    else:
        options["type"] = kind
        metavar = METAVARS.get(name, "COLUMN" if name.endswith("_col") else kind.__name__.upper())
        options |= {"choices": metadata["choices"]} if metadata["choices"] else {"metavar": metavar}
    group.add_argument(f"--{name.replace('_', '-')}", **options)


def _run_commands(commands: Any) -> None:
    evaluate = commands.add_parser(
        "evaluate",
        help="score a run's weights on its test part again",
        description="Score the weights that a run kept on its test part: HR, NDCG and MRR at each K, against the run's "
        "frozen candidates and against every item its user has not met. Ties count against the positive.",
    )
    evaluate.add_argument("run_dir", metavar="RUN", help="run folder")
    evaluate.add_argument(
        "--cutoffs", type=int, nargs="+", metavar="K", default=None, help="the K of HR@K and the like"
    )
    evaluate.add_argument("--json", action="store_true", help="print JSON")
    evaluate.set_defaults(run=_evaluate)

    recommend = commands.add_parser(
        "recommend",
        help="the best items a user has not met yet, by title",
        description="The K items that the run's model scores highest for a user, by title where the data has titles. "
        "Every interaction of the log counts as met, test part included.",
    )
    recommend.add_argument("run_dir", metavar="RUN", help="run folder")
    recommend.add_argument("--user", required=True, help="user id as in the source data")
    recommend.add_argument("-k", type=int, default=10, help="how many items (default 10)")
    recommend.add_argument("--json", action="store_true", help="print JSON: a list of rank, item_id, title, score")
    recommend.set_defaults(run=_recommend)

    export = commands.add_parser(
        "export",
        help="write user and item vectors with their original ids and titles",
        description="Write the vectors of an MF or GMF run: a user's items rank by dot product. GMF's h and MF's item "
        "bias are folded into the item vectors. npz and safetensors hold user_ids, item_ids, user_vectors, "
        "item_vectors and the metric; parquet is a folder with users.parquet and items.parquet.",
    )
    export.add_argument("run_dir", metavar="RUN", help="run folder")
    export.add_argument("--to", required=True, choices=("npz", "parquet", "safetensors"), help="file format")
    export.add_argument(
        "--out", required=True, metavar="FILE", help="file to write (a folder for parquet), which must not exist"
    )
    export.add_argument(
        "--bias", choices=("folded", "separate"), default="folded", help="separate: item_bias by itself, unfolded"
    )
    export.add_argument("--dtype", choices=("float32", "float16"), default="float32", help="of the vectors")
    export.set_defaults(run=_export)


def _data_list(_: argparse.Namespace) -> None:
    from fastrec.data.datasets import registry

    say(table([("set", "found at", "how")] + [(name, where or "-", state) for name, where, state in registry.found()]))


def _data_fetch(args: argparse.Namespace) -> None:
    from fastrec.data.datasets import registry

    say(str(registry.resolve(args.name, allow_path=False)), keep="")


def _data_info(args: argparse.Namespace) -> None:
    options = {k: v for k, v in vars(args).items() if k in {f.name for f in fields(Config)} and k != "data"}
    x = fastrec.load(args.data, **options)
    degrees = x.degrees
    rows = [
        ("users", f"{x.n_users:,}"),
        ("items", f"{x.n_items:,}"),
        ("interactions", f"{x.n_interactions:,}"),
        ("density", f"{x.n_interactions / max(1, x.n_users * x.n_items):.4%}"),
        ("per user", f"{degrees.min():,} to {degrees.max():,}, mean {degrees.mean():.1f}" if x.n_users else "-"),
        ("timestamps", "none" if x.timestamps is None else "yes"),
        ("titles", "none" if x.titles is None else "yes"),
        ("fingerprint", x.fingerprint()[:16]),
    ]
    say(table([(x.name, ""), *rows]))
    for note in x.notes:
        say(f"note: {note}", keep="")


def _train(args: argparse.Namespace) -> int:
    from fastrec.training.fit import fit, resume
    from fastrec.training.job import prepare
    from fastrec.training.resolve import resolve

    names = {f.name for f in fields(Config)}
    given = {k: v for k, v in vars(args).items() if k in names}
    if args.resume:
        if args.preset or args.config:
            raise ConfigError("--resume takes its config from the run; leave out --preset and --config")
        return _finish(resume(args.resume, **given), [])
    config = configs.preset(args.preset) if args.preset else Config()
    config = configs.read_toml(args.config, config) if args.config else config
    config = config.override(**given)
    if config.out and Path(config.out).exists():  # said before minutes of loading, not after
        raise ConfigError(f"{config.out}: exists; every run gets a new folder, so that nothing is overwritten")
    config = resolve(config)
    try:
        split = prepare(config)
    except DataNotFoundError as error:
        if not (args.synthetic_if_missing and config.data == Config().data):
            raise
        said = (
            f"{config.data} could not be had, so this is a run on {FALLBACK}: its figures say nothing about MovieLens"
        )
        say(f"{said}\nwhy: {error}", flush=True)
        config = config.override(data=FALLBACK)
        return _finish(fit(prepare(config), config, loaded=True), [said])
    if config.progress:
        parts = ", ".join(f"{part} {getattr(split, part).n_interactions:,}" for part in ("train", "validation", "test"))
        size = f"{split.n_users:,} users, {split.n_items:,} items"
        say(f"{config.data}: {size}; {parts} ({split.how})", err=True, flush=True, keep="")
    return _finish(fit(split, config, loaded=True), [])


def _finish(result: Any, last: list[str]) -> int:
    say("\n".join([summary(result), *last]), flush=True)
    if lost := drop_unwritable():
        _fail(f"stdout: cannot be written ({lost}); the run is in {result.run.path}", EXIT_DATA)
    return EXIT_INTERRUPTED if result.stopped == "interrupted" else EXIT_DATA if lost else 0


ENDS = {
    "all epochs": "all that were asked for",
    "early stopping": "stopped early: validation NDCG@10 rose no more",
    "interrupted": "interrupted",
}
"""How a run says why it ended."""


def summary(result: Any) -> str:
    """The closing table of a training run: accuracy, speed, where it lies, and what to type next."""
    lines = [table(_metric_rows(result.metrics))] if result.metrics else []
    for note in result.notes:
        lines.append(printable(f"note: {note}"))
    data, config, path = result.run.manifest["data"], result.run.config, _word(_path(result.run.path))
    rows = [
        ("trained", f"{config['model']}, dim {config['dim']}, on {data['n_train']:,} interactions of {data['name']}"),
        ("samples/s, end to end", f"{result.samples_per_s:,.0f}"),
        ("training", f"{result.epochs_done} epochs in {result.seconds:.1f} s ({ENDS[result.stopped]})"),
        ("run", str(result.run.path)),
    ]
    if result.best_epoch is not None:
        rows.insert(3, ("weights", f"of epoch {result.best_epoch}, the best by validation NDCG@10"))
    lines.append(table(rows))
    if result.stopped == "interrupted":
        lines.append(f"go on:   fastrec train --resume {path}")
    else:
        user = str(result.example_user)
        option = f"--user={_word(user)}" if user.startswith("-") else f"--user {_word(user)}"
        lines.append(f"next:    fastrec recommend {path} {option} -k 10")
    return "\n".join(lines)


def _word(text: str) -> str:
    """As one word of a shell command; what cannot be shown is escaped."""
    return printable(shlex.quote(text))


def _path(path: Path) -> str:
    return f"./{path}" if str(path).startswith("-") else str(path)


def _metric_rows(metrics: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    names = list(dict.fromkeys(name for part in metrics.values() for name in part if "@" in name))
    shown = [n for n in names if n.endswith("@10")] or names
    return [("test", *shown)] + [
        (protocol, *(f"{part[n]:.4f}" if n in part else "-" for n in shown)) for protocol, part in metrics.items()
    ]


def _evaluate(args: argparse.Namespace) -> None:
    result = fastrec.evaluate(args.run_dir, cutoffs=args.cutoffs)
    if args.json:
        say_json(result)
        return
    names = list(dict.fromkeys(n for part in result.values() for n in part if "@" in n))
    rows = [(n, *(f"{p[n]:.4f}" if n in p else "-" for p in result.values())) for n in names]
    counts = [(n, *(f"{p[f'n_{n}']:,}" for p in result.values())) for n in ("users", "positives")]
    say(table([("test", *result), *rows, *counts]))
    for note in dict.fromkeys(note for part in result.values() for note in part["notes"]):
        say(f"note: {note}", keep="")


def _recommend(args: argparse.Namespace) -> None:
    from fastrec.inference.recommend import recommend
    from fastrec.runs import open_run

    rows = recommend(open_run(args.run_dir), args.user, args.k)
    if args.json:
        say_json(rows)
        return
    if not rows:
        say(f"user {args.user} has met every item: there is nothing left to recommend", keep="")
        return
    titled = any(r["title"] for r in rows)
    shown = [("rank", "item", *(["title"] if titled else []), "score")]
    for r in rows:
        shown.append((str(r["rank"]), str(r["item_id"]), *([r["title"] or ""] if titled else []), f"{r['score']:.3f}"))
    say(table(shown))


def _export(args: argparse.Namespace) -> None:
    from fastrec.inference.export import export
    from fastrec.runs import open_run

    made = export(open_run(args.run_dir), to=args.to, out=Path(args.out), bias=args.bias, dtype=args.dtype)
    say(str(made), keep="")


def _doctor(args: argparse.Namespace) -> None:
    from fastrec.runs.doctor import findings

    say(table(findings()))
    _data_list(args)
