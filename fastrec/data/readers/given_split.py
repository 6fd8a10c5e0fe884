"""Sources that have their own split: the NCF paper's files, adjacency lists, and tables called train and test."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fastrec.data.catalog import Catalog
from fastrec.data.encode import encode_ids
from fastrec.data.interactions import Interactions
from fastrec.data.readers.base import Probe, Reader, by_suffix, register, suffixes
from fastrec.data.readers.lists import read_list
from fastrec.data.readers.parts.text import lines_of
from fastrec.data.readers.parts.unnamed import read_columns
from fastrec.data.source import Columns, Source, plain_name, present, suffix_of
from fastrec.data.split import Split, unseen_in_train
from fastrec.errors import DataError, shown

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
    """The split that a folder, or a common start of file names, has; None where there is none.

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
    for suffix in (".txt", *suffixes()):
        first = present(path, "train" + suffix)
        if first is not None:
            kind = LIST_SPLIT if suffix == ".txt" else TABLE_SPLIT
            parts = {"train": first}
            middle = next((p for n in ("validation", "valid", "val") if (p := present(path, n + suffix))), None)
            if middle is not None:
                parts["validation"] = middle
            if kind == TABLE_SPLIT and present(path, "test" + suffix) is None:
                return None  # one table that happens to be called train
            return _files(kind, parts, path, "test" + suffix, None)
    return None


def _files(kind: str, parts: dict[str, Path], folder: Path, test: str, negative: str | None) -> Files:
    found = present(folder, test)
    if found is None:
        raise DataError(f"{folder}: {parts['train'].name} is there but no {test}; a split needs both")
    return Files(kind, parts | {"test": found}, present(folder, negative) if negative else None)


def read_split(path: Path, columns: Columns, *, drop_overlap: bool = False) -> Split:
    """Read the split at ``path``; see ``fastrec.data.split.load_split``."""
    files = find_split(path)
    if files is None:
        raise DataError(
            f"{path}: has no split of its own (NAME.train.rating with NAME.test.rating, train.txt with test.txt, "
            "train.csv with test.csv, or NAME.base with NAME.test); load it and split it, for instance with "
            "fastrec.leave_one_out"
        )
    parts = {part: read(files, file, columns) for part, file in files.parts.items()}
    rows = None if files.negative is None else read_negatives(files.negative)
    notes = [f"{part}: {note}" for part in sorted(parts, key=_order) for note in parts[part].notes]
    return _assemble(path.name, files, {part: log.frame for part, log in parts.items()}, rows, notes, drop_overlap)


def read(files: Files, file: Path, columns: Columns) -> Source:
    """One file of a split."""
    if files.kind == TABLE_SPLIT:
        reader = by_suffix(suffix_of(file))
        assert reader is not None
        return reader.read(file, columns)
    columns.refuse(str(file))
    if files.kind == LIST_SPLIT:
        frame, lazy = read_list(file, named=True)
        return Source(frame, Catalog(ratings=lazy), files.kind)
    frame, lazy, notes = read_columns(file, "\t")
    return Source(frame, Catalog(ratings=lazy), files.kind, notes)


def sniff(probe: Probe) -> bool:
    """Whether the folder holds a split."""
    return find_split(probe.path) is not None


def read_whole(path: Path, columns: Columns) -> Source:
    """All parts of a split as one log, in the order train, validation, test, with the columns that all of them have."""
    files = find_split(path)
    assert files is not None
    names = sorted(files.parts, key=_order)
    logs = [read(files, files.parts[part], columns) for part in names]
    frames = alike(files, [log.frame for log in logs])
    shared = [name for name in frames[0].columns if all(name in frame.columns for frame in frames)]
    lazies = []
    for log, frame in zip(logs, frames):
        assert log.catalog.ratings is not None
        lazies.append(
            log.catalog.ratings.with_columns(pl.col(what).cast(frame.schema[what]) for what in ("user", "item"))
        )
    seen = [*shared, "datetime"] if "timestamp" in shared else shared
    notes = [f"{part}: {note}" for part, log in zip(names, logs) for note in log.notes]
    notes += _partial(frames)
    return Source(
        pl.concat([frame.select(shared) for frame in frames]),
        Catalog(ratings=pl.concat([lazy.select(seen) for lazy in lazies])),
        files.kind,
        (WHOLE, *notes),
    )


def _order(part: str) -> int:
    return ("train", "validation", "test").index(part)


def _partial(frames: list[pl.DataFrame]) -> list[str]:
    """A note on each column that only some parts have."""
    names = [name for name in ("rating", "timestamp") if any(name in frame.columns for frame in frames)]
    partial = [name for name in names if not all(name in frame.columns for frame in frames)]
    return [f"{name} is not in every part of the split, so it is not used" for name in partial]


def alike(files: Files, frames: list[pl.DataFrame]) -> list[pl.DataFrame]:
    """The frames with one type of ids: in tables, text in all of them where it is text in one.

    An integer id and its text are the same id, since integers are read from their plain spelling only.

    Raises
    ------
    DataError
        If the parts differ in a format whose columns never mix integers and text.
    """
    for what in ("user", "item"):
        types = [frame.schema[what] for frame in frames]
        if len(set(types)) > 1 and files.kind != TABLE_SPLIT:
            apart = ", ".join(f"{file.name}: {dtype}" for file, dtype in zip(files.parts.values(), types))
            raise DataError(
                f"the parts of the split differ in their columns ({what} ids are {apart}); write them alike"
            )
        if pl.String in types:
            frames = [frame.with_columns(pl.col(what).cast(pl.String)) for frame in frames]
    return frames


def read_negatives(file: Path) -> dict[tuple[int, int], tuple[int, NDArray[np.int64]]]:
    """``(user,item)<tab>negative<tab>...`` per line: for each pair its line number and its candidates.

    Raises
    ------
    DataError
        Naming the line that is cut short or holds other than integers.
    """
    rows: dict[tuple[int, int], tuple[int, NDArray[np.int64]]] = {}
    for line_number, line in lines_of(file):
        head, _, rest = line.partition("\t")
        try:
            if not (head.startswith("(") and head.endswith(")")):
                raise ValueError(head)
            user, item = map(int, head[1:-1].split(","))
            negatives = np.array(rest.split("\t"), dtype=np.int64)
            if head != f"({user},{item})" or rest != "\t".join(map(str, negatives.tolist())):
                raise ValueError(line)  # another spelling, such as 007, is another id
        except (ValueError, OverflowError):
            raise DataError(
                f"{file}, line {line_number}: {shown(line)} is not (user,item)<tab>item<tab>item ...as "
                "64-bit integers, plainly spelled. Fix the line, or fetch the file again"
            ) from None
        if (user, item) in rows:
            raise DataError(
                f"{file}, line {line_number}: ({user},{item}) is in line {rows[user, item][0]} too; remove one"
            )
        rows[user, item] = (line_number, negatives)
    return rows


def _assemble(
    name: str,
    files: Files,
    frames: dict[str, pl.DataFrame],
    negatives: dict[tuple[int, int], tuple[int, NDArray[np.int64]]] | None,
    notes: list[str],
    drop_overlap: bool,
) -> Split:
    """Number users and items over all parts and candidates together, then build the parts."""
    names = sorted(frames, key=_order)
    every = pl.concat(alike(files, [frames[p].select("user", "item") for p in names]))
    if negatives is not None and pl.String in every.dtypes:
        raise DataError(
            f"{files.negative}: candidates are integers, but the ids of the parts are text; write them alike"
        )
    users, user_ids = encode_ids(every["user"])
    item_column = every["item"]
    if negatives is not None:
        listed = np.unique(np.concatenate([row for _, row in negatives.values()])) if negatives else np.empty(0, int)
        item_column = pl.concat([item_column, pl.Series("item", listed, dtype=pl.Int64)])
    items, item_ids = encode_ids(item_column)
    notes = notes + _partial([frames[part] for part in names])
    parts: dict[str, Interactions] = {}
    start = 0
    for part in names:
        frame = frames[part]
        rows = slice(start, start + frame.height)
        start = rows.stop
        times = frame["timestamp"].to_numpy() if "timestamp" in frame.columns else None
        weights = frame["weight"].to_numpy() if "weight" in frame.columns else None
        parts[part] = Interactions.from_codes(
            users[rows], user_ids, items[rows], item_ids, times, weights=weights, name=f"{name} {part}"
        )
        notes += [f"{part}: {note}" for note in parts[part].notes]
    train, test = parts["train"], parts["test"]
    if "validation" not in parts:
        parts["validation"] = train.keep(np.zeros(train.n_interactions, np.bool_), name=f"{name} validation")
    candidates = None
    if negatives is not None and files.negative is not None:
        candidates, own = _align(files.negative, test, negatives)
        if own:
            notes.append(f"{own} candidate rows held the test item itself; it was dropped there")
    validation = parts["validation"]
    if drop_overlap:
        validation, _, dropped = _apart(validation, (train,))
        notes += dropped
        test, kept, dropped = _apart(test, (train, validation))
        notes += dropped
        candidates = None if candidates is None else candidates[kept]
    notes += unseen_in_train(train, test)
    return Split(
        train,
        validation,
        test,
        how=f"{files.kind}: {', '.join(file.name for file in files.parts.values())}",
        candidates=candidates,
        comparable=candidates is not None and (train.n_interactions, test.n_interactions) in PAPER_SIZES,
        notes=tuple(notes),
    )


def _apart(part: Interactions, earlier: tuple[Interactions, ...]) -> tuple[Interactions, NDArray[np.bool_], list[str]]:
    """A part without the pairs of earlier parts, which of its pairs are kept, and a note that counts the others."""
    kept = np.ones(part.n_interactions, np.bool_)
    for other in earlier:
        mine, theirs = (x.users.astype(np.int64) * x.n_items + x.items for x in (part, other))
        kept &= ~np.isin(mine, theirs)
    lost = int(kept.size - kept.sum())
    if not lost:
        return part, kept, []
    if lost == kept.size:
        raise DataError(
            f"{part.name}: every one of its {lost} pairs is in an earlier part too; nothing is left to rank"
        )
    return part.keep(kept), kept, [f"{part.name.split()[-1]}: {lost} pairs that an earlier part has too left out"]


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
            raise DataError(f"{file}, line {line}: an item occurs twice among the candidates; remove one")
        out[k, : kept.size] = np.searchsorted(test.item_ids, kept)
    if len(negatives) > test.n_interactions:
        raise DataError(
            f"{file}: {len(negatives)} lines for {test.n_interactions} test pairs; remove those without one"
        )
    return out, own


GIVEN_SPLIT = register(
    Reader(
        name="folder with its split",
        about="the NCF paper's NAME.train.rating and NAME.test.rating",
        sniff=sniff,
        read=read_whole,
        order=0,
        folder=True,
    )
)
