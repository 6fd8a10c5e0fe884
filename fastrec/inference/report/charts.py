"""Charts as data, and as inline SVG that follows the colours of its page: no script, no network, no library."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from dataclasses import dataclass

from fastrec.terminal import printable

WIDTH, HEIGHT = 400, 230
LEFT, RIGHT, TOP, BOTTOM = 52, 12, 12, 38
MOST_POINTS = 400
"""Points drawn of a line: beyond the pixels of a chart they add bytes only."""


@dataclass(frozen=True)
class Line:
    """One series; ``marks`` shows its points too."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    marks: bool = False


@dataclass(frozen=True)
class Chart:
    """Lines over one pair of axes. ``at`` is an x to mark, with ``at_name``; ``diagonal`` draws y = x."""

    title: str
    x_name: str
    lines: Sequence[Line]
    note: str = ""
    at: float | None = None
    at_name: str = ""
    diagonal: bool = False


@dataclass(frozen=True)
class Bars:
    """A mean for each group, with half of its confidence interval (0 for none) and what it is over."""

    title: str
    value_name: str
    labels: Sequence[str]
    counts: Sequence[str]
    values: Sequence[float]
    halves: Sequence[float]
    note: str = ""


def text(value: object) -> str:
    """Text for HTML and SVG: markup is escaped, and so is what could steer a terminal."""
    return html.escape(printable(str(value)))


def number(value: float) -> str:
    """A short figure for axes and tables."""
    if not math.isfinite(value):
        return str(value)
    size = abs(value)
    for unit, name in ((1e9, " G"), (1e6, " M"), (1e3, " k")):
        if size >= 10 * unit or (size >= unit and unit > 1e3):
            return f"{value / unit:.3g}{name}"
    return f"{value:.4g}" if size < 1000 else f"{value:,.0f}"


def ticks(low: float, high: float, n: int = 6) -> list[float]:
    """Up to ``n`` steps of round numbers from low to high."""
    if not high > low:
        return [low]
    raw = (high - low) / n
    unit = 10.0 ** math.floor(math.log10(raw))
    step = next(m * unit for m in (1, 2, 5, 10) if m * unit >= raw * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [k * step for k in range(first, math.floor(high / step + 1e-9) + 1)]


def thinned(line: Line) -> list[tuple[float, float]]:
    """The finite points of a line, evenly thinned to ``MOST_POINTS``, both ends kept."""
    points = [(float(a), float(b)) for a, b in zip(line.x, line.y) if math.isfinite(a) and math.isfinite(b)]
    if len(points) <= MOST_POINTS:
        return points
    every = (len(points) - 1) / (MOST_POINTS - 1)
    return [points[round(k * every)] for k in range(MOST_POINTS)]


def bounds(chart: Chart) -> tuple[float, float, float, float] | None:
    """x and y from and to; None where there is no point to draw."""
    points = [p for line in chart.lines for p in thinned(line)]
    if not points:
        return None
    xs, ys = [p[0] for p in points], [p[1] for p in points]
    if chart.diagonal:
        xs, ys = [*xs, 0.0], [*ys, 0.0]
        most = max(*xs, *ys)
        return 0.0, most, 0.0, most
    x0, x1, y0, y1 = min(xs), max(xs), min(ys), max(ys)
    room = 0.06 * (y1 - y0) or 0.06 * abs(y1) or 1.0
    low = y0 - room
    return x0, x1 if x1 > x0 else x0 + 1, max(0.0, low) if y0 >= 0 else low, y1 + room


def svg(chart: Chart) -> str:
    """The chart as an SVG element; an empty text where there is nothing to draw."""
    found = bounds(chart)
    if found is None:
        return ""
    x0, x1, y0, y1 = found
    right, bottom = WIDTH - RIGHT, HEIGHT - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        return LEFT + (x - x0) / (x1 - x0) * (right - LEFT), bottom - (y - y0) / (y1 - y0) * (bottom - TOP)

    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(chart.title)}">']
    for y in ticks(y0, y1):
        height = at(x0, y)[1]
        parts.append(f'<line class="grid" x1="{LEFT}" x2="{right}" y1="{height:.1f}" y2="{height:.1f}"/>')
        parts.append(f'<text class="tick" x="{LEFT - 6}" y="{height + 4:.1f}" text-anchor="end">{number(y)}</text>')
    for x in ticks(x0, x1):
        across = at(x, y0)[0]
        parts.append(f'<text class="tick" x="{across:.1f}" y="{bottom + 16}" text-anchor="middle">{number(x)}</text>')
    parts.append(f'<line class="axis" x1="{LEFT}" x2="{right}" y1="{bottom}" y2="{bottom}"/>')
    middle = (LEFT + right) / 2
    parts.append(f'<text class="name" x="{middle}" y="{HEIGHT - 6}" text-anchor="middle">{text(chart.x_name)}</text>')
    if chart.diagonal:
        low, high = at(x0, y0), at(x1, y1)
        ends = f'x1="{low[0]:.1f}" y1="{low[1]:.1f}" x2="{high[0]:.1f}" y2="{high[1]:.1f}"'
        parts.append(f'<line class="mark" {ends}/>')
    if chart.at is not None:
        across = at(chart.at, y0)[0]
        parts.append(f'<line class="mark" x1="{across:.1f}" x2="{across:.1f}" y1="{TOP}" y2="{bottom}"/>')
    for k, line in enumerate(chart.lines):
        points = [(*at(*p), *p) for p in thinned(line)]
        path = "M" + "L".join(f"{p[0]:.1f} {p[1]:.1f}" for p in points)
        if len(points) > 1:
            parts.append(f'<path class="s{k % 4}" d="{path}"><title>{text(line.name)}</title></path>')
        if line.marks or len(points) == 1:
            for a, b, x, y in points:
                tip = f"<title>{text(line.name)}: {number(x)}, {y:.6g}</title>"
                parts.append(f'<circle class="s{k % 4}" cx="{a:.1f}" cy="{b:.1f}" r="2.5">{tip}</circle>')
    return "".join([*parts, "</svg>"])


def figure(chart: Chart) -> str:
    """The chart with its title, the names of its lines, and its note; an empty text where there is nothing to draw."""
    drawn = svg(chart)
    if not drawn:
        return ""
    keys = "".join(f'<span class="key k{k % 4}">{text(line.name)}</span>' for k, line in enumerate(chart.lines))
    if chart.at is not None:
        keys += f'<span class="key km">{text(chart.at_name)}</span>'
    note = f"<p class=note>{text(chart.note)}</p>" if chart.note else ""
    return f"<figure><figcaption>{text(chart.title)}</figcaption><div class=keys>{keys}</div>{drawn}{note}</figure>"


def bars(chart: Bars) -> str:
    """The groups as a table whose last column draws the figure and its interval."""
    most = max((v + h for v, h in zip(chart.values, chart.halves)), default=0.0) or 1.0
    rows = [f"<tr><th>{text(chart.title)}<th class=n>n<th class=n>{text(chart.value_name)}<th class=bar></tr>"]
    for label, count, value, half in zip(chart.labels, chart.counts, chart.values, chart.halves):
        low, high = max(0.0, value - half) / most * 100, (value + half) / most * 100
        drawn = (
            '<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">'
            f'<rect class="fill" x="0" y="1.5" width="{max(0.0, value) / most * 100:.2f}" height="7"/>'
            + (f'<line class="whisker" x1="{low:.2f}" x2="{high:.2f}" y1="5" y2="5"/>' if half else "")
            + "</svg>"
        )
        figure_text = f"{value:.4f}" + (f" <small>± {half:.4f}</small>" if half else "")
        rows.append(
            f"<tr><td>{text(label)}<td class=n>{text(count)}<td class=n>{figure_text}<td class=bar>{drawn}</tr>"
        )
    note = f"<p class=note>{text(chart.note)}</p>" if chart.note else ""
    return f"<div class=bars><table>{''.join(rows)}</table>{note}</div>"
