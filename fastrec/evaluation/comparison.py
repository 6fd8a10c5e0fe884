"""Two recipes compared user by user: runs, or folders of runs with several seeds.

S pairs of seeds, U users.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation.metrics import Lists, per_user
from fastrec.evaluation.results import Results, read_results
from fastrec.evaluation.selection import Selection
from fastrec.evaluation.statistics import LEVEL, bootstrap, interval, paired_t, seeds_to_settle
from fastrec.runs import Run, open_run
from fastrec.runs.folder import RESULTS
from fastrec.runs.manifest import MANIFEST

METRICS = ("full:NDCG@10", "full:HR@10", "candidates:NDCG@10", "candidates:HR@10")

Source = Run | str | os.PathLike[str]


def compare(
    a: Source, b: Source, *, metrics: Sequence[str] = METRICS, seed: int = 0, threads: int | None = None
) -> dict[str, Any]:
    """Compare two recipes by the test results of the same users; differences are B - A.

    Parameters
    ----------
    a, b : Run or path
        A run folder; a folder of runs that differ in ``seed``; or OUT/NAME, short for OUT/NAME-seed0 and so on.
        Several runs are paired by ``seed``; two single runs may differ in it.
    metrics : sequence of str
        ``PROTOCOL:METRIC@K``, as of ``select``.
    seed : int
        Of the bootstrap.
    threads : int, optional
        CPU threads; None means all.

    Returns
    -------
    dict
        ``a``, ``b`` (paths), ``seeds`` (pairs), ``n_users``, ``notes``, ``options`` (in which the configs differ) and
        ``metrics``: for each its means ``a`` and ``b``, their ``difference``, ``interval`` (bootstrap of users, and of
        seeds where there are several, 95 %), ``p`` (paired t test over users), ``effect_size`` (d_z: mean over standard
        deviation of the users' differences), users ``better``, ``worse`` and ``equal`` in B, ``p_seeds`` and
        ``seed_deviation`` (paired t test over seeds) and ``more_seeds``: how many more pairs make p_seeds fall below
        .05 at this difference; None where it cannot be told.

    Raises
    ------
    DataError
        If data, split or candidates differ (the difference is named), runs of one side do not belong together, no seed
        is shared, or there is no test part.
    CheckpointError
        If a folder is not a run, or is unfinished or damaged.
    ConfigError
        For a metric that does not exist.

    Notes
    -----
    Users are matched by source id and averaged over seeds. The interval and ``p`` say whether other users of this kind
    would show the difference; ``p_seeds`` whether other seeds would.
    """
    wanted = [Selection.parse(name) for name in metrics]
    sides = [_runs_of(a), _runs_of(b)]
    pairs, notes = _paired(*sides)
    first = pairs[0][1]
    for run in (run for pair in pairs for run in pair[1:]):
        _same_data(first, run)
    found = {id(run): read_results(run, threads=threads) for pair in pairs for run in pair[1:]}
    again = sum(RESULTS not in run.manifest["files"] for pair in pairs for run in pair[1:])
    if again:
        notes.append(
            f"{again} runs keep no results (an earlier fastrec, or a row of a grid): their test was ranked now"
        )
    reference = found[id(first)]
    values: list[list[list[NDArray[np.float64]]]] = [[[], []] for _ in wanted]
    n_users = 0
    for pair in pairs:
        for side, run in enumerate(pair[1:]):
            results = found[id(run)]
            _same_candidates(first, reference, run, results)
            for k, selection in enumerate(wanted):
                made = _per_user(selection, results)
                values[k][side].append(made)
                n_users = made.size
    rows = {str(s): _row(np.array(x), np.array(y), seed, threads) for s, (x, y) in zip(wanted, values)}
    if len(pairs) == 1:
        notes.append("one pair of runs: what other seeds would give is not known; train at least one more seed of each")
    return {
        "a": _name(a),
        "b": _name(b),
        "seeds": [seeds for seeds, *_ in pairs],
        "n_users": n_users,
        "options": _options(*pairs[0][1:]),
        "metrics": rows,
        "notes": notes,
    }


def _row(a: NDArray[np.float64], b: NDArray[np.float64], seed: int, threads: int | None) -> dict[str, Any]:
    """The statistics of one metric from its values float64[S, U]."""
    differences = b - a
    users, seeds = differences.mean(axis=0), differences.mean(axis=1)
    mean, n = float(differences.mean()), seeds.size
    p, effect = paired_t(users)
    low, high = interval(bootstrap(differences, seed=seed, threads=threads))
    row: dict[str, Any] = {
        "a": float(a.mean()),
        "b": float(b.mean()),
        "difference": mean,
        "interval": [low, high],
        "level": LEVEL,
        "p": _finite(p),
        "effect_size": _finite(effect),
        "better": int((users > 0).sum()),
        "worse": int((users < 0).sum()),
        "equal": int((users == 0).sum()),
        "p_seeds": None,
        "seed_deviation": None,
        "more_seeds": None,
    }
    if n > 1:
        deviation = float(seeds.std(ddof=1))
        settled = seeds_to_settle(mean, deviation)
        row |= {
            "p_seeds": _finite(paired_t(seeds)[0]),
            "seed_deviation": deviation,
            "more_seeds": None if settled is None else max(0, settled - n),
        }
    return row


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _per_user(selection: Selection, results: Results) -> NDArray[np.float64]:
    """float64[U]: the metric of each test user in train, by source id in the order of the data."""
    users = results.user_ids[results.in_train]
    ranks = results.ranks[selection.protocol][results.in_train]
    if not ranks.size:
        raise DataError("no test user is in train: there is nothing to compare")
    lists = Lists.of(ranks, users, shared=selection.protocol == "full")
    return per_user(selection.metric, lists, selection.k)


def _runs_of(source: Source) -> list[Run]:
    """The runs of one side, by seed."""
    if isinstance(source, Run):
        return [source]
    path = Path(source)
    if (path / MANIFEST).is_file():
        return [open_run(path)]
    folders = sorted(p.parent for p in path.glob(f"*/{MANIFEST}"))
    folders = folders or sorted(p.parent for p in path.parent.glob(f"*/{MANIFEST}") if _numbered(p.parent, path.name))
    if not folders:
        return [open_run(path)]  # says what is there
    runs = [open_run(folder) for folder in folders]
    for run in runs[1:]:
        if options := _options(runs[0], run):
            raise DataError(
                f"{path}: its runs are not one recipe: {runs[0].path.name} and {run.path.name} differ in "
                f"{', '.join(options)}; name a folder of seeds, or OUT/NAME of OUT/NAME-seed0, OUT/NAME-seed1, ..."
            )
    seeds = [_seed(run) for run in runs]
    if twice := sorted({s for s in seeds if seeds.count(s) > 1}):
        raise DataError(f"{path}: several runs have seed {twice[0]}; leave one of them")
    return sorted(runs, key=_seed)


def _numbered(folder: Path, name: str) -> bool:
    stem, mark, number = folder.name.rpartition("-seed")
    return bool(mark) and stem == name and number.isdigit()


def _seed(run: Run) -> int:
    return int(run.config.get("seed", 0))


def _paired(a: list[Run], b: list[Run]) -> tuple[list[tuple[list[int], Run, Run]], list[str]]:
    """Pair runs by seed; the pairs, with notes."""
    for run in (*a, *b):
        if run.manifest.get("status") != "done":
            raise CheckpointError(
                f"{run.path}: has not ended (status: {run.manifest.get('status')}); go on with fastrec train --resume "
                f"{run.path}"
            )
    if len(a) == len(b) == 1:
        one, two = _seed(a[0]), _seed(b[0])
        differ = [f"the runs have seeds {one} and {two}: equal seeds differ less by chance"] if one != two else []
        return [([one, two], a[0], b[0])], differ
    others = {_seed(run): run for run in b}
    pairs = [([_seed(run)] * 2, run, others[_seed(run)]) for run in a if _seed(run) in others]
    if not pairs:
        raise DataError(
            f"seeds {', '.join(str(_seed(r)) for r in a)} and {', '.join(map(str, others))}: none is on both sides; "
            "train the same seeds of both"
        )
    left = sorted({_seed(run) for run in a} ^ set(others))
    return pairs, [f"seeds {', '.join(map(str, left))} are on one side only and left out"] if left else []


def _same_data(one: Run, two: Run) -> None:
    """Refuse runs of other data or another split, with the difference."""
    a, b = one.manifest["data"], two.manifest["data"]
    changed = [part for part in ("train", "validation", "test") if a["fingerprints"][part] != b["fingerprints"][part]]
    if not changed:
        return
    said = [f"{key} {a[key]!r} and {b[key]!r}" for key in ("name", "split") if a[key] != b[key]]
    counts = ("n_users", "n_items", "n_train", "n_validation", "n_test")
    said += [f"{key} {a[key]:,} and {b[key]:,}" for key in counts if a[key] != b[key]]
    said += [f"the interactions of {', '.join(changed)}"] if not said else []
    seeds = [run.config.get("split_seed") for run in (one, two)]
    said += [f"split_seed {seeds[0]} and {seeds[1]}"] if seeds[0] != seeds[1] else []
    raise DataError(
        f"{one.path} and {two.path} were trained on other data or another split ({'; '.join(said)}): users cannot be "
        "compared; train both on one split (save it with fastrec.runs.save_split)"
    )


def _same_candidates(one: Run, ours: Results, two: Run, theirs: Results) -> None:
    """Refuse results that are against other candidates, or of other users."""
    if ours.candidates["sha256"] != theirs.candidates["sha256"]:
        differ = [f"{k} {ours.candidates[k]} and {theirs.candidates[k]}" for k in ("n", "seed")
                  if ours.candidates[k] != theirs.candidates[k]]  # fmt: skip
        raise DataError(
            f"{one.path} and {two.path} rank against other candidates ({'; '.join(differ) or 'other draws'}); train "
            "both with the same candidates and candidate_seed"
        )
    pairs = ((ours.user_ids, theirs.user_ids), (ours.item_ids, theirs.item_ids), (ours.in_train, theirs.in_train))
    if not all(np.array_equal(x, y) for x, y in pairs):
        raise DataError(f"{two.path}: its results are of other users or items than those of {one.path}; train again")


_OWN = (
    "seed",
    "out",
    "threads",
    "progress",
    "tensorboard",
    "data",
    "baselines",
    "checkpoint_every",
    "keep",
    "log_every",
)


def _options(one: Run, two: Run) -> dict[str, list[Any]]:
    """Options in which two runs differ, seeds and folders left out: [first, second]."""
    names = [n for n in dict.fromkeys([*one.config, *two.config]) if n not in _OWN]
    return {n: [one.config.get(n), two.config.get(n)] for n in names if one.config.get(n) != two.config.get(n)}


def _name(source: Source) -> str:
    return str(source.path if isinstance(source, Run) else source)
