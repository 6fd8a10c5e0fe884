"""``bench compare A.json B.json``: is B faster or slower than A, row by row, beyond what the spread explains?"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from fastrec.bench import record as records
from fastrec.bench.table import Printer, human, times_text
from fastrec.errors import ConfigError

TOLERANCE = 0.03
"""A slow-down below this fraction never fails a comparison, however small the spread."""


@dataclass(frozen=True)
class Verdict:
    """One row of a comparison.

    Parameters
    ----------
    case, name, unit, role : str
        The row, as both records call it.
    before, after : tuple of float
        Smallest, median and largest rate, each repeat scaled by the calibration kernel timed before it.
    ratio : float
        Median after over median before.
    verdict : {"faster", "slower", "same"}
        ``same`` when the intervals overlap, or differ by less than the tolerance.
    """

    case: str
    name: str
    unit: str
    role: str
    before: tuple[float, float, float]
    after: tuple[float, float, float]
    ratio: float
    verdict: str


def interval(row: dict[str, Any], reference: float) -> tuple[float, float, float]:
    """Smallest, median and largest of the rates at the reference machine speed."""
    scaled = [rate * reference / kernel for rate, kernel in zip(row["rates"], row["calibration"])]
    return min(scaled), statistics.median(scaled), max(scaled)


def verdict(before: tuple[float, float, float], after: tuple[float, float, float], tolerance: float) -> str:
    """``faster`` or ``slower`` only if the intervals are disjoint and the medians differ by more than the tolerance."""
    ratio = after[1] / before[1]
    if after[0] > before[2] and ratio > 1 + tolerance:
        return "faster"
    if after[2] < before[0] and ratio < 1 - tolerance:
        return "slower"
    return "same"


def _rows(record: dict[str, Any]) -> dict[tuple[str, str], dict[str, Any]]:
    return {
        (case["name"], row["name"]): row
        for case in record["cases"].values()
        if case["status"] == "ok"
        for row in case.get("rows", ())
    }


def compare(a: dict[str, Any], b: dict[str, Any], *, tolerance: float = TOLERANCE) -> tuple[list[Verdict], list[str]]:
    """Verdicts for the rows that both records hold, and what could not be compared.

    Raises
    ------
    ConfigError
        If the two were measured on different data, at different lengths (``--quick``), or have no row in common.
    """
    if a["data"]["fingerprint"] != b["data"]["fingerprint"]:
        raise ConfigError(
            f"the records were measured on different data ({a['data']['name']}, {b['data']['name']}): "
            "measure both on the same set with --data"
        )
    if a["quick"] != b["quick"]:
        raise ConfigError("one record is from --quick and the other is not: their cases do different amounts of work")
    first, second = _rows(a), _rows(b)
    reference = a["machine"]["calibration"]["reference_rate"]
    verdicts, left = [], []
    for key, row in first.items():
        other = second.get(key)
        label = f"{key[0]} / {key[1]}"
        if other is None:
            left.append(f"{label}: only in the first record")
        elif (row["unit"], row["threads"]) != (other["unit"], other["threads"]):
            left.append(
                f"{label}: {row['unit']} on {row['threads']} threads against {other['unit']} on {other['threads']}"
            )
        else:
            before, after = interval(row, reference), interval(other, reference)
            verdicts.append(
                Verdict(
                    *key,
                    row["unit"],
                    row["role"],
                    before,
                    after,
                    after[1] / before[1],
                    verdict(before, after, tolerance),
                )
            )
    left += [f"{k[0]} / {k[1]}: only in the second record" for k in second if k not in first]
    if a["machine"]["cpu"] != b["machine"]["cpu"] or a["machine"]["gpu"] != b["machine"]["gpu"]:
        left.append("the machines differ: the calibration kernel scales for one core's speed, not for memory or cores")
    for name in a["cases"].keys() & b["cases"].keys():
        states = a["cases"][name]["status"], b["cases"][name]["status"]
        if states[0] == "ok" and states[1] != "ok":
            left.append(f"{name}: {states[1]} in the second record: {b['cases'][name]['reason']}")
    if not verdicts:
        raise ConfigError("the records have no row in common: run both with the same --case and --threads")
    return verdicts, left


def show(verdicts: Sequence[Verdict], left: Sequence[str], printer: Printer) -> None:
    """The comparison as a table: slower rows red, faster rows green."""
    width = max(len(f"{v.case} / {v.name}") for v in verdicts)
    colour = {"faster": "32", "slower": "31", "same": "2"}
    printer.line(
        f"{'case / row':<{width}}  {'before':>10}  {'after':>10}  {'ratio':>7}  spread before, after   verdict"
    )
    for v in verdicts:
        spans = "  ".join(
            f"{100 * x[0] / x[1] - 100:+4.0f} {100 * x[2] / x[1] - 100:+4.0f} %" for x in (v.before, v.after)
        )
        label = f"{v.case} / {v.name}"
        text = (
            f"{label:<{width}}  {human(v.before[1]):>10}  {human(v.after[1]):>10}  {times_text(v.ratio):>7}  {spans}   "
        )
        printer.line(text + printer.paint(v.verdict, colour[v.verdict]))
    for line in left:
        printer.line(f"not compared: {line}")


def exit_code(verdicts: Sequence[Verdict], a: dict[str, Any], b: dict[str, Any]) -> int:
    """1 if a row of fastrec's own got slower, or a case that gave a rate gives none now; else 0."""
    slower = any(v.verdict == "slower" and v.role == "fastrec" for v in verdicts)
    lost = any(
        case["status"] == "ok" and b["cases"].get(name, case)["status"] != "ok" for name, case in a["cases"].items()
    )
    return int(slower or lost)


def main(argv: Sequence[str]) -> int:
    """The command line of ``bench compare``."""
    parser = argparse.ArgumentParser(
        prog="python -m fastrec.bench compare",
        description="Compare two records row by row; rates are scaled by the calibration kernel timed with them.",
        epilog="Exits with 1 if one of fastrec's own rows is slower or a case no longer gives a rate, else 0.",
    )
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument(
        "--tolerance", type=float, default=TOLERANCE, help="fraction that never fails (default: %(default)s)"
    )
    args = parser.parse_args(argv)
    a, b = records.read(args.before), records.read(args.after)
    verdicts, left = compare(a, b, tolerance=args.tolerance)
    show(verdicts, left, Printer())
    return exit_code(verdicts, a, b)
