"""Part "csv": tables made by address, read by fastrec and by Python's csv module; both must give the same pairs."""

from __future__ import annotations

import collections
import csv
import io
import random
import tempfile
import time
from pathlib import Path
from typing import Any

from fastrec.data import load
from fastrec.errors import FastrecError
from scripts.torture.children import in_child

CELLS = (
    *("1", "2", "3", "10", "42", "007", "+5", "-3", "1.0", "1.5", "1e3", "a", "b", "A b", "é", "名前", "x,y", 'q"q'),
    *("'", "#1", "NULL", "null", "NaN", "nan", "None", "NA", "", " ", " 7", "7 ", "\t", "true", "0", "-0", "0x10"),
    *("1_000", "9" * 18, "9" * 19, "9" * 30, "line\nbreak", "\r", "a\\", "\\N", "=1+1", "<b>", "\u200b", "\x01"),
)
"""What ids may look like."""


def table(r: random.Random) -> bytes:
    """A table of users and items with every habit that writers of CSV have, mostly valid."""
    plain = r.random() < 0.4
    cells = ("1", "2", "3", "10", "42") if r.random() < 0.3 else CELLS
    end = r.choice(("\n", "\n", "\n", "\r\n"))
    extra = r.choice((0, 0, 1, 2))
    lines = [["user", "item", *("rating", "remark")[:extra]]]
    for _ in range(r.randint(1, 8)):
        lines.append([r.choice(cells) for _ in range(2)] + [str(r.randint(1, 5)), r.choice(CELLS)][:extra])
    text = ""
    for k, line in enumerate(lines):
        if r.random() < 0.03 and k:
            line = line[: r.randint(0, len(line))] if r.random() < 0.5 else [*line, "more"]
        text += ",".join(quoted(cell, r, plain) for cell in line)
        text += end if k < len(lines) - 1 or r.random() < 0.8 else ""
        if r.random() < 0.02:
            text += end
    if r.random() < 0.05:
        at = r.randrange(len(text))
        text = text[:at] + r.choice(('"', ",", "\n", "\x00", "\r")) + text[at:]
    return (b"\xef\xbb\xbf" if r.random() < 0.05 else b"") + text.encode()


def quoted(cell: str, r: random.Random, plain: bool) -> str:
    """A cell as a writer writes it; now and then as a careless one does."""
    needs = any(c in cell for c in ',"\n\r')
    if (needs and r.random() < 0.97) or (not plain and r.random() < 0.2):
        return '"' + cell.replace('"', '""') + '"'
    return cell


def by_python(data: bytes) -> set[tuple[str, str]] | None:
    """(user, item) pairs by Python's csv; None where it refuses, or rows differ in length."""
    try:
        text = data.decode("utf-8-sig")
        rows = [row for row in csv.reader(io.StringIO(text, newline=""), strict=True) if row]
    except (csv.Error, UnicodeDecodeError):
        return None
    if len({len(row) for row in rows}) > 1 or len(rows) < 2:
        return None
    return {(row[0], row[1]) for row in rows[1:]}


def stripped(pairs: set[tuple[str, str]]) -> set[tuple[str, str]]:
    """Pairs without carriage returns at the ends: outside quotes Python's csv ends a line there, Polars keeps them."""
    return {(user.strip("\r"), item.strip("\r")) for user, item in pairs}


def compare(seed: int, k: int, folder: Path) -> tuple[str, str | None]:
    """(kind, what is wrong or None) of the k-th table."""
    data = table(random.Random(f"csv {seed} {k}"))
    path = folder / "log.csv"
    path.write_bytes(data)
    expected = by_python(data)
    try:
        made = load(path)
        users, items = made.user_ids[made.users].tolist(), made.item_ids[made.items].tolist()
        found = {(str(u), str(i)) for u, i in zip(users, items, strict=True)}
    except FastrecError as error:
        return ("both refuse" if expected is None else "refused by fastrec"), None if str(error) else "no message"
    except Exception as error:
        return "raised", f"table {k} of seed {seed}: {type(error).__name__}: {error}"
    if expected is None:
        return "read by fastrec only", None
    if found == expected:
        return "equal", None
    if stripped(found) == stripped(expected):
        return "equal but for a carriage return", None
    return "different", f"table {k} of seed {seed}, {data!r}: {sorted(found ^ expected)[:4]}"


def main(seed: int, minutes: float, *, most: int | None = None) -> dict[str, Any]:
    """Compare tables until the time is used up."""

    def work() -> dict[str, Any]:
        deadline = time.monotonic() + 60 * minutes
        kinds: collections.Counter[str] = collections.Counter()
        wrong, k = [], 0
        with tempfile.TemporaryDirectory(prefix="fastrec-csv-") as folder:
            while time.monotonic() < deadline and (most is None or k < most):
                kind, fault = compare(seed, k, Path(folder))
                kinds[kind] += 1
                wrong += [fault] if fault else []
                k += 1
        return {"part": "csv", "tables": k, "kinds": dict(kinds), "wrong": wrong[:50], "n_wrong": len(wrong)}

    end = in_child(work, limit_s=60 * minutes + 300)
    if end.how != "returned":
        return {"part": "csv", "wrong": [f"{end.how}: {end.value}"]}
    found: dict[str, Any] = end.value
    return found
