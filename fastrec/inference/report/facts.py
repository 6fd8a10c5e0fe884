"""What the report shows, from the run folder: curves, metrics by group, calibration, some users.

B pairs, U users, I items.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.evaluation.analysis import best_lists
from fastrec.evaluation.candidates import candidates_for
from fastrec.inference.recommender import Recommender
from fastrec.inference.report.charts import Bars, Chart, Line
from fastrec.runs import Run

INTERVAL = 1.96
BINS = 10
LISTED = 10


def records(run: Run) -> list[dict[str, Any]]:
    """The lines of metrics.jsonl; a last line that was cut off is left out."""
    path = run.path / "metrics.jsonl"
    found = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.is_file() else []:
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and isinstance(record.get("step"), int):
            found.append(record)
    return found


def curves(run: Run) -> list[Chart]:
    """Loss, validation metrics, samples/s and learning rate over epochs."""
    lines = records(run)
    epochs = [r for r in lines if r.get("kind") == "epoch"]
    steps = [r for r in lines if r.get("kind") == "train"]
    per_epoch = epochs[0]["step"] / epochs[0].get("epoch", 1) if epochs else 0
    best = run.manifest.get("result", {}).get("best_epoch")
    chosen = {"at": best, "at_name": f"epoch {best}, kept"} if best else {}

    def line(name: str, rows: list[dict[str, Any]], key: str, *, marks: bool = False, by_step: bool = False) -> Line:
        rows = [r for r in rows if isinstance(r.get(key), (int, float))]
        x = [r["step"] / per_epoch if by_step and per_epoch else r.get("epoch", r["step"]) for r in rows]
        return Line(name, x, [float(r[key]) for r in rows], marks)

    over = "epoch" if epochs else "step"
    losses = [line("mean of the epoch", epochs, "loss", marks=True), line("as trained", steps, "loss", by_step=True)]
    loss = Chart("training loss", over, [one for one in losses if one.x], **chosen)
    measured = list(dict.fromkeys(key for r in epochs for key in r if key.startswith("val ")))
    quality = [
        Chart(f"validation {key.removeprefix('val ')}", over, [line(key, epochs, key, marks=True)], **chosen)
        for key in measured
    ]
    speed = Chart(
        "samples per second",
        over,
        [line("between two records", steps, "samples_per_s", by_step=True)]
        if steps
        else [line("since the start", epochs, "samples_per_s", marks=True)],
        "positives and negatives both; the first step compiles",
    )
    rate = Chart("learning rate", over, [line("lr", steps, "lr", by_step=True)])
    return [loss, *quality, speed, rate]


def group_bars(groups: dict[str, dict[str, Any]], metric: str) -> list[Bars]:
    """A table of bars for each breakdown of full ranking."""
    notes = {
        "activity": "interactions of the user in train; tenths of the test positives",
        "popularity": "interactions of the item in train; tenths of the test positives",
    }
    made = []
    for name, found in groups.items():
        halves = [INTERVAL * part["standard_errors"].get(metric, 0.0) for part in found.values()]
        counts = [f"{part['n_positives']:,}" for part in found.values()]
        values = [part[metric] for part in found.values()]
        made.append(Bars(name, metric, list(found), counts, values, halves, notes.get(name, "")))
    return made


def calibration(rec: Recommender) -> Chart | None:
    """Observed fraction of test positives against the predicted probability, or against the score; None without pairs.

    Each test positive of a user in train comes with as many of its frozen candidates as a positive had negatives in
    training. Bins hold equally many pairs.
    """
    config, split = rec.run.config, rec.run.split()
    n = int(config.get("negatives", 4))
    seed, count = int(config.get("candidate_seed", 0)), int(config.get("candidates", 99))
    frozen = candidates_for(split, "test", n=count, seed=seed)
    rows = np.flatnonzero(split.train.degrees[frozen.users] > 0)
    if not rows.size or not frozen.items.shape[1]:
        return None
    items = np.concatenate((frozen.positives[rows, None], frozen.items[rows, :n]), axis=1)
    users = np.broadcast_to(frozen.users[rows, None], items.shape)
    positive = np.zeros(items.shape, np.bool_)
    positive[:, 0] = True
    there = items >= 0
    scores = rec.score(users[there], items[there], ids="contiguous").astype(np.float64)
    hits = positive[there]
    logistic = config.get("loss") == "bce"
    predicted = 1.0 / (1.0 + np.exp(-np.clip(scores, -60, 60))) if logistic else scores
    order = np.argsort(predicted, kind="stable")
    bins = [part for part in np.array_split(order, BINS) if part.size]
    x, y = [float(predicted[b].mean()) for b in bins], [float(hits[b].mean()) for b in bins]
    told = f"each test positive with {items.shape[1] - 1} candidates, in {len(bins)} bins of equally many pairs"
    if not logistic:
        name = str(config.get("loss", "this loss"))
        told += f"; {name} trains no probabilities, so only the order counts: the line should rise"
        return Chart("positives by score", "mean score of the bin", [Line("fraction of positives", x, y, True)], told)
    error = float(sum(b.size * abs(p - q) for b, p, q in zip(bins, x, y)) / order.size)
    return Chart(
        "calibration",
        "predicted probability",
        [Line("fraction of positives", x, y, True)],
        f"{told}; mean distance to the diagonal {error:.4f}",
        diagonal=True,
    )


def genre_shares(rec: Recommender, column: str = "genres") -> tuple[list[str], list[float], list[float], float] | None:
    """Genres with their part of what users chose and of what the lists hold, and the mean divergence over users.

    The divergence is KL(p | .99 q + .01 p) in nats, p being a user's genres in train and q those of its list, an item's
    weight spread over its genres. None where the run keeps no such column, or nothing is listed.

    Source: Steck, "Calibrated recommendations", RecSys 2018, equations 2 to 6.
    """
    if column not in (rec.run.tables() or {}).get("items", ()):
        return None
    split = rec.run.split()
    own = rec.items[column].to_list()
    names = sorted({genre for genres in own for genre in genres or ()})
    place = {name: k for k, name in enumerate(names)}
    weights = np.zeros((rec.n_items, len(names)))
    for item, genres in enumerate(own):
        for genre in genres or ():
            weights[item, place[genre]] += 1.0 / len(genres)
    lists, lengths = best_lists(rec.run.model(), split, LISTED)
    users = np.flatnonzero((split.train.degrees > 0) & (lengths > 0))
    if not names or not users.size:
        return None
    listed = np.zeros((rec.n_users, len(names)))
    filled = np.arange(lists.shape[1]) < lengths[:, None]
    np.add.at(listed, np.repeat(np.arange(rec.n_users), filled.sum(1)), weights[lists[filled]])
    chosen = np.zeros((rec.n_users, len(names)))
    np.add.at(chosen, split.train.users, weights[split.train.items])
    p, q = _rows(chosen[users]), _rows(listed[users])
    mixed = 0.99 * q + 0.01 * p
    divergence = float(
        np.where(p > 0, p * np.log(np.where(p > 0, p, 1) / np.where(mixed > 0, mixed, 1)), 0).sum(1).mean()
    )
    total = [_rows(table[users].sum(0)[None])[0].tolist() for table in (chosen, listed)]
    return names, total[0], total[1], divergence


def _rows(table: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows that sum to 1, or to 0."""
    sums = table.sum(axis=1, keepdims=True)
    divided: NDArray[np.float64] = np.divide(table, sums, out=np.zeros_like(table), where=sums > 0)
    return divided


def some_users(rec: Recommender, given: Sequence[Any] | None, n: int = 5) -> list[int]:
    """Contiguous users: those given by id, or ``n`` from the least to the most active of those in train."""
    if given:
        found: NDArray[np.int32] = rec.user_index.find(list(given))[0]
        return [int(user) for user in found]
    degrees = rec.run.split().train.degrees
    users = np.flatnonzero(degrees)
    ordered = users[np.argsort(degrees[users], kind="stable")]
    at = np.unique(np.linspace(0, ordered.size - 1, min(n, ordered.size) + 2).round().astype(int)[1:-1])
    return [int(u) for u in ordered[at]]


def side_by_side(rec: Recommender, user: int, k: int) -> tuple[list[list[str]], list[list[str]]]:
    """Rows of (title, what is known of it) of the user's favourites, and of its list."""
    columns = [c for c in ("year", "genres") if c in (rec.run.tables() or {}).get("items", ())]
    table = rec.items.select(columns) if columns else None
    names = rec.item_ids if rec.titles is None else rec.titles

    def rows(items: Iterable[int]) -> list[list[str]]:
        made = []
        for item in items:
            facts = [] if table is None else [_plain(v) for v in table.row(item)]
            made.append([str(names[item]) or str(rec.item_ids[item]), " · ".join(f for f in facts if f)])
        return made

    listed = rec.recommend([user], k, ids="contiguous", output="arrays")["item_id"].tolist()
    return rows(rec.favourites(user, k).tolist()), rows(listed)


def _plain(value: Any) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
