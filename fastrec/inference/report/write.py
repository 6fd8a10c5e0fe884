"""``fastrec.report``: the page of a run, and its charts as PNG files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fastrec.errors import ConfigError
from fastrec.evaluation.score import FULL, evaluate
from fastrec.files import write_bytes
from fastrec.inference.recommender import Recommender
from fastrec.inference.report import facts as found
from fastrec.inference.report.page import Facts, page
from fastrec.runs import Run, open_run
from fastrec.runs.folder import MODEL

PAGE = "report.html"


def report(
    run: Run | str | os.PathLike[str],
    *,
    out: str | os.PathLike[str] | None = None,
    png: str | os.PathLike[str] | None = None,
    users: Sequence[Any] | None = None,
    k: int = 10,
) -> Path:
    """Write one page that shows a run: a single HTML file without scripts that loads nothing from elsewhere.

    Curves of loss, validation metrics and speed; test metrics with confidence intervals next to the baselines; metrics
    by popularity, activity, genre and user field; coverage and calibration; favourites and lists of some users;
    configuration and provenance.

    Parameters
    ----------
    run : Run or path
    out : path, optional
        File to write, which must not exist; left out: ``report.html`` in the run folder, written again each time.
    png : path, optional
        Folder to write the charts into as PNG files too; it must not exist. Needs matplotlib: the extra ``report``.
    users : sequence of ids, optional
        Whose lists to show; left out: five users, from little to very active ones.
    k : int
        Items of a list.

    Returns
    -------
    Path
        The page.

    Raises
    ------
    CheckpointError
        If the folder is damaged, incomplete or altered.
    ConfigError
        If ``out`` or ``png`` exists, or their folder does not.
    MissingPackageError
        If ``png`` is given and matplotlib is not installed.
    DataError
        If a user is unknown.

    Cost
    ----
    Full ranking three times: U * I scores each.
    """
    run = run if isinstance(run, Run) else open_run(run)
    path = run.path / PAGE if out is None else _new(out)
    folder = None if png is None else _new(png)
    if folder is not None:
        from fastrec.inference.report.png import check_matplotlib

        check_matplotlib()
    facts = gather(run, users=users, k=k)
    write_bytes(path, page(facts).encode("utf-8", "backslashreplace"))
    if folder is not None:
        from fastrec.inference.report.png import write_charts

        write_charts(folder, [*facts.curves, *([facts.calibration] if facts.calibration else [])], facts.groups)
    return path


def gather(run: Run, *, users: Sequence[Any] | None = None, k: int = 10) -> Facts:
    """What the page shows. A run without weights has curves, configuration and provenance only."""
    curves = [chart for chart in found.curves(run) if any(len(line.x) for line in chart.lines)]
    notes = list(dict.fromkeys(run.manifest.get("result", {}).get("notes", [])))
    if MODEL not in run.manifest["files"]:
        return Facts(run, curves, notes=[*notes, "the run has no weights yet: no metrics and no lists"])
    rec = Recommender(run)
    shown = [
        (f"user {rec.user_ids[user]}: {_known(rec, user)}", *found.side_by_side(rec, user, k))
        for user in found.some_users(rec, users)
    ]
    if not run.split().test.n_interactions:
        return Facts(run, curves, users=shown, notes=[*notes, "the data have no test part: no metrics"])
    evaluated = evaluate(run, beyond=True, by=None)
    full = evaluated[FULL]
    metric = "NDCG@10" if "NDCG@10" in full else next(name for name in full if name.startswith("NDCG@"))
    notes += [note for part in evaluated.values() for note in part["notes"] if note not in notes]
    return Facts(
        run,
        curves,
        evaluated,
        found.group_bars(full.get("groups", {}), metric),
        found.calibration(rec),
        found.genre_shares(rec),
        shown,
        list(dict.fromkeys(notes)),
    )


def _known(rec: Recommender, user: int) -> str:
    """The user's interactions in train, and the fields that the run keeps of the user."""
    n = int(rec.run.split().train.degrees[user])
    said = [f"{n:,} interaction{'s' * (n != 1)} in train"]
    if "users" in (rec.run.tables() or {}):
        row = rec.users.row(user, named=True)
        said += [f"{name} {value}" for name, value in row.items() if name not in ("user", "zip") and value is not None]
    return ", ".join(said)


def _new(given: str | os.PathLike[str]) -> Path:
    path = Path(given)
    if os.path.lexists(path):
        raise ConfigError(f"{path}: exists and is not overwritten; name another")
    if not path.parent.is_dir():
        raise ConfigError(f"{path}: there is no folder {path.parent}; make it first, or name another")
    return path
