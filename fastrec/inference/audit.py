"""Which negatives a run was trained against, rebuilt from its folder by their addresses: nothing is logged."""

from __future__ import annotations

import os
from typing import Any

import numpy as np

from fastrec.errors import CheckpointError, DataError
from fastrec.evaluation.audit import blocks, count_draws, expected_draws, exposure_effect, negatives_of
from fastrec.evaluation.results import read_results
from fastrec.inference.contents import Contents
from fastrec.runs import Run, open_run
from fastrec.sampling import ExistingSampler
from fastrec.training.build import make_sampler
from fastrec.training.scoring import recorded_config

K = 10
"""Cutoff of the hits in the natural experiment."""
MOST = 10
"""Items that are named as drawn most often."""


def audit(
    run: Run | str | os.PathLike[str], *, user: Any = None, item: Any = None, threads: int | None = None
) -> dict[str, Any]:
    """Count which negatives a run drew, when and how often.

    Parameters
    ----------
    run : Run or path
        Ended, of this stream version.
    user, item : id, optional
        As in the source: the draws for this user, of this item, or of this item for this user.
    threads : int, optional
        CPU threads; None means all.

    Returns
    -------
    dict
        ``epochs_done``, ``kept_epoch`` (whose weights are kept), ``negatives`` of a positive, ``draws``; ``by_epoch``
        (``epoch`` from 1, ``draws``, ``held_out`` draws, ``kept``: False after the kept epoch); ``most_drawn``;
        ``held_out``: for validation and test ``pairs``, pairs ``exposed`` (drawn as a negative of their own user),
        ``drawn``, ``expected`` and ``trained``: drawn in the epochs that the kept weights saw, None where draws do not
        tell; ``effect`` by protocol (see ``evaluation.audit.exposure_effect``); ``pairs`` of the user or item
        that was asked for, with the ``epochs`` (from 1) of each draw; ``notes``.

    Raises
    ------
    DataError
        If the user or item is unknown.
    CheckpointError
        If the run has not ended, is damaged, or is of another stream version.

    Cost
    ----
    The time of the sampler: 1 to 2 s for the 60 M draws of 20 epochs of MovieLens-1M.
    """
    run = run if isinstance(run, Run) else open_run(run)
    run.check_stream("rebuild them")
    result = run.manifest.get("result")
    if result is None:
        raise CheckpointError(f"{run.path}: has not ended; go on with fastrec train --resume {run.path}")
    contents, config = Contents(run), recorded_config(run)
    timed = config.negatives.negatives_from == "existing"
    split = run.split_with_times() if timed else run.split()
    first = _first_epoch(run)
    rows = [None if one is None else int(index.find([one])[0][0])
            for one, index in ((user, contents.user_index), (item, contents.item_index))]  # fmt: skip
    sampler = make_sampler(split, config)
    done = first + result["epochs_done"]
    kept = result["best_epoch"] or done
    parts = [count_draws(split, sampler, epochs, threads=threads) for epochs in (range(first, kept), range(kept, done))]
    draws, hits = (parts[0].draws + parts[1].draws, parts[0].held_out + parts[1].held_out)
    unknown = _untold(config)
    held: dict[str, Any] = {}
    for name in ("validation", "test"):
        seen, after = (part.of_pair[name] for part in parts)
        held[name] = {
            "pairs": seen.size,
            "exposed": int((seen + after > 0).sum()),
            "drawn": int(seen.sum() + after.sum()),
            "expected": None
            if isinstance(sampler, ExistingSampler)
            else float(expected_draws(split, sampler, getattr(split, name), done - first).sum()),
            "trained": None if unknown else int(seen.sum()),
        }
    found: dict[str, Any] = {
        "run": str(run.path),
        "epochs_done": done - first,
        "kept_epoch": kept,
        "negatives": sampler.n_negatives,
        "draws": sum(draws),
        "by_epoch": [
            {"epoch": k + 1, "draws": n, "held_out": m, "kept": k < kept}
            for k, (n, m) in enumerate(zip(draws, hits, strict=True), first)
        ],
        "most_drawn": _most(contents, parts[0].of_item + parts[1].of_item),
        "held_out": held,
    }
    found |= _effects(run, sampler, parts[0].of_pair["test"], kept - first, unknown, threads)
    if rows != [None, None]:
        found |= _single(contents, sampler, rows, range(first, done), kept, threads)
    return found


def _first_epoch(run: Run) -> int:
    """The first epoch that the run drew: after its parent's where it is an update."""
    about = run.manifest.get("update") or {}
    if about.get("positives") == "new":
        raise DataError(f"{run.path}: an update over new positives only, which cannot be rebuilt; audit its parent")
    return int(about.get("first_epoch", 0))


def _untold(config: Any) -> str | None:
    """Why draws do not tell what was trained; None where they do."""
    if config.negatives.hard_negatives:
        kept = config.negatives.negatives
        return (
            f"hard_negatives: of each positive's draws the {kept} highest-scored were trained, which only draws tell of"
        )
    if config.optim.loss == "inbatch-softmax":
        return "inbatch-softmax: positives of the other rows of a batch are negatives too, and are not draws"
    return None


def _most(contents: Contents, counts: Any) -> list[dict[str, Any]]:
    top = np.argsort(-counts, kind="stable")[:MOST]
    return [{**_item(contents, int(i)), "drawn": int(counts[i])} for i in top if counts[i]]


def _item(contents: Contents, item: int) -> dict[str, Any]:
    title = None if contents.titles is None else str(contents.titles[item])
    return {"item_id": contents.item_ids[item : item + 1].tolist()[0], "title": title}


def _effects(run: Run, sampler: Any, drawn: Any, kept: int, unknown: str | None, threads: int | None) -> dict[str, Any]:
    """The natural experiment in both protocols, and the notes."""
    split, notes = run.split(), [unknown] if unknown else []
    effects: dict[str, Any] = {}
    if not split.test.n_interactions:
        return {"effect": effects, "notes": [*notes, "no test part, so no effect on its ranks"]}
    if unknown or run.config.get("negatives_from", "all") != "all":
        why = "what was trained" if unknown else "how often a pair is drawn on average"
        return {"effect": effects, "notes": [*notes, f"no estimate of the effect of a draw: {why} is not known"]}
    expected = expected_draws(split, sampler, split.test, kept)
    results = read_results(run, threads=threads)
    for protocol, ranks in results.ranks.items():
        effects[f"{protocol}:HR@{K}"] = exposure_effect((ranks <= K).astype(np.float64), drawn, expected, split)
    few = next(iter(effects.values()))
    if few["effect"] is None:
        notes.append(f"{few['exposed']:,} test pairs were drawn: too few to estimate the effect of a draw (100)")
    return {"effect": effects, "notes": notes}


def _single(
    contents: Contents, sampler: Any, rows: list[int | None], epochs_of: range, kept: int, threads: int | None
) -> dict[str, Any]:
    """The draws for one user, of one item, or of both: with the epochs, from 1, in which they were drawn."""
    user, item = rows
    train, held = contents.run.split().train, contents.run.split()
    ranges = blocks(train) if user is None else [(user, user + 1)]
    times: dict[tuple[int, int], list[int]] = {}
    for epoch in epochs_of:
        for first, last in ranges:
            drawn = negatives_of(train, sampler, epoch, first, last, threads)
            at = np.argwhere(drawn >= 0 if item is None else drawn == item)
            users = train.users[train.indptr[first] + at[:, 0]]
            for pair in zip(users.tolist(), drawn[at[:, 0], at[:, 1]].tolist()):
                times.setdefault(pair, []).append(epoch + 1)
    out = []
    for (u, i), epochs in sorted(times.items(), key=lambda entry: (-len(entry[1]), entry[0])):
        part = next((name for name in ("validation", "test") if i in getattr(held, name).row(u)), None)
        seen = sum(epoch <= kept for epoch in epochs)
        who = {} if user is not None else {"user_id": contents.user_ids[u : u + 1].tolist()[0]}
        what = {} if item is not None else _item(contents, i)
        out.append({**who, **what, "drawn": len(epochs), "in_kept": seen, "epochs": epochs, "held_out": part})
    asked = {} if item is None else {"asked_item": _item(contents, item)}
    if user is not None:
        asked["asked_user"] = contents.user_ids[user : user + 1].tolist()[0]
    return {**asked, "pairs": out}
