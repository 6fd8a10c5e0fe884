"""The adapters, against the real DataLoader and the real PyG."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastrec.batches.adapters import BatchDataset, negative_edges, sampler_of_edges
from fastrec.batches.stream import Stream
from fastrec.errors import ConfigError, DataError
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor

N_USERS, N_ITEMS = 30, 50


@pytest.fixture
def dense() -> np.ndarray:
    return np.random.default_rng(2).random((N_USERS, N_ITEMS)) < 0.3


@pytest.fixture
def stream(dense: np.ndarray) -> Stream:
    indptr = np.concatenate(([0], np.cumsum(dense.sum(1))))
    items = np.nonzero(dense)[1].astype(np.int32)
    return Stream(indptr, items, NegativeSampler(indptr, items, n_items=N_ITEMS, seed=1), seed=1)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("workers", [0, 1, 2])
def test_a_dataloader_gives_the_streams_batches_for_any_number_of_workers(stream: Stream, workers: int) -> None:
    data = BatchDataset(stream, 64, epoch=3)
    found = list(DataLoader(data, batch_size=None, num_workers=workers))
    whole = stream.read(3, 0, stream.n_positives)
    assert len(found) == len(data) == -(-stream.n_positives // 64)
    assert np.array_equal(torch.cat([users for users, _ in found]).numpy(), whole.users)
    assert np.array_equal(torch.cat([items for _, items in found]).numpy(), whole.items)
    data.cursor = Cursor(3, 128)
    resumed = list(DataLoader(data, batch_size=None, num_workers=workers))
    assert len(resumed) == len(found) - 2
    assert torch.equal(resumed[0][1], found[2][1])


def test_ranks_cut_every_batch_exactly(stream: Stream) -> None:
    parts = [list(BatchDataset(stream, 64, rank=r, world=3)) for r in range(3)]
    together = [torch.cat([part[k][1] for part in parts]) for k in range(len(parts[0]))]
    assert np.array_equal(torch.cat(together).numpy(), stream.read(0, 0, stream.n_positives).items)
    with pytest.raises(ConfigError, match="rank=3"):
        BatchDataset(stream, 64, rank=3, world=3)


def test_pyg_edges_in_any_order_give_exact_negative_edges(dense: np.ndarray) -> None:
    data_module = pytest.importorskip("torch_geometric.data")
    utils = pytest.importorskip("torch_geometric.utils")
    users, items = np.nonzero(dense)
    mixed = np.random.default_rng(0).permutation(users.size)
    graph = data_module.HeteroData()
    graph["user"].num_nodes, graph["item"].num_nodes = N_USERS, N_ITEMS
    graph["user", "rates", "item"].edge_index = torch.from_numpy(np.stack((users, items))[:, mixed])
    graph.validate()
    edges = graph["user", "rates", "item"].edge_index
    sampler = sampler_of_edges(edges, n_users=N_USERS, n_items=N_ITEMS, seed=1, n_negatives=3)
    negative = negative_edges(sampler, edges, epoch=0)
    assert negative.shape == (2, 3 * edges.shape[1])
    assert torch.equal(negative[0], edges[0].repeat_interleave(3))
    assert not dense[negative[0], negative[1]].any()
    merged = utils.coalesce(torch.cat((edges, negative), 1))
    assert merged.shape[1] == edges.shape[1] + utils.coalesce(negative).shape[1]  # PyG sees no edge twice
    some = torch.tensor([5, 2, 9])
    batch = negative_edges(sampler, edges[:, some], epoch=0, positions=some)
    assert torch.equal(batch.reshape(2, 3, 3), negative.reshape(2, -1, 3)[:, some])
    with pytest.raises(DataError, match=r"edge 0 is \(0, 50\)"):
        sampler_of_edges(torch.tensor([[0], [50]]), n_users=1, n_items=50)
