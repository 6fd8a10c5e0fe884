"""The baselines against ten lines of NumPy each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastrec.errors import ConfigError
from fastrec.evaluation import baselines
from fastrec.evaluation.baselines import ials
from tests.helpers.fakes import interactions


@pytest.fixture
def train(rng: np.random.Generator) -> Any:
    rows = [sorted(rng.choice(17, rng.integers(1, 9), replace=False).tolist()) for _ in range(40)]
    return interactions([*rows, []], 19)  # items 17 and 18 are in no row, user 40 has none


def dense(train: Any) -> np.ndarray:
    x = np.zeros((train.n_users, train.n_items))
    x[train.users, train.items] = 1
    return x


def all_scores(model: Any, train: Any) -> np.ndarray:
    return model.score_all(torch.arange(train.n_users, dtype=torch.int32)).numpy()


@pytest.mark.parametrize("threads", [1, 2])
def test_ease_against_numpy(train: Any, threads: int) -> None:
    x, ridge = dense(train), 3.0
    p = np.linalg.inv(x.T @ x + ridge * np.eye(train.n_items))
    b = -p / np.diag(p)
    np.fill_diagonal(b, 0)
    found = all_scores(baselines.get("ease").fit(train, threads, ridge=ridge), train)
    np.testing.assert_allclose(found, x @ b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shrink", [0.0, 2.5])
@pytest.mark.parametrize("k", [1, 4, 100])
def test_item_knn_against_numpy(train: Any, k: int, shrink: float) -> None:
    x = dense(train)
    counts, norms = x.T @ x, np.sqrt(x.sum(0))
    with np.errstate(invalid="ignore"):
        cosine = np.nan_to_num(counts / (np.outer(norms, norms) + shrink))
    np.fill_diagonal(cosine, 0)
    kept = np.zeros_like(cosine)
    for item in range(train.n_items):
        best = np.argsort(-cosine[item], kind="stable")[:k]
        kept[item, best] = cosine[item, best]
    found = all_scores(baselines.get("item-knn").fit(train, 2, k=k, shrink=shrink), train)
    np.testing.assert_allclose(found, x @ kept.T, rtol=1e-5, atol=1e-6)


def test_a_half_step_of_ials_is_the_least_squares_solution(train: Any, rng: np.random.Generator) -> None:
    table, alpha, reg = rng.normal(0, 0.5, (train.n_items, 5)).astype(np.float32), 0.3, 0.02
    out = np.empty((train.n_users, 5), np.float32)
    ials.half_step(train.indptr, train.items, table, out, alpha=alpha, reg=reg, threads=2)
    q = table.astype(np.float64)
    for user, row in enumerate(dense(train)):
        weight = reg * (row.sum() + alpha * train.n_items)
        a = alpha * q.T @ q + (q.T * row) @ q + weight * np.eye(5)
        np.testing.assert_allclose(out[user], np.linalg.solve(a, q.T @ row), rtol=1e-4, atol=1e-5)


def test_ials_lowers_its_loss_and_is_reproducible(train: Any) -> None:
    def loss(model: Any) -> float:
        scores, x = all_scores(model, train).astype(np.float64), dense(train)
        return float((x * (scores - 1) ** 2).sum() + 0.1 * (scores**2).sum())

    few, many, again = (ials.fit(train, t, dim=4, epochs=e) for t, e in ((2, 1), (2, 8), (1, 8)))
    assert loss(many) < loss(few)
    np.testing.assert_array_equal(all_scores(many, train), all_scores(again, train))


def test_popularity_is_the_count(train: Any) -> None:
    found = all_scores(baselines.get("popularity").fit(train), train)
    np.testing.assert_array_equal(found, np.tile(train.item_counts(), (train.n_users, 1)))


@pytest.mark.parametrize("name", baselines.names())
def test_pairs_agree_with_all_items(train: Any, name: str, rng: np.random.Generator) -> None:
    entry = baselines.get(name)
    model = entry.fit(train, 2, **entry.grid[0])
    users = torch.from_numpy(rng.integers(0, train.n_users, 30).astype(np.int32))
    items = torch.from_numpy(rng.integers(0, train.n_items, (30, 7)).astype(np.int32))
    torch.testing.assert_close(
        model(users, items), model.score_all(users).gather(1, items.long()), rtol=1e-5, atol=1e-6
    )
    assert entry.n_bytes(1000, 1000, 10_000) > 0
    assert entry.source


def test_an_unknown_baseline_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"baseline = 'eas': must be one of ease.*did you mean ease"):
        baselines.get("eas")
