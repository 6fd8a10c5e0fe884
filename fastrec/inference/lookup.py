"""Look-up of contiguous ids by source id or by part of a title.

n ids of a table, Q ids asked for.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import DataError, shown

_SUGGESTIONS = 5


class Ids:
    """The source ids of users or items, to be looked up.

    Parameters
    ----------
    values : int64[n] or str[n]
        The source's id of each contiguous id.
    what : str
        "user" or "item", for messages.
    data : str
        What the data are called, for messages.
    """

    def __init__(self, values: NDArray[Any], what: str, data: str) -> None:
        self.values, self.what, self.data = values, what, data
        self._order: NDArray[np.int64] | None = None
        self._sorted = values
        self._codes: dict[str, int] | None = None
        self.column: Any = None
        self.titles: Any = None
        """The ids, and the titles of items, as Polars columns, where they were made."""

    def find(self, given: Any, *, skip_unknown: bool = False) -> tuple[NDArray[np.int32], list[Any]]:
        """Contiguous ids int32[Q] of source ids, and those that are unknown.

        Parameters
        ----------
        given : id, or array or iterable of ids
            As in the source; digits as text find a number.
        skip_unknown : bool
            Leave unknown ids out instead of raising.

        Raises
        ------
        DataError
            Naming the first unknown id and how many there are.
        """
        wanted = as_list(given)
        if isinstance(wanted, np.ndarray) and wanted.dtype.kind in "iu" and self.values.dtype.kind in "iu":
            found = self._numbers(wanted)
        elif self.values.dtype.kind in "iu":
            numbers = [whole_number(one) for one in wanted]
            fits = [n is not None and -(2**63) <= n < 2**63 for n in numbers]
            found = np.full(len(numbers), -1, np.int64)
            found[fits] = self._numbers(np.array([n for n, ok in zip(numbers, fits) if ok], np.int64))
        else:
            found = self._texts([str(one) for one in wanted])
        known = found >= 0
        unknown = [wanted[k] for k in np.flatnonzero(~known).tolist()]
        if unknown and not skip_unknown:
            raise DataError(self._refusal(unknown))
        return found[known].astype(np.int32), unknown

    def _numbers(self, wanted: NDArray[Any]) -> NDArray[np.int64]:
        if self._order is None:
            if self.values.size and (np.diff(self.values) < 0).any():
                self._order = np.argsort(self.values, kind="stable")
                self._sorted = self.values[self._order]
            else:
                self._order = np.arange(self.values.size)
        if not self.values.size:
            return np.full(wanted.size, -1, np.int64)
        at = np.minimum(np.searchsorted(self._sorted, wanted), self.values.size - 1)
        return np.where(self._sorted[at] == wanted, self._order[at], -1)

    def _texts(self, wanted: list[str]) -> NDArray[np.int64]:
        if len(wanted) == 1 and self._codes is None:  # one id is found faster than a table of all is made
            hits = np.flatnonzero(self.values == wanted[0])
            exact = [k for k in hits.tolist() if self.values[k] == wanted[0] and len(self.values[k]) == len(wanted[0])]
            return np.array(exact[:1] or [-1], np.int64)
        if self._codes is None:
            self._codes = {text: code for code, text in enumerate(self.values.tolist())}
        return np.fromiter((self._codes.get(text, -1) for text in wanted), np.int64, len(wanted))

    def _refusal(self, unknown: list[Any]) -> str:
        some = ", ".join(str(v)[:40] for v in self.values[:3].tolist())
        more = f" and {len(unknown) - 1:,} more" if len(unknown) > 1 else ""
        late = "; a user who came later needs a new training" if self.what == "user" else ""
        return (
            f"{self.what} {shown(unknown[0])}{more}: not among the {self.values.size} {self.what}s of {self.data} "
            f"(such as {some}); give an id as it is in the source data{late}"
        )

    def check(self, given: Any) -> NDArray[np.int32]:
        """Contiguous ids int32[Q] as they are, checked.

        Raises
        ------
        DataError
            If one is not an integer, or not below n.
        """
        values = np.atleast_1d(np.asarray(as_list(given)))
        if values.size == 0:
            return np.empty(0, np.int32)
        if values.dtype.kind not in "iu" or values.ndim != 1:
            raise DataError(f"{self.what}s are {values.dtype}{list(values.shape)}: contiguous ids are integers [n]")
        bad = (values < 0) | (values >= self.values.size)
        if bad.any():
            raise DataError(
                f"{self.what} {values[bad][0]}: contiguous ids run from 0 to {self.values.size - 1}; {int(bad.sum())} "
                "are outside"
            )
        return values.astype(np.int32)


def as_list(given: Any) -> Any:
    """One id as a list of one; an array of integers as it is; a Polars or pandas series, or any iterable, as a list."""
    if isinstance(given, (str, bytes)) or not isinstance(given, Iterable):
        return [given]
    if hasattr(given, "to_numpy"):
        given = given.to_numpy()
    if isinstance(given, np.ndarray):
        return np.atleast_1d(given) if given.dtype.kind in "iu" else np.atleast_1d(given).tolist()
    return list(given)


def whole_number(value: Any) -> int | None:
    """The integer that an id is, exactly, or None: 10.5 is not 10, and "1_0" is not 10 either."""
    if isinstance(value, str):
        digits = value.strip()
        return int(digits) if re.fullmatch(r"[+-]?[0-9]{1,19}", digits) else None
    if isinstance(value, (int, np.integer)) and not isinstance(value, (bool, np.bool_)):
        return int(value)
    if isinstance(value, (float, np.floating)) and float(value).is_integer():
        return int(value)
    return None


def simplified(text: str) -> str:
    """Text as it is searched for: transliterated, without case and repeated spaces."""
    from unidecode import unidecode

    return " ".join((text if text.isascii() else unidecode(text)).casefold().split())


def search_titles(titles: NDArray[Any], text: str, counts: NDArray[np.int64]) -> list[int]:
    """Items whose title contains ``text``, those with most interactions first; accents and case do not count.

    Raises
    ------
    DataError
        If there is none, with titles that are close.
    """
    wanted = simplified(text)
    names = [simplified(title) for title in titles.tolist()]
    fits = [k for k, name in enumerate(names) if wanted and wanted in name]
    if not fits:
        near = [shown(str(titles[item])) for item in _close_titles(names, wanted, counts)]
        hint = f"; close are {', '.join(near)}" if near else ""
        raise DataError(f"{shown(text)}: no item has this id, and no title contains it{hint}")
    return sorted(fits, key=lambda k: (-int(counts[k]), k))


def _close_titles(names: list[str], wanted: str, counts: NDArray[np.int64]) -> list[int]:
    """Items whose simplified title is close to ``wanted``, or starts with as many words that are, closest first.

    The article of "Misérables, Les" and the year keep a title as it is from being close, and a subtitle one that the
    text starts.
    """
    words, starts = len(wanted.split()), dict[str, int]()
    for item in sorted(range(len(names)), key=lambda k: (int(counts[k]), -k)):  # of equal starts the most popular
        stem = re.sub(r"\s*\(\d{4}.*$", "", names[item]).partition(",")[0]
        starts[stem] = item
        starts[" ".join(re.findall(r"\w[\w'’]*", stem)[:words])] = item
    near = difflib.get_close_matches(wanted, list(starts), 2 * _SUGGESTIONS, 0.6)
    return list(dict.fromkeys(starts[name] for name in near))[:_SUGGESTIONS]
