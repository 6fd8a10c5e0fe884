"""Sources that bring their own split: the NCF paper's files, adjacency lists, and tables called train and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.data.assemble import from_codes
from fastrec.data.catalog import Catalog
from fastrec.data.content import content_of
from fastrec.data.interactions import Interactions
from fastrec.data.loading import number
from fastrec.data.readers.table import read_table
from fastrec.data.readers.text import lines_of, shown, undecodable
from fastrec.data.source import TABLES, Columns, Log, plain_name, present, read_columns
from fastrec.data.split import Split, unseen_in_train
from fastrec.errors import DataError

PAPER_SIZES = {(994_169, 6_040), (1_445_622, 55_187)}
"""Train and test pairs of the NCF paper's MovieLens-1M and Pinterest files; other data in that layout are not those."""

LIST_SPLIT, TABLE_SPLIT = "adjacency lists", "tables of train and test"
WHOLE = "the files' own split was joined into one log; fastrec.load_split keeps it"


@dataclass(frozen=True)
class Files:
    """The files of one split: ``train`` and ``test``, perhaps ``validation`` and ``negative`` (test candidates)."""

    kind: str
    parts: dict[str, Path]
    negative: Path | None = None


def find_split(path: Path) -> Files | None:
    """The split that a folder, or a common start of file names, brings along; None where there is none.

    Raises
    ------
    DataError
        If a folder holds several splits, or half of one.
    """
    if not path.is_dir():
        for train, test, negative in ((".train.rating", ".test.rating", ".test.negative"), (".base", ".test", None)):
            first = present(path.parent, path.name + train)
            if first is not None:
                kind = "the NCF paper's files" if negative else "files of base and test"
                return _files(kind, {"train": first}, path.parent, path.name + test, negative and path.name + negative)
        return None
    trains = [plain_name(p.name).removesuffix(".train.rating") for p in sorted(path.iterdir())]
    stems = [s for s, p in zip(trains, sorted(path.iterdir())) if s != plain_name(p.name)]
    if len(stems) > 1:
        raise DataError(f"{path}: holds {len(stems)} splits ({', '.join(stems)}); give one as {path / stems[0]}")
    if stems:
        return find_split(path / stems[0])
    for suffix in (".txt", *TABLES):
        first = present(path, "train" + suffix)
        if first is not None:
            kind = LIST_SPLIT if suffix == ".txt" else TABLE_SPLIT
            parts = {"train": first}
            middle = next((p for n in ("validation", "valid", "val") if (p := present(path, n + suffix))), None)
            if middle is not None:
                parts["validation"] = middle
            if suffix in TABLES and present(path, "test" + suffix) is None:
                return None  # one table that happens to be called train
            return _files(kind, parts, path, "test" + suffix, None)
    return None


def _files(kind: str, parts: dict[str, Path], folder: Path, test: str, negative: str | None) -> Files:
    found = present(folder, test)
    if found is None:
        raise DataError(f"{folder}: {parts['train'].name} is there but no {test}; a split needs both")
    return Files(kind, parts | {"test": found}, present(folder, negative) if negative else None)


def read_split(path: Path, columns: Columns) -> Split:
    """Read the split that lies at ``path``; see ``fastrec.data.split.load_split``."""
    files = find_split(path)
    if files is None:
        raise DataError(
            f"{path}: brings no split of its own (NAME.train.rating with NAME.test.rating, train.txt with test.txt, "
            "train.csv with test.csv, or NAME.base with NAME.test); load it and split it, for instance with "
            "fastrec.leave_one_out"
        )
    frames = {part: read(files, file, columns)[0] for part, file in files.parts.items()}
    rows = None if files.negative is None else read_negatives(files.negative)
    return _assemble(path.name, files, frames, rows)


def read(files: Files, file: Path, columns: Columns) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """One file of a split: its canonical frame, and the same rows lazily."""
    if files.kind == TABLE_SPLIT:
        log = read_table(file, columns)
        assert log.catalog.ratings is not None
        return log.frame, log.catalog.ratings
    columns.refuse(str(file))
    return read_list(file) if files.kind == LIST_SPLIT else read_columns(file, "\t")


def read_whole(files: Files, columns: Columns) -> Log:
    """All parts of a split as one log, in the order train, validation, test."""
    parts = [read(files, files.parts[part], columns) for part in sorted(files.parts, key=_order)]
    names, notes = _shared_columns(files, [frame for frame, _ in parts])
    frame = pl.concat([frame.select(names) for frame, _ in parts])
    names += ["datetime"] if "timestamp" in names else []
    lazy = pl.concat([lazy.select([n for n in names if n in lazy.collect_schema()]) for _, lazy in parts])
    return Log(frame, Catalog(ratings=lazy), files.kind, (WHOLE, *notes))


def _order(part: str) -> int:
    return ("train", "validation", "test").index(part)


def _shared_columns(files: Files, frames: list[pl.DataFrame]) -> tuple[list[str], tuple[str, ...]]:
    """Columns that every part has, in the canonical order, and a note on those that only some parts have.

    Raises
    ------
    DataError
        If ids are numbers in one part and text in another.
    """
    names = ("user", "item", "rating", "timestamp")
    shared = [name for name in names if all(name in frame.columns for frame in frames)]
    if any(frame.schema[name] != frames[0].schema[name] for frame in frames for name in shared):
        shown = "; ".join(f"{file.name}: {dict(frame.schema)}" for file, frame in zip(files.parts.values(), frames))
        raise DataError(f"the parts of the split differ in their columns ({shown}); write them alike")
    partial = [name for name in names if name not in shared and any(name in frame.columns for frame in frames)]
    return shared, tuple(f"{name} is not in every part of the split, so it is not used" for name in partial)


def read_list(file: Path) -> tuple[pl.DataFrame, pl.LazyFrame]:
    """Adjacency list: a user and its items per line, separated by blanks. A user without items has no row.

    Raises
    ------
    DataError
        If the file is missing or empty, or some ids are integers and others not.
    """
    try:
        lines = pl.read_csv(
            content_of(file),
            separator="\x01",
            has_header=False,
            schema={"line": pl.String},
            quote_char=None,
            glob=False,
        )
    except pl.exceptions.PolarsError as error:
        odd = undecodable(file)
        where = f", line {odd[0]}: not UTF-8, in {odd[1]}" if odd else f": not lines of text ({_cause(error)})"
        raise DataError(f"{file}{where}; save it as UTF-8, one user and its items per line") from None
    pairs = (
        lines.with_row_index("number", offset=1)
        .with_columns(pl.col("line").str.extract_all(r"\S+"))
        .select("number", user=pl.col("line").list.first(), item=pl.col("line").list.slice(1))
        .explode("item")
        .filter(pl.col("item").is_not_null())
    )
    if not pairs.height:
        raise DataError(f"{file}: no line holds a user and an item; every line must be: user item item ...")
    for what in ("user", "item"):
        ids = pairs[what].cast(pl.Int64, strict=False)
        bad = ids.is_null()
        if not bad.any():
            pairs = pairs.with_columns(ids)
        elif (nul := pairs[what].str.contains("\0", literal=True)).any():
            row = int(nul.arg_max() or 0)
            raise DataError(
                f"{file}, line {pairs['number'][row]}: {what} {shown(pairs[what][row])} holds NUL; remove it"
            )
        elif not bad.all():
            row = int(bad.arg_max() or 0)
            raise DataError(
                f"{file}, line {pairs['number'][row]}: {what} {shown(pairs[what][row])} is not a whole number of 64 "
                "bits, but others are. Correct or remove it"
            )
    frame = pairs.select("user", "item")
    return frame, frame.lazy()


def _cause(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def read_negatives(file: Path) -> dict[tuple[int, int], tuple[int, NDArray[np.int64]]]:
    """``(user,item)<tab>negative<tab>...`` per line: for each pair its line number and its candidates.

    Raises
    ------
    DataError
        Naming the line that is cut short or holds other than whole numbers.
    """
    rows: dict[tuple[int, int], tuple[int, NDArray[np.int64]]] = {}
    for line_number, line in lines_of(file):
        head, _, rest = line.partition("\t")
        try:
            if not (head.startswith("(") and head.endswith(")")):
                raise ValueError(head)
            user, item = map(int, head[1:-1].split(","))
            negatives = np.array(rest.split("\t"), dtype=np.int64)
        except (ValueError, OverflowError):
            raise DataError(
                f"{file}, line {line_number}: {shown(line)} is not (user,item)<tab>item<tab>item ... in whole "
                "numbers of 64 bits. Mend the line, or fetch the file again"
            ) from None
        if (user, item) in rows:
            raise DataError(
                f"{file}, line {line_number}: ({user},{item}) stands in line {rows[user, item][0]} too; remove one"
            )
        rows[user, item] = (line_number, negatives)
    return rows


def _assemble(
    name: str,
    files: Files,
    frames: dict[str, pl.DataFrame],
    negatives: dict[tuple[int, int], tuple[int, NDArray[np.int64]]] | None,
) -> Split:
    """Number users and items over all parts and candidates together, then build the parts."""
    names = sorted(frames, key=_order)
    columns, partial = _shared_columns(files, [frames[p] for p in names])
    frames = {part: frames[part].select(columns) for part in names}
    every = pl.concat([frames[p] for p in names])
    users, user_ids = number(every["user"])
    item_column = every["item"]
    if negatives is not None:
        listed = np.unique(np.concatenate([row for _, row in negatives.values()])) if negatives else np.empty(0, int)
        item_column = pl.concat([item_column, pl.Series("item", listed, dtype=pl.Int64)])
    items, item_ids = number(item_column)
    notes = list(partial)
    parts: dict[str, Interactions] = {}
    start = 0
    for part in names:
        frame = frames[part]
        rows = slice(start, start + frame.height)
        start = rows.stop
        times = frame["timestamp"].to_numpy() if "timestamp" in frame.columns else None
        parts[part] = from_codes(users[rows], user_ids, items[rows], item_ids, times, name=f"{name} {part}")
        notes += [f"{part}: {note}" for note in parts[part].notes]
    train, test = parts["train"], parts["test"]
    if "validation" not in parts:
        parts["validation"] = train.keep(np.zeros(train.n_interactions, np.bool_), name=f"{name} validation")
    candidates = None
    if negatives is not None and files.negative is not None:
        candidates, own = _align(files.negative, test, negatives)
        if own:
            notes.append(f"{own} candidate rows held the test item itself; it was dropped there")
    notes += unseen_in_train(train, test)
    return Split(
        train,
        parts["validation"],
        test,
        how=f"{files.kind}: {', '.join(file.name for file in files.parts.values())}",
        candidates=candidates,
        comparable=candidates is not None and (train.n_interactions, test.n_interactions) in PAPER_SIZES,
        notes=tuple(notes),
    )


def _align(
    file: Path, test: Interactions, negatives: dict[tuple[int, int], tuple[int, NDArray[np.int64]]]
) -> tuple[NDArray[np.int32], int]:
    """Candidates in the order of the test pairs, and how many rows held their own test item."""
    width = max(row.size for _, row in negatives.values())
    out = np.full((test.n_interactions, width), -1, np.int32)
    pairs = zip(test.user_ids[test.users].tolist(), test.item_ids[test.items].tolist())
    own = 0
    for k, (user, item) in enumerate(pairs):
        found = negatives.get((user, item))
        if found is None:
            raise DataError(f"{file}: no line for the test pair ({user},{item}); every test pair needs its candidates")
        line, row = found
        kept = row[row != item]
        own += kept.size < row.size
        if np.unique(kept).size < kept.size:
            raise DataError(f"{file}, line {line}: an item stands twice among the candidates; remove one")
        out[k, : kept.size] = np.searchsorted(test.item_ids, kept)
    if len(negatives) > test.n_interactions:
        raise DataError(
            f"{file}: {len(negatives)} lines for {test.n_interactions} test pairs; remove those without one"
        )
    return out, own
