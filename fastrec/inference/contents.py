"""What a run is about: users and items by source id and title, with what the source tells of them.

U users, I items.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.inference.lookup import Ids, search_titles
from fastrec.runs import Run


class Contents:
    """The users and items of a run."""

    def __init__(self, run: Run) -> None:
        self.run = run
        split = run.split()
        self._parts = (split.train, split.validation, split.test)
        data = split.train.name.removesuffix(" train")
        self.user_index = Ids(split.train.user_ids, "user", data)
        self.item_index = Ids(split.train.item_ids, "item", data)

    @property
    def n_users(self) -> int:
        """Number of users U."""
        return self.user_index.values.size

    @property
    def n_items(self) -> int:
        """Number of items I."""
        return self.item_index.values.size

    @property
    def user_ids(self) -> NDArray[Any]:
        """int64[U] or str[U]: the source's id of each contiguous id."""
        return self.user_index.values

    @property
    def item_ids(self) -> NDArray[Any]:
        """int64[I] or str[I]: the source's id of each contiguous id."""
        return self.item_index.values

    @property
    def titles(self) -> NDArray[Any] | None:
        """str[I]: titles; None where the data have none."""
        return self._parts[0].titles

    @cached_property
    def items(self) -> Any:
        """polars.DataFrame: ``item`` and its fields in the source, one row per contiguous id in their order."""
        from fastrec.data.lists import aligned

        return aligned(self.run.catalog().movies, "item", self.item_ids, self.titles)

    @cached_property
    def users(self) -> Any:
        """polars.DataFrame: ``user`` and its fields in the source, one row per contiguous id in their order."""
        from fastrec.data.lists import aligned

        return aligned(self.run.catalog().users, "user", self.user_ids, None)

    def popularity(self) -> NDArray[np.int64]:
        """int64[I]: interactions of each item in all parts."""
        counts: NDArray[np.int64] = np.sum([part.item_counts() for part in self._parts], axis=0, dtype=np.int64)
        return counts

    def find_items(self, text: str) -> list[int]:
        """Contiguous ids of the item with this id, or else of those whose title contains the text, most popular first.

        Raises
        ------
        DataError
            If there is none, with titles that are close.
        """
        exact, _ = self.item_index.find([text], skip_unknown=True)
        if exact.size:
            return [int(exact[0])]
        if self.titles is None:
            return [int(number) for number in self.item_index.find([text])[0]]
        return search_titles(self.titles, text, self.popularity())
