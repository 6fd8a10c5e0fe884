"""Item weights as integers: exact quantisation, the alias table, and prefix sums for the exact finish.

I items, E interactions. Every item has an integer weight; together they are I * 2^32, so that an alias column holds
2^32 units and one 32-bit word splits it exactly.

Source: Vose, "A linear algorithm for generating random numbers with a given distribution", IEEE TSE 17(9), 1991, in
integers; the exponent .75 is that of Mikolov et al., "Distributed representations of words and phrases", NIPS 2013.
"""

from __future__ import annotations

from decimal import Context, Decimal
from math import fsum
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fastrec.arguments import unmasked
from fastrec.errors import ConfigError, DataError
from fastrec.jit import njit

UNITS = 1 << 32
"""Units of an alias column: the integer weight of an item of average weight."""


def popularity(counts: NDArray[np.int64], alpha: float) -> NDArray[np.float64]:
    """``counts ** alpha`` (0 ** 0 = 1), correctly rounded from 30 decimal digits.

    ``np.power`` may differ in its last bit from one processor to another, and with it a drawn byte; this does not.
    Cost: about 20 us for every distinct count.
    """
    if not np.isfinite(alpha) or alpha < 0:
        raise ConfigError(f"alpha={alpha}: the exponent of popularity must be finite and not negative")
    context, exponent = Context(prec=30, traps=[]), Decimal(float(alpha))
    values, where = np.unique(counts, return_inverse=True)
    powers = [1.0 if alpha == 0 else (float(context.power(Decimal(int(v)), exponent)) if v else 0.0) for v in values]
    if not np.isfinite(powers).all():
        raise ConfigError(f"alpha={alpha}: {values[-1]} ** {alpha} is beyond any float; lower alpha")
    return np.array(powers, np.float64)[where]


def quantise(weights: Any, n_items: int) -> NDArray[np.uint64]:
    """uint64[I] that sum to I * 2^32, in proportion to ``weights``; a positive weight keeps at least one unit.

    Raises
    ------
    DataError
        Naming the first weight that is negative or not finite; or where none is positive.
    """
    given = unmasked("weights", weights)
    if given.dtype.kind not in "biuf":
        raise DataError(f"weights are {given.dtype}: item weights must be real numbers")
    w = given.astype(np.float64)
    if w.shape != (n_items,):
        raise DataError(f"weights has shape {w.shape}; it needs one weight for each of n_items={n_items}")
    bad = np.flatnonzero(~(np.isfinite(w) & (w >= 0)))
    if bad.size:
        raise DataError(f"weights[{bad[0]}] = {w[bad[0]]}: item weights must be finite and not negative")
    top = float(w.max())
    if top == 0:
        raise DataError("weights are all 0: no item could ever be drawn")
    positive = np.flatnonzero(w > 0)
    w = w / top  # so that the sum cannot overflow
    total = n_items * UNITS
    units = np.floor(w * (total / fsum(w))).astype(np.uint64)
    units[positive] = np.maximum(units[positive], np.uint64(1))
    short = total - int(units.sum(dtype=np.uint64))
    if short >= 0:  # flooring leaves less than a unit an item: one each from the first item on
        each, rest = divmod(short, positive.size)
        units[positive] += np.uint64(each)
        units[positive[:rest]] += np.uint64(1)
    else:  # items raised to one unit: the heaviest pays
        units[int(units.argmax())] -= np.uint64(-short)
    return units


@njit
def alias_table(units, cut, alias):  # type: ignore[no-untyped-def]
    """Fill cut uint32[I], alias int32[I]: column c gives item c below cut[c], else alias[c]. ``units`` is used up."""
    full = np.uint64(1 << 32)
    n = units.shape[0]
    small = np.empty(n, np.int32)
    n_small = 0
    for i in range(n - 1, -1, -1):
        alias[i] = i
        cut[i] = 0
        if units[i] < full:
            small[n_small] = i
            n_small += 1
    large = 0
    while n_small:
        while units[large] <= full:  # exact integers: while a column lacks units, another holds more than it needs
            large += 1
        while n_small and units[large] > full:
            n_small -= 1
            s = small[n_small]
            cut[s] = units[s]
            alias[s] = large
            units[large] -= full - units[s]
            units[s] = full
        if units[large] < full:
            small[n_small] = large
            n_small += 1


@njit
def prefix_sums(units, items, of_items, of_rows):  # type: ignore[no-untyped-def]
    """of_items uint64[I+1] over all items; of_rows uint64[E+1] over the CSR's entries, modulo 2^64."""
    of_items[0] = 0
    for i in range(units.shape[0]):
        of_items[i + 1] = of_items[i] + units[i]
    of_rows[0] = 0
    for k in range(items.shape[0]):
        of_rows[k + 1] = of_rows[k] + units[items[k]]


@njit
def legal_counts(units, indptr, items, out):  # type: ignore[no-untyped-def]
    """out int64[U]: items of positive weight that each user's row does not hold."""
    positive = np.int64(0)
    for i in range(units.shape[0]):
        positive += units[i] > 0
    for u in range(out.shape[0]):
        out[u] = positive
        for k in range(indptr[u], indptr[u + 1]):
            out[u] -= units[items[k]] > 0


class Weights:
    """Integer weights of items with what drawing from them needs.

    Attributes
    ----------
    units : uint64[I]
        Integer weight of each item, I * 2^32 in all: item i is drawn with probability units[i] / (I * 2^32), exactly.
    cut, alias : uint32[I], int32[I]
        The alias table.
    of_items, of_rows : uint64[I+1], uint64[E+1]
        Prefix sums.
    """

    def __init__(self, weights: Any, items: NDArray[np.int32], n_items: int) -> None:
        self.units = quantise(weights, n_items)
        self.cut, self.alias = np.empty(n_items, np.uint32), np.empty(n_items, np.int32)
        alias_table(self.units.copy(), self.cut, self.alias)
        self.of_items, self.of_rows = np.empty(n_items + 1, np.uint64), np.empty(items.size + 1, np.uint64)
        prefix_sums(self.units, items, self.of_items, self.of_rows)

    @property
    def nbytes(self) -> int:
        """Bytes held, the integer weights included."""
        return sum(a.nbytes for a in (self.units, self.cut, self.alias, self.of_items, self.of_rows))
