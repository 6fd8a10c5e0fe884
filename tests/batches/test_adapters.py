"""The adapters, against the real DataLoader and the real PyG."""

from __future__ import annotations

import copy
import itertools
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from fastrec.batches.adapters import BatchDataset, negative_edges, sampler_of_edges
from fastrec.batches.stream import Stream
from fastrec.errors import CheckpointError, ConfigError, DataError
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
    batch = negative_edges(sampler, edges[:, some], epoch=0)
    assert torch.equal(batch.reshape(2, 3, 3), negative.reshape(2, -1, 3)[:, some])
    with pytest.raises(DataError, match=r"edge 0 is \(0, 50\)"):
        sampler_of_edges(torch.tensor([[0], [50]]), n_users=1, n_items=50)


# ---- one epoch after another -----------------------------------------------------------------------------------------

LOADERS = {
    "main": {},
    "fork": {"num_workers": 2, "multiprocessing_context": "fork"},
    "fork, persistent": {"num_workers": 2, "multiprocessing_context": "fork", "persistent_workers": True},
}
every_loader = pytest.mark.parametrize("options", LOADERS.values(), ids=LOADERS.keys())
pytestmark = pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")


def epoch_of(stream: Stream, batches: Any) -> int:
    """Which epoch these batches are, complete and in order."""
    users, items = (torch.cat(parts).numpy() for parts in zip(*batches))
    for epoch in range(20):
        whole = stream.read(epoch, stream.n_positives - users.size, stream.n_positives)
        if np.array_equal(whole.users, users) and np.array_equal(whole.items, items):
            return epoch
    raise AssertionError("these batches are the end of no epoch")


@every_loader
def test_each_iteration_is_the_next_epoch(stream: Stream, options: dict[str, Any]) -> None:
    data = BatchDataset(stream, 64)
    loader = DataLoader(data, batch_size=None, **options)
    assert [epoch_of(stream, loader) for _ in range(3)] == [0, 1, 2]
    data.set_epoch(7)
    assert [epoch_of(stream, loader) for _ in range(2)] == [7, 8]
    data.cursor = Cursor(3, 128)
    assert len(loader) == len(list(DataLoader(BatchDataset(stream, 64), batch_size=None))) - 2
    resumed = list(loader)
    assert torch.equal(resumed[0][1], torch.from_numpy(stream.read(3, 128, 192).items))
    assert epoch_of(stream, resumed) == 3
    assert epoch_of(stream, loader) == 4
    state = pickle.loads(pickle.dumps(data.state_dict()))
    other = BatchDataset(stream, 64)
    other.load_state_dict(state)
    assert epoch_of(stream, DataLoader(other, batch_size=None)) == 5
    assert epoch_of(stream, loader) == 5, "a copy of the state moves only its own data set"


@pytest.mark.timeout(600)  # each start of two workers imports torch and fastrec twice
@pytest.mark.parametrize("persistent", [False, True])
def test_spawned_workers_read_one_epoch_after_another(stream: Stream, persistent: bool) -> None:
    options: dict[str, Any] = {"multiprocessing_context": "spawn", "persistent_workers": persistent}
    loader = DataLoader(BatchDataset(stream, 64), batch_size=None, num_workers=2, **options)
    assert [epoch_of(stream, loader) for _ in range(2)] == [0, 1]


@every_loader
def test_a_loop_that_is_broken_off_goes_on_with_the_next_epoch(stream: Stream, options: dict[str, Any]) -> None:
    """As a trainer does that looks one batch ahead and limits the batches of an epoch."""
    data = BatchDataset(stream, 64)
    loader = DataLoader(data, batch_size=None, **options)
    assert len(loader) == len(data)
    for epoch in range(3):
        batches = iter(loader)
        ahead = next(batches)
        for k in range(2):
            batch, ahead = ahead, next(batches)
            assert torch.equal(batch[1], torch.from_numpy(stream.read(epoch, 64 * k, 64 * k + 64).items))
        state = data.state_dict(batches=2)
        assert (state["epoch"], state["position"]) == (epoch, 128)
    del batches
    other = BatchDataset(stream, 64)
    other.load_state_dict(state)
    assert epoch_of(stream, DataLoader(other, batch_size=None, **options)) == 2
    assert epoch_of(stream, DataLoader(other, batch_size=None, **options)) == 3


def test_a_seed_set_before_every_epoch_does_not_repeat_one(stream: Stream) -> None:
    """DataLoader draws what tells its iterators apart from this generator."""
    data, found = BatchDataset(stream, 64), []
    for _ in range(3):
        torch.manual_seed(0)
        found.append(epoch_of(stream, DataLoader(data, batch_size=None, num_workers=2)))
    assert found == [0, 1, 2]


def test_two_iterators_at_once_are_two_epochs(stream: Stream) -> None:
    for workers in (0, 2):
        loader = DataLoader(BatchDataset(stream, 64), batch_size=None, num_workers=workers)
        first, second = zip(*zip(loader, loader))
        assert (epoch_of(stream, first), epoch_of(stream, second)) == (0, 1)


def test_the_state_within_an_epoch(stream: Stream) -> None:
    data = BatchDataset(stream, 64)
    assert data.state_dict()["position"] == 0
    for k, _ in enumerate(itertools.islice(data, 3)):
        assert data.state_dict() == data.state_dict(batches=k + 1)
        assert data.state_dict()["position"] == 64 * (k + 1)
    for _ in data:
        pass
    assert (data.state_dict()["epoch"], data.state_dict()["position"]) == (2, 0)
    loader = DataLoader(BatchDataset(stream, 8), batch_size=None, num_workers=2)
    batches = iter(loader)
    next(batches)
    with pytest.raises(ConfigError, match=r"run ahead of the loop: give state_dict\(batches=\)"):
        loader.dataset.state_dict()
    assert loader.dataset.state_dict(batches=1)["position"] == 8
    fresh = BatchDataset(stream, 64)
    with pytest.raises(ConfigError, match="no iteration has begun"):
        fresh.state_dict(batches=3)


def test_copies_go_their_own_way(stream: Stream) -> None:
    data = BatchDataset(stream, 64)
    list(data)
    for copied in (copy.deepcopy(data), pickle.loads(pickle.dumps(data))):
        assert copied.cursor == data.cursor == Cursor(1, 0)
        list(copied)
        assert (copied.cursor, data.cursor) == (Cursor(2, 0), Cursor(1, 0))
        assert epoch_of(stream, DataLoader(copied, batch_size=None, num_workers=2)) == 2


@pytest.mark.parametrize(
    ("change", "error"),
    [
        ({"n_positives": 1}, CheckpointError),
        ({"seed": 9}, CheckpointError),
        ({"epoch": 0.5}, ConfigError),
        ({"position": 10**9}, ConfigError),
        ({"epoch": -1}, ConfigError),
    ],
)
def test_a_state_that_does_not_fit_is_refused(stream: Stream, change: dict[str, Any], error: type[Exception]) -> None:
    data = BatchDataset(stream, 64)
    with pytest.raises(error):
        data.load_state_dict({**data.state_dict(), **change})
    for wrong in (None, [], {}, {"epoch": 1}):
        with pytest.raises(CheckpointError):
            data.load_state_dict(wrong)  # type: ignore[arg-type]


def test_lightning_sees_one_epoch_after_another(stream: Stream) -> None:
    lightning = pytest.importorskip("lightning", reason="lightning is not installed")
    seen: list[list[Any]] = []

    class Module(lightning.LightningModule):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.w = torch.nn.Parameter(torch.zeros(1))

        def on_train_epoch_start(self) -> None:
            seen.append([])

        def training_step(self, batch: Any, _: int) -> Any:
            seen[-1].append([t.cpu() for t in batch])
            return (self.w**2).sum()

        def configure_optimizers(self) -> Any:
            return torch.optim.SGD(self.parameters(), lr=0.1)

    loader = DataLoader(BatchDataset(stream, 64), batch_size=None, num_workers=2, persistent_workers=True)
    trainer = lightning.Trainer(
        max_epochs=3, logger=False, enable_checkpointing=False, enable_progress_bar=False, accelerator="cpu"
    )
    trainer.fit(Module(), loader)
    assert [epoch_of(stream, batches) for batches in seen] == [0, 1, 2]


@pytest.mark.parametrize("name", ["batch_size", "epoch", "rank", "world", "set_epoch", "n_users", "n_items"])
@pytest.mark.parametrize("value", [1.0, 0.5, True, "1"])
def test_numbers_of_the_adapters_must_be_whole(stream: Stream, name: str, value: Any) -> None:
    def call() -> None:
        if name in ("n_users", "n_items"):
            edges = torch.zeros((2, 1), dtype=torch.int64)
            sampler_of_edges(edges, **{"n_users": 3, "n_items": 3, name: value})
        elif name == "set_epoch":
            BatchDataset(stream, 64).set_epoch(value)
        else:
            BatchDataset(stream, **{"batch_size": 64, name: value})

    with pytest.raises(ConfigError, match="must be an integer"):
        call()


def test_edges_of_skipped_users_have_no_negatives_and_no_node_is_minus_one() -> None:
    edges = torch.tensor([[0, 1, 2, 0, 1, 0], [0, 1, 0, 1, 0, 2]])  # user 0 has every item
    for options in ({"n_negatives": 3}, {"n_negatives": 2, "distinct": True}):
        sampler = sampler_of_edges(edges, n_users=3, n_items=3, on_full="skip", **options)
        skipped = set(sampler.skipped_users.tolist())
        assert 0 in skipped
        negative = negative_edges(sampler, edges, epoch=0)
        served = torch.tensor([int(u) not in skipped for u in edges[0]])
        assert negative[0].tolist() == edges[0][served].repeat_interleave(sampler.n_negatives).tolist()
        assert negative.numel() == 0 or negative.min() >= 0
        one = negative_edges(sampler, edges[:, served], epoch=0)
        assert torch.equal(one, negative)
    for wrong in (edges.float(), edges[0], edges[:1], edges.bool()):
        with pytest.raises(DataError, match="edge_index is"):
            sampler_of_edges(wrong, n_users=3, n_items=3)
    with pytest.raises(ConfigError, match="n_users=1000000000000"):
        sampler_of_edges(edges, n_users=10**12, n_items=3)
