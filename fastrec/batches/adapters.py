"""fastrec's batches and negatives for other people's training loops: PyTorch's DataLoader, and PyG.

B batch rows, N negatives, E edges.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info

from fastrec.arguments import as_int, unmasked
from fastrec.batches.epochs import Epochs, Iteration
from fastrec.batches.slices import cut
from fastrec.batches.stream import Stream
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.sampling import STREAM_VERSION, NegativeSampler, identity
from fastrec.sampling.csr import MAX_ITEMS, MAX_USERS, csr_of_pairs
from fastrec.sampling.order import Cursor


class BatchDataset(IterableDataset[tuple[Tensor, Tensor]]):
    """The batches of one epoch after another for ``DataLoader(dataset, batch_size=None, num_workers=...)``.

    Parameters
    ----------
    stream : Stream
        Where the batches come from; its sampler draws the negatives.
    batch_size : int
        Positives a batch, over all ranks.
    epoch : int
        The epoch of the first iteration; each further one is the next epoch, whether or not the last was broken off.
    rank, world : int
        This process, of so many: each batch is cut among them exactly.

    Notes
    -----
    Yields ``users int32[B]`` and ``items int32[B, 1+N]``, column 0 the positive. Guarantee: the same batches, in the
    same order, for any ``num_workers``, forked or spawned, persistent or not.

    ``cursor`` is where the next iteration begins; set it to a place within an epoch to resume there.
    """

    def __init__(self, stream: Stream, batch_size: int, *, epoch: int = 0, rank: int = 0, world: int = 1) -> None:
        batch_size, rank, world = as_int("batch_size", batch_size), as_int("rank", rank), as_int("world", world)
        if batch_size < 1 or not 0 <= rank < world:
            raise ConfigError(f"batch_size={batch_size}, rank={rank}, world={world}: need sizes of 1 and rank < world")
        if stream.weights is not None:
            raise ConfigError(
                "the stream has weights, which these batches do not carry; take them by Stream.weights_of"
            )
        self.stream, self.batch_size, self.rank, self.world = stream, batch_size, rank, world
        self._epochs = Epochs()
        self.set_epoch(epoch)

    @property
    def cursor(self) -> Cursor:
        """The start of the next iteration."""
        return self._epochs.next

    @cursor.setter
    def cursor(self, cursor: tuple[int, int]) -> None:
        if not isinstance(cursor, (tuple, list)) or len(cursor) != 2:
            raise ConfigError(f"cursor={cursor!r}: must be two integers, (epoch, position)")
        epoch, position = as_int("epoch", cursor[0]), as_int("position", cursor[1])
        if not 0 <= epoch < 2**32 or not 0 <= position <= self.stream.n_positives:
            raise ConfigError(
                f"epoch={epoch}, position={position}: must be in 0 to 2^32-1, and in 0 to the "
                f"{self.stream.n_positives} positives of an epoch"
            )
        self._epochs.next = Cursor(epoch, position)

    def set_epoch(self, epoch: int) -> None:
        """Begin the next iteration at the start of ``epoch``; workers that persist follow."""
        self.cursor = Cursor(epoch, 0)

    def __len__(self) -> int:
        """Batches of the next iteration: from the cursor to the end of its epoch."""
        return -(-(self.stream.n_positives - self.cursor.position) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        worker = get_worker_info()
        return self._batches(self._epochs.begin(worker), worker)  # begun here: the first batch may be asked for later

    def _batches(self, now: Iteration, worker: Any) -> Iterator[tuple[Tensor, Tensor]]:
        # A DataLoader takes from its workers in turn, so they take batches in turn.
        first, step = (0, 1) if worker is None else (worker.id, worker.num_workers)
        end = self.stream.n_positives
        self._epochs.take(now, now.position)
        for start in range(now.position + first * self.batch_size, end, step * self.batch_size):
            size = min(self.batch_size, end - start)
            lo, hi = cut(start, start + size, self.rank, self.world)
            batch = self.stream.read(now.epoch, lo, hi)
            self._epochs.take(now, start + size)
            yield torch.from_numpy(batch.users), torch.from_numpy(batch.items)
        self._epochs.finish(now, worker)

    def state_dict(self, batches: int | None = None) -> dict[str, int]:
        """The position from which a run resumes: a few integers.

        Parameters
        ----------
        batches : int, optional
            Batches that the loop has taken from the DataLoader in this iteration. Needed within an epoch where workers
            make them: they run ahead of the loop, by how much only the loop knows. Left out, the iteration counts as
            complete once every worker has made its last batch.

        Raises
        ------
        ConfigError
            Within an epoch of worker processes, without ``batches``; or in a worker.
        """
        if get_worker_info() is not None:
            raise ConfigError("state_dict in a worker of a DataLoader: call it in the process of the training loop")
        now, end = self._epochs.latest, self.stream.n_positives
        cursor = self.cursor
        if now is not None:
            position: int | None = end
            if batches is not None:
                position = now.position + as_int("batches", batches) * self.batch_size
            elif now.workers and not self._epochs.finished(now):
                raise ConfigError(
                    f"epoch {now.epoch} is under way in {now.workers} worker processes, which run ahead of the loop: "
                    "give state_dict(batches=) the number of batches that the loop has taken"
                )
            elif not now.workers:
                position = self._epochs.taken(now)
            if position is not None and position < end:
                cursor = Cursor(now.epoch, position)
        elif batches:
            raise ConfigError(f"batches={batches}, but no iteration has begun since the cursor was set")
        seed = self.stream.order.seed
        own = {"n_positives": end, "seed": seed, "stream_version": STREAM_VERSION}
        return {"epoch": cursor.epoch, "position": cursor.position, **own}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Resume where ``state_dict`` was called.

        Raises
        ------
        CheckpointError
            A state of other positives, another seed or another stream version, or something else.
        """
        own = {
            "n_positives": self.stream.n_positives,
            "seed": self.stream.order.seed,
            "stream_version": STREAM_VERSION,
        }
        defaults = {"stream_version": 1}  # its states did not say so
        found = {name: state.get(name, defaults.get(name)) for name in own} if isinstance(state, Mapping) else None
        if found != own or not {"epoch", "position"} <= state.keys():
            raise CheckpointError(f"a state of {found}, but this data set has {own}: it belongs to another one")
        self.cursor = Cursor(state["epoch"], state["position"])


def sampler_of_edges(edge_index: Tensor, *, n_users: int, n_items: int, **options: Any) -> NegativeSampler:
    """A sampler from a PyG ``edge_index`` of (user, item) edges, in any order, repeats allowed.

    Parameters
    ----------
    edge_index : int64[2, E]
        Row 0 users in [0, n_users), row 1 items in [0, n_items): for a HeteroData, that of its user-to-item edges.
    **options
        Those of ``NegativeSampler``.
    """
    n_users, n_items = as_int("n_users", n_users), as_int("n_items", n_items)
    if not 0 <= n_users <= MAX_USERS or not 1 <= n_items <= MAX_ITEMS:
        raise ConfigError(f"n_users={n_users}, n_items={n_items}: must be in 0, and 1, to {MAX_ITEMS} (ids are int32)")
    users, items = _edges(edge_index)
    if users.size and (users.min() < 0 or users.max() >= n_users or items.min() < 0 or items.max() >= n_items):
        bad = int(np.flatnonzero((users < 0) | (users >= n_users) | (items < 0) | (items >= n_items))[0])
        raise DataError(
            f"edge {bad} is ({users[bad]}, {items[bad]}), which is not in n_users={n_users} by n_items={n_items}"
        )
    indptr, merged, _ = csr_of_pairs(users, items, n_users)
    return NegativeSampler(indptr, merged, n_items=n_items, **options)


def _host(name: str, values: Any) -> NDArray[Any]:
    """A tensor, or anything that is an array already, in host memory."""
    try:
        return values.detach().cpu().numpy() if isinstance(values, Tensor) else unmasked(name, values)
    except (TypeError, ValueError) as error:
        raise DataError(f"{name} is not an array ({error})") from None


def _edges(edge_index: Any) -> NDArray[Any]:
    edges = _host("edge_index", edge_index)
    if edges.ndim != 2 or edges.shape[0] != 2 or edges.dtype.kind not in "iu":
        raise DataError(f"edge_index is {edges.dtype}{list(edges.shape)}; must be int64[2, E]")
    return edges


def negative_edges(
    sampler: NegativeSampler, edge_index: Tensor, *, epoch: int, positions: Tensor | None = None, threads: int = 1
) -> Tensor:
    """N negative edges for each edge, with its user: what ``edge_label_index`` needs in addition to the positives.

    Parameters
    ----------
    sampler : NegativeSampler
    edge_index : int64[2, E]
    epoch : int
    positions : int64[E], optional
        Address of each edge; its identity, ``user << 32 | item``, unless given: an edge then has the same negatives in
        a mini-batch and in the entire graph, and a repeated edge repeats them.
    threads : int

    Returns
    -------
    int64[2, E * N]
        The negatives of edge e are columns e * N to e * N + N - 1, on the device of ``edge_index``. Under
        ``on_full="skip"`` edges of users without enough legal items (``sampler.skipped_users``) have no columns, and
        those after them move up: -1 would index the last node.
    """
    users, items = _edges(edge_index)
    if items.size and (items.min() < 0 or items.max() >= sampler.n_items):
        bad = int(np.flatnonzero((items < 0) | (items >= sampler.n_items))[0])
        raise DataError(f"edge {bad} is ({users[bad]}, {items[bad]}), but there are n_items={sampler.n_items}")
    where = identity(users, items) if positions is None else _host("positions", positions)
    drawn = sampler.sample(users, epoch=epoch, positions=where, threads=threads)
    if sampler.skipped_users.size:
        served = drawn[:, 0] >= 0
        users, drawn = users[served], drawn[served]
    pairs = np.stack((np.repeat(users, sampler.n_negatives), drawn.reshape(-1).astype(np.int64)))
    return torch.from_numpy(pairs).to(getattr(edge_index, "device", "cpu"))
