"""The charts of a record as PNGs, in a light and a dark version. Needs matplotlib: the extra ``fastrec[report]``."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fastrec.bench.table import human
from fastrec.errors import ConfigError

THEMES = {
    "light": {"back": "#ffffff", "text": "#1f2328", "grid": "#d1d9e0", "own": "#0969da", "baseline": "#8c959f"},
    "dark": {"back": "#0d1117", "text": "#e6edf3", "grid": "#30363d", "own": "#58a6ff", "baseline": "#6e7681"},
}
"""Colours that keep a contrast of at least 4.5 to 1 for text against GitHub's backgrounds."""

DPI = 150
Rows = Sequence[dict[str, Any]]


def need_matplotlib() -> None:
    """Raise at once if the plotting library is missing.

    Raises
    ------
    ConfigError
        If matplotlib is not installed.
    """
    if importlib.util.find_spec("matplotlib") is None:
        raise ConfigError("charts need matplotlib; install it with pip install 'fastrec[report]'")


def _save(path: Path, draw: Callable[[Any, dict[str, str]], None], size: tuple[float, float], record: str) -> None:
    """Draw in both themes; ``record`` (sha256 of the records drawn) is stored in the PNG, so that a test can tell."""
    from matplotlib.figure import Figure

    for theme, colours in THEMES.items():
        figure = Figure(figsize=size, dpi=DPI, facecolor=colours["back"], layout="constrained")
        draw(figure, colours)
        for axes in figure.axes:
            axes.yaxis.set_minor_formatter("")
            axes.set_facecolor(colours["back"])
            axes.tick_params(colors=colours["text"], which="both")
            for part in (axes.title, axes.xaxis.label, axes.yaxis.label):
                part.set_color(colours["text"])
            for spine in axes.spines.values():
                spine.set_color(colours["grid"])
            legend = axes.get_legend()
            if legend is not None:
                legend.get_frame().set_facecolor(colours["back"])
                legend.get_frame().set_edgecolor(colours["grid"])
                for text in legend.get_texts():
                    text.set_color(colours["text"])
        target = path.with_name(f"{path.stem}-{theme}.png")
        figure.savefig(target, metadata={"Record": record, "Software": "fastrec.bench"}, facecolor=colours["back"])


def _bars(axes: Any, rows: Rows, title: str, unit: str, colours: dict[str, str]) -> None:
    ordered = sorted(rows, key=lambda row: row["rate"])
    rates = [row["rate"] for row in ordered]
    errors = [
        [max(0.0, row["rate"] - row["low"]) for row in ordered],
        [max(0.0, row["high"] - row["rate"]) for row in ordered],
    ]
    fill = [colours["own"] if row["role"] == "fastrec" else colours["baseline"] for row in ordered]
    axes.barh([row["name"] for row in ordered], rates, xerr=errors, color=fill, ecolor=colours["text"], capsize=2)
    axes.set_xscale("log")
    axes.set_xlim(min(rates) / 3, max(row["high"] for row in rows) * 4)
    for at, row in enumerate(ordered):
        label = human(row["rate"]).rstrip() + (" *" if row["extrapolated"] else "")
        axes.text(row["high"] * 1.15, at, label, va="center", color=colours["text"], fontsize=8)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel(f"{unit} (logarithmic; * extrapolated)", fontsize=8)
    axes.grid(axis="x", color=colours["grid"], linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(labelsize=8)


def baselines(cases: dict[str, Any], path: Path, record: str) -> bool:
    """Bars of the sampler and of training end to end, with their baselines; False if neither was measured."""
    panels = []
    for name, title in (("sampler", "Drawing negatives"), ("end_to_end", "Training, end to end")):
        case = cases.get(name)
        if case and case["status"] == "ok":
            head = case["ratios"][0]["of"]
            same = {head, *(r["to"] for r in case["ratios"] if r["of"] == head)}
            rows = [r for r in case["rows"] if r["name"] in same and r["role"] in ("fastrec", "baseline")]
            panels.append((rows, title, case["unit"]))
    if not panels:
        return False

    def draw(figure: Any, colours: dict[str, str]) -> None:
        for axes, (rows, title, unit) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels):
            _bars(axes, rows, title, unit, colours)

    tallest = max(len(rows) for rows, _, _ in panels)
    _save(path, draw, (5.6 * len(panels), 1.0 + 0.3 * tallest), record)
    return True


def scaling(cases: dict[str, Any], path: Path, record: str) -> bool:
    """Rates over size, one panel for each axis of the ``scaling`` case; False if it was not measured."""
    case = cases.get("scaling")
    if not case or case["status"] != "ok":
        return False
    axes_of: dict[str, Any] = case["facts"]["curves"]

    def draw(figure: Any, colours: dict[str, str]) -> None:
        columns = min(3, len(axes_of))
        rows = -(-len(axes_of) // columns)
        grid = figure.subplots(rows, columns, squeeze=False).reshape(-1)
        marks = {"sampler": ("o", colours["own"]), "train": ("s", colours["baseline"])}
        for axes, (name, curves) in zip(grid, axes_of.items()):
            for what, points in curves.items():
                mark, colour = marks.get(what, ("^", colours["text"]))
                axes.plot([p[0] for p in points], [p[1] for p in points], marker=mark, color=colour, label=what)
            axes.set_xscale("log", base=2 if name in ("threads", "negatives", "dim") else 10)
            axes.set_yscale("log")
            axes.set_title(name.replace("_", " "), fontsize=10)
            axes.set_ylabel("samples/s", fontsize=8)
            axes.grid(color=colours["grid"], linewidth=0.6)
            axes.tick_params(labelsize=8)
            axes.legend(fontsize=8)
        for axes in grid[len(axes_of) :]:
            axes.remove()

    _save(path, draw, (4.0 * min(3, len(axes_of)), 3.0 * -(-len(axes_of) // 3)), record)
    return True


def roofline(record_: dict[str, Any], path: Path, record: str) -> bool:
    """Samples a second over bytes per sample, under the line of the measured copy bandwidth; False without a point."""
    points = [
        (row["details"]["bytes_per_sample"], row["rate"], f"{case['name']} {row['name']}", row["role"])
        for case in record_["cases"].values()
        if case["status"] == "ok"
        for row in case["rows"]
        if "bytes_per_sample" in row["details"]
    ]
    if not points:
        return False
    bandwidth = max(record_["machine"]["copy_bytes_per_s"].values())

    def draw(figure: Any, colours: dict[str, str]) -> None:
        axes = figure.subplots()
        low, high = min(p[0] for p in points) / 2, max(p[0] for p in points) * 2
        axes.plot([low, high], [bandwidth / low, bandwidth / high], color=colours["text"], linewidth=1)
        axes.text(
            low * 1.05, bandwidth / low, f"copy bandwidth, {human(bandwidth)}B/s", color=colours["text"], fontsize=8
        )
        for at, (x, y, label, role) in enumerate(sorted(points, key=lambda p: p[1])):
            colour = colours["own"] if role == "fastrec" else colours["baseline"]
            axes.plot([x], [y], marker="o", color=colour)
            side = 1.06 if at % 2 == 0 else 1 / 1.06
            axes.text(
                x * side, y, label, color=colours["text"], fontsize=7, va="center", ha="left" if side > 1 else "right"
            )
        axes.set_xscale("log")
        axes.set_yscale("log")
        axes.xaxis.set_minor_formatter("")
        axes.set_xlabel("bytes moved per sample", fontsize=8)
        axes.set_ylabel("samples/s", fontsize=8)
        axes.set_title("How far training is from the speed of memory", fontsize=10)
        axes.grid(color=colours["grid"], linewidth=0.6, which="major")
        axes.tick_params(labelsize=8)

    _save(path, draw, (7.0, 4.5), record)
    return True


def draw_all(merged: dict[str, Any], folder: Path, record: str) -> list[str]:
    """Every chart that the record has figures for; their names without theme and suffix."""
    need_matplotlib()
    folder.mkdir(parents=True, exist_ok=True)
    done = []
    if baselines(merged["cases"], folder / "baselines.png", record):
        done.append("baselines")
    if scaling(merged["cases"], folder / "scaling.png", record):
        done.append("scaling")
    if roofline(merged, folder / "roofline.png", record):
        done.append("roofline")
    return done
