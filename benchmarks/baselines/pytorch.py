"""Baselines in PyTorch: the notebook's training path, and a careful loop over ``[B, 1+N]``.

Each in its strongest honest form: what a good engineer would write in its place.
B batch rows (positives), N negatives, U users, I items, E interactions, D dim.
"""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from benchmarks.baselines.draws import dense_negatives, dense_seen, device_negatives
from fastrec.data.interactions import Interactions


class NotebookDataset(Dataset[tuple[Tensor, Tensor, Tensor]]):
    """One positive with its negatives, item by item in Python: ``random.randint`` against a dict of sets.

    Parameters
    ----------
    train : Interactions
        The positives. The notebook's faults in data (wrong ids, lost lines) are not repeated here; its cost is.
    n_negatives : int
        N.
    """

    def __init__(self, train: Interactions, n_negatives: int) -> None:
        self.users, self.items = train.users.tolist(), train.items.tolist()
        self.n_items, self.n_negatives = train.n_items, n_negatives
        self.seen = {user: set(train.row(user).tolist()) for user in range(train.n_users)}

    def __len__(self) -> int:
        return len(self.users)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor, Tensor]:
        user, items, labels = self.users[index], [self.items[index]], [1.0]
        for _ in range(self.n_negatives):
            item = random.randint(0, self.n_items - 1)
            while item in self.seen[user]:
                item = random.randint(0, self.n_items - 1)
            items.append(item)
            labels.append(0.0)
        return torch.tensor([user] * len(items)), torch.tensor(items), torch.tensor(labels)


def notebook_collate(batch: list[tuple[Tensor, Tensor, Tensor]]) -> tuple[Tensor, Tensor, Tensor]:
    """Rows of a batch one after the other: users, items, labels, each of length B * (1+N)."""
    users, items, labels = zip(*batch)
    return torch.cat(users), torch.cat(items), torch.cat(labels)


class NotebookGMF(nn.Module):
    """GMF over pairs: two embeddings, their product, a linear layer."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        super().__init__()
        self.user, self.item, self.out = nn.Embedding(n_users, dim), nn.Embedding(n_items, dim), nn.Linear(dim, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.01)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """float32[B * (1+N)]: a logit for each pair."""
        logits: Tensor = self.out(self.user(users) * self.item(items)).squeeze(-1)
        return logits


class Notebook:
    """The path that fastrec replaces: Dataset, collate, DataLoader, GMF, BCE, Adam 1e-3, loss read at every step.

    Parameters
    ----------
    train : Interactions
        Positives to train on.
    dim, n_negatives, batch_size : int
        D, N, and positives per batch (the notebook's 256).
    threads : int, optional
        torch's threads while it trains, restored afterwards; left out: torch's present number.
    """

    def __init__(
        self,
        train: Interactions,
        *,
        dim: int,
        n_negatives: int = 4,
        batch_size: int = 256,
        threads: int | None = None,
    ) -> None:
        self.threads = threads or torch.get_num_threads()
        self.data = NotebookDataset(train, n_negatives)
        self.batch_size = batch_size
        self.model = NotebookGMF(train.n_users, train.n_items, dim)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3)
        self.loss = nn.BCEWithLogitsLoss()

    def batches(self, n_positives: int) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Shuffled batches over ``n_positives`` positives drawn afresh (fewer only in the last batch)."""
        chosen = torch.randperm(len(self.data))[:n_positives].tolist()
        part = torch.utils.data.Subset(self.data, chosen)
        yield from DataLoader(part, batch_size=self.batch_size, shuffle=True, collate_fn=notebook_collate)

    def train(self, n_positives: int) -> float:
        """Train on ``n_positives`` positives; the mean loss of a batch."""
        total, steps = 0.0, 0
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            for users, items, labels in self.batches(n_positives):
                self.optimizer.zero_grad()
                loss = self.loss(self.model(users, items), labels)
                loss.backward()
                self.optimizer.step()
                total += loss.item()
                steps += 1
        finally:
            torch.set_num_threads(before)
        return total / steps


def fastest_notebook(train: Interactions, *, threads: int, **options: Any) -> Notebook:
    """The notebook's path with one thread or with all, whichever trains 1,000 positives faster.

    Its matrices are small: where other processes use the cores, its threads mostly wait for one another.
    """
    made = Notebook(train, threads=1, **options)
    seconds = {}
    for n in dict.fromkeys((threads, 1)):
        made.threads = n
        made.train(256)
        started = time.perf_counter()
        made.train(1_000)
        seconds[n] = time.perf_counter() - started
    made.threads = min(seconds, key=seconds.__getitem__)
    return made


class CarefulGMF(nn.Module):
    """GMF over ``[B, 1+N]``: the user row is read once for its 1+N items."""

    def __init__(self, n_users: int, n_items: int, dim: int) -> None:
        super().__init__()
        self.user, self.item, self.h = nn.Embedding(n_users, dim), nn.Embedding(n_items, dim), nn.Linear(dim, 1)
        for table in (self.user, self.item):
            nn.init.normal_(table.weight, std=0.01)
        nn.init.zeros_(self.h.bias)

    def forward(self, users: Tensor, items: Tensor) -> Tensor:
        """The mean BCE over ``users int32[B]`` and ``items int32[B, 1+N]``, column 0 the positive."""
        logits = self.h(self.user(users)[:, None, :] * self.item(items)).squeeze(-1)
        loss: Tensor = (F.softplus(-logits[:, 0]).sum() + F.softplus(logits[:, 1:]).sum()) / logits.numel()
        return loss


class Careful:
    """What a good engineer writes: negatives of a complete epoch at once, sliced tensors, fused Adam, no sync.

    Parameters
    ----------
    train : Interactions
        Positives to train on.
    dim, n_negatives, batch_size : int
        D, N, positives per batch.
    threads : int
        torch's threads while it runs; the former number is put back.
    compiled : bool
        Through ``torch.compile``.
    device : str
        On "cuda" data, draws and steps are there; else draws are NumPy's.
    """

    def __init__(
        self,
        train: Interactions,
        *,
        dim: int,
        n_negatives: int = 4,
        batch_size: int = 8192,
        threads: int = 1,
        compiled: bool = False,
        seed: int = 0,
        device: str = "cpu",
    ) -> None:
        self.users, self.positives = train.users, train.items
        self.device = device
        self.n_negatives, self.batch_size, self.threads = n_negatives, batch_size, threads
        seen = dense_seen(train)
        if device == "cpu":
            self.draw = dense_negatives(seen, train.n_items, n_negatives, seed)
            self.negatives = np.empty((train.n_interactions, n_negatives), dtype=np.int32)
        else:
            self.draw_there = device_negatives(seen, n_negatives, device)
            self.log = tuple(torch.from_numpy(np.array(a)).to(device) for a in (self.users, self.positives))
        self.model = CarefulGMF(train.n_users, train.n_items, dim).to(device)
        self.step_loss = torch.compile(self.model, dynamic=False) if compiled else self.model
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=1e-3, fused=True)
        self.generator = np.random.default_rng(seed + 1)
        self._left = np.empty(0, np.int64)

    def epoch(self, n_positives: int | None = None) -> float:
        """One pass over all positives, or over the next ``n_positives`` of it; the mean loss, read once at the end.

        A tail batch is trained too, but by the eager model: it would compile a second shape.
        """
        wanted = self.users.size if n_positives is None else n_positives
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            if self.device != "cpu":
                visited = torch.randperm(self.users.size, device=self.device)[:wanted]
                there, positives = (a[visited] for a in self.log)
                return self._steps(there, torch.cat((positives[:, None], self.draw_there(there)), 1))
            if self._left.size < wanted:
                self._left = self.generator.permutation(self.users.size)
            order, self._left = self._left[:wanted], self._left[wanted:]
            users = self.users[order]
            negatives = self.draw(users, self.negatives[: order.size])
            items = torch.from_numpy(np.concatenate([self.positives[order][:, None], negatives], axis=1))
            return self._steps(torch.from_numpy(users), items)
        finally:
            torch.set_num_threads(before)

    def _steps(self, users: Tensor, items: Tensor) -> float:
        total = torch.zeros((), device=self.device)
        for lo in range(0, users.shape[0], self.batch_size):
            rows = users[lo : lo + self.batch_size]
            forward = self.step_loss if rows.shape[0] == self.batch_size else self.model
            loss = forward(rows, items[lo : lo + self.batch_size])
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self.optimizer.step()
            total += loss.detach() * rows.shape[0]
        return float(total) / users.shape[0]
