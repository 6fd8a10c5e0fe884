"""Arrays of other libraries in and out of the sampler: DLPack objects, torch tensors; and what a sampler says it is."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from fastrec.batches.stream import Batch, Stream
from fastrec.errors import ConfigError, DataError
from fastrec.sampling import NegativeSampler, identity
from fastrec.sampling.order import Order

INDPTR, ITEMS = np.array([0, 2, 2, 5]), np.array([1, 4, 0, 1, 5], np.int32)


class Foreign:
    """An array of a library that has DLPack and nothing else."""

    def __init__(self, values: Any) -> None:
        self._tensor = torch.as_tensor(values)

    def __dlpack__(self, **options: Any) -> Any:
        return self._tensor.__dlpack__(**options)

    def __dlpack_device__(self) -> Any:
        return self._tensor.__dlpack_device__()


def make(indptr: Any = INDPTR, items: Any = ITEMS, **options: Any) -> NegativeSampler:
    return NegativeSampler(indptr, items, n_items=9, n_negatives=3, seed=1, **options)


@pytest.mark.parametrize("kind", [Foreign, torch.as_tensor])
def test_dlpack_goes_in_wherever_arrays_do(kind: Any) -> None:
    users, positions = np.array([2, 0, 2], np.int32), np.array([3, 5, 2**40])
    expected = make().sample(users, epoch=1, positions=positions)
    for sampler in (
        make(kind(INDPTR), kind(ITEMS)),
        NegativeSampler.of((kind(INDPTR), kind(ITEMS)), n_items=9, n_negatives=3, seed=1),
    ):
        assert np.array_equal(sampler.sample(kind(users), epoch=1, positions=kind(positions)), expected)
    weights = np.arange(9.0)
    weighted = [
        make(distribution="weights", weights=w).sample(users, epoch=0, start=0) for w in (weights, kind(weights))
    ]
    assert np.array_equal(*weighted)
    avoided = [make(exclude=[(f(INDPTR), f(ITEMS))]).sample(users, epoch=0, start=0) for f in (np.asarray, kind)]
    assert np.array_equal(*avoided)
    assert np.array_equal(identity(kind(users), kind(users)), identity(users, users))
    assert np.array_equal(Stream(kind(INDPTR), kind(ITEMS), make(), seed=0).indptr, INDPTR)


@pytest.mark.parametrize("kind", [Foreign, lambda t: t])
def test_out_takes_a_tensor_and_gives_it_back(kind: Any) -> None:
    users = np.array([2, 0, 2, 1], np.int32)
    tensor = torch.full((4, 3), -7, dtype=torch.int32)
    out = kind(tensor)
    assert make().sample(users, epoch=1, start=0, out=out) is out
    assert np.array_equal(tensor.numpy(), make().sample(users, epoch=1, start=0))
    order = torch.empty(5, dtype=torch.int64)
    Order(5, 3).positions(2, 0, 5, kind(order))
    assert order.tolist() == Order(5, 3).positions(2, 0, 5).tolist()
    stream = Stream(INDPTR, ITEMS, make(), seed=0)
    memory = [
        torch.empty(5, dtype=torch.int32),
        torch.empty((5, 4), dtype=torch.int32),
        torch.empty(5, dtype=torch.int64),
    ]
    stream.read(1, 0, 5, Batch(*map(kind, memory)))
    for found, expected in zip(memory, stream.read(1, 0, 5)):
        assert np.array_equal(found.numpy(), expected)


def test_users_in_the_memory_of_out_are_read_before_it_is_filled() -> None:
    out = torch.zeros((4, 3), dtype=torch.int32)
    users = out.reshape(-1)[:4]
    expected = make().sample(np.zeros(4, np.int32), epoch=0, start=0)
    assert np.array_equal(make().sample(users, epoch=0, start=0, out=out).numpy(), expected)


def test_tensors_that_the_host_cannot_use_are_refused() -> None:
    away = torch.zeros(3, dtype=torch.int32, device="meta")
    for call in (lambda: make().sample(away, epoch=0, start=0), lambda: make(items=away), lambda: identity(away, away)):
        with pytest.raises(DataError, match="is a Tensor that the host cannot read"):
            call()
    wanted = "out is a Tensor that the host cannot fill"
    for out in (torch.zeros((2, 3), device="meta", dtype=torch.int32), torch.zeros((2, 3), requires_grad=True)):
        with pytest.raises(ConfigError, match=wanted):
            make().sample([0, 1], epoch=0, start=0, out=out)
    for out, message in (
        (torch.zeros((2, 3)), r"out is float32\[2, 3\]; must be a NumPy array or CPU tensor, int32\[2, 3\]"),
        (torch.zeros((3, 2), dtype=torch.int32).T, "C-contiguous"),
    ):
        with pytest.raises(ConfigError, match=message):
            make().sample([0, 1], epoch=0, start=0, out=out)


def test_a_sampler_says_what_it_is() -> None:
    assert repr(make()).startswith(
        "NegativeSampler(uniform: 3 users x 9 items, 5 positives, n_negatives=3, seed=1; a bitmap of 12 bytes"
    )
    assert "(popularity, alpha=0.5, distinct: 3 users" in repr(
        make(distribution="popularity", alpha=0.5, distinct=True, on_full="skip")
    )
