"""The best items that a user has not met yet, from a run folder."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError
from fastrec.evaluation.full_ranking import host, scoring
from fastrec.evaluation.metrics import check_scores
from fastrec.runs import Run


def recommend(run: Run, user_id: Any, k: int = 10, *, model: Any = None) -> list[dict[str, Any]]:
    """The ``k`` highest-scored items that a user has no interaction with in train, validation or test.

    Parameters
    ----------
    run : Run
        From ``open_run`` or a training.
    user_id : int or str
        As in the source data; digits as text find a number.
    k : int
        How many, at least 1; fewer come back where the user has met all others.
    model : torch.nn.Module, optional
        In place of the run's weights, to ask for many users without reading them each time (``run.model()``).

    Returns
    -------
    list of dict
        ``rank`` from 1, ``item_id`` as in the source data, ``title`` (None where there are no titles), ``score`` (the
        logit, float32). Equal scores stand in the order of the items' contiguous ids.

    Raises
    ------
    DataError
        If the user is not in the data, or the scores are not finite.
    ConfigError
        If ``k`` is below 1.
    CheckpointError
        If the run has no weights, or they were altered.
    """
    if k < 1:
        raise ConfigError(f"k={k}: ask for at least 1 item")
    split = run.split()
    user = find_user(split.train.user_ids, user_id, split.train.name.removesuffix(" train"))
    scores = _scores(run.model() if model is None else model, user)
    known = np.concatenate([part.row(user) for part in (split.train, split.validation, split.test)])
    unseen = np.ones(split.n_items, np.bool_)
    unseen[known] = False
    legal = np.flatnonzero(unseen)
    best = legal[np.lexsort((legal, -scores[legal]))[:k]]
    ids, titles = split.train.item_ids, split.train.titles
    return [
        {
            "rank": rank,
            "item_id": ids[item : item + 1].tolist()[0],
            "title": None if titles is None else str(titles[item]),
            "score": float(scores[item]),
        }
        for rank, item in enumerate(best.tolist(), 1)
    ]


def find_user(user_ids: NDArray[Any], user_id: Any, data: str) -> int:
    """Contiguous id of a source id.

    Raises
    ------
    DataError
        If there is no such user; the message shows some that there are.
    """
    wanted: Any = str(user_id)
    if user_ids.dtype.kind in "iu":
        wanted = _whole(user_id)
    # out-of-range Python integers compare unequal to every element
    found = np.flatnonzero(user_ids == wanted) if wanted is not None else np.empty(0, np.int64)
    if not found.size:
        shown = ", ".join(str(u)[:40] for u in user_ids[:3].tolist())
        raise DataError(
            f"user {user_id!r}: not among the {user_ids.size} users of {data} (such as {shown}); give an id as it "
            "stands in the source data. Users that came later need a new training"
        )
    return int(found[0])


def _whole(user_id: Any) -> int | None:
    """The integer that an id is, exactly, or None: 10.5 is not 10, and "1_0" is not 10 either."""
    if isinstance(user_id, str):
        digits = user_id.strip()
        return int(digits) if re.fullmatch(r"[+-]?[0-9]{1,19}", digits) else None
    if isinstance(user_id, (int, np.integer)) and not isinstance(user_id, bool):
        return int(user_id)
    if isinstance(user_id, (float, np.floating)) and float(user_id).is_integer():
        return int(user_id)
    return None


def _scores(model: Any, user: int) -> NDArray[np.float32]:
    import torch

    with scoring(model) as device:
        scores = host(model.score_all(torch.tensor([user], dtype=torch.int32, device=device))[0], "the model's scores")
    check_scores(scores, "the model's scores")
    return scores
