"""The best items that a user has not interacted with yet, from a run folder."""

from __future__ import annotations

from typing import Any

from fastrec.inference.recommender import Recommender
from fastrec.runs import Run


def recommend(run: Run, user_id: Any, k: int = 10, *, model: Any = None) -> list[dict[str, Any]]:
    """The ``k`` highest-scored items that a user has no interaction with in train, validation or test.

    For more than one user, filters and similar items see ``Recommender``.

    Parameters
    ----------
    run : Run
        From ``open_run`` or a training.
    user_id : int or str
        As in the source data; digits as text find a number.
    k : int
        How many, at least 1; fewer come back where the user has interacted with all others.
    model : torch.nn.Module, optional
        In place of the run's weights.

    Returns
    -------
    list of dict
        ``rank`` from 1, ``item_id`` as in the source data, ``title`` (None where there are no titles), ``score`` (the
        logit, float32). Equal scores are in the order of the items' contiguous ids.

    Raises
    ------
    DataError
        If the user is not in the data, or the scores are not finite.
    ConfigError
        If ``k`` is below 1.
    CheckpointError
        If the run has no weights, or they were altered.
    """
    found = Recommender(run, model=model).recommend([user_id], k, output="arrays")
    titles = found["title"].tolist() if "title" in found else [None] * found["rank"].size
    columns = (found["rank"].tolist(), found["item_id"].tolist(), titles, found["score"].tolist())
    return [{"rank": r, "item_id": i, "title": t, "score": s} for r, i, t, s in zip(*columns, strict=True)]
