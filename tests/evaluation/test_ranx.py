"""Agreement with ranx on random lists with ties.

The figures of ranx are recorded (``scripts/record_ranx.py``): with pandas, ir-datasets and others it is more than the
tests should install.
"""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fastrec.evaluation import beyond, metrics

RECORDED = json.loads((Path(__file__).resolve().parents[1] / "golden" / "ranx.json").read_text())
CUTOFFS = (1, 3, 10, 20)


def ranked() -> tuple[np.ndarray, np.ndarray]:
    """Ranks of all positives and their users: ties count against the positive."""
    ranks, users = [], []
    for user, (scores, own) in enumerate(zip(np.array(RECORDED["scores"]), RECORDED["positives"])):
        others = np.setdiff1d(np.arange(scores.size), own)
        ahead = metrics.ranks(scores[own].astype(np.float32), np.tile(scores[others].astype(np.float32), (len(own), 1)))
        ranks += (np.sort(ahead) + np.arange(len(own))).tolist()  # among themselves in the order of their scores
        users += [user] * len(own)
    return np.array(ranks), np.array(users)


def one_user_at_a_time(name: str) -> list[float]:
    ranks, users = ranked()
    found = []
    for user in range(users.max() + 1):
        mine = users == user
        if name.startswith(("MAP", "Precision")):
            found.append(beyond.accuracy(ranks[mine], users[mine], ks=CUTOFFS)[name])
        else:
            found.append(metrics.grouped(ranks[mine], users[mine], CUTOFFS)[name])
    return found


def test_the_lists_have_ties_with_positives() -> None:
    tied = [set(np.array(s)[own]) & set(np.delete(s, own)) for s, own in zip(RECORDED["scores"], RECORDED["positives"])]
    assert sum(map(bool, tied)) > 25


@pytest.mark.parametrize("name", sorted(RECORDED["figures"]))
def test_every_user_has_the_figure_of_ranx(name: str) -> None:
    found, want = np.array(one_user_at_a_time(name)), np.array(RECORDED["figures"][name])
    # ranx divides average precision by all positives, fastrec by min(K, positives): the same where they fit the list
    k = int(name.partition("@")[2])
    same = np.array([len(own) <= k for own in RECORDED["positives"]]) if name.startswith("MAP") else np.full(30, True)
    assert same.any()
    np.testing.assert_allclose(found[same], want[same], rtol=1e-12)
    scale = np.array([len(own) / min(k, len(own)) for own in RECORDED["positives"]])
    if name.startswith("MAP"):
        np.testing.assert_allclose(found, want * scale, rtol=1e-12)
