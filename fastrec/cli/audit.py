"""``fastrec audit``: which negatives a run drew, when and how often."""

from __future__ import annotations

import argparse
from typing import Any

from fastrec.terminal import say, say_json, table

SHOWN = 20
"""Pairs of a user or an item in the table; --json has them all."""


def add_commands(commands: Any) -> None:
    """Add the command."""
    parser = commands.add_parser(
        "audit",
        help="which negatives a run drew, when and how often",
        description="Rebuild the negatives of a run by their addresses: how many each epoch drew, which items most "
        "often, and how often held-out items were drawn as negatives of their own user, with the effect of one more "
        "such draw on HR@10. Epochs after the one whose weights are kept are marked.",
    )
    parser.add_argument("run_dir", metavar="RUN", help="run folder")
    parser.add_argument("--user", metavar="ID", help="the draws for this user")
    parser.add_argument("--item", metavar="ID", help="the draws of this item; with --user, for that user")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(run=audit)


def audit(args: argparse.Namespace) -> None:
    """Run the command."""
    from fastrec.inference.audit import audit as audited

    found = audited(args.run_dir, user=args.user, item=args.item)
    if args.json:
        say_json(found)
        return
    if "pairs" in found:
        _show_pairs(found)
    else:
        _show(found)
    for note in found["notes"]:
        say(f"note: {note}", keep="")


def _show(found: dict[str, Any]) -> None:
    done, kept = found["epochs_done"], found["kept_epoch"]
    after = f", of which {done - kept} after the kept one (marked *)" if done > kept else ""
    say(f"{found['draws']:,} draws in {done} epochs{after}; {found['negatives']} a positive", keep="")
    rows = [("epoch", "draws", "held-out items of their own user")]
    rows += [(f"{e['epoch']}{'' if e['kept'] else ' *'}", f"{e['draws']:,}", f"{e['held_out']:,}")
             for e in found["by_epoch"]]  # fmt: skip
    say(table(rows))
    parts = [("held-out part", "pairs", "drawn at least once", "drawn", "expected", "trained")]
    for name, part in found["held_out"].items():
        expected = "not known" if part["expected"] is None else f"{part['expected']:,.0f}"
        trained = "not known" if part["trained"] is None else f"{part['trained']:,}"
        counts = (part["pairs"], part["exposed"], part["drawn"])
        parts.append((name, *(f"{n:,}" for n in counts), expected, trained))
    say("\n" + table(parts))
    estimated = {name: e for name, e in found["effect"].items() if e["effect"] is not None}
    for name, e in estimated.items():
        effect = f"{e['effect']:+.5f} (standard error {e['standard_error']:.5f}, {e['exposed']:,} exposed pairs)"
        say(f"{name}: one more draw of a test item as a negative of its user {effect}", keep="")
    rows = [("most drawn", "title", "draws")]
    rows += [(str(i["item_id"]), i["title"] or "", f"{i['drawn']:,}") for i in found["most_drawn"]]
    say("\n" + table(rows))


def _show_pairs(found: dict[str, Any]) -> None:
    whose = f" for user {found['asked_user']}" if "asked_user" in found else ""
    item = found.get("asked_item")
    of = f" of item {item['item_id']}" + (f" ({item['title']})" if item["title"] else "") if item else ""
    pairs, kept = found["pairs"], found["kept_epoch"]
    say(f"{sum(p['drawn'] for p in pairs):,} draws{of}{whose} in {found['epochs_done']} epochs", keep="")
    names = [name for name in ("user_id", "item_id", "title") if pairs and name in pairs[0]]
    rows = [(*names, "drawn", f"by epoch {kept}", "held out", "epochs")]
    for p in pairs[:SHOWN]:
        epochs = ", ".join(str(epoch) if epoch <= kept else f"{epoch}*" for epoch in p["epochs"])
        cells = ["" if p[name] is None else str(p[name]) for name in names]
        rows.append((*cells, str(p["drawn"]), str(p["in_kept"]), p["held_out"] or "", epochs))
    if pairs:
        say(table(rows))
    if len(pairs) > SHOWN:
        say(f"and {len(pairs) - SHOWN:,} more pairs: --json lists them", keep="")
