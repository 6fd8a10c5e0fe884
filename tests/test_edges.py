"""The edge of numbers: counts beyond 2^31 and 2^32, and logits beyond what exp can take."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from fastrec.data import Interactions
from fastrec.data.csr_build import MAX_IDS, factorize
from fastrec.errors import ConfigError, DataError, FastrecError
from fastrec.evaluation.metrics import MISS, Metrics, check_scores, grouped, ranks, single
from fastrec.models import losses
from fastrec.sampling import NegativeSampler
from fastrec.sampling.csr import check_csr
from fastrec.sampling.identity import identity
from fastrec.sampling.order import MAX_POSITIONS, Order
from fastrec.training.trainer import Trainer
from tests.helpers.training import make_engine

EDGES = [2**31 - 1, 2**31, 2**31 + 1, 2**32 - 1, 2**32, 2**32 + 1, 2**33 + 5, 2**53 + 1, MAX_POSITIONS]


@pytest.mark.parametrize("n", EDGES)
def test_an_order_beyond_32_bits_stays_in_range_and_keeps_its_addresses(n: int) -> None:
    order = Order(n, seed=7)
    for start in (0, n // 2, n - 4000):
        found = order.positions(3, start, start + 4000)
        assert found.min() >= 0
        assert found.max() < n
        assert np.unique(found).size == 4000
        assert np.array_equal(order.positions(3, start + 1000, start + 1007), found[1000:1007])
        assert found.max() > n // 2, "4,000 positions that all fall in the lower half would be 32 bits of 33"
    with pytest.raises(ConfigError, match="is not in it"):
        order.positions(3, n - 1, n + 1)


def test_an_order_beyond_its_range_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"an order has 0 to 2\^62 positions"):
        Order(MAX_POSITIONS + 1, seed=0)


@pytest.mark.parametrize("n", EDGES[:-1])
def test_batches_of_ranks_cover_an_order_beyond_32_bits(n: int) -> None:
    size = 2**31 + 11
    last = (n - 1) // size
    ranges = [Order(n, 0).batch(0, last, size, rank=rank, world=3) for rank in range(3)]
    assert ranges[0][0] == last * size
    assert ranges[-1][1] == n
    assert all(a[1] == b[0] for a, b in itertools.pairwise(ranges))


@pytest.mark.parametrize("n_items", [2**31, 2**32, 2**32 + 5, 2**63, 2**70])
def test_a_catalogue_beyond_32_bits_is_refused_in_words(n_items: int) -> None:
    for call in (
        lambda: NegativeSampler([0, 1], [0], n_items=n_items),
        lambda: check_csr([0, 1], [0], n_items),
    ):
        with pytest.raises(FastrecError, match=rf"n_items={n_items}"):
            call()


def test_more_distinct_ids_than_the_limit_are_refused_in_words() -> None:
    assert MAX_IDS == 2**31 - 1
    with pytest.raises(DataError, match="item"):
        factorize(np.arange(6), "item", max_ids=5)
    assert factorize(np.arange(5), "item", max_ids=5)[1].size == 5


@pytest.mark.parametrize("shift", [2**31, 2**32, 2**62])
def test_ids_beyond_32_bits_are_ids_like_any_other(shift: int) -> None:
    made = Interactions.from_arrays(np.array([0, 1, 0]) + shift, np.array([5, 6, 6]) - shift)
    small = Interactions.from_arrays([0, 1, 0], [5, 6, 6])
    assert np.array_equal(made.items, small.items)
    assert (made.user_ids - shift).tolist() == [0, 1]
    assert (made.item_ids + shift).tolist() == [5, 6]


def test_the_last_identity_and_the_last_item() -> None:
    last = 2**31 - 1
    assert identity([last], [last]).tolist() == [last << 32 | last]
    sampler = NegativeSampler([0, 2], [0, last - 1], n_items=last, n_negatives=64)
    drawn = sampler.sample(np.zeros(500, np.int32), epoch=2**32 - 1, start=2**40)
    assert drawn.min() > 0
    assert drawn.max() < last - 1
    assert drawn.max() > 2**30


@pytest.mark.parametrize("size", [0.0, 88.0, 1e4, 1e9, 1e30])
@pytest.mark.parametrize("name", [n for n in losses.names() if n != "inbatch-softmax"])
def test_losses_and_gradients_are_finite_at_extreme_logits(name: str, size: float) -> None:
    loss = losses.get(name).bind({}, n_negatives=2, n_items=1000)
    for signs in ([[1, -1, -1]], [[-1, 1, 1]], [[1, 1, 1]], [[-1, -1, -1]], [[1, -1, 1], [-1, 1, -1]]):
        logits = (torch.tensor(signs, dtype=torch.float32) * size).requires_grad_()
        value = loss.mean(logits)
        value.backward()
        assert math.isfinite(value.item())
        assert value.item() >= 0.0 or "cosine" in loss.similarities, "1 - cosine, and these are none"
        assert logits.grad is not None
        assert torch.isfinite(logits.grad).all()
        if loss.mean_and_gradient is not None:
            own, gradient = loss.mean_and_gradient(logits.detach().clone())
            assert math.isfinite(own.item())
            assert torch.isfinite(gradient).all()
            assert torch.allclose(gradient, logits.grad, atol=1e-6)


@pytest.mark.parametrize("size", [0.0, 88.0, 1e4, 1e30])
def test_the_in_batch_softmax_is_finite_at_extreme_logits(size: float) -> None:
    from fastrec.models.losses.inbatch_softmax import sampled_softmax

    logits = torch.tensor([[1.0, -1.0, 1.0], [-1.0, 1.0, 1.0]]).mul(size).requires_grad_()
    masked = torch.tensor([[True, True], [False, False]])
    value = sampled_softmax(logits, torch.zeros(2, 2), masked)
    value.backward()
    assert math.isfinite(value.item())
    assert logits.grad is not None
    assert torch.isfinite(logits.grad).all()


@pytest.mark.parametrize("metric", [grouped, single])
def test_metrics_are_finite_at_extreme_ranks(metric: Callable[..., Metrics]) -> None:
    found = metric(np.array([1, MISS, 2**53, MISS]), np.array([0, 0, 1, 2]), (5, 2**31 - 1))
    assert len(found) >= 8
    assert all(math.isfinite(v) and 0.0 <= v <= 1.0 for v in found.values())


@pytest.mark.parametrize("size", [0.0, 1e30, 3.4e38])
def test_ranks_are_right_at_extreme_scores(size: float) -> None:
    others = np.array([[size, -size, 0.0]], np.float32)
    assert ranks(np.array([size], np.float32), others).tolist() == [4 if size == 0 else 2]
    for wrong in (math.nan, math.inf):
        with pytest.raises(DataError):
            check_scores(np.array([wrong], np.float32))


def test_a_diverging_run_ends_with_the_last_good_state() -> None:
    engine = make_engine(lr=lambda step: 0.01 if step < 10 else 1e30)
    with pytest.raises(FastrecError, match="diverged"):
        Trainer(engine, epochs=9, progress=False).run()
    engine.close()
