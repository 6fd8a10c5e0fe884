"""fastrec's batches and negatives for other people's training loops: PyTorch's DataLoader, and PyG.

B batch rows, N negatives, E edges.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from fastrec.batches.stream import Stream
from fastrec.errors import ConfigError, DataError
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor


class BatchDataset(IterableDataset[tuple[Tensor, Tensor]]):
    """The batches of one epoch for ``DataLoader(dataset, batch_size=None, num_workers=...)``.

    Parameters
    ----------
    stream : Stream
        Where the batches come from; its sampler draws the negatives.
    batch_size : int
        Positives a batch, over all ranks.
    epoch : int
        Set ``dataset.cursor = Cursor(epoch, 0)`` before the next epoch's loop.
    rank, world : int
        This process, of so many: each batch is cut among them exactly.

    Notes
    -----
    Yields ``users int32[B]`` and ``items int32[B, 1+N]``, column 0 the positive. Guarantee: the same batches, in the
    same order, for any ``num_workers``; setting ``cursor`` to a place within an epoch resumes there.
    """

    def __init__(self, stream: Stream, batch_size: int, *, epoch: int = 0, rank: int = 0, world: int = 1) -> None:
        if batch_size < 1 or not 0 <= rank < world:
            raise ConfigError(f"batch_size={batch_size}, rank={rank}, world={world}: need sizes of 1 and rank < world")
        self.stream, self.batch_size, self.rank, self.world = stream, int(batch_size), rank, world
        self.cursor = Cursor(epoch, 0)

    def __len__(self) -> int:
        """Batches from the cursor to the end of its epoch."""
        return -(-(self.stream.n_positives - self.cursor.position) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()  # a DataLoader takes from its workers in turn, so they take batches in turn
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        epoch, origin = self.cursor
        for k in range(first, len(self), step):
            start = origin + k * self.batch_size
            size = min(self.batch_size, self.stream.n_positives - start)
            lo, hi = (start + size * r // self.world for r in (self.rank, self.rank + 1))
            batch = self.stream.read(epoch, lo, hi)
            yield torch.from_numpy(batch.users), torch.from_numpy(batch.items)


def sampler_of_edges(edge_index: Tensor, *, n_users: int, n_items: int, **options: Any) -> NegativeSampler:
    """A sampler from a PyG ``edge_index`` of (user, item) edges, in any order, repeats allowed.

    Parameters
    ----------
    edge_index : int64[2, E]
        Row 0 users in [0, n_users), row 1 items in [0, n_items): for a HeteroData, that of its user-to-item edges.
    **options
        Those of ``NegativeSampler``.
    """
    users, items = edge_index.cpu().numpy()
    if users.size and (users.min() < 0 or users.max() >= n_users or items.min() < 0 or items.max() >= n_items):
        bad = int(np.flatnonzero((users < 0) | (users >= n_users) | (items < 0) | (items >= n_items))[0])
        raise DataError(
            f"edge {bad} is ({users[bad]}, {items[bad]}), which does not lie in n_users={n_users} by n_items={n_items}"
        )
    keys = np.unique(users.astype(np.int64) * n_items + items)
    indptr = np.searchsorted(keys, np.arange(n_users + 1, dtype=np.int64) * n_items)
    return NegativeSampler(indptr, keys % n_items, n_items=n_items, **options)


def negative_edges(
    sampler: NegativeSampler, edge_index: Tensor, *, epoch: int, positions: Tensor | None = None, threads: int = 1
) -> Tensor:
    """N negative edges for each edge, with its user: what ``edge_label_index`` needs beside the positives.

    Parameters
    ----------
    sampler : NegativeSampler
    edge_index : int64[2, E]
    epoch : int
    positions : int64[E], optional
        Address of each edge; its place in ``edge_index`` unless given. Give it for a mini-batch of edges (PyG's
        ``batch[...].e_id``), or every batch repeats one stream.
    threads : int

    Returns
    -------
    int64[2, E * N]
        The negatives of edge e are columns e * N to e * N + N - 1, on the device of ``edge_index``.
    """
    users = edge_index[0].cpu().numpy()
    where = np.arange(users.size) if positions is None else positions.cpu().numpy()
    drawn = sampler.sample(users, epoch=epoch, positions=where, threads=threads)
    pairs = np.stack((np.repeat(users, sampler.n_negatives), drawn.reshape(-1).astype(np.int64)))
    return torch.from_numpy(pairs).to(edge_index.device)
