"""``fastrec data``: fetch, list, describe and build data sets."""

from __future__ import annotations

import argparse
from typing import Any

import fastrec
from fastrec.cli.options import add_option, given
from fastrec.config import OPTIONS, SECTION_OF
from fastrec.terminal import say, say_json, table

ABOUT = "Named data sets are looked for under $FASTREC_DATA/NAME, then in the cache (see `fastrec doctor`)."

BUILD_OPTIONS = (
    *("user_col", "item_col", "rating_col", "time_col", "time_format", "where", "weight_col"),
    *("min_rating", "k_core"),
)


def add_commands(commands: Any) -> None:
    """Add ``data list``, ``data fetch``, ``data info`` and ``data build``."""
    parser = commands.add_parser("data", help="fetch, list, describe and build data sets", description=ABOUT)
    parser.set_defaults(run=lambda _: parser.print_help())
    data = parser.add_subparsers(title="commands", metavar="COMMAND")
    listing = data.add_parser("list", help="the named sets, and where each was found", description=ABOUT)
    listing.add_argument("--json", action="store_true", help="print JSON")
    listing.set_defaults(run=show_list)
    fetch = data.add_parser(
        "fetch",
        help="download a named set into the cache, checked against its pinned hash",
        description="Download a named set from its publisher or a mirror, check it against its pinned hash, unpack it "
        "into the cache and print where it is. An interrupted download continues where it stopped; a set that is "
        "already here is not fetched again.",
    )
    fetch.add_argument("name", help="such as ml-1m")
    fetch.set_defaults(run=_fetch)
    info = data.add_parser(
        "info",
        help="counts of users, items and interactions, and what was left out",
        description="Load a log as `fastrec train` would and describe it: counts, times, titles, and what was "
        "merged or left out. Formats are detected: MovieLens .dat, ml-100k, MovieLens csv, the NCF paper's "
        "files, adjacency lists, and tables with named columns: CSV, TSV, JSON lines, Parquet, Arrow IPC, folders and "
        "globs of them; text also as .gz or .zst.",
    )
    info.add_argument("data", metavar="NAME|PATH", help="a known set, a folder, or a file")
    for name in OPTIONS:
        if SECTION_OF[name] == "data" and name not in ("data", "drop_overlap"):
            add_option(info, name)
    info.add_argument("--json", action="store_true", help="print JSON")
    info.set_defaults(run=_info)
    build = data.add_parser(
        "build",
        help="make a saved CSR of a Parquet log that is larger than memory",
        description="Make the file that `fastrec train --data` maps, from a Parquet file, a folder of parts or a glob, "
        "without holding its rows in memory: rows are sorted on disk by ranges of users. A build that was cut off goes "
        "on by the same command; one that is done already is not done again.",
    )
    build.add_argument("source", metavar="PATH", help="a Parquet file, a folder of parts, or a glob in quotes")
    build.add_argument("--out", metavar="FILE.safetensors", required=True, help="the file to make")
    for name in BUILD_OPTIONS:
        add_option(build, name)
    build.add_argument("--no-progress", action="store_true", help="print no line for each stage")
    build.set_defaults(run=_build)


def listed() -> list[dict[str, str | None]]:
    """The named sets: ``name``, ``found_at`` (None where it is not here) and ``state``."""
    from fastrec.data.datasets import registry

    return [{"name": name, "found_at": where or None, "state": state} for name, where, state in registry.found()]


def show_list(args: argparse.Namespace | None = None) -> None:
    """Print the named sets, and where each was found."""
    found = listed()
    if args is not None and args.json:
        say_json(found)
        return
    rows = [(str(row["name"]), row["found_at"] or "-", str(row["state"])) for row in found]
    say(table([("set", "found at", "how"), *rows]))


def _fetch(args: argparse.Namespace) -> None:
    from fastrec.data.datasets import registry

    say(str(registry.resolve(args.name, allow_path=False)), keep="")


def _info(args: argparse.Namespace) -> None:
    options = given(args)
    x = fastrec.load(options.pop("data"), **options)
    degrees = x.degrees
    if args.json:
        _info_json(x)
        return
    rows = [
        ("users", f"{x.n_users:,}"),
        ("items", f"{x.n_items:,}"),
        ("interactions", f"{x.n_interactions:,}"),
        ("density", f"{x.n_interactions / max(1, x.n_users * x.n_items):.4%}"),
        ("per user", f"{degrees.min():,} to {degrees.max():,}, mean {degrees.mean():.1f}" if x.n_users else "-"),
        ("timestamps", "none" if x.timestamps is None else "yes"),
        ("weights", "none" if x.weights is None else f"{x.weights.min():g} to {x.weights.max():g}"),
        ("titles", "none" if x.titles is None else "yes"),
        ("fingerprint", x.fingerprint()[:16]),
    ]
    say(table([(x.name, ""), *rows]))
    for note in x.notes:
        say(f"note: {note}", keep="")


def _build(args: argparse.Namespace) -> None:
    from fastrec.data.building.build import build

    options = {name: value for name, value in given(args).items() if name in BUILD_OPTIONS}
    say_stage = _quiet if args.no_progress else _stage
    say(f"{build(args.source, args.out, **options, say=say_stage)}", keep="")


def _stage(line: str) -> None:
    say(line, err=True, flush=True, keep="")


def _quiet(line: str) -> None:
    pass


def _info_json(x: Any) -> None:
    say_json(
        {
            "name": x.name,
            "n_users": x.n_users,
            "n_items": x.n_items,
            "n_interactions": x.n_interactions,
            "timestamps": x.timestamps is not None,
            "titles": x.titles is not None,
            "fingerprint": x.fingerprint(),
            "notes": list(x.notes),
        }
    )
