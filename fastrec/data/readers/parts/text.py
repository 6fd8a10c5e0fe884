"""Strict reading of delimited text with Polars: a fast path, and a slow one that names the line at fault.

Polars' scanner lets fields past the schema go by silently and turns missing ones into nulls. Here the separators
of the file are counted (a few ms for 25 MB), which together with the nulls proves that every line has exactly its
fields; only a file that fails is read again, line by line, for the message.
"""

from __future__ import annotations

import io
import mmap
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import IO, TypeAlias

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.data.content import content_of, open_content
from fastrec.data.spelling import plainly_spelled
from fastrec.errors import DataError, shown
from fastrec.jit import available_threads, run_ranges

Schema: TypeAlias = Mapping[str, type[pl.DataType]]


class OddSpelling(DataError):
    """Ids that parse as integers may be spelled apart, so they must be read as text."""


def count_separators(raw: NDArray[np.uint8], separator: str) -> tuple[int, int]:
    """How often the one-byte separator occurs in uint8[n], and how often right after itself.

    Cost
    ----
    About 0.25 ns a byte and thread, in blocks that stay in the cache.
    """
    block = 1 << 18

    def work(lo: int, hi: int) -> tuple[int, int]:
        single = double = 0
        for start in range(lo, hi, block):
            here = raw[max(0, start - 1) : min(hi, start + block)] == ord(separator)  # and the byte before
            single += int(np.count_nonzero(here[start > 0 :]))
            double += int(np.count_nonzero(here[1:] & here[:-1]))
        return single, double

    counts = run_ranges(work, raw.size, available_threads(), grain=block)
    return sum(single for single, _ in counts), sum(double for _, double in counts)


def open_text(path: Path, encoding: str = "utf-8-sig", *, json: bool = False) -> IO[str]:
    """A file or a packed one as text, undecodable bytes shown as backslash escapes."""
    return io.TextIOWrapper(open_content(path, json=json), encoding=encoding, errors="backslashreplace", newline="\n")


def lines_of(path: Path, encoding: str = "utf-8-sig", *, json: bool = False) -> Iterator[tuple[int, str]]:
    """(line number from 1, text without its line end)."""
    with open_text(path, encoding, json=json) as f:
        for number, line in enumerate(f, 1):
            yield number, line.rstrip("\r\n")


def undecodable(path: Path) -> tuple[int, str] | None:
    """Number and start of the first line that is not UTF-8, or None."""
    for number, line in lines_of(path, "latin-1"):
        try:
            line.encode("latin-1").decode("utf-8")  # never split: no byte of a longer sequence is a line end
        except UnicodeDecodeError:
            return number, f"{line[:60].encode('latin-1')!r}"
    return None


def bytes_of(source: Path | bytes) -> NDArray[np.uint8]:
    """uint8[n] over what ``content_of`` gave; a file is mapped, not read."""
    return np.frombuffer(source, np.uint8) if isinstance(source, bytes) else np.memmap(source, np.uint8, mode="r")


def holds_quotes(path: Path) -> bool:
    """Whether a double quote occurs anywhere in the text."""
    source = content_of(path)
    if isinstance(source, bytes):
        return b'"' in source
    with source.open("rb") as f, mmap.mmap(f.fileno(), 0, access=mmap.ACCESS_READ) as raw:
        return raw.find(b'"') >= 0


def read_delimited(
    path: Path,
    separator: str,
    schema: Schema,
    *,
    header: bool = False,
    keep: Collection[str] | None = None,
    plain: bool = False,
) -> pl.DataFrame:
    """Read all lines of a file whose fields are never quoted.

    Parameters
    ----------
    path : Path
        A text file, plain or packed by gzip or zstd.
    separator : str
        One byte, or the same byte twice (``::``).
    schema : mapping
        Name and dtype of every field of a line, in order.
    header : bool
        Whether the first line holds names.
    keep : collection of str, optional
        Names of the fields to keep, all of them by default; the others are counted, not read.
    plain : bool
        Refuse fields that start like an integer in another spelling than its plain one (``007``, ``+7``).

    Returns
    -------
    polars.DataFrame
        One row per line, no nulls, no NaN.

    Raises
    ------
    DataError
        Naming file and line: a missing or extra field, a value that does not parse.
    OddSpelling
        With ``plain``.
    """
    source = content_of(path)
    kept = {name: dtype for name, dtype in schema.items() if keep is None or name in keep}
    lazy = scan_delimited(source, separator, schema, header=header).select(list(kept))
    try:
        frame = lazy.collect()
    except (pl.exceptions.PolarsError, UnicodeDecodeError) as error:
        raise _explain(path, separator, schema, kept, header, str(error)) from None
    if frame.height and all(value is None for value in frame.row(-1)):  # blank lines at the end
        filled = frame.select(~pl.all_horizontal(pl.all().is_null())).to_series().arg_true()
        frame = frame.head(filled[-1] + 1 if filled.len() else 0)
    n_separators, n_pairs = count_separators(bytes_of(source), separator[0])
    lines = frame.height + header
    if len(separator) == 1:
        whole = n_separators == lines * (len(schema) - 1)
    else:
        whole = n_separators == 2 * n_pairs == lines * 2 * (len(schema) - 1)
    if not whole or any(series.null_count() for series in frame) or not frame.height:
        raise _explain(path, separator, schema, kept, header, "the count of separators does not fit the lines")
    for name, dtype in kept.items():
        if dtype.is_float() and not frame[name].is_finite().all():
            raise _explain(path, separator, schema, kept, header, f"{name} holds NaN or infinity")
        if dtype == pl.String and frame[name].str.contains("\0", literal=True).any():
            raise _explain(path, separator, schema, kept, header, f"{name} holds NUL")
    if plain and not plainly_spelled(bytes_of(source), separator[0], header=header):
        raise OddSpelling(f"{path}: a field starts with a zero, a sign or a blank")
    return frame


def scan_delimited(source: Path | bytes, separator: str, schema: Schema, *, header: bool = False) -> pl.LazyFrame:
    """The lazy scan under ``read_delimited``: a doubled separator is read as single ones with empty fields between."""
    fields = dict(schema)
    if len(separator) == 2:
        fields = {}
        for k, (name, dtype) in enumerate(schema.items()):
            fields |= {f"_gap{k}": pl.String, name: dtype} if k else {name: dtype}
    return pl.scan_csv(
        source, separator=separator[0], has_header=header, schema=fields, quote_char=None, glob=False
    ).select(list(schema))


def _explain(
    path: Path,
    separator: str,
    schema: Schema,
    kept: Collection[str],
    header: bool,
    cause: str,
) -> DataError:
    """Read line by line and name the first fault; ``cause`` is the message of the fast path, if no line shows it."""
    n_lines, last = 0, None
    layout = separator.replace("\t", "<tab>").join(schema)
    layout = layout if len(layout) <= 200 else f"{layout[:197]}..."
    names = list(schema)
    for number, line in lines_of(path):
        if header and number == 1:
            continue
        fields = line.split(separator)
        if not line:
            if last is None:  # one more pass, once: blank lines at the end are not a fault
                last = max((n for n, rest in lines_of(path) if rest), default=0)
            if number < last:
                return DataError(f"{path}, line {number}: blank; every line must be {layout}. Remove it")
            continue
        n_lines += 1
        if len(fields) != len(names):
            few = "only " if len(fields) < len(names) else ""
            return DataError(
                f"{path}, line {number}: {few}{len(fields)} fields in {shown(line)}, but every line must be "
                f"{layout}. Correct or remove the line, or fetch the file again if it was cut short"
            )
        for (name, dtype), text in zip(schema.items(), fields):
            fault = fault_of(dtype, text) if name in kept else ""
            if fault:
                return DataError(
                    f"{path}, line {number}: {name} {shown(text)} {fault}, in {shown(line)}. Fix or remove it"
                )
    if n_lines == 0:
        return DataError(f"{path}: no line of data; every line must be {layout}")
    odd = undecodable(path)
    if odd is not None:
        return DataError(f"{path}, line {odd[0]}: not UTF-8, in {odd[1]}. Save the file as UTF-8")
    return DataError(f"{path}: could not be read as lines of {layout} ({cause})")


def fault_of(dtype: type[pl.DataType], text: str) -> str:
    """What is wrong with the text of one field, or nothing."""
    if dtype == pl.String:
        return "holds NUL" if "\0" in text else "" if text else "is empty"
    if dtype.is_integer():
        digits = text[1:] if text[:1] in "+-" else text
        if not (digits.isascii() and digits.isdigit()):
            return "is not an integer"
        size = len(digits.lstrip("0"))  # Python refuses to convert more than 4,300 digits
        return "" if size <= 19 and -(2**63) <= int(text) < 2**63 else "does not fit 64 bits"
    try:
        value = float(text if text == text.strip() and "_" not in text else "no")
    except ValueError:
        return "is not a number"
    return "" if np.isfinite(value) else "is not a finite number"
