"""The charts of a report as PNG files, by matplotlib: the extra ``report``."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrec.errors import FastrecError, MissingPackageError, not_installed
from fastrec.files import make_folder
from fastrec.inference.report.charts import Bars, Chart
from fastrec.terminal import printable

DPI = 150


def check_matplotlib() -> None:
    """Refuse where matplotlib is missing.

    Raises
    ------
    MissingPackageError
        With the line that installs it.
    """
    try:
        import matplotlib  # noqa: F401
    except ImportError:
        raise MissingPackageError(f"PNG charts: {not_installed('matplotlib')}", name="matplotlib") from None


def write_charts(folder: Path, charts: Sequence[Chart], groups: Sequence[Bars]) -> list[Path]:
    """Write one PNG for each chart into a new folder; returns the paths.

    Raises
    ------
    FastrecError
        If they cannot be written.
    """
    from matplotlib.figure import Figure

    make_folder(folder)
    made: list[Path] = []
    every: list[Chart | Bars] = [*charts, *groups]
    for chart in every:
        height = 1 + 0.28 * len(chart.labels) if isinstance(chart, Bars) else 3.2
        figure = Figure(figsize=(5.6, height), layout="constrained")
        axes = figure.add_subplot()
        if isinstance(chart, Bars):
            _bars(axes, chart)
        else:
            _lines(axes, chart)
        stem = re.sub(r"[^a-z0-9]+", "-", chart.title.lower()).strip("-") or "chart"
        path = folder / f"{'by-' if isinstance(chart, Bars) else ''}{stem}.png"
        try:
            figure.savefig(path, dpi=DPI)
        except OSError as error:
            raise FastrecError(f"{path}: cannot be written ({error.strerror}); free some space") from error
        made.append(path)
    return made


def _plain(text: str) -> str:
    """Text without the marks that matplotlib takes for mathematics."""
    return printable(text).replace("$", r"\$")


def _lines(axes: Any, chart: Chart) -> None:
    for line in chart.lines:
        axes.plot(line.x, line.y, marker="." if line.marks else None, label=_plain(line.name))
    if chart.diagonal:
        axes.axline((0, 0), slope=1, color="grey", linestyle="--", linewidth=1)
    if chart.at is not None:
        axes.axvline(chart.at, color="grey", linestyle="--", linewidth=1, label=_plain(chart.at_name))
    axes.set(title=_plain(chart.title), xlabel=_plain(chart.x_name))
    axes.grid(alpha=0.3)
    axes.legend(fontsize="small")


def _bars(axes: Any, chart: Bars) -> None:
    at = range(len(chart.labels))
    axes.barh(at, chart.values, xerr=chart.halves, color="#2563c9", ecolor="#333333")
    axes.set_yticks(at, [_plain(label) for label in chart.labels])
    axes.invert_yaxis()
    axes.set(title=_plain(f"{chart.value_name} by {chart.title}"), xlim=(0, None))
