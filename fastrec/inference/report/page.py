"""The page of a report from its facts. Everything that comes from data passes ``text``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastrec.inference.report.charts import Bars, Chart, bars, figure, number, text
from fastrec.inference.report.style import STYLE
from fastrec.runs import Run

INTERVAL = 1.96
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
"""Content-Security-Policy of the page: it can load nothing, and run nothing."""
LISTS = {
    "coverage": "of all items are in at least one list",
    "gini": "Gini of how often items are listed: 0 evenly, 1 a few items only",
    "novelty": "bits: mean self-information of the listed items",
    "popularity": "of train's users have the average listed item",
    "popularity_bias": "times as popular as what users chose",
}
"""What each figure of ``beyond.of_lists`` means, in words for people."""


@dataclass(frozen=True)
class Facts:
    """What a page shows; what a run does not have is empty."""

    run: Run
    curves: Sequence[Chart] = ()
    evaluated: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    groups: Sequence[Bars] = ()
    calibration: Chart | None = None
    genres: tuple[list[str], list[float], list[float], float] | None = None
    users: Sequence[tuple[str, list[list[str]], list[list[str]]]] = ()
    notes: Sequence[str] = ()


def page(facts: Facts) -> str:
    """The page as HTML."""
    run = facts.run
    data, config = run.manifest["data"], run.config
    title = f"{config.get('model', 'model')} on {data['name']}"
    sections = {
        "Results": _results(facts),
        "Training": f"<div class=grid>{''.join(map(figure, facts.curves))}</div>" if facts.curves else "",
        "Lists": _lists(facts),
        "For whom it works": f"<div class=grid>{''.join(map(bars, facts.groups))}</div>" if facts.groups else "",
        "Users": _users(facts.users),
        "Configuration": _details("Options", _table([("option", "value"), *_options(config)])),
        "Provenance": _provenance(run),
    }
    shown = {name: body for name, body in sections.items() if body}
    links = "".join(f'<a href="#{name.split()[0].lower()}">{text(name)}</a>' for name in shown)
    bodies = "".join(
        f'<section id="{name.split()[0].lower()}"><h2>{text(name)}</h2>{body}</section>' for name, body in shown.items()
    )
    counts = (
        f"{data['n_users']:,} users, {data['n_items']:,} items; train {data['n_train']:,}, validation "
        f"{data['n_validation']:,}, test {data['n_test']:,} ({data['split']})"
    )
    notes = "".join(f"<li>{text(note)}" for note in facts.notes)
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head><body>"
        f"<h1>{text(title)}</h1><p class=lead>{text(counts)}</p><p class=lead><code>{text(run.path)}</code></p>"
        f"<nav>{links}</nav>{_tiles(run)}{bodies}"
        + (f"<section><h2>Notes</h2><ul>{notes}</ul></section>" if notes else "")
        + f"<p class=note>Made by fastrec {text(run.manifest['environment'].get('fastrec', '?'))}.</p></body></html>\n"
    )


def _tiles(run: Run) -> str:
    result = run.manifest.get("result", {})
    tiles = [("status", str(run.manifest.get("status", "?")))]
    if result:
        epochs = f"{result['epochs_done']} epochs"
        tiles += [(f"{number(result['seconds'])} s, {result['stopped']}", epochs)]
        tiles += [("samples/s, end to end", number(result["samples_per_s"]))]
    for protocol, part in result.get("metrics", {}).items():
        name = "NDCG@10" if "NDCG@10" in part else next((n for n in part if "@" in n), None)
        if name is not None:
            tiles.append((f"{name}, {protocol}", f"{part[name]:.4f}"))
    made = "".join(f"<div class=tile><b>{text(value)}</b><span>{text(name)}</span></div>" for name, value in tiles)
    return f"<div class=tiles>{made}</div>"


def _results(facts: Facts) -> str:
    """Metrics of each protocol with intervals, the baselines next to the model."""
    baselines = facts.run.manifest.get("result", {}).get("baselines", {})
    scored = {name: row["metrics"] for name, row in baselines.items() if "metrics" in row}
    models = {str(facts.run.config.get("model", "model")): facts.evaluated, **scored}
    parts = []
    for protocol, own in facts.evaluated.items():
        names = [n for n in own if "@" in n or n == "AUC"]
        best = [n for n in names if n.endswith("@10") or n == "AUC"] or names
        there = {model: metrics[protocol] for model, metrics in models.items() if protocol in metrics}
        more = _details("Every cutoff", _figures(there, names)) if len(names) > len(best) else ""
        n = f"{own['n_users']:,} users, {own['n_positives']:,} positives; ± is half of a 95 % interval over users"
        table = f"{_figures(there, best)}<p class=note>{n}</p>{more}"
        parts.append(f"<div class=card><h3>{text(protocol)}</h3>{table}</div>")
    return f"<div class='grid two'>{''.join(parts)}</div>" if parts else ""


def _figures(models: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> str:
    """One row a metric, one column a model, the first of them the run's own."""
    head = "".join(f"<th class=n>{text(model)}" for model in models)
    rows = []
    for name in names:
        cells = [
            f"<td class='n{'' if k else ' own'}'>{_interval(part, name)}" for k, part in enumerate(models.values())
        ]
        rows.append(f"<tr><td>{text(name)}{''.join(cells)}</tr>")
    return f"<div class=scroll><table class=figures><tr><th>metric{head}</tr>{''.join(rows)}</table></div>"


def _interval(part: Mapping[str, Any], name: str) -> str:
    if name not in part:
        return ""
    error = part.get("standard_errors", {}).get(name)
    return f"{part[name]:.4f}" + (f" <small>± {INTERVAL * error:.4f}</small>" if error else "")


def _lists(facts: Facts) -> str:
    figures: Mapping[str, float] = next((part["lists"] for part in facts.evaluated.values() if "lists" in part), {})
    parts = []
    if figures:
        rows = "".join(
            f"<tr><td>{text(name.replace('_', ' '))}<td class=n>{value:.4f}<td>{text(LISTS.get(name, ''))}</tr>"
            for name, value in figures.items()
        )
        head = "<tr><th>top 10 lists<th class=n>figure<th>meaning</tr>"
        parts.append(f"<div class=card><table>{head}{rows}</table></div>")
    if facts.calibration is not None:
        parts.append(figure(facts.calibration))
    if facts.genres is not None:
        parts.append(_genres(*facts.genres))
    return f"<div class=grid>{''.join(parts)}</div>" if parts else ""


def _genres(names: list[str], chosen: list[float], listed: list[float], divergence: float) -> str:
    most = max([*chosen, *listed, 1e-9])
    rows = ["<tr><th>genre<th class=n>chosen<th class=n>listed<th class=bar></tr>"]
    for name, a, b in sorted(zip(names, chosen, listed), key=lambda row: -row[1]):
        drawn = "".join(
            f'<rect class="fill {kind}" x="0" y="{y}" width="{v / most * 100:.2f}" height="4"/>'
            for v, y, kind in ((a, 0.5, "a"), (b, 5.5, "b"))
        )
        svg = f'<svg viewBox="0 0 100 10" preserveAspectRatio="none" aria-hidden="true">{drawn}</svg>'
        rows.append(
            f"<tr><td>{text(name)}<td class=n>{100 * a:.1f} %<td class=n>{100 * b:.1f} %<td class=bar>{svg}</tr>"
        )
    keys = '<div class=keys><span class="key k0">in train</span><span class="key k1">in top 10 lists</span></div>'
    note = f"mean divergence of a user's list from the user's own genres: {divergence:.3f} nats (Steck 2018)"
    return f"<div class=bars><h3>Genres</h3>{keys}<table>{''.join(rows)}</table><p class=note>{note}</p></div>"


def _users(users: Iterable[tuple[str, list[list[str]], list[list[str]]]]) -> str:
    def listed(rows: list[list[str]]) -> str:
        return "".join(f"<li>{text(title)}<span>{text(facts)}</span>" for title, facts in rows)

    parts = [
        f"<details open><summary>{text(name)}</summary><div class=pair>"
        f"<div><h3>own items that score highest</h3><ol>{listed(own)}</ol></div>"
        f"<div><h3>recommended</h3><ol>{listed(found)}</ol></div></div></details>"
        for name, own, found in users
    ]
    return "".join(parts)


def _options(config: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(key, str(value)) for key, value in sorted(config.items())]


def _provenance(run: Run) -> str:
    manifest = run.manifest
    environment = dict(manifest.get("environment", {}))
    packages = environment.pop("packages", {})
    environment["command"] = " ".join(map(str, environment.get("command", ())))
    rows = [("made", manifest.get("created", "?")), *environment.items(), *packages.items()]
    rows += [(f"engine: {key}", value) for key, value in manifest.get("engine", {}).items()]
    prints = [(f"data: {key}", value) for key, value in manifest["data"].get("fingerprints", {}).items()]
    files = [(name, f"sha256 {digest}") for name, digest in manifest.get("files", {}).items()]
    return _details("Environment", _table([("what", "value"), *rows])) + _details(
        "Hashes", _table([("what", "value"), *prints, *files])
    )


def _details(name: str, body: str) -> str:
    return f"<details><summary>{text(name)}</summary><div class=scroll>{body}</div></details>"


def _table(rows: Sequence[Sequence[Any]]) -> str:
    """Rows as a table, the first as its head."""
    made = ["<tr>" + "".join(f"<th>{text(cell)}" for cell in rows[0]) + "</tr>"]
    made += ["<tr>" + "".join(f"<td>{text(cell)}" for cell in row) + "</tr>" for row in rows[1:]]
    return f"<table class=hash>{''.join(made)}</table>"
