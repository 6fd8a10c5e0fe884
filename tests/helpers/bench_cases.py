"""What the tests of the bench's cases share: a small context, and a sampler that is broken on purpose."""

from __future__ import annotations

import numpy as np
import pytest

from fastrec.bench.context import Context, make_context
from fastrec.sampling import NegativeSampler


def small_context(log: str) -> Context:
    """A quick context over a saved log, with small tables and batches."""
    made = make_context(data=log, threads=2, device="cpu", quick=True)
    made.dim, made.batch_size = 8, 1024
    made.bandwidth = {"1": 1e10, "2": 2e10}  # measuring it takes a second and half a gigabyte
    return made


def broken_sampler(monkeypatch: pytest.MonkeyPatch, breakage) -> None:
    """Break the sampler itself; the bench must notice by its own means."""
    sound = NegativeSampler.sample

    def sample(self, users, **kwargs):
        return breakage(self, np.asarray(users), sound(self, users, **kwargs))

    monkeypatch.setattr(NegativeSampler, "sample", sample)


def emit_a_positive(sampler, users, out):
    """A breakage: one slot holds a positive of its user."""
    row = len(users) // 2
    out[row, 1] = sampler.items[sampler.indptr[users[row]]]
    return out
