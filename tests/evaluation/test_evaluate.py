"""Evaluation against slow oracles, and the ways in which it is wrong elsewhere."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fastrec.errors import ConfigError, DataError
from fastrec.evaluation import full_ranking as evaluate
from fastrec.evaluation import kernels
from fastrec.evaluation.full_ranking import Vectors, count_ahead, evaluate_candidates, evaluate_full
from fastrec.evaluation.metrics import grouped, single
from fastrec.jit import njit, njit_float
from tests.helpers.cases import examples
from tests.helpers.fakes import Mlp, VectorModel, interactions, popularity, random_parts

KINDS = {"vectors": VectorModel, "no vectors": Mlp}


def slow_scores(model: VectorModel) -> np.ndarray:
    """float64[U, I]."""
    p, q, b = (x.detach().numpy().astype(np.float64) for x in (model.p, model.q, model.b))
    return p @ q.T + b


def slow_full(model: VectorModel, seen: list, test) -> dict[str, float]:
    """Full ranking by sorting whole lists, users in a Python loop; among ties positives stand last."""
    scores, ranks, users = slow_scores(model), [], []
    for u in range(test.n_users):
        known = {int(i) for part in seen for i in part.row(u)}
        positives = {int(i) for i in test.row(u)}
        listed = [i for i in range(test.n_items) if i not in known or i in positives]
        listed.sort(key=lambda i: (-scores[u, i], i in positives))
        places = [place for place, i in enumerate(listed, 1) if i in positives]
        ranks += places
        users += [u] * len(places)
    return dict(grouped(np.array(ranks), np.array(users), (1, 3, 10)))


def slow_candidates(model: VectorModel, users, positives, candidates) -> dict[str, float]:
    scores = slow_scores(model)
    ranks = [
        1 + sum(scores[u, c] >= scores[u, p] for c in row if c >= 0) for u, p, row in zip(users, positives, candidates)
    ]
    return dict(single(np.array(ranks), users, (1, 3, 10)))


def whole_numbers(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Small integers: scores tie often, and exactly in any precision."""
    return rng.integers(-2, 3, shape)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
@examples(40)
def test_full_ranking_agrees_with_sorting(kind: str, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items, dim = int(rng.integers(1, 9)), int(rng.integers(18, 40)), int(rng.integers(1, 7))
    train, validation, test = random_parts(rng, n_users, n_items)
    if not test.n_interactions:
        return
    draw = whole_numbers if ties else (lambda rng, *shape: rng.normal(size=shape))
    model = KINDS[kind](draw(rng, n_users, dim), draw(rng, n_items, dim), draw(rng, n_items))
    found = evaluate_full(model, [train, validation], test, (1, 3, 10))
    expected = slow_full(model, [train, validation], test)
    assert dict(found) == pytest.approx(expected)


@pytest.mark.parametrize("kind", KINDS)
@given(seed=st.integers(0, 10**6), ties=st.booleans())
@examples(40)
def test_candidate_ranking_agrees_with_counting(kind: str, seed: int, ties: bool) -> None:
    rng = np.random.default_rng(seed)
    n_users, n_items, dim, rows = 5, 30, int(rng.integers(1, 7)), int(rng.integers(1, 20))
    draw = whole_numbers if ties else (lambda rng, *shape: rng.normal(size=shape))
    model = KINDS[kind](draw(rng, n_users, dim), draw(rng, n_items, dim), draw(rng, n_items))
    users, positives = rng.integers(0, n_users, rows), rng.integers(0, n_items, rows)
    candidates = rng.integers(-1, n_items, (rows, 12))
    found = evaluate_candidates(model, users, positives, candidates, (1, 3, 10))
    assert dict(found) == pytest.approx(slow_candidates(model, users, positives, candidates))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dim", [1, 7, 64, 100])
def test_ties_bug_equal_items_tie_whatever_the_sums_round_to(kind: str, dim: int, rng: np.random.Generator) -> None:
    """Equal rows can get scores that differ in the last bit at the edges of a blocked product; HR is 0 all the same."""
    n_users, n_items = 40, 203
    users, item = rng.normal(size=(n_users, dim)), rng.normal(size=dim)
    model = KINDS[kind](users, np.tile(item, (n_items, 1)), np.full(n_items, 0.3))
    test = interactions([[int(i)] for i in rng.integers(0, n_items, n_users)], n_items)
    nothing = interactions([[]] * n_users, n_items)
    if kind == "vectors":
        assert evaluate_full(model, nothing, test, (10, n_items - 1))[f"HR@{n_items - 1}"] == 0.0
    candidates = np.array([rng.permutation(np.setdiff1d(np.arange(n_items), t))[:99] for t in test.items])
    assert evaluate_candidates(model, test.users, test.items, candidates, (10, 99))["HR@99"] == 0.0


def test_ranks_depend_on_neither_block_nor_threads(rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch) -> None:
    train, validation, test = random_parts(rng, 301, 257, (20, 3, 4))
    items = rng.normal(size=(257, 33)).astype(np.float32)
    items[100:] = items[:157]  # pairs of equal items, far apart in a block
    model = VectorModel(rng.normal(size=(301, 33)), items)
    whole = count_ahead(model, [train, validation], test, threads=1)
    for n_bytes, threads in ((1, 1), (257 * 4 * 7, 1), (257 * 4 * 130, 2), (1 << 20, 5)):
        monkeypatch.setattr(evaluate, "BLOCK_BYTES", n_bytes)
        assert np.array_equal(count_ahead(model, [train, validation], test, threads=threads), whole)
    candidates = rng.integers(0, 257, (test.n_interactions, 99))
    mlp = Mlp(rng.integers(-2, 3, (301, 3)), rng.integers(-2, 3, (257, 3)))
    before = evaluate_candidates(mlp, test.users, test.items, candidates)
    monkeypatch.setattr(evaluate, "PAIRS_AT_ONCE", {"cpu": 777})
    assert evaluate_candidates(mlp, test.users, test.items, candidates) == before
    one, five = (evaluate_candidates(model, test.users, test.items, candidates, threads=threads) for threads in (1, 5))
    assert one == five


def test_full_and_candidate_rankings_agree_on_the_same_lists(rng: np.random.Generator) -> None:
    """Two kernels, one answer: all unseen items given as candidates are the full ranking, near ties included."""
    n_users, n_items, dim = 60, 400, 24
    items = rng.normal(size=(n_items, dim)).astype(np.float32)
    items[200:] = items[:200] * np.float32(1 + 2.0**-23)  # one unit in the last place apart
    model = VectorModel(rng.normal(size=(n_users, dim)), items)
    test = interactions([[int(i)] for i in rng.integers(0, n_items, n_users)], n_items)
    nothing = interactions([[]] * n_users, n_items)
    candidates = np.array([np.setdiff1d(np.arange(n_items), t) for t in test.items])
    full = evaluate_full(model, nothing, test, (1, 2, 5, 10, 50, 100, 300))
    assert dict(full) == dict(
        evaluate_candidates(model, test.users, test.items, candidates, (1, 2, 5, 10, 50, 100, 300))
    )
    assert dict(full) == dict(slow_full_at(model, test, (1, 2, 5, 10, 50, 100, 300)))


def slow_full_at(model: VectorModel, test, ks: tuple[int, ...]):
    scores = slow_scores(model)
    own = scores[test.users, test.items]
    return single((scores[test.users] >= own[:, None]).sum(axis=1), test.users, ks)


def test_kernels_compiled_and_plain_agree(rng: np.random.Generator) -> None:
    model = VectorModel(rng.normal(size=(4, 5)), rng.normal(size=(20, 5)), rng.normal(size=20))
    v = Vectors.of(model)
    users, positives = np.array([0, 3], np.int32), np.array([4, 19], np.int32)
    candidates = rng.integers(-1, 20, (2, 9)).astype(np.int32)
    candidates[0, 0] = 4  # a tie for certain
    plain, compiled = np.zeros(2, np.int64), np.zeros(2, np.int64)
    arguments = (v.users, v.items, v.bias, v.margins, users, positives, candidates)
    kernels.candidate_ranks(*arguments, compiled, 0, 2)
    kernels.candidate_ranks.py_func(*arguments, plain, 0, 2)
    assert np.array_equal(plain, compiled)
    assert plain[0] >= 2


def test_exact_sums_stay_exact_inside_kernels_that_may_reorder(rng: np.random.Generator) -> None:
    """Numba hands fast-math flags down to a callee that it compiles on the caller's behalf, unless told otherwise."""

    def total(values):  # type: ignore[no-untyped-def]
        result = 0.0
        for k in range(values.shape[0]):
            result += values[k]
        return result

    def total_again(values):  # type: ignore[no-untyped-def]  # the cache on disk knows a function by its name alone
        result = 0.0
        for k in range(values.shape[0]):
            result += values[k]
        return result

    strict, loose = njit(total), njit_float(total_again)

    def call(values):  # type: ignore[no-untyped-def]
        return strict(values)

    values = rng.normal(size=10_001) * 10.0 ** rng.integers(-8, 8, 10_001)
    assert njit_float(call)(values) == total(values)
    assert loose(values) != total(values)  # so that the values tell the two apart


def test_seen_items_are_left_out_and_test_items_are_not() -> None:
    train, test = interactions([[3, 4]], 5), interactions([[2]], 5)
    model = VectorModel([[1.0]], [[0.0], [1.0], [2.0], [3.0], [4.0]])
    assert evaluate_full(model, train, test, (1,))["HR@1"] == 1.0
    assert evaluate_full(model, interactions([[]], 5), test, (1, 3))["MRR@3"] == pytest.approx(1 / 3)
    # the positive itself stands in the list even where it is known already
    assert evaluate_full(model, interactions([[2, 3, 4]], 5), test, (1,))["HR@1"] == 1.0


@pytest.mark.parametrize("kind", KINDS)
def test_scores_that_are_not_finite_are_refused(kind: str) -> None:
    train, test = interactions([[0]], 4), interactions([[1]], 4)
    model = KINDS[kind]([[1.0]], [[0.0], [1.0], [float("nan")], [2.0]])
    with pytest.raises(DataError, match="not finite"):
        evaluate_full(model, train, test)
    with pytest.raises(DataError, match="not finite"):
        evaluate_candidates(model, test.users, test.items, np.array([[2, 3]]))


def test_products_that_overflow_are_refused() -> None:
    model = VectorModel([[1e30]], [[1e30], [1.0]])
    with pytest.raises(DataError, match="overflow"):
        evaluate_candidates(model, np.array([0]), np.array([0]), np.array([[1]]))


def test_bfloat16_scores_are_refused_because_they_tie() -> None:
    model = VectorModel([[1.0]], [[0.0], [1.0]]).bfloat16()
    with pytest.raises(ConfigError, match="bfloat16; rank on float32"):
        evaluate_candidates(model, np.array([0]), np.array([0]), np.array([[1]]))
    with pytest.raises(ConfigError, match="bfloat16; rank on float32"):
        evaluate_full(Mlp([[1.0]], [[0.0], [1.0]]).bfloat16(), interactions([[]], 2), interactions([[1]], 2))


def test_a_model_of_other_data_is_refused() -> None:
    model = VectorModel(np.zeros((2, 1)), np.zeros((3, 1)))
    test = interactions([[1], [0]], 5)
    with pytest.raises(DataError, match="2 users and 5 items, the model 2 and 3"):
        evaluate_full(model, test, test)
    with pytest.raises(DataError, match=r"candidates\[0, 1\] = 3"):
        evaluate_candidates(model, np.array([0]), np.array([0]), np.array([[1, 3]]))
    with pytest.raises(DataError, match=r"users\[0\] = -1"):
        evaluate_candidates(model, np.array([-1]), np.array([0]), np.array([[1, 2]]))
    with pytest.raises(ConfigError, match=r"must be \[B\]"):
        evaluate_candidates(model, np.array([0]), np.array([0, 1]), np.array([[1, 2]]))


def test_nothing_to_rank_is_refused() -> None:
    model = VectorModel(np.zeros((2, 1)), np.zeros((5, 1)))
    nothing = interactions([[], []], 5)
    with pytest.raises(DataError, match="no positive to rank"):
        evaluate_full(model, nothing, nothing)


def test_the_model_is_left_in_the_mode_it_was_in() -> None:
    class Noisy(Mlp):
        def forward(self, users: torch.Tensor, items: torch.Tensor) -> torch.Tensor:
            assert not self.training
            assert not torch.is_grad_enabled()
            return super().forward(users, items)

    model = Noisy([[1.0]], [[0.0], [1.0], [2.0]]).train()
    evaluate_candidates(model, np.array([0]), np.array([0]), np.array([[1, 2]]))
    assert model.training


def test_popularity_ranks_the_most_frequent_item_first() -> None:
    train, test = interactions([[0, 1], [1], [1, 2]], 4), interactions([[2], [0], [0]], 4)
    assert evaluate_full(popularity(train), train, test, (1,))["HR@1"] == pytest.approx(2 / 3)  # user 1's 0 ties with 2
