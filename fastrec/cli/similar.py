"""``fastrec similar``: the items nearest to one item, which is given by id or by a part of its title."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.cli.choice import add_filters, details, filters
from fastrec.terminal import say, say_json, table

NAMED = 5
"""Other fits that are named on standard error."""


def add_commands(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "similar",
        help="the items most similar to one, by id or title",
        description="The K items whose vectors have the highest cosine with those of an item. The item is an id as in "
        "the source data, or a part of its title: accents and case do not count, and an id wins over a title. Of "
        "several titles that fit, the one with most interactions is taken and the others are named.",
    )
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("--item", required=True, metavar="ID|TITLE", help="item id, or a part of its title")
    parser.add_argument("-k", type=int, default=10, help="how many items (default 10)")
    add_filters(parser)
    parser.add_argument("--json", action="store_true", help="print JSON: a list of rank, item_id, title, score")
    parser.set_defaults(run=similar)


def similar(args: argparse.Namespace) -> None:
    """Run the command."""
    from fastrec.inference.recommender import Recommender

    rec = Recommender.load(args.run_dir)
    item, *others = rec.find_items(args.item)
    names = rec.item_ids if rec.titles is None else rec.titles
    if others:
        more = f" and {len(others) - NAMED:,} more" if len(others) > NAMED else ""
        fits = ", ".join(f"{names[i]} ({rec.item_ids[i]})" for i in others[:NAMED])
        say(f"also fit: {fits}{more}", err=True, keep="")
    found = rec.similar(rec.item_ids[item], args.k, output="arrays", **filters(args))
    items, scores = rec.item_index.find(found["similar_id"])[0], found["score"].tolist()
    if args.json:
        ids = found["similar_id"].tolist()
        titles = found["title"].tolist() if "title" in found else [None] * len(ids)
        listed = zip(found["rank"].tolist(), ids, titles, scores)
        say_json([dict(zip(("rank", "item_id", "title", "score"), row)) for row in listed])
        return
    headers, cells = details(rec, rec.titles is not None)
    say(f"similar to {names[item]}" + ("" if rec.titles is None else f" ({rec.item_ids[item]})"), keep="")
    rows = [("rank", "item", *headers, "cosine")]
    for rank, (other, score) in enumerate(zip(items.tolist(), scores), 1):
        rows.append((str(rank), str(rec.item_ids[other]), *cells(other), f"{score:.3f}"))
    say(table(rows))
