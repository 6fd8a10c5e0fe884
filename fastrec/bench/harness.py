"""Check, then time: entries are warmed up, checked, and timed in turn (A/B/A/B) with a calibration kernel.

A case is a function of a ``Context`` that returns a ``Bench``: the entries that do the same work, fastrec's first.
An entry's ``check`` sees its output before any clock starts and raises ``Refused``: then no rate is printed.

    def sampler(context: Context) -> Bench:
        train = context.train
        s = NegativeSampler(train.indptr, train.items, n_items=train.n_items, seed=context.seed)
        out = np.empty((train.n_interactions, 4), np.int32)
        check = partial(check_negatives, indptr=train.indptr, items=train.items, users=train.users, ...)
        return Bench([
            Entry("fastrec", lambda k: s.sample(train.users, epoch=k, start=0, out=out), work=out.size, check=check,
                      unit="negatives/s", what="exact, bitmap and Philox"),
            Entry("numpy", ..., role="baseline"),
        ])

B batch rows, N negatives, U users, I items, E interactions, D dim.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from fastrec.bench.calibration import REFERENCE_RATE, calibration_rate
from fastrec.errors import ConfigError, FastrecError

NOISY_SPREAD = 0.15
"""Above it a row is flagged noisy: interquartile range over median, of its rates or of the calibration rates."""

START_UP_LIMIT = 20.0
"""Percent of an extrapolated entry's time that may be start-up: above it a ratio says nothing about complete work."""


class Refused(FastrecError):
    """An entry's output failed its check: the bench prints no rate for it."""


@dataclass
class Entry:
    """One way to do a case's work.

    Parameters
    ----------
    name : str
        Short and stable: records are compared by it.
    run : callable
        ``run(k)`` does the work once for the k-th time (k = 0, 1, ...) and returns what ``check`` looks at.
    work : float
        Units done by one call, in the singular of ``unit``.
    check : callable
        Takes the first call's output; raises ``Refused`` (or ``AssertionError``) if it is wrong. May return a dict of
        facts that it found, such as ``false_negative_rate``.
    unit : str
        Such as ``"negatives/s"``, ``"samples/s"``.
    what : str
        One line that a newcomer understands.
    role : {"fastrec", "baseline", "ceiling", "cost"}
        ``ceiling`` is a bound that no engine exceeds, ``cost`` a figure without a baseline.
    threads : int
        Threads that it may use.
    sync : callable, optional
        Called before each reading of the clock: ``torch.cuda.synchronize`` for work on a device.
    details : callable, optional
        Called with the median rate after the last repeat; its dict joins the row (``data_wait_pct``, ...).
    extrapolated : str
        What part of the work a rate was scaled from, printed in the table. Empty: all of it was measured.
    half : callable, optional
        ``half(k)`` does half of that part; required of an extrapolated entry. What the part takes beyond twice its half
        is start-up, which an extrapolation counts again and again.
    repeats : int, optional
        Fewer repeats than the others, for slow work; 0 takes the first call as the measurement.
    """

    name: str
    run: Callable[[int], Any]
    work: float
    check: Callable[[Any], dict[str, Any] | None]
    unit: str = "samples/s"
    what: str = ""
    role: str = "fastrec"
    threads: int = 1
    sync: Callable[[], None] | None = None
    details: Callable[[float], dict[str, Any]] | None = None
    extrapolated: str = ""
    half: Callable[[int], Any] | None = None
    repeats: int | None = None


@dataclass
class Bench:
    """What a case returns to the harness.

    Parameters
    ----------
    entries : list of Entry
        The first is the case's headline.
    facts : dict
        Figures that are not rates: bytes, shapes, seconds once.
    notes : list of str
        Lines printed under the table.
    close : callable, optional
        Called when the case is over, whatever happened.
    pairs : list of (str, str), optional
        Which rows to compare, for a case whose rows do different work; left out: fastrec's fastest row with all others.
    rounds : int, optional
        More rounds than the run's, where the ratio of interest is near 1.
    """

    entries: list[Entry] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    close: Callable[[], None] | None = None
    pairs: list[tuple[str, str]] | None = None
    rounds: int | None = None


@dataclass
class _Lane:
    entry: Entry
    first_call_s: float
    inner: int
    found: dict[str, Any]
    calls: int
    rates: list[float] = field(default_factory=list)
    calibration: list[float] = field(default_factory=list)
    halves: list[float] = field(default_factory=list)


def spread(values: Sequence[float]) -> float:
    """Interquartile range over median (range over median below four values; 0.0 for one)."""
    if len(values) < 2:
        return 0.0
    middle = statistics.median(values)
    if len(values) < 4:
        return (max(values) - min(values)) / middle
    quartiles = statistics.quantiles(values, n=4, method="inclusive")
    return (quartiles[2] - quartiles[0]) / middle


def _timed(entry: Entry, first: int, calls: int) -> float:
    """Seconds that ``calls`` calls take, numbered from ``first``."""
    if entry.sync:
        entry.sync()
    started = time.perf_counter()
    for k in range(first, first + calls):
        entry.run(k)
    if entry.sync:
        entry.sync()
    return time.perf_counter() - started


def _open_lane(entry: Entry) -> _Lane:
    """The first call (compilation, first touch) and the check of what it returned."""
    if entry.sync:
        entry.sync()
    started = time.perf_counter()
    output = entry.run(0)
    if entry.sync:
        entry.sync()
    first_call_s = time.perf_counter() - started
    try:
        found = entry.check(output) or {}
    except AssertionError as error:
        raise Refused(f"{entry.name}: its output failed the check ({error}); no rate is given") from error
    except Refused as error:
        raise Refused(f"{entry.name}: {error}; no rate is given") from error
    return _Lane(entry, first_call_s, 1, found, 1)


def _warm_up(lane: _Lane, min_s: float) -> None:
    """One warm call, from which follows how many calls take ``min_s``; an entry without repeats is measured already."""
    if lane.entry.repeats == 0:
        lane.rates.append(lane.entry.work / lane.first_call_s)
        lane.calibration.append(calibration_rate())
        return
    warm_s = _timed(lane.entry, 1, 1)
    lane.calls = 2
    lane.inner = max(1, min(1000, math.ceil(min_s / max(warm_s, 1e-9))))


def measure(entries: Sequence[Entry], *, repeats: int = 5, min_s: float = 0.2) -> list[dict[str, Any]]:
    """Time the entries in interleaved rounds and return a row for each.

    Parameters
    ----------
    entries : sequence of Entry
        All of them are checked first: after a refusal nothing is timed.
    repeats : int
        Rounds. Each round reads the calibration kernel and then each entry in turn.
    min_s : float
        Shortest stretch between two readings of the clock, in seconds; fast work is called many times.

    Returns
    -------
    list of dict
        ``rate`` (median), ``low`` and ``high`` (smallest and largest: with 5 rounds each, equal speeds give disjoint
        intervals in 2 of C(10, 5) = 252 cases), ``rates``, ``calibration`` (rates of the kernel before each),
        ``calibrated`` (the rate scaled to the reference machine speed), ``spread``, ``noisy``, ``first_call_s``.

    Raises
    ------
    Refused
        If the output of a entry fails its check.
    """
    if repeats < 1:
        raise ConfigError(f"repeats={repeats}: must be at least 1")
    names = [c.name for c in entries]
    if len(set(names)) != len(names):
        raise ConfigError(f"entries named {names}: names must differ, records are compared by them")
    for entry in entries:
        if entry.extrapolated and entry.half is None:
            raise ConfigError(f"{entry.name} is extrapolated {entry.extrapolated}: give half, to tell its start-up")
    calibration_rate()  # compiled before the first round
    lanes = [_open_lane(entry) for entry in entries]
    for lane in lanes:
        _warm_up(lane, min_s)
    for turn in range(repeats):
        for lane in lanes:
            allowed = repeats if lane.entry.repeats is None else lane.entry.repeats
            if turn >= allowed:
                continue
            lane.calibration.append(calibration_rate())
            seconds = _timed(lane.entry, lane.calls, lane.inner)
            lane.calls += lane.inner
            lane.rates.append(lane.entry.work * lane.inner / seconds)
            if lane.entry.half is not None:
                lane.halves.append(_timed(replace(lane.entry, run=lane.entry.half), lane.calls, lane.inner))
    return [_row(lane) for lane in lanes]


def _start_up(lane: _Lane) -> dict[str, Any]:
    """``start_up_pct``: percent of the time of a timed part that does not grow with it, from the fastest readings."""
    if not lane.halves:
        return {}
    part = lane.entry.work * lane.inner / max(lane.rates)
    return {"start_up_pct": 100.0 * max(0.0, 2 * min(lane.halves) - part) / part}


def _row(lane: _Lane) -> dict[str, Any]:
    entry = lane.entry
    rate = statistics.median(lane.rates)
    details = lane.found | (entry.details(rate) if entry.details else {}) | _start_up(lane)
    scaled = [r * REFERENCE_RATE / c for r, c in zip(lane.rates, lane.calibration)]
    width = spread(lane.rates)
    return {
        "name": entry.name,
        "what": entry.what,
        "role": entry.role,
        "unit": entry.unit,
        "rate": rate,
        "low": min(lane.rates),
        "high": max(lane.rates),
        "spread": width,
        "noisy": bool(max(width, spread(lane.calibration)) > NOISY_SPREAD),
        "rates": lane.rates,
        "calibration": lane.calibration,
        "calibrated": statistics.median(scaled),
        "work": entry.work,
        "calls_per_repeat": lane.inner,
        "threads": entry.threads,
        "first_call_s": lane.first_call_s,
        "extrapolated": entry.extrapolated,
        "details": details,
    }


def single_row(
    name: str,
    work: float,
    seconds: float,
    *,
    unit: str,
    what: str = "",
    role: str = "cost",
    threads: int = 1,
    **details: Any,
) -> dict[str, Any]:
    """A row for work that was done once and timed elsewhere, such as in a process of its own."""
    entry = Entry(name, lambda _k: None, work, lambda _o: None, unit, what, role, threads)
    lane = _Lane(entry, seconds, 1, details, 1, [work / seconds], [calibration_rate()])
    return _row(lane)


def _dominated(row: dict[str, Any]) -> bool:
    return bool(row.get("details", {}).get("start_up_pct", 0.0) > START_UP_LIMIT)


def _no_ratio(row: dict[str, Any]) -> str:
    return (
        f"no ratio to {row['name']}: start-up takes {row['details']['start_up_pct']:.0f} % of its time, and a rate "
        f"extrapolated {row['extrapolated']} counts it again and again"
    )


def ratios(rows: Sequence[dict[str, Any]], pairs: Sequence[tuple[str, str]] | None = None) -> list[dict[str, Any]]:
    """Ratios of rows: median, smallest and largest of the rounds' ratios.

    Pairing by round cancels what affects both: a machine that slows down for a minute slows both. A row that is mostly
    start-up has no ratio.

    Parameters
    ----------
    pairs : sequence of (str, str), optional
        Names to compare. Left out: the fastest of fastrec's own rows with every other of its unit, if it has any.
    """
    named = {row["name"]: row for row in rows}
    if pairs is None:
        own = [row for row in rows if row["role"] == "fastrec"]
        if not own:
            return []
        head = max(own, key=lambda row: row["rate"])
        pairs = [(head["name"], row["name"]) for row in rows if row is not head and row["unit"] == head["unit"]]
    result = []
    for of, to in pairs:
        first, other = named[of], named[to]
        if _dominated(first) or _dominated(other):
            continue
        if len(other["rates"]) == len(first["rates"]):
            found = [a / b for a, b in zip(first["rates"], other["rates"])]
        else:
            found = [a / other["rate"] for a in first["rates"]]
        result.append({"of": of, "to": to, "ratio": statistics.median(found), "low": min(found), "high": max(found)})
    return result


def run_bench(
    name: str, title: str, bench: Bench | dict[str, Any], *, repeats: int, min_s: float, started: float | None = None
) -> dict[str, Any]:
    """Measure a case and return its result; a failed check gives ``status: "refused"`` with the reason and no rate.

    Parameters
    ----------
    bench : Bench or dict
        A dict is from a case that measures by itself: ``rows``, ``facts`` and ``notes``.
    started : float, optional
        ``time.perf_counter()`` when the case began; its set-up counts in its ``seconds``.
    """
    started = time.perf_counter() if started is None else started
    if isinstance(bench, dict):
        rows, facts, notes = bench["rows"], bench.get("facts", {}), bench.get("notes", [])
        compared: list[dict[str, Any]] = []
    else:
        facts, notes = bench.facts, bench.notes
        try:
            rows = measure(bench.entries, repeats=max(repeats, bench.rounds or 0), min_s=min_s) if bench.entries else []
        except Refused as error:
            return refused(name, title, "refused", str(error), started)
        finally:
            if bench.close:
                bench.close()
        compared = ratios(rows, bench.pairs)
        notes = [*notes, *map(_no_ratio, filter(_dominated, rows))]
    result = {
        "name": name,
        "title": title,
        "status": "ok",
        "facts": facts,
        "notes": notes,
        "rows": rows,
        "ratios": compared,
    }
    if rows:
        result |= {key: rows[0][key] for key in ("unit", "rate", "low", "high", "calibrated", "noisy", "first_call_s")}
    return result | {"seconds": time.perf_counter() - started}


def refused(name: str, title: str, status: str, reason: str, started: float) -> dict[str, Any]:
    """The result of a case without a rate: ``status`` is ``"refused"`` (a check) or ``"failed"`` (anything else)."""
    return {"name": name, "title": title, "status": status, "reason": reason, "seconds": time.perf_counter() - started}
