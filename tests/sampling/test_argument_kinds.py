"""Arguments of the wrong kind are refused by name: no cut, no truth value of a text, no mask that is dropped."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
import torch

import fastrec
from fastrec.batches.adapters import BatchDataset, negative_edges, sampler_of_edges
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split, add_validation, leave_one_out, ratio_split
from fastrec.errors import ConfigError, DataError, FastrecError
from fastrec.sampling import NegativeSampler
from tests.helpers.training import N_ITEMS, make_stream, positives

N_USERS = 60


@pytest.fixture(scope="module")
def log() -> Interactions:
    indptr, items = positives(n_users=N_USERS)
    return Interactions(indptr, items, user_ids=np.arange(N_USERS), item_ids=np.arange(N_ITEMS), name="small")


@pytest.fixture(scope="module")
def split(log: Interactions) -> Split:
    return ratio_split(log, test=0.3, validation=0.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"distribution": "popularity", "alpha": "x"}, "alpha='x' (str): must be a number"),
        ({"distribution": "popularity", "alpha": [1]}, "alpha=[1] (list): must be a number"),
        ({"distribution": "popularity", "alpha": True}, "alpha=True (bool): must be a number"),
        ({"distribution": "popularity", "alpha": 1e300}, "is beyond any float; lower alpha"),
        ({"distribution": "weights", "weights": ["a"] * N_ITEMS}, "weights are <U1: item weights must be real numbers"),
        ({"distribution": "weights", "weights": np.ones(N_ITEMS, complex)}, "weights are complex128"),
        ({"distribution": "weights", "weights": [1] * (N_ITEMS - 1) + [None]}, "weights are object"),
        ({"distinct": "no"}, "distinct='no' (str): must be True or False"),
        ({"distinct": 0.5}, "distinct=0.5 (float): must be True or False"),
        ({"exclude": 5}, "exclude is a int: must be a list of CSRs"),
        ({"exclude": None}, "exclude is a NoneType: must be a list of CSRs"),
    ],
)
def test_the_sampler_names_an_argument_of_another_kind(log: Interactions, options: Any, says: str) -> None:
    with pytest.raises(FastrecError, match=re.escape(says)):
        NegativeSampler.of(log, **options)


def test_exclude_takes_a_list_and_refuses_interactions_themselves(log: Interactions) -> None:
    with pytest.raises(ConfigError, match="exclude is a Interactions: must be a list of CSRs, such as"):
        NegativeSampler.of(log, exclude=log)


@pytest.mark.parametrize("cursor", [None, (1,), (1, 2, 3), 5])
def test_a_cursor_is_two_integers(cursor: Any) -> None:
    data = BatchDataset(make_stream(), 8)
    with pytest.raises(ConfigError, match=r"cursor=.*: must be two integers"):
        data.cursor = cursor


def test_edges_may_be_arrays_and_must_lie_in_the_catalogue(log: Interactions) -> None:
    sampler = NegativeSampler.of(log, n_negatives=2)
    edges = [[0, 1], [1, 2]]
    from_tensor = negative_edges(sampler, torch.tensor(edges), epoch=0, positions=torch.tensor([5, 6]))
    for given in (edges, np.array(edges)):
        assert torch.equal(negative_edges(sampler, given, epoch=0, positions=[5, 6]), from_tensor)
    assert sampler_of_edges(edges, n_users=2, n_items=3).n_users == 2
    for item in (-1, N_ITEMS):
        with pytest.raises(DataError, match=rf"edge 1 is \(1, {item}\), but there are n_items={N_ITEMS}"):
            negative_edges(sampler, torch.tensor([[0, 1], [1, item]]), epoch=0)
    with pytest.raises(DataError, match="edge_index is not an array"):
        negative_edges(sampler, [[0, 1], [1]], epoch=0)
    with pytest.raises(DataError, match="masked array"):
        negative_edges(sampler, np.ma.masked_array(edges, mask=[[0, 1], [0, 1]]), epoch=0)


@pytest.mark.parametrize("seed", [0.5, 1.0, True, "1"])
def test_the_seed_of_a_split_is_an_integer(log: Interactions, split: Split, seed: Any) -> None:
    for draw in (
        lambda: ratio_split(log, seed=seed),
        lambda: add_validation(split, 0.2, seed=seed),
        lambda: leave_one_out(_timed(log), validation=0.2, seed=seed),
    ):
        with pytest.raises(ConfigError, match=r"split seed=.*must be an integer"):
            draw()


def _timed(log: Interactions) -> Interactions:
    return Interactions.from_arrays(log.users, log.items, np.arange(log.n_interactions))


def test_shares_and_cores_are_numbers(log: Interactions) -> None:
    with pytest.raises(ConfigError, match=r"test='a'.*must be a number"):
        ratio_split(log, test="a")  # type: ignore[arg-type]
    for k in (2.5, True, "2"):
        with pytest.raises(ConfigError, match=r"k_core=.*must be an integer"):
            Interactions.from_arrays([1, 1], [1, 2], k_core=k)  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=r"k_core=.*must be an integer"):
            fastrec.load({"user": [1, 1], "item": [1, 2]}, k_core=k)  # type: ignore[arg-type]


def _scores() -> Any:
    return np.random.default_rng(0).random((N_USERS, N_ITEMS)).astype(np.float32)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"cutoffs": (1.5,)}, "cutoffs=1.5 (float): must be an integer"),
        ({"cutoffs": (True,)}, "cutoffs=True (bool): must be an integer"),
        ({"cutoffs": ("a",)}, "cutoffs='a' (str): must be an integer"),
        ({"cutoffs": 5}, "cutoffs=5: must be a sequence"),
        ({"n_candidates": 2**31 - 1}, "2147483647 candidates: each positive needs at least 1"),
        ({"n_candidates": 9.5}, "candidates=9.5 (float): must be an integer"),
        ({"n_candidates": "a"}, "candidates='a' (str): must be an integer"),
        ({"candidate_seed": 0.5}, "candidate_seed=0.5 (float): must be an integer"),
        ({"candidate_seed": -1}, "candidate_seed=-1: must be in"),
    ],
)
def test_evaluation_names_its_own_option(split: Split, options: Any, says: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(says)):
        fastrec.evaluate_scores(_scores(), split, **options)


def test_masked_scores_are_refused(split: Split) -> None:
    masked = np.ma.masked_array(_scores(), mask=False)
    masked[0, 0] = np.ma.masked
    for scores in (masked, lambda users: masked[users]):
        with pytest.raises(DataError, match="scores is a masked array"):
            fastrec.evaluate_scores(scores, split)


@pytest.mark.parametrize("factor", [10**3, 10**6, 10**9])
def test_times_in_memory_are_seconds(factor: int) -> None:
    seconds = np.array([1_685_577_600, 1_717_200_000])
    assert Interactions.from_arrays([1, 1], [1, 2], seconds).timestamps is not None
    with pytest.raises(DataError, match=rf"timestamps: {1_717_200_000 * factor} in row 1 is too large for seconds"):
        Interactions.from_arrays([1, 1], [1, 2], [1_685_577_600, 1_717_200_000 * factor])
