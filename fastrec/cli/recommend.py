"""``fastrec recommend``: lists for one user to look at, or for many into a file."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.cli.choice import add_filters, details, filters, progress, read_ids
from fastrec.errors import ConfigError
from fastrec.terminal import say, say_json, table

FAVOURITES = "favourites"


def add_commands(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "recommend",
        help="the best items for one user, some users or everyone",
        description="The K items that the run's model scores highest for a user, by title where the data has titles, "
        "next to those of the user's own items that it scores highest. Every interaction of the log counts as seen, "
        "test part included. --items asks for someone who was not in the training and has these items. With "
        "--users or --all the lists go into a file: user_id, rank, item_id, title, score.",
    )
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    who = parser.add_mutually_exclusive_group(required=True)
    who.add_argument("--user", action="append", metavar="ID", help="user id as in the source data; may be repeated")
    who.add_argument("--users", metavar="FILE", help="the users of this file, one id per line")
    who.add_argument("--all", action="store_true", help="every user")
    who.add_argument(
        "--items",
        action="append",
        metavar="ID,ID",
        help="someone new who has these items; may be repeated, and an id that holds a comma is taken as it is",
    )
    parser.add_argument("-k", type=int, default=10, help="how many items (default 10)")
    parser.add_argument("--out", metavar="FILE", help="write .parquet, .csv or .jsonl, which must not exist")
    parser.add_argument("--seen", action="store_true", help="list items too that the user has an interaction with")
    parser.add_argument("--skip-unknown", action="store_true", help="leave out ids that the data do not have")
    add_filters(parser)
    parser.add_argument("--json", action="store_true", help="print JSON: a list of rank, item_id, title, score")
    parser.set_defaults(run=recommend)


def recommend(args: argparse.Namespace) -> None:
    """Run the command."""
    from fastrec.inference.recommender import Recommender

    if args.out and args.json:
        raise ConfigError("--json prints the lists and --out writes them; leave one of them out")
    if (args.all or args.users) and not (args.out or args.json):
        raise ConfigError("--users and --all give many lists: write them with --out lists.parquet, or print --json")
    if args.items and args.out:
        raise ConfigError("--items is for one person without an id: leave --out away, or print --json")
    rec = Recommender.load(args.run_dir)
    if args.items:
        return _show_new(rec, args)
    options = {"seen": args.seen, "skip_unknown": args.skip_unknown, **_known_filters(rec, args)}
    users = None if args.all else read_ids(args.users) if args.users else args.user
    if users is not None and args.skip_unknown:
        unknown = rec.user_index.find(users, skip_unknown=True)[1]
        if unknown:
            say(f"left out: {len(unknown):,} unknown users, the first is {unknown[0]!r}", err=True, keep="")
    if args.out:
        say(str(rec.recommend_all(args.k, out=args.out, users=users, progress=progress("users"), **options)), keep="")
    elif args.json:
        _print_json(rec, users, args, options)
    else:
        for number, user in enumerate(args.user):
            if number:
                say()
            _show(rec, user, args, options)


def _show_new(rec: Any, args: argparse.Namespace) -> None:
    """The list of someone who was not in the training, as a table or JSON."""
    known = _known_filters(rec, args)
    items = [one for given in args.items for one in split_ids(rec.item_index, given)]
    if args.skip_unknown:
        unknown = set(rec.item_index.find(items, skip_unknown=True)[1])
        items = [one for one in items if one not in unknown]
        if unknown:
            say(f"--items: left out {len(unknown):,} unknown items", err=True, keep="")
    found = rec.recommend_new(items, args.k, output="arrays", seen=args.seen, **known)
    if args.json:
        lists = {name: values.tolist() for name, values in found.items()}
        lists.setdefault("title", [None] * len(lists["rank"]))
        names = ("rank", "item_id", "title", "score")
        say_json([dict(zip(names, row)) for row in zip(*(lists[name] for name in names))])
        return
    if not found["rank"].size:
        say("no item that fits is left to recommend", keep="")
        return
    numbers = rec.item_index.find(found["item_id"])[0].tolist()
    headers, cells = details(rec, rec.titles is not None and any(rec.titles[i] for i in numbers))
    rows = [("rank", "item", *headers, "score")]
    for rank, (item, score) in enumerate(zip(numbers, found["score"].tolist()), 1):
        rows.append((str(rank), str(rec.item_ids[item]), *cells(item), f"{score:.3f}"))
    say(table(rows))


def split_ids(index: Any, given: str) -> list[str]:
    """The ids of one ``--items``: the text itself where it is an id, else its parts between commas."""
    if "," not in given or index.find([given], skip_unknown=True)[0].size:
        return [given]
    return [part for part in given.split(",") if part.strip()]


def _known_filters(rec: Any, args: argparse.Namespace) -> dict[str, Any]:
    """The filters, less unknown ids of their files where ``--skip-unknown`` asks for it."""
    options = filters(args)
    for name in ("allow", "deny"):
        if args.skip_unknown and name in options:
            unknown = set(rec.item_index.find(options[name], skip_unknown=True)[1])
            options[name] = [one for one in options[name] if one not in unknown]
            if unknown:
                say(f"--{name}: left out {len(unknown):,} unknown items", err=True)
    return options


def _print_json(rec: Any, users: Any, args: argparse.Namespace, options: dict[str, Any]) -> None:
    wanted = rec.user_ids if users is None else users
    found = rec.recommend(wanted, args.k, output="arrays", **options)
    lists = {name: values.tolist() for name, values in found.items()}
    lists.setdefault("title", [None] * len(lists["rank"]))
    one = args.user is not None and len(args.user) == 1
    names = [*([] if one else ["user_id"]), "rank", "item_id", "title", "score"]
    say_json([dict(zip(names, row)) for row in zip(*(lists[name] for name in names))])


def _show(rec: Any, user: str, args: argparse.Namespace, options: dict[str, Any]) -> None:
    """One user's list as a table, with the user's own items that the model scores highest next to it."""
    number = rec.user_index.find([user], skip_unknown=args.skip_unknown)[0]
    if not number.size:
        return
    found = rec.recommend(user, args.k, output="arrays", **options)
    if not found["rank"].size:
        chosen = any(options.get(name) is not None for name in ("where", "allow", "deny"))
        reason = (
            f"user {user}: no item that fits the filters" if chosen else f"user {user} has interacted with every item:"
        )
        say(f"{reason} is left to recommend" if chosen else f"{reason} nothing is left to recommend", keep="")
        return
    items = rec.item_index.find(found["item_id"])[0]
    headers, cells = details(rec, rec.titles is not None and any(rec.titles[i] for i in items.tolist()))
    own = rec.favourites(int(number[0]), items.size)
    names = rec.item_ids if rec.titles is None else rec.titles
    rows = [("rank", "item", *headers, "score", *([f"| {FAVOURITES}"] if own.size else []))]
    for k, (item, score) in enumerate(zip(items.tolist(), found["score"].tolist())):
        liked = [f"| {names[own[k]]}"] if k < own.size else []
        rows.append((str(k + 1), str(rec.item_ids[item]), *cells(item), f"{score:.3f}", *liked))
    if len(args.user) > 1:
        say(f"user {user}", keep="")
    say(table(rows))
