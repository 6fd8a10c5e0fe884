"""``bench report``: a static page with charts from records, and the README's section from the same figures."""

from __future__ import annotations

import argparse
import hashlib
import html
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrec.bench import record as records
from fastrec.bench.table import FOUR, fact_text, human, rate_text, samples_per_s, times_text
from fastrec.errors import ConfigError, DataError
from fastrec.terminal import say

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
_SOURCE = re.compile(r"<!-- records: (.+?) -->")

COMPARED = {"end_to_end": "training", "sampler": "drawing negatives"}
"""Cases with baselines, and the headings of their tables."""

CAPTIONS = {
    "baselines": "fastrec and its baselines in one interleaved run",
    "scaling": "rates over the size of the problem",
    "roofline": "samples per second against bytes moved per sample",
}


def digest(paths: Sequence[str | os.PathLike[str]]) -> str:
    """sha256 over the records' bytes, in the order given."""
    total = hashlib.sha256()
    for path in paths:
        total.update(Path(path).read_bytes())
    return total.hexdigest()


def merge(paths: Sequence[str | os.PathLike[str]]) -> dict[str, Any]:
    """The first record with the cases that later ones add; machine, data and commit are the first one's.

    Raises
    ------
    DataError
        If a file is not a record.
    ConfigError
        If none is given, or they come from different machines.
    """
    if not paths:
        raise ConfigError("give at least one record with --record")
    merged = records.read(paths[0])
    for path in paths[1:]:
        other = records.read(path)
        for key in ("cpu", "gpu"):
            if other["machine"][key] != merged["machine"][key]:
                raise ConfigError(
                    f"{path} comes from another machine ({other['machine'][key]}): report them separately"
                )
        merged["cases"] = {**merged["cases"], **{k: v for k, v in other["cases"].items() if k not in merged["cases"]}}
    return merged


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [f"| {' | '.join(head)} |", "|" + "---|" * len(head), *(f"| {' | '.join(row)} |" for row in rows), ""]


def _origin(record: dict[str, Any]) -> str:
    machine, data = record["machine"], record["data"]
    changes = " with local changes" if machine["dirty"] else ""
    return (
        f"{data['name']} ({data['n_interactions']:,} interactions), {machine['threads']} threads of "
        f"{machine['gpu'] or machine['cpu']}, {record['date'][:10]}, "
        f"commit {(machine['commit'] or 'unknown')[:9]}{changes}"
    )


def _first_table(cases: dict[str, Any]) -> list[str]:
    """The four rates, then the fastest entry of each compared case against the baselines."""
    there = [name for name in FOUR if cases.get(name, {}).get("status") == "ok"]
    rows = [[f"`{name}`", f"{human(samples_per_s(cases[name])).rstrip()} samples/s", FOUR[name]] for name in there]
    for name in COMPARED:
        if name in there:
            shown, best, ratio = _entries(cases[name])
            baselines = [row for row in shown if row["role"] == "baseline" and row["name"] in ratio]
            few = (
                baselines if len(baselines) <= 4 else [*baselines[:3], baselines[-1]]
            )  # the strongest, and the notebook
            against = ", ".join(f"{ratio[row['name']]} {row['name']}" for row in few)
            if against:
                rows.append([f"{name}, {best['name']}", rate_text(best), f"{best['what']}: {against}"])
    return _table(["rate", "figure", "what it covers"], rows) if rows else []


def _entries(case: dict[str, Any]) -> tuple[list[dict[str, Any]], dict[str, Any], dict[str, str]]:
    """Rows that do the same work, fastest first; the row compared with the others; its ratios, round by round."""
    head = case["ratios"][0]["of"]
    ratio = {r["to"]: times_text(r["ratio"]) for r in case["ratios"] if r["of"] == head}
    rows = [r for r in case["rows"] if r["name"] in (head, *ratio) and r["role"] in ("fastrec", "baseline")]
    rows.sort(key=lambda row: -row["rate"])
    return rows, next(row for row in rows if row["name"] == head), ratio


def _baselines(case: dict[str, Any], title: str) -> list[str]:
    """Every row of a case, fastest first; nothing of a case that was refused."""
    if case["status"] != "ok":
        return []
    shown, best, ratio = _entries(case)
    lines = []
    for row in shown:
        flags = ["extrapolated"] * bool(row["extrapolated"]) + ["noisy"] * row["noisy"]
        figure = rate_text(row) + (f" ({', '.join(flags)})" if flags else "")
        name = f"**{row['name']}**" if row["role"] == "fastrec" else row["name"]
        lines.append([name, figure, ratio.get(row["name"], ""), row["what"]])
    return _table([title, "rate", f"{best['name']} is", "what it is"], lines)


def _quality(case: dict[str, Any]) -> list[str]:
    rows = [
        [entry["name"], f"{entry['seconds']:.3g} s{' (extrapolated)' if entry['extrapolated'] else ''}", entry["how"]]
        for entry in sorted(case["facts"]["reached"], key=lambda entry: float(entry["seconds"]))
    ]
    facts = case["facts"]  # of HR@10 before the metric was recorded
    return _table([f"to validation {facts.get('metric', 'HR@10')} {facts['target']}", "training time", "how"], rows)


def readme_section(base: Path, paths: Sequence[str], charts: str, names: Sequence[str]) -> str:
    """What goes between the README's markers: tables of the records' figures, the chart, and where they are from.

    Parameters
    ----------
    base : Path
        Folder of the README.
    paths : sequence of str
        Records, as the README names them (relative to it).
    charts : str
        Folder of the charts, relative to the README.
    names : sequence of str
        Charts to embed, without theme and suffix.
    """
    merged = merge([base / path for path in paths])
    cases = merged["cases"]
    lines = [BEGIN, f"<!-- records: {' '.join(paths)} -->", "", f"Measured: {_origin(merged)}.", ""]
    lines += _first_table(cases)
    every = [line for name, title in COMPARED.items() if name in cases for line in _baselines(cases[name], title)]
    if every:
        lines += ["<details><summary>Every entry of that run</summary>", "", *every, "</details>", ""]
    if cases.get("time_to_quality", {}).get("status") == "ok":
        lines += _quality(cases["time_to_quality"])
    for name in names:
        lines += [
            "<picture>",
            f'  <source media="(prefers-color-scheme: dark)" srcset="{charts}/{name}-dark.png">',
            f'  <img alt="{CAPTIONS[name]}" src="{charts}/{name}-light.png">',
            "</picture>",
            "",
        ]
    lines += [f"`{merged['command']}` makes this record again.", "", END]
    return "\n".join(lines)


def section_of(readme: str) -> str:
    """The README's present section, markers included.

    Raises
    ------
    DataError
        If the markers are missing.
    """
    start, stop = readme.find(BEGIN), readme.find(END)
    if start < 0 or stop < start:
        raise DataError(f"the README has no {BEGIN} ... {END}: put both lines where the section belongs")
    return readme[start : stop + len(END)]


def records_of(section: str) -> list[str]:
    """The records that a section names as its source; empty if it was never made."""
    found = _SOURCE.search(section)
    return found.group(1).split() if found else []


def write_readme(readme: Path, paths: Sequence[Path]) -> None:
    """Draw the charts into the folder next to the records' and put the section into the README."""
    from benchmarks import charts

    base = readme.resolve().parent
    named = [str(Path(os.path.relpath(path.resolve(), base))) for path in paths]
    folder = paths[0].resolve().parent.parent / "charts"
    drawn = charts.draw_all(merge(paths), folder, digest(paths))
    text = readme.read_text()
    new = readme_section(base, named, os.path.relpath(folder, base), [name for name in drawn if name == "baselines"])
    readme.write_text(text.replace(section_of(text), new))


_STYLE = """
:root { color-scheme: light dark; --text: #1f2328; --back: #ffffff; --line: #d1d9e0; --own: #0969da; }
@media (prefers-color-scheme: dark) { :root { --text: #e6edf3; --back: #0d1117; --line: #30363d; --own: #58a6ff; } }
body { font: 16px/1.5 system-ui, sans-serif; color: var(--text); background: var(--back); max-width: 70rem;
  margin: 2rem auto; padding: 0 1rem; }
table { border-collapse: collapse; }
td, th { padding: .2rem .7rem; border-bottom: 1px solid var(--line); text-align: left; }
td.n { text-align: right; font-variant-numeric: tabular-nums; }
tr.fastrec td:first-child { color: var(--own); font-weight: 600; }
img { max-width: 100%; } .bad { color: #d1242f; }
"""


def _html_case(case: dict[str, Any]) -> str:
    title = f"<h2>{html.escape(case['name'])}</h2><p>{html.escape(case['title'])}</p>"
    if case["status"] != "ok":
        return f'{title}<p class="bad">{html.escape(case["status"])}: {html.escape(case["reason"])}</p>'
    ratio = {r["to"]: r["ratio"] for r in case["ratios"]}
    body = "".join(
        f'<tr class="{row["role"]}"><td>{html.escape(row["name"])}</td><td class="n">{rate_text(row)}</td>'
        f'<td class="n">{100 * row["low"] / row["rate"] - 100:+.0f} {100 * row["high"] / row["rate"] - 100:+.0f} %</td>'
        f'<td class="n">{times_text(ratio[row["name"]]) if row["name"] in ratio else ""}</td>'
        f"<td>{html.escape(row['what'])}{' (noisy)' if row['noisy'] else ''}"
        f"{html.escape(' (extrapolated: ' + row['extrapolated'] + ')') if row['extrapolated'] else ''}</td></tr>"
        for row in case["rows"]
    )
    head = "<tr><th>who</th><th>rate</th><th>spread</th><th>the first is</th><th>what</th></tr>"
    facts = "".join(
        f"<li>{html.escape(key)}: {html.escape(fact_text(key, value))}</li>"
        for key, value in case["facts"].items()
        if not isinstance(value, (dict, list))
    )
    notes = "".join(f"<li>{html.escape(note)}</li>" for note in case["notes"])
    return f"{title}{f'<table>{head}{body}</table>' if body else ''}<ul>{facts}{notes}</ul>"


def write_page(folder: Path, paths: Sequence[Path]) -> Path:
    """``folder/index.html`` with tables and charts, self-contained but for its images."""
    from benchmarks import charts

    merged = merge(paths)
    drawn = charts.draw_all(merged, folder, digest(paths))
    pictures = "".join(
        f'<h2>{CAPTIONS[name]}</h2><picture><source media="(prefers-color-scheme: dark)" srcset="{name}-dark.png">'
        f'<img alt="{CAPTIONS[name]}" src="{name}-light.png"></picture>'
        for name in drawn
    )
    cases = "".join(_html_case(case) for case in merged["cases"].values())
    page = folder / "index.html"
    page.write_text(
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>fastrec bench</title><style>{_STYLE}</style>'
        f"<h1>fastrec bench</h1><p>{html.escape(_origin(merged))}. A sample is one (user, item) score trained.</p>"
        f"{pictures}{cases}</html>\n"
    )
    return page


LOG_HEAD = "| date | commit | machine | case | figure | spread | what changed |"


def append_log(readme: Path, paths: Sequence[Path], changed: str) -> int:
    """Add a row for each case's headline to the records table of a Markdown file; the number of rows.

    Raises
    ------
    DataError
        If the file has no records table.
    """
    lines = readme.read_text().splitlines()
    if LOG_HEAD not in lines:
        raise DataError(f"{readme}: no table that begins with {LOG_HEAD!r}")
    at = lines.index(LOG_HEAD) + 2
    while at < len(lines) and lines[at].startswith("|"):
        at += 1
    rows = []
    for path in paths:
        record = records.read(path)
        machine = record["machine"]
        commit = (machine["commit"] or "unknown")[:9] + ("+" if machine["dirty"] else "")
        for case in record["cases"].values():
            if case["status"] != "ok" or not case["rows"]:
                continue
            head = case["rows"][0]
            spread = f"{100 * head['low'] / head['rate'] - 100:+.0f} {100 * head['high'] / head['rate'] - 100:+.0f} %"
            where = f"{machine['gpu'] or machine['cpu']}, {machine['threads']} threads"
            figure = f"{head['name']} {rate_text(head)}"
            rows.append(
                f"| {record['date'][:10]} | {commit} | {where} | {case['name']} | {figure} | {spread} | {changed} |"
            )
    readme.write_text("\n".join([*lines[:at], *rows, *lines[at:]]) + "\n")
    return len(rows)


def main(argv: Sequence[str]) -> int:
    """The command line of ``bench report``."""
    parser = argparse.ArgumentParser(
        prog="python -m fastrec.bench report",
        description="Make a static page with charts from records, or put their figures into a README.",
    )
    parser.add_argument(
        "--record", nargs="+", action="extend", required=True, metavar="FILE", help="records, first counts"
    )
    parser.add_argument(
        "--out", default="bench-report", metavar="FOLDER", help="folder of the page (default: %(default)s)"
    )
    parser.add_argument("--readme", metavar="FILE", help="put tables and chart between its bench markers instead")
    parser.add_argument("--log", metavar="FILE", help="add the headlines to the records table of this file instead")
    parser.add_argument("--changed", default="", help="with --log: what changed since the last record")
    args = parser.parse_args(argv)
    paths = [Path(path) for path in args.record]
    if args.log:
        say(f"{args.log}: {append_log(Path(args.log), paths, args.changed)} rows added")
    elif args.readme:
        write_readme(Path(args.readme), paths)
        say(f"{args.readme}: section written from {', '.join(args.record)}")
    else:
        say(f"page written to {write_page(Path(args.out), paths)}")
    return 0
