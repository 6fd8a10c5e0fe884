"""Common parts of ``recommend`` and ``similar``: filters, files of ids, and tables of items."""

from __future__ import annotations

import argparse
import re
from pathlib import Path
from typing import Any

from fastrec.errors import ConfigError, DataError
from fastrec.terminal import on_terminal, say

_RANGE = re.compile(r"(?P<low>\d{1,4})?(?P<colon>:)?(?P<high>\d{1,4})?")


def add_filters(parser: Any) -> None:
    """The options that choose items."""
    group = parser.add_argument_group("items to list")
    group.add_argument("--genre", action="append", metavar="NAME", help="one of its genres; repeat it for several")
    group.add_argument("--year", metavar="YEAR|FROM:TO", help="1999, 1990: or :1990 or 1990:1999, ends included")
    group.add_argument("--allow", metavar="FILE", help="only the items of this file, one id per line")
    group.add_argument("--deny", metavar="FILE", help="none of the items of this file, one id per line")


def filters(args: argparse.Namespace) -> dict[str, Any]:
    """The options of ``add_filters`` as arguments of ``Recommender.recommend``."""
    where: dict[str, Any] = {}
    if args.genre:
        where["genres"] = args.genre
    if args.year is not None:
        where["year"] = years(args.year)
    files = {name: read_ids(path) for name in ("allow", "deny") if (path := getattr(args, name)) is not None}
    return {"where": where or None, **files}


def years(text: str) -> tuple[int | None, int | None]:
    """The range of years that ``--year`` names.

    Raises
    ------
    ConfigError
        If it is none.
    """
    found = _RANGE.fullmatch(text.strip())
    if not found or not (found["low"] or found["high"]):
        raise ConfigError(f"--year {text!r}: give a year as 1999, or a range as 1990:1999, 1990: or :1999")
    low, high = (None if found[end] is None else int(found[end]) for end in ("low", "high"))
    if not found["colon"]:
        return low, low
    if low is not None and high is not None and low > high:
        raise ConfigError(f"--year {text!r}: the range ends before it starts; write {high}:{low}")
    return low, high


def read_ids(path: str) -> list[str]:
    """The ids of a text file, one per line; blank lines are left out, spaces of an id are kept.

    Raises
    ------
    DataError
        If the file cannot be read, or is not UTF-8 text.
    """
    from fastrec.files import reason  # NumPy, which --help does without

    try:
        text = Path(path).read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({reason(error)}); name a text file with one id per line") from None
    except ValueError:
        raise DataError(f"{path}: not UTF-8 text; give one id per line") from None
    return [line for line in text.replace("\r\n", "\n").split("\n") if line.strip()]


def details(rec: Any, titled: bool) -> tuple[list[str], Any]:
    """Headers, and a function that gives the cells of a contiguous item: title, year and genres, as far as kept."""
    columns = (rec.run.tables() or {}).get("items", [])
    shown = [name for name in ("year", "genres") if name in columns]
    table = rec.items.select(shown).rows() if shown else None

    def cells(item: int) -> list[str]:
        own = [str(rec.titles[item])] if titled else []
        facts = () if table is None else table[item]
        return own + ["" if v is None else ", ".join(map(str, v)) if isinstance(v, list) else str(v) for v in facts]

    return (["title"] if titled else []) + shown, cells


def progress(what: str) -> Any:
    """A function of (done, total) that shows on a terminal how far a long command is; None elsewhere."""
    if not on_terminal():
        return None

    def show(done: int, total: int) -> None:
        say(f"\r{what}: {done:,} of {total:,}", err=True, end="\n" if done >= total else "", flush=True, keep="\r")

    return show
