"""The tables on the terminal: one for each case, and the four rates together at the end."""

from __future__ import annotations

import os
import sys
import textwrap
from typing import Any, TextIO

from fastrec.terminal import printable, shown

FOUR = {
    "sampler": "negatives drawn, each with its positive counted in",
    "feed": "batches ready on the device, nothing trained",
    "step": "training on one fixed batch: no data path at all, the ceiling",
    "end_to_end": "training as it is: sampler, feed and step together",
}
"""The four rates to read together: what each of them leaves out shows where the time goes."""

ABOVE_BANDWIDTH = "above 100 %: many of the rows come from a cache, which is faster than copying memory"
"""What is printed with a ``bandwidth_pct`` above 100."""

_PREFIXES = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def human(value: float, digits: int = 3) -> str:
    """``12.3 M`` for 12,300,000: ``digits`` significant digits and a prefix, never a power of ten."""
    for factor, prefix in _PREFIXES:
        if abs(value) >= factor * (1 - 0.5 * 10**-digits):
            return f"{_significant(value / factor, digits)} {prefix}"
    return f"{_significant(value, digits)} "


def _significant(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    before_point = len(str(int(abs(value)))) if abs(value) >= 1 else 1
    return f"{value:.{max(0, digits - before_point)}f}"


def rate_text(row: dict[str, Any]) -> str:
    """``12.3 M samples/s``."""
    return f"{human(row['rate']).rstrip()} {row['unit']}"


def times_text(ratio: float) -> str:
    """``3.92x``, ``41.3x``, ``1,204x``."""
    return f"{ratio:,.0f}x" if ratio >= 100 else f"{_significant(ratio, 3)}x"


class Printer:
    """Writes to a stream, in colour where that is a terminal and NO_COLOR is not set."""

    def __init__(self, stream: TextIO | None = None, colour: bool | None = None) -> None:
        self.stream = stream or sys.stdout
        tty = hasattr(self.stream, "isatty") and self.stream.isatty()
        self.colour = (tty and not os.environ.get("NO_COLOR")) if colour is None else colour

    def paint(self, text: str, code: str) -> str:
        """``text`` in an ANSI colour (32 green, 31 red, 33 yellow, 1 bold, 2 dim), or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour else text

    def line(self, text: str = "") -> None:
        """One line, flushed."""
        print(shown(text, self.stream, keep="\n\x1b"), file=self.stream, flush=True)  # the escapes of paint

    def header(self, record: dict[str, Any]) -> None:
        """What was measured on what."""
        machine, data = record["machine"], record["data"]
        copy = machine["copy_bytes_per_s"]
        dirty = " with local changes" if machine["dirty"] else ""
        self.line(self.paint("fastrec bench", "1") + f"  data: {printable(data['said'])}")
        self.line(self.paint("  figures: median rate, then lowest and highest round; ratios round by round", "2"))
        self.line(
            f"  {data['n_users']:,} users, {data['n_items']:,} items, {data['n_interactions']:,} interactions; "
            f"{machine['threads']} threads, {machine['gpu'] or machine['cpu']}, "
            f"copies {human(max(copy.values()))}B/s; commit {(machine['commit'] or 'unknown')[:9]}{dirty}"
        )
        speed = machine["calibration"]["rate"] / machine["calibration"]["reference_rate"]
        self.line(f"  the machine runs at {speed:.2f} times the reference speed just now (calibration kernel)")

    def case(self, result: dict[str, Any]) -> None:
        """One case: a row for each entry, ratios, facts and notes."""
        self.line()
        self.line(f"{self.paint(result['name'], '1')}: {result['title']}  [{result['seconds']:.1f} s]")
        if result["status"] != "ok":
            self.line(self.paint(f"  {result['status'].upper()}: {result['reason']}", "31"))
            return
        ratio = {r["to"]: r for r in result.get("ratios", ())}
        rows = result.get("rows", [])
        width = max((len(row["name"]) for row in rows), default=0)
        for row in rows:
            r = ratio.get(row["name"])
            compared = f"  {r['of']} is {times_text(r['ratio'])}" if r else ""
            spread = f"{100 * row['low'] / row['rate'] - 100:+.0f} {100 * row['high'] / row['rate'] - 100:+.0f} %"
            flags = self.paint("  noisy", "33") if row["noisy"] else ""
            self.line(f"  {row['name']:<{width}}  {rate_text(row):>20}  {spread:>10}{compared}{flags}")
            if row["extrapolated"]:
                self.line("      " + self.paint(f"extrapolated: {row['extrapolated']}", "33"))
            for line in textwrap.wrap("; ".join(filter(None, [row["what"], *_details(row)])), 100):
                self.line(self.paint(f"      {line}", "2"))
        for key, value in result["facts"].items():
            if not isinstance(value, (dict, list)):
                self.line(f"  {key}: {fact_text(key, value)}")
        for note in result["notes"]:
            self.line(f"  {self.paint('note', '33')}: {note}")

    def four_rates(self, cases: dict[str, Any]) -> None:
        """The four rates in samples per second, with what each means."""
        there = {name: cases[name] for name in FOUR if cases.get(name, {}).get("status") == "ok"}
        if len(there) < 2:
            return
        self.line()
        self.line(
            self.paint("The four rates", "1") + " (a sample is one (user, item) score: the positive and its negatives)"
        )
        for name, result in there.items():
            value = samples_per_s(result)
            self.line(f"  {name:<11} {human(value).rstrip():>7} samples/s  {FOUR[name]}")
        for ratio in there.get("step", {}).get("ratios", ()):  # of runs in turn: two cases are minutes apart
            self.line(f"  {ratio['of']} reaches {100 * ratio['ratio']:.0f} % of its ceiling")


def _details(row: dict[str, Any]) -> list[str]:
    """A row's details as text; also the first call if it took far longer than the others: it compiled."""
    texts = [f"{key} {fact_text(key, value)}" for key, value in row["details"].items() if not isinstance(value, dict)]
    if row["details"].get("bandwidth_pct", 0.0) > 100.0:
        texts.append(ABOVE_BANDWIDTH)
    if row["first_call_s"] > max(0.5, 3 * row["work"] / row["rate"]):
        texts.append(f"first call {row['first_call_s']:.1f} s, including compilation")
    return texts


def samples_per_s(result: dict[str, Any]) -> float:
    """A case's headline in samples per second; N negatives per second are N + 1 samples for every N."""
    rate: float = result["rate"]
    if result["unit"] == "negatives/s":
        n: int = result["facts"].get("n_negatives", 4)
        return rate * (n + 1) / n
    return rate


def fact_text(key: str, value: Any) -> str:
    """A figure with the unit that its key names (``_s``, ``_bytes``, ``_pct``, ``_per_s``)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return str(value)
    if key.endswith("_per_s"):
        return human(value) + "/s"
    if key.endswith("_bytes"):
        return human(value) + "B"
    if key.endswith("_pct"):
        return f"{value:.1f} %"
    if key.endswith("_s"):
        return f"{value:.3g} s"
    if isinstance(value, int):
        return f"{value:,}"
    return f"{value:.4g}"
