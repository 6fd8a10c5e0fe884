"""Distinct negatives: none twice, none positive, columns nest, every legal item occurs, too few is refused."""

import numpy as np
import pytest

from fastrec.errors import DataError
from fastrec.sampling import NegativeSampler


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    return np.cumsum([0] + [len(r) for r in rows]), np.array([i for r in rows for i in r], dtype=np.int64)


def test_rows_are_distinct_legal_and_nest() -> None:
    rng = np.random.default_rng(1)
    rows = [sorted(rng.choice(60, size=k, replace=False).tolist()) for k in (0, 5, 30, 48, 50)]
    indptr, items = csr(rows)
    users = np.repeat(np.arange(5), 200)
    make = lambda n: NegativeSampler(indptr, items, n_items=60, n_negatives=n, seed=9, distinct=True)  # noqa: E731
    ten = make(10).sample(users, epoch=1, start=0, threads=2)
    for user, row in zip(users, ten):
        assert len(set(row.tolist())) == 10
        assert not set(row.tolist()) & set(rows[user])
    assert np.array_equal(make(3).sample(users, epoch=1, start=0), ten[:, :3])
    for user in range(5):
        assert set(ten[users == user].ravel().tolist()) == set(range(60)) - set(rows[user])


def test_all_legal_items_when_exactly_n_are_left() -> None:
    indptr, items = csr([[1, 2, 5]])
    drawn = NegativeSampler(indptr, items, n_items=8, n_negatives=5, distinct=True).sample([0] * 50, epoch=0, start=0)
    assert {tuple(sorted(row)) for row in drawn.tolist()} == {(0, 3, 4, 6, 7)}


def test_every_order_of_the_last_items_is_equally_likely() -> None:
    indptr, items = csr([list(range(1, 199, 1))])  # two legal items of 200: nearly always the exact finish
    drawn = NegativeSampler(indptr, items, n_items=200, n_negatives=2, distinct=True, seed=4).sample(
        np.zeros(4000, int), epoch=0, start=0
    )
    assert abs((drawn[:, 0] == 0).mean() - 0.5) < 0.04  # five standard errors


def test_fewer_legal_items_than_n_counts_as_full() -> None:
    indptr, items = csr([[0, 1, 2], []])
    with pytest.raises(DataError, match="user 0 has 3 positives of n_items=5, so there are not 4 distinct negatives"):
        NegativeSampler(indptr, items, n_items=5, n_negatives=4, distinct=True)
    skipping = NegativeSampler(indptr, items, n_items=5, n_negatives=4, distinct=True, on_full="skip")
    assert skipping.sample([0], epoch=0, start=0).tolist() == [[-1] * 4]


def test_excluded_items_are_not_drawn_and_the_rest_all_are() -> None:
    positives, validation, test = csr([[0, 3], []]), csr([[5], [0, 1]]), csr([[3, 6], [2]])
    sampler = NegativeSampler(*positives, n_items=8, n_negatives=3, exclude=[validation, test])
    assert sampler.describe()["excluded_csrs"] == [3, 3]
    drawn = sampler.sample(np.repeat([0, 1], 200), epoch=0, start=0)
    assert set(drawn[:200].ravel().tolist()) == {1, 2, 4, 7}
    assert set(drawn[200:].ravel().tolist()) == {3, 4, 5, 6, 7}
    with pytest.raises(DataError, match=r"exclude\[0\] has 1 users"):
        NegativeSampler(*positives, n_items=8, exclude=[csr([[1]])])
