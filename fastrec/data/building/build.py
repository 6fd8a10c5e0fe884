"""From a Parquet log of any size to a saved CSR: distinct ids, rows by ranges of users, ranges sorted, one file.

R rows, E interactions, U users, I items.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.arguments import as_int
from fastrec.data.building.log import Ids, Log
from fastrec.data.building.spill import Spill, core, encoder, merge, ranges_of, reindex
from fastrec.data.interactions import FILE_VERSION
from fastrec.data.packed import pack
from fastrec.data.source import Columns
from fastrec.errors import ConfigError, DataError
from fastrec.files import make_folder, write_bytes, write_tensors

FORMAT = 1
"""Of what a cut-off build leaves behind; another version starts again."""


def build(
    source: str | os.PathLike[str],
    out: str | os.PathLike[str],
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    time_format: str | None = None,
    where: str | None = None,
    weight_col: str | None = None,
    min_rating: float | None = None,
    k_core: int = 0,
    say: Callable[[str], None] = lambda _: None,
) -> Path:
    """Make the file of ``fastrec.load(source, ...).save(out)`` without holding the rows in memory.

    Parameters
    ----------
    source : path
        A Parquet file, a folder of parts, or a glob.
    out : path
        A ``.safetensors`` file to make. ``OUT.building`` is next to it until the end: the same call continues there.
    user_col, item_col, rating_col, time_col, time_format, where, weight_col, min_rating, k_core
        See ``fastrec.load``.
    say : callable, optional
        Called with a line for each stage.

    Returns
    -------
    Path
        ``out``. Where it was made before from the same files and options, nothing is done.

    Raises
    ------
    ConfigError
        If ``out`` was made from something else.
    DataError
        If the source is not Parquet, is malformed, or has times with fractions of a second in rows out of order.

    Guarantee
    ---------
    The bytes of the file that ``load`` and ``save`` make. It is written completely or not at all.

    Cost
    ----
    Memory: the distinct ids as Polars' streaming engine groups them (see docs/scale.md), about 0.5 GB for a range of
    4 M rows or the largest user, and one byte per interaction with ``k_core``. Disk until the end: 12 bytes per row
    (20 with times, and 4 for each of weight and rating), then 8 (16) per interaction more, twice with a filter. The
    source is read three times.
    """
    if not hasattr(pl.LazyFrame, "collect_batches"):
        raise DataError(f"polars {pl.__version__} cannot read a log in pieces; install polars 1.34 or later")
    out, k_core = Path(out), as_int("k_core", k_core)
    if out.suffix != ".safetensors" or k_core < 0:
        raise ConfigError(f"out = {out}, k_core = {k_core}: out must end in .safetensors, and k_core be at least 0")
    log = Log(source, Columns(user_col, item_col, rating_col, time_col, time_format, where, weight_col))
    if min_rating is not None and "rating" not in log.uses:
        raise DataError(f"{log.where}: min_rating={min_rating} needs ratings, and there are none; leave it out")
    mark = json.dumps([FORMAT, log.fingerprint(), min_rating, k_core])
    digest, record = hashlib.sha256(mark.encode()).hexdigest(), out.with_name(f"{out.name}.source")
    if out.exists():
        if record.is_file() and record.read_text() == f"{digest} {out.stat().st_size}\n":
            say(f"{out}: is made from these files and options already")
            return out
        raise ConfigError(f"{out}: exists, and was made from other files or options; give another --out, or remove it")
    work = _Work(out.with_name(f"{out.name}.building"), digest)
    _build(work, log, out, min_rating, k_core, say)
    write_bytes(record, f"{digest} {out.stat().st_size}\n".encode())
    shutil.rmtree(work.folder)
    return out


class _Work:
    """The folder of a build that is under way; that of another source, or of other options, is emptied."""

    def __init__(self, folder: Path, digest: str) -> None:
        self.folder = folder
        mark = folder / "digest"
        if folder.exists() and not (mark.is_file() and mark.read_text() == digest):
            if folder.is_symlink() or not mark.is_file():
                raise ConfigError(f"{folder}: is not the folder of a build that was cut off; remove it")
            shutil.rmtree(folder)
        make_folder(folder)
        write_bytes(mark, digest.encode())

    def emptied(self, name: str) -> Path:
        """A folder without files."""
        path = self.folder / name
        if path.exists():
            shutil.rmtree(path)
        path.mkdir()
        return path

    def ids(self, log: Log, use: str, say: Callable[[str], None]) -> Ids:
        """The distinct ids of a column, kept for a build that goes on."""
        path = self.folder / f"{use}.parquet"
        if path.is_file():
            frame = pl.read_parquet(path)
            return Ids(frame["id"], frame["len"].to_numpy())
        say(f"distinct {use}s of {log.where}")
        found = log.ids(use)
        part = self.folder / f"{use}.part"
        pl.DataFrame([found.ids, pl.Series("len", found.counts)]).write_parquet(part)
        part.replace(path)
        return found


def _build(work: _Work, log: Log, out: Path, min_rating: float | None, k_core: int, say: Callable[[str], None]) -> None:
    users, items = work.ids(log, "user", say), work.ids(log, "item", say)
    n_rows = int(users.counts.sum())
    say(f"{users.counts.size:,} users, {items.counts.size:,} items, {n_rows:,} rows")
    spill, notes = _spilled(work, log, users, items, min_rating is not None, say)
    say("sort each range of users")
    made = merge(spill, work.emptied("merged"), items.counts.size, min_rating)
    if made.duplicates:
        notes.append(f"{made.duplicates} duplicate (user, item) rows merged, the latest kept")
    csr, kept_users, kept_items = made.csr, None, None
    n_items = items.counts.size
    for why, wanted in (("min_rating", min_rating is not None), ("k_core", k_core > 1)):
        if not wanted:
            continue
        alive = None
        if why == "min_rating":
            notes.append(f"{made.below} interactions rated below {min_rating} left out")
        else:
            say(f"the {k_core}-core")
            alive, outside = core(csr, n_items, k_core)
            notes.append(f"{outside} interactions outside the {k_core}-core left out")
        found = reindex(csr, work.emptied(why), n_items, alive, f"{why}={min_rating if alive is None else k_core}")
        csr, n_items = found.csr, int(np.count_nonzero(found.items))
        kept_users, kept_items = _among(kept_users, found.users), _among(kept_items, found.items)
    say(f"write {out}")
    tensors: dict[str, Any] = {"indptr": csr.indptr, **csr.columns}
    for name, ids, kept in (("user_ids", users, kept_users), ("item_ids", items, kept_items)):
        chosen = ids if kept is None else Ids(ids.ids.filter(pl.Series(kept)), ids.counts[kept])
        tensors |= pack(name, chosen.values)
    meta = {
        "fastrec": f"interactions {FILE_VERSION}",
        "name": log.path.name,
        "notes": json.dumps(notes),
    }
    write_tensors(out, tensors, meta, checksum=True)


def _among(before: NDArray[np.bool_] | None, kept: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Which of the first ids are left, after another filter over those that were left before."""
    if before is None:
        return kept
    found = before.copy()
    found[before] = kept
    return found


def _spilled(
    work: _Work, log: Log, users: Ids, items: Ids, rated: bool, say: Callable[[str], None]
) -> tuple[Spill, list[str]]:
    """All rows by ranges of users, and the notes of reading them; from the folder where it has all of them."""
    n_rows, done = int(users.counts.sum()), work.folder / "notes.json"
    uses = log.uses if rated else log.uses - {"rating"}
    if done.is_file():
        return Spill(work.folder / "ranges", ranges_of(users.counts), n_rows, uses), json.loads(done.read_text())
    spill = Spill(work.emptied("ranges"), ranges_of(users.counts), n_rows, uses)
    encode = {"user": encoder(users), "item": encoder(items)}
    start, told = 0, 0
    for frame in log.pieces():
        spill.add(start, encode["user"](frame["user"]), encode["item"](frame["item"]), frame)
        start += frame.height
        if start - told >= n_rows // 10:
            say(f"rows by ranges of users: {start:,} of {n_rows:,}")
            told = start
    if start != n_rows:
        raise DataError(f"{log.where}: {n_rows:,} rows at first, now {start:,}; it changes while it is read")
    notes = list(log.notes(n_rows))
    write_bytes(done, json.dumps(notes).encode())
    return spill, notes
