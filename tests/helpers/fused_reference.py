"""The fused engine's mathematics in plain float64 NumPy: what its kernels must equal."""

from __future__ import annotations

from typing import Any

import numpy as np

EPS = 1e-10


def losses(x: np.ndarray, loss: str) -> tuple[float, np.ndarray]:
    """Summed loss of logits [B, 1+N], and its gradient."""
    if loss == "bce":
        y = np.zeros_like(x)
        y[:, 0] = 1.0
        return float((np.logaddexp(0, x) - y * x).sum()), 1 / (1 + np.exp(-x)) - y
    z = x[:, 1:] - x[:, :1]
    s = 1 / (1 + np.exp(-z))
    return float(np.logaddexp(0, z).sum()), np.concatenate((-s.sum(1, keepdims=True), s), 1)


class Reference:
    """Weights in float64, and both kinds of step."""

    def __init__(self, engine: Any) -> None:
        self.w = {k: v.astype(np.float64) for k, v in engine.weights.named.items()}
        self.sums = {k: v.astype(np.float64) for k, v in engine.weights.sums.items()}
        self.moments = {k: [np.zeros_like(v), np.zeros_like(v)] for k, v in self.w.items()}
        self.lazy_adam, self.steps, self.sgd = engine.optimizer == "lazy-adam", 0, engine.optimizer == "sgd"
        self.loss, self.l2, self.output_l2, self.output_lr = engine.loss, engine.l2, engine.output_l2, engine.output_lr

    def logits(self, users: np.ndarray, items: np.ndarray) -> np.ndarray:
        w = self.w
        p = w["user_factors"][users]
        p = p * w["h"] if "h" in w else p
        x = np.einsum("bd,bkd->bk", p, w["item_factors"][items]) + w["bias"]
        return x if "h" in w else x + w["user_bias"][users][:, None] + w["item_bias"][items]

    def gradients(
        self, users: np.ndarray, items: np.ndarray, g: np.ndarray, l2: float, output_l2: float
    ) -> dict[str, np.ndarray]:
        """Of the summed terms; ``l2``, and ``output_l2`` on h, is what each sample counts in them."""
        w, out = self.w, {k: np.zeros_like(v) for k, v in self.w.items()}
        p, q = w["user_factors"][users], w["item_factors"][items]
        h = w.get("h", np.ones(p.shape[1]))
        n = items.shape[1]
        slope = g.sum(1) if self.loss == "bce" else np.zeros(len(g))  # BPR knows no bias but the item's
        np.add.at(out["user_factors"], users, h * np.einsum("bk,bkd->bd", g, q) + l2 * n * p)
        np.add.at(out["item_factors"], items, g[:, :, None] * (p * h)[:, None, :] + l2 * q)
        out["bias"][0] = slope.sum() + l2 * g.size * w["bias"][0]
        if "h" in w:
            out["h"] = np.einsum("bk,bd,bkd->d", g, p, q) + output_l2 * g.size * h
        else:
            np.add.at(out["user_bias"], users, slope + l2 * n * w["user_bias"][users])
            np.add.at(out["item_bias"], items, g + l2 * w["item_bias"][items])
        return out

    def move(self, gradients: dict[str, np.ndarray], lr: float, n: int) -> None:
        """By the sum over ``n`` terms under SGD (shared weights by at most their mean), else by the mean."""
        self.steps += 1
        for name, g in gradients.items():
            if self.lazy_adam:
                touched = (g != 0).any(1) if g.ndim == 2 else np.full(g.shape, True)
                m, v = self.moments[name]
                m[touched] = 0.9 * m[touched] + 0.1 * g[touched]
                v[touched] = 0.999 * v[touched] + 0.001 * g[touched] ** 2
                size = np.sqrt(1 - 0.999**self.steps) / (1 - 0.9**self.steps)
                g = np.where(touched.reshape((-1,) + (1,) * (g.ndim - 1)), size * m / (np.sqrt(v) + 1e-8), 0.0)
            if self.sums:
                self.sums[name] += (g * g).mean(1) if g.ndim == 2 else g * g
                root = np.sqrt(self.sums[name]) + EPS
                g = g / (root[:, None] if g.ndim == 2 else root)
            size = lr * (self.output_lr if name == "h" else 1.0)
            if self.sgd:
                size = min(size * n, 1.0) if name in ("h", "bias") else size * n
            self.w[name] -= size * g

    def step(self, users: np.ndarray, items: np.ndarray, lr: float) -> float:
        """A mini-batch step; returns the mean loss times the samples."""
        value, g = losses(self.logits(users, items), self.loss)
        n = items.size if self.loss == "bce" else items.size - len(users)
        per_sample = [l2 / items.shape[1] / n for l2 in (self.l2, self.output_l2)]
        self.move(self.gradients(users, items, g / n, *per_sample), lr, n)
        return value / n * items.size

    def sequential(self, users: np.ndarray, items: np.ndarray, lr: float) -> float:
        """Positive by positive in the given order: all its samples scored at once, then applied one after the other.

        Returns the mean loss times the samples.
        """
        w, total = self.w, 0.0
        l2, output_l2 = (value / items.shape[1] for value in (self.l2, self.output_l2))
        for u, row in zip(users, items):
            value, g = losses(self.logits(np.array([u]), row[None]), self.loss)
            total += value
            g, n = g[0], len(row)
            slope = g.sum() if self.loss == "bce" else 0.0
            p, h = w["user_factors"][u].copy(), w.get("h", np.ones(w["user_factors"].shape[1])).copy()
            lrs = [self._lr("item_factors", i, g[j] * p * h + l2 * w["item_factors"][i], lr) for j, i in enumerate(row)]
            weighted = np.zeros_like(p)
            for j, i in enumerate(row):
                q = w["item_factors"][i]
                weighted += g[j] * q
                w["item_factors"][i] = q - lrs[j] * (g[j] * p * h + l2 * q)
                if "h" not in w:
                    gradient = g[j] + l2 * w["item_bias"][i]
                    w["item_bias"][i] -= self._lr("item_bias", i, gradient, lr) * gradient
            gradient = h * weighted + l2 * n * p
            w["user_factors"][u] -= self._lr("user_factors", u, gradient, lr) * gradient
            gradient = slope + l2 * n * w["bias"][0]
            w["bias"][0] -= self._lr("bias", 0, gradient, lr) * gradient
            if "h" in w:
                gradient = p * weighted + output_l2 * n * h
                w["h"] -= self._lr("h", slice(None), gradient, lr * self.output_lr) * gradient
            else:
                gradient = slope + l2 * n * w["user_bias"][u]
                w["user_bias"][u] -= self._lr("user_bias", u, gradient, lr) * gradient
        terms = items.size if self.loss == "bce" else items.size - len(users)
        return total / terms * items.size

    def _lr(self, name: str, at: Any, gradient: Any, lr: float) -> Any:
        """The learning rate of one row, after its gradient has been counted."""
        if not self.sums:
            return lr
        square = gradient * gradient
        self.sums[name][at] += square.mean() if name.endswith("factors") else square
        return lr / (np.sqrt(self.sums[name][at]) + EPS)
