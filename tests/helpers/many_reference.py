"""The pass for many negatives in float64: losses by autograd, updates in plain NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from fastrec.models.parts.loss import Loss

EPS = 1e-10


class Reference:
    """Weights in float64 of a ``ManyEngine``, and both kinds of step."""

    def __init__(self, engine: Any) -> None:
        self.w = {k: v.astype(np.float64) for k, v in engine.named.items()}
        self.sums = {k: v.astype(np.float64) for k, v in engine.sums.items()}
        self.loss: Loss = engine.loss
        self.l2, self.cosine = engine.l2, engine.cosine
        self.weight = getattr(engine.model, "history_weight", 0.0)
        self.stream = engine.stream

    def _history(self, users: Any) -> np.ndarray:
        """The weighted directions of the users' histories, from the item rows as they are."""
        q = self.w["item_factors"] / np.linalg.norm(self.w["item_factors"], axis=1, keepdims=True)
        indptr, items = self.stream.indptr, self.stream.items_of
        means = np.array([q[items[indptr[u] : indptr[u + 1]]].sum(0) for u in users])
        return self.weight * means / np.linalg.norm(means, axis=1, keepdims=True)

    def _scores(
        self, w: dict[str, torch.Tensor], users: torch.Tensor, items: torch.Tensor, past: Any = 0.0
    ) -> torch.Tensor:
        p, q = w["user_factors"][users] + past, w["item_factors"][items]
        if self.cosine:
            return (F.normalize(p, dim=-1)[:, None] * F.normalize(q, dim=-1)).sum(-1)
        return (p[:, None] * q).sum(-1) + w["bias"] + w["user_bias"][users][:, None] + w["item_bias"][items]

    def _move(self, name: str, at: Any, gradient: np.ndarray, lr: float) -> None:
        """One update of rows ``at`` (of the table ``name``) with gradients of their own."""
        if self.sums:
            square = gradient * gradient
            self.sums[name][at] += square.mean(-1) if name.endswith("factors") else square
            root = np.sqrt(self.sums[name][at]) + EPS
            gradient = gradient / (root[..., None] if name.endswith("factors") else root)
        self.w[name][at] -= lr * gradient

    def step(self, users: np.ndarray, items: np.ndarray, lr: float, weights: Any = None) -> float:
        """A mini-batch step on the mean loss, each row's times its weight; returns the mean loss."""
        w = {k: torch.tensor(v, requires_grad=True) for k, v in self.w.items()}
        u, i = torch.from_numpy(users.astype(np.int64)), torch.from_numpy(items.astype(np.int64))
        past = torch.from_numpy(self._history(users)) if self.weight else 0.0
        scores = self._scores(w, u, i, past)
        if weights is None:
            value = self.loss.mean(scores)
        else:
            rows = [self.loss.mean(row[None]) for row in scores]
            value = (torch.stack(rows) * torch.from_numpy(weights.astype(np.float64))).mean()
        value.backward()
        flat, repeated = items.reshape(-1), np.repeat(users, items.shape[1])
        uses = {name: np.zeros(len(v)) for name, v in self.w.items()}
        for name in uses:
            np.add.at(uses[name], flat if name.startswith("item") else repeated * (name != "bias"), 1.0)
        for name, parameter in w.items():
            if self.loss.name in ("bpr", "softmax") and name in ("bias", "user_bias"):
                gradient = np.zeros_like(self.w[name])  # they cancel: what autograd finds is rounding
            else:
                gradient = parameter.grad.numpy()
            count = uses[name][:, None] if gradient.ndim == 2 else uses[name]
            gradient = gradient + self.l2 / items.size * count * self.w[name]
            touched = np.flatnonzero(uses[name] > 0)
            self._move(name, touched, gradient[touched], lr)
        return float(value.detach())

    def sequential(self, users: np.ndarray, items: np.ndarray, lr: float, weights: Any = None) -> float:
        """Positive by positive: all its samples scored at once, then applied one after the other; summed loss."""
        total = 0.0
        terms = self.loss.terms(1, items.shape[1])
        before, past = -1, np.zeros(1)
        for k, (u, row) in enumerate(zip(users, items)):
            if self.weight and u != before:
                before, past = u, self._history([u])[0]
            w = {k: torch.tensor(v) for k, v in self.w.items()}
            one = torch.tensor([int(u)]), torch.from_numpy(row[None].astype(np.int64))
            scores = self._scores(w, *one, torch.from_numpy(past))
            scores.requires_grad_(True)
            value = self.loss.mean(scores) * terms * (1.0 if weights is None else float(weights[k]))
            value.backward()
            total += float(value.detach())
            x, g = scores.detach().numpy()[0], scores.grad.numpy()[0]
            self._apply(int(u), row, x, g, lr, past)
        return total

    def _apply(self, u: int, row: np.ndarray, x: np.ndarray, g: np.ndarray, lr: float, past: Any) -> None:
        p = self.w["user_factors"][u].copy()
        length = np.linalg.norm(p + past)
        r = (p + past) / length if self.cosine else p
        summed = np.zeros_like(p)
        n = len(row)
        slope = g.sum() if self.loss.name in ("bce", "gbce") else 0.0
        for j, i in enumerate(row):
            if self.cosine and g[j] == 0 and j:
                continue
            q = self.w["item_factors"][i].copy()
            if self.cosine:
                norm = np.linalg.norm(q)
                summed += g[j] * (q / norm - x[j] * r) / length
                gradient = g[j] * (r - x[j] * q / norm) / norm
                if self.sums:  # the square of a gradient between rows of length 1 in closed form
                    self.sums["item_factors"][i] += g[j] ** 2 * max(0.0, 1 - x[j] ** 2) / norm**2 / len(q)
                    gradient = gradient / (np.sqrt(self.sums["item_factors"][i]) + EPS)
                self.w["item_factors"][i] = q - lr * gradient
            else:
                summed += g[j] * q
                self._move("item_factors", i, g[j] * r + self.l2 * q, lr)
                self._move("item_bias", i, g[j] + self.l2 * self.w["item_bias"][i], lr)
        if self.cosine:
            self._move("user_factors", u, summed, lr)
            return
        self._move("user_factors", u, summed + self.l2 * n * p, lr)
        self._move("user_bias", u, slope + self.l2 * n * self.w["user_bias"][u], lr)
        self._move("bias", 0, slope + self.l2 * n * self.w["bias"][0], lr)
