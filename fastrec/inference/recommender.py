"""A trained run in use: lists for some users or all, similar items and users, scores and vectors.

U users, I items, B rows, D dim, K cutoff.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import as_int
from fastrec.errors import ConfigError
from fastrec.inference.contents import Contents
from fastrec.inference.fold_in import Folder
from fastrec.inference.listing import Choice, Kind, Output, columns, neighbours
from fastrec.inference.lookup import Ids
from fastrec.inference.top_k import Best, Candidates, Csr, ModelScorer, Scorer, VectorScorer, top_k
from fastrec.inference.weights import Weights
from fastrec.runs import Run, open_run
from fastrec.terminal import html_table

BLOCK = 8192
"""Users whose lists are in memory at a time while a file is written."""


class Recommender(Contents):
    """A run's model with the ids, titles and tables of its data.

    Users and items are given and returned by the ids of the source, or by contiguous ids with ``ids="contiguous"``.
    Lists are Polars frames, or with ``output="arrays"`` dicts of NumPy arrays with the same columns. An MF or GMF run
    needs NumPy and Numba only; frames, files and ``where`` need Polars, other models torch.

    Parameters
    ----------
    run : Run
        From ``open_run`` or a training.
    model : torch.nn.Module, optional
        In place of the run's weights.
    threads : int, optional
        CPU threads of the selection; None means all.

    Attributes
    ----------
    user_index, item_index : Ids
        ``find(ids)`` gives contiguous ids.

    Examples
    --------
    >>> rec = fastrec.Recommender.load("runs/first")  # doctest: +SKIP
    >>> rec.recommend([1, 2], k=10, where={"genres": "Drama", "year": (1990, None)})  # doctest: +SKIP
    """

    def __init__(self, run: Run, *, model: Any = None, threads: int | None = None) -> None:
        super().__init__(run)
        self.threads = threads
        self._weights = Weights(run, run.split(), model)

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> Recommender:
        """Open a run folder.

        Raises
        ------
        CheckpointError
            If it is not a run folder, has no weights, or is damaged or altered.
        """
        return cls(open_run(path), threads=threads)

    @property
    def user_vectors(self) -> NDArray[np.float32]:
        """float32[U, D]. Raises ConfigError for a model without vectors (MLP, NeuMF)."""
        return self._weights.vectors.users

    @property
    def item_vectors(self) -> NDArray[np.float32]:
        """float32[I, D]: user . item + item bias orders the items. Raises ConfigError for a model without vectors."""
        return self._weights.vectors.items

    @property
    def item_bias(self) -> NDArray[np.float32]:
        """float32[I]. Raises ConfigError for a model without vectors."""
        return self._weights.vectors.bias

    def favourites(self, user: int, k: int) -> NDArray[np.int32]:
        """int32[n]: the ``k`` items of one contiguous user that the model scores highest."""
        own = np.sort(np.concatenate([part.row(user) for part in self._parts]))
        scores = self._weights.pairs(np.full(own.size, user, np.int32), own)
        return own[np.lexsort((own, -scores))[:k]]

    def recommend(
        self,
        users: Any,
        k: int = 10,
        *,
        seen: bool = False,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        skip_unknown: bool = False,
        ids: Kind = "source",
        output: Output = "frame",
    ) -> Any:
        """The ``k`` items that the model scores highest for each user.

        Parameters
        ----------
        users : id, or array or iterable of ids
        k : int
            At least 1; fewer rows come back where fewer items are left.
        seen : bool
            List items too that the user has an interaction with, in train, validation or test.
        allow, deny : array or iterable of item ids, optional
            Only these items; none of these.
        where : mapping or polars.Expr, optional
            A choice by the table of items, such as ``{"genres": "Drama", "year": (1990, None)}``: see
            ``fastrec.data.lists.matching``.
        skip_unknown : bool
            Leave unknown users out instead of raising.
        ids : {"source", "contiguous"}
            What users, items, ``allow`` and ``deny`` are, coming in and going out.
        output : {"frame", "arrays"}
            A Polars frame, or a dict of NumPy arrays.

        Returns
        -------
        polars.DataFrame or dict of str to array
            ``user_id``, ``rank`` (from 1), ``item_id``, ``title`` (where there are titles) and ``score`` (the logit),
            one row per user and rank, users in the order given.

        Raises
        ------
        DataError
            If a user or item is unknown (the first is named), or the model's scores are not finite.
        ConfigError
            If ``k`` is below 1, or ``where`` names what the run does not keep.

        Cost
        ----
        U * I * D multiplications, and 16 MiB of scores at a time.
        """
        choice = self._choice(k, seen, allow, deny, where, ids, output, skip_unknown)
        return self._lists(self._lookup(self.user_index, users, ids, skip_unknown), choice)

    def recommend_all(
        self,
        k: int = 10,
        *,
        out: str | os.PathLike[str] | None = None,
        users: Any = None,
        progress: Callable[[int, int], None] | None = None,
        **options: Any,
    ) -> Any:
        """Lists for every user: a frame, or a file that is written as the lists are made.

        Parameters
        ----------
        k : int
        out : path, optional
            A ``.parquet``, ``.csv`` or ``.jsonl`` file to write, which must not exist; its path is returned.
        users : array or iterable of ids, optional
            Only these users.
        progress : callable, optional
            Called with the number of users done and of all users.
        **options
            Those of ``recommend``.

        Cost
        ----
        With ``out``, memory for the lists of ``BLOCK`` users at a time.
        """
        choice = self._choice(k, **{"output": "frame", **options})
        rows = np.arange(self.n_users, dtype=np.int32)
        if users is not None:
            rows = self._lookup(self.user_index, users, choice.ids, choice.skip_unknown)
        if out is None:
            return self._lists(rows, choice)
        from fastrec.data.lists import check_format, write_frames

        def blocks() -> Iterator[Any]:
            for lo in range(0, max(1, rows.size), BLOCK):
                yield self._lists(rows[lo : lo + BLOCK], choice)
                if progress is not None:
                    progress(min(lo + BLOCK, rows.size), rows.size)

        write_frames(check_format(out), blocks())
        return Path(out)

    @cached_property
    def _folder(self) -> Folder:
        return Folder(self.run, self._weights)

    def fold_in(self, items: Any, *, ids: Kind = "source") -> NDArray[np.float32]:
        """float32[D]: the vector of someone who was not in the training, from the items that they have.

        See ``fastrec.fold_in``; ``recommend_new`` gives the list.
        """
        return self._folder.solve(items, ids=ids).vector

    def recommend_new(
        self,
        items: Any,
        k: int = 10,
        *,
        seen: bool = False,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        ids: Kind = "source",
        output: Output = "frame",
    ) -> Any:
        """The ``k`` best items for someone who was not in the training and has ``items``; see ``fold_in``.

        Returns
        -------
        polars.DataFrame or dict of str to array
            ``rank``, ``item_id``, ``title`` and ``score`` as of ``recommend``; ``items`` are listed with ``seen`` only.
        """
        choice = self._choice(k, True, allow, deny, where, ids, output)
        new, vectors = self._folder.solve(items, ids=ids), self._weights.vectors
        own = () if seen else (Csr(np.array([0, new.items.size], np.int64), new.items),)
        scorer, only = VectorScorer(new.vector[None], vectors.items, vectors.bias), np.zeros(1, np.int32)
        best = top_k(scorer, only, choice.k, hidden=own, candidates=choice.candidates, threads=self.threads)
        best = best._replace(scores=best.scores + np.float32(new.constant))
        found = columns(("new", Ids(only, "user", "")), ("item_id", self.item_index), only, best, choice, self.titles)
        return found.drop("new") if output == "frame" else {name: v for name, v in found.items() if name != "new"}

    def similar(
        self,
        items: Any,
        k: int = 10,
        *,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        ids: Kind = "source",
        output: Output = "frame",
    ) -> Any:
        """The ``k`` items whose vectors have the highest cosine with those of each item, itself left out.

        The item bias has no part in it. Models without vectors are compared by their item embeddings.

        Returns
        -------
        polars.DataFrame or dict of str to array
            ``item_id``, ``rank``, ``similar_id``, ``title`` (of the similar item) and ``score`` (the cosine).
        """
        choice = self._choice(k, True, allow, deny, where, ids, output)
        rows = self._lookup(self.item_index, items, ids)
        best = neighbours(self._weights.item_table, rows, choice, self.threads)
        return columns(("item_id", self.item_index), ("similar_id", self.item_index), rows, best, choice, self.titles)

    def similar_users(self, users: Any, k: int = 10, *, ids: Kind = "source", output: Output = "frame") -> Any:
        """The ``k`` users whose vectors have the highest cosine with those of each user, itself left out.

        Returns
        -------
        polars.DataFrame or dict of str to array
            ``user_id``, ``rank``, ``similar_id`` and ``score`` (the cosine).
        """
        choice = self._choice(k, True, None, None, None, ids, output)
        rows = self._lookup(self.user_index, users, ids)
        best = neighbours(self._weights.user_table, rows, choice, self.threads)
        return columns(("user_id", self.user_index), ("similar_id", self.user_index), rows, best, choice)

    def score(self, users: Any, items: Any, *, ids: Kind = "source") -> NDArray[np.float32]:
        """float32[B]: the logit of each pair; one user goes with many items, and the other way round.

        Raises
        ------
        DataError
            If an id is unknown.
        ConfigError
            If users and items differ in number, and neither is one.
        """
        left, right = self._lookup(self.user_index, users, ids), self._lookup(self.item_index, items, ids)
        if left.size != right.size and 1 not in (left.size, right.size):
            raise ConfigError(f"{left.size} users and {right.size} items: give as many of both, or one of either")
        pair = np.broadcast_arrays(left, right)
        return self._weights.pairs(np.ascontiguousarray(pair[0]), np.ascontiguousarray(pair[1]))

    def mask(self, allow: Any = None, deny: Any = None, where: Any = None, *, ids: Kind = "source") -> Any:
        """bool[I]: the items that fit all of them (see ``recommend``); None for no condition."""
        if allow is None and deny is None and where is None:
            return None
        mask = np.ones(self.n_items, np.bool_)
        if allow is not None:
            mask[:] = False
            mask[self._lookup(self.item_index, allow, ids)] = True
        if deny is not None:
            mask[self._lookup(self.item_index, deny, ids)] = False
        if where is not None:
            from fastrec.data.lists import matching

            try:
                mask &= matching(self.items, where)
            except ConfigError as error:
                raise ConfigError(f"{error}{self._lacks('items')}") from None
        return mask

    def _lacks(self, table: str) -> str:
        kept = self.run.tables()
        if kept is None:
            return f"; {self.run.path} was made by an earlier fastrec, which kept no table of {table}: train again"
        return "" if table in kept else f"; the data of {self.run.path} came without a table of {table}"

    def _lookup(self, table: Ids, given: Any, ids: Kind, skip_unknown: bool = False) -> NDArray[np.int32]:
        if ids == "contiguous":
            return table.check(given)
        return table.find(given, skip_unknown=skip_unknown)[0]

    def _choice(
        self,
        k: int,
        seen: bool = False,
        allow: Any = None,
        deny: Any = None,
        where: Any = None,
        ids: Kind = "source",
        output: Output = "frame",
        skip_unknown: bool = False,
    ) -> Choice:
        if (k := as_int("k", k)) < 1:
            raise ConfigError(f"k={k}: ask for at least 1 item")
        for name, value, known in (("ids", ids, ("source", "contiguous")), ("output", output, ("frame", "arrays"))):
            if value not in known:
                raise ConfigError(f"{name}={value!r}: must be {' or '.join(known)}")
        mask = self.mask(allow, deny, where, ids=ids)
        candidates = None if mask is None else Candidates.of(mask, self.n_items)
        hidden = () if seen else tuple(Csr(part.indptr, part.items) for part in self._parts if part.n_interactions)
        return Choice(ids, output, candidates, hidden, k, skip_unknown)

    @cached_property
    def _scorer(self) -> Scorer:
        vectors = self._weights.vectors_or_none
        if vectors is None:
            return ModelScorer(self._weights.model, self.n_items)
        return VectorScorer(vectors.users, vectors.items, vectors.bias if vectors.bias.any() else None)

    def best(self, rows: NDArray[np.int32], choice: Choice) -> Best:
        """The lists of contiguous users int32[B] as arrays."""
        best = top_k(
            self._scorer, rows, choice.k, hidden=choice.hidden, candidates=choice.candidates, threads=self.threads
        )
        return best._replace(scores=best.scores + self._weights.constants(rows)[:, None])

    def _lists(self, rows: NDArray[np.int32], choice: Choice) -> Any:
        best = self.best(rows, choice)
        return columns(("user_id", self.user_index), ("item_id", self.item_index), rows, best, choice, self.titles)

    def _facts(self) -> list[tuple[str, str]]:
        config, kept = self.run.config, self.run.tables()
        tables = "none: made by an earlier fastrec" if kept is None else "none came with the data"
        if kept:
            tables = "; ".join(f"{name}: {', '.join(columns)}" for name, columns in kept.items())
        return [
            ("run", str(self.run.path)),
            ("model", f"{config.get('model', '?')}, dim {config.get('dim', '?')}"),
            ("data", self.user_index.data),
            ("users", f"{self.n_users:,}"),
            ("items", f"{self.n_items:,}{'' if self.titles is None else ', with titles'}"),
            ("tables", tables),
        ]

    def __repr__(self) -> str:
        facts = dict(self._facts())
        return (
            f"Recommender({facts['run']!r}: {facts['model']}, {facts['users']} users x {facts['items']} of "
            f"{facts['data']}; tables: {facts['tables']})"
        )

    def _repr_html_(self) -> str:
        return html_table([("recommender", ""), *self._facts()])
