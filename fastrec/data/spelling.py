"""One rule for ids in text: a column holds integers only if every id in it is an integer in its plain spelling.

``7``, ``007`` and ``+7`` are three ids, although each parses as 7. The fast readers parse ids as integers, so the bytes
are searched for such spellings first; only a file that has one is read again with its ids as text.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.data.csr_build import holds_nul
from fastrec.errors import DataError, shown
from fastrec.jit import available_threads, njit, run_ranges

MAX_DIGITS = 4300
"""Longest run of digits that Python converts; an id of more digits is refused in every reader."""


@njit
def _starts_odd(raw, separator, lo, hi):  # type: ignore[no-untyped-def]
    """Whether a field in raw[lo:hi] starts with a blank, ``+``, ``-0``, or a zero that another digit follows."""
    before, here, after = raw[lo - 1 : hi - 1], raw[lo:hi], raw[lo + 1 : hi + 1]
    found = False
    for k in range(here.size):  # no branch and no index below zero: LLVM vectorises it only so
        b, h, a = before[k], here[k], after[k]
        start = (b == separator) | (b == np.uint8(10))
        odd = (h == np.uint8(43)) | (h == np.uint8(32)) | ((h == np.uint8(9)) & (separator != np.uint8(9)))
        odd |= (h == np.uint8(48)) & (a >= np.uint8(48)) & (a <= np.uint8(57))
        odd |= (h == np.uint8(45)) & (a == np.uint8(48))
        found |= start & odd
    return found


def plainly_spelled(raw: NDArray[np.uint8], separator: str, *, header: bool = False) -> bool:
    """Whether no field of uint8[n] starts like an integer in another spelling than its plain one.

    Cost
    ----
    One pass over the bytes, about 0.1 ns a byte. A field that is not an id counts too: the answer errs towards
    False, and False only costs time.
    """
    start = 0
    if header:
        ends = np.flatnonzero(raw[: 1 << 16] == ord("\n"))
        start = int(ends[0]) + 1 if ends.size else 0
    first = bytes(raw[start : start + 2])
    if first[:1] in (b"+", b" ", b"\t", b"\xef") or first == b"-0" or (first[:1] == b"0" and first[1:].isdigit()):
        return False  # the first field has no separator before it; 0xef may start a byte-order mark
    n = raw.size - start - 2
    byte = np.uint8(ord(separator))
    found = run_ranges(
        lambda lo, hi: _starts_odd(raw, byte, lo + start + 1, hi + start + 1),
        max(n, 0),
        available_threads(),
        grain=1 << 18,
    )
    return not any(found)


def settle_ids(
    ids: pl.Series,
    what: str,
    at: Callable[[int], str],
    mixed: Literal["text", "refused", "integers"] = "refused",
) -> pl.Series:
    """Ids that were read as text, as Int64 if each is an integer of 64 bits in its plain spelling, else unchanged.

    Parameters
    ----------
    ids : polars.Series
        String, no nulls.
    what : str
        "user" or "item", for messages.
    at : callable
        Names the place of a row: "ratings.csv, data row 3".
    mixed : {"text", "refused", "integers"}
        What becomes of a column that holds integers and other ids. Formats without a header refuse it, since it is
        more likely a damaged line; "integers" refuses text altogether.

    Raises
    ------
    DataError
        Naming the first row at fault.

    Guarantee
    ---------
    Neither the result nor the refusal depends on the order of the rows.
    """
    numbers = ids.cast(pl.Int64, strict=False)
    plain = (numbers.cast(pl.String) == ids).fill_null(False)
    if plain.all():
        return numbers
    refuse_nul(ids, what, at)
    decimal = ids.str.contains(r"^[+-]?\d+\.0*$")
    if mixed == "integers" or (mixed == "refused" and plain.any()):
        row = int((~plain).arg_max() or 0)
        long = _digits(ids[row]) and numbers[row] is None
        why = "does not fit 64 bits" if long else "is not an integer"
        if numbers[row] is not None:
            why = f"is not an integer in its plain spelling, {numbers[row]}"
        others = f"but other {what} ids {'do' if long else 'are'}"
        if mixed == "integers":
            others = f"as every id of this file must{'' if long else ' be'}"
        raise DataError(f"{at(row)}: {what} {shown(ids[row])} {why}, {others}. Fix or remove the line")
    if decimal.any():
        row = int(decimal.arg_max() or 0)
        raise DataError(
            f"{at(row)}: {what} id {shown(ids[row])} is a decimal number; ids are integers or text: write them without "
            "the point"
        )
    refuse_endless(ids, what, at)
    return ids


def _digits(text: str) -> bool:
    return text.isascii() and text.lstrip("+-").isdigit()


def refuse_nul(ids: pl.Series, what: str, at: Callable[[int], str]) -> None:
    """Refuse text ids with a NUL, which NumPy drops at the end.

    Raises
    ------
    DataError
        Naming the first row at fault.
    """
    nul = ids.str.contains("\0", literal=True)
    if nul.any():
        row = int(nul.arg_max() or 0)
        raise holds_nul(f"{at(row)}: {what} id {shown(ids[row])}")


def refuse_endless(ids: pl.Series, what: str, at: Callable[[int], str]) -> None:
    """Refuse numbers too long for Python to convert.

    Raises
    ------
    DataError
        Naming the first row at fault.
    """
    long = ids.str.len_bytes() > MAX_DIGITS
    if long.any():
        long &= ids.str.contains(r"^[+-]?[0-9]+$")
        row = int(long.arg_max() or 0)
        if long.any():
            raise DataError(
                f"{at(row)}: {what} id {shown(ids[row], 15)} is a number of {len(ids[row])} digits; at most "
                f"{MAX_DIGITS} are read. Fix or remove the row"
            )
