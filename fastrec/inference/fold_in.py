"""A vector for someone who was not in the training: the run's own loss, minimised over one user row, items frozen.

d positives, R rounds of N negatives, I items, D dim.
"""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import ConfigError, DataError, FastrecError
from fastrec.inference import kernels
from fastrec.inference.lookup import Ids
from fastrec.inference.weights import Weights
from fastrec.models.parts.host_losses import FORMS, Terms
from fastrec.models.parts.host_vectors import FORMS as MODELS
from fastrec.runs import Run, open_run
from fastrec.sampling import NegativeSampler, identity
from fastrec.sampling.philox import TAG_NEGATIVES, TAG_POPULARITY
from fastrec.sampling.weights import popularity

ROUNDS, DRAWS = 8, 1 << 13
"""Epochs of negatives that the loss is averaged over at most, and negatives of all of them together, about."""
STEPS, PRECISION, SHORTEST = 50, 1e-9, 1e-6
"""Newton steps at most (5 to 10 suffice), the relative fall of the loss at which they end, and the least fraction of a
step that is tried."""


class NewUser(NamedTuple):
    """What was folded in: logit = vector . item vector + item bias + constant."""

    vector: NDArray[np.float32]
    """float32[D]"""
    constant: float
    items: NDArray[np.int32]
    """int32[d]: contiguous ids, ascending, each once"""


def fold_in(run: Run | str | os.PathLike[str], items: Any, *, ids: str = "source") -> NDArray[np.float32]:
    """The vector of a user who was not in the training, from the items that the user has.

    Parameters
    ----------
    run : Run or path
        Of an MF or GMF, trained by BCE or BPR.
    items : id, or array or iterable of ids
        In any order; an item that is given twice counts once.
    ids : {"source", "contiguous"}
        What ``items`` are.

    Returns
    -------
    float32[D]
        ``vector . item vector + item bias`` ranks the items, as for the users of the run (``Recommender.item_vectors``
        and ``item_bias``).

    Raises
    ------
    DataError
        If there is no item, one is unknown (the first is named), or the list leaves no item to draw as a negative.
    ConfigError
        If the model has no vectors, or the loss is none of a single user's own items and draws.
    CheckpointError
        If the run has no weights, is damaged, or is of another stream version.

    Guarantee
    ---------
    The negatives are addressed as those of user ``n_users``, epochs 0 to R - 1: equal sets of items give equal vectors
    on one machine. Nothing in the run changes.

    Notes
    -----
    With the item table frozen the loss of a user is a logistic regression on the user's row, which Newton's method
    minimises: the loss terms of an epoch, averaged over up to 8 epochs of negatives, and ``l2 / 2`` times the squares
    of the row for each positive, as in training (``engines.units``). Training stops early and so keeps rows short;
    a minimum does not. In its place the squares count another ``1 / (2 m)`` times, ``m`` being the mean square of the
    trained user rows: a Gaussian prior. Without it folded-in users of an MF rank worse (MovieLens-1M, validation
    NDCG@10 .266; .305 with it, .301 trained).

    Cost
    ----
    A few milliseconds: 10 steps of R * d * N * D^2 multiplications at most. The run is opened and verified first;
    ``Recommender.fold_in`` does that once.
    """
    run = run if isinstance(run, Run) else open_run(run)
    return Folder(run).solve(items, ids=ids).vector


class Folder:
    """What folding users into one run needs, read once.

    Parameters
    ----------
    run : Run
    weights : Weights, optional
        Those of the run, where they were read already.

    Raises
    ------
    ConfigError, CheckpointError
        See ``fold_in``.
    """

    def __init__(self, run: Run, weights: Weights | None = None) -> None:
        run.check_stream("draw its negatives for someone new")
        config, split = run.config, run.split()
        model, loss = str(config.get("model")), str(config.get("loss", "bce"))
        if model not in MODELS:
            raise ConfigError(f"{run.path}: a {model} has no user vector to fold in; train one of {', '.join(MODELS)}")
        if loss not in FORMS:
            raise ConfigError(
                f"{run.path}: loss = {loss} scores a user against the other users of a batch, which someone new does "
                f"not have; train with loss = {' or '.join(FORMS)}"
            )
        if config.get("hard_negatives"):
            raise ConfigError(
                f"{run.path}: hard_negatives = {config['hard_negatives']} chose the negatives by the user's own row "
                "while it was trained, which someone new does not have; train without it"
            )
        self.run, self.n_users, self.n_items = run, split.n_users, split.n_items
        self.index = Ids(split.train.item_ids, "item", split.train.name.removesuffix(" train"))
        self._weights = Weights(run, split) if weights is None else weights
        vectors = self._weights.vectors
        self._table, self._bias = vectors.items.astype(np.float64), vectors.bias.astype(np.float64)
        self._shared, self._has_bias = self._weights.shared_bias, model == "mf"
        self._form, self._l2 = FORMS[loss], float(config.get("l2") or 0.0)
        trained = vectors.users[split.train.degrees > 0]
        self._prior = 1.0 / max(float(np.mean(np.square(trained, dtype=np.float64))), 1e-12) if trained.size else 1.0
        self._draw: dict[str, Any] = {"n_negatives": int(config.get("negatives", 4)), "seed": int(config["seed"])}
        if config.get("distribution", "uniform") == "popularity":
            weights_of = popularity(split.train.item_counts(), float(config.get("popularity_alpha", 0.75)))
            self._draw |= {"distribution": "weights", "weights": weights_of, "tag": TAG_POPULARITY}
        else:
            self._draw |= {"tag": TAG_NEGATIVES}

    def solve(self, items: Any, *, ids: str = "source") -> NewUser:
        """The vector and constant of someone with these items; see ``fold_in``."""
        found = self.index.check(items) if ids == "contiguous" else self.index.find(items)[0]
        own = np.unique(found)
        if not own.size:
            raise DataError("no item: a list without items says nothing about a user; give at least one")
        terms = self._form(own, self.negatives(own), self._table, self._bias)
        biased = self._has_bias and terms.moves_bias
        if biased:
            terms = terms._replace(rows=np.column_stack((terms.rows, np.ones(len(terms.rows)))))
        if terms.moves_bias:
            terms = terms._replace(offsets=terms.offsets + self._shared)
        best = minimise(terms, own.size * self._l2 + self._prior)
        dim = self._table.shape[1]
        constant = self._shared + (float(best[dim]) if biased else 0.0)
        return NewUser(best[:dim].astype(np.float32), constant, own)

    def negatives(self, own: NDArray[np.int32]) -> NDArray[np.int32]:
        """int32[R, d, N]: draws of epochs 0 to R - 1 at user ``n_users``, whose positives are ``own``."""
        indptr, n = np.array([0, own.size], np.int64), self._draw["n_negatives"]
        try:
            sampler = NegativeSampler(indptr, own, n_items=self.n_items, **self._draw)
        except DataError:
            raise DataError(
                f"{own.size:,} items of {self.n_items:,}: there is none left to draw as a negative; give fewer"
            ) from None
        rounds = max(1, min(ROUNDS, DRAWS // (own.size * n)))
        users, at = np.zeros(own.size, np.int32), identity(np.full(own.size, self.n_users), own)
        return np.stack([sampler.sample(users, epoch=epoch, positions=at) for epoch in range(rounds)])


def minimise(terms: Terms, l2: float) -> NDArray[np.float64]:
    """float64[D]: where the weighted logistic loss of the terms plus ``l2 / 2`` times the squares is least.

    Newton's method with halved steps; the loss is strictly convex for ``l2`` above 0.

    Raises
    ------
    FastrecError
        If the loss is not finite: the weights of the run have diverged.
    """
    given, n = terms[:4], terms.rows.shape[1]
    x, step, curvature = np.zeros(n), np.empty(n), np.empty((n, n))
    value = kernels.logistic_loss(*given, x)
    if not np.isfinite(value):
        raise FastrecError("the item vectors give a loss that is not finite: the run has diverged; train again")
    for _ in range(STEPS):
        kernels.logistic_slopes(*given, x, l2, step, curvature)
        kernels.solve_positive(curvature, step)
        before, size = value, 1.0
        while size > SHORTEST:
            tried = x - size * step
            value = kernels.logistic_loss(*given, tried) + 0.5 * l2 * float(np.square(tried).sum())
            if value <= before:
                break
            size *= 0.5
        else:
            break
        x = tried
        if before - value <= PRECISION * abs(before):
            break
    return x
