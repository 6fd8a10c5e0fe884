"""The face of the data wing: Interactions and splits of paths and names."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fastrec.data.arrays import frozen
from fastrec.data.content import one_line
from fastrec.data.csr_build import MAX_IDS, text_array
from fastrec.data.earlier import numbered_as
from fastrec.data.interactions import Interactions
from fastrec.data.split import Split
from fastrec.errors import ConfigError, DataError

if TYPE_CHECKING:
    from fastrec.data.source import Source


def load(
    path_or_name: Any,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    time_format: str | None = None,
    min_rating: float | None = None,
    k_core: int = 0,
    unrated_negatives: bool = False,
    ids: Any = None,
    where: str | None = None,
    item_table: Any = None,
    user_table: Any = None,
    weight_col: str | None = None,
) -> Interactions:
    """Load a log of interactions: a file, a folder, a data set by name, or a frame.

    Parameters
    ----------
    path_or_name : str, path or frame
        A file or folder in a known format (MovieLens ``.dat``, ml-100k, MovieLens csv, the NCF paper's files, adjacency
        lists, any CSV, TSV or Parquet with named columns, each also as ``.gz`` or ``.zst``), a ``.safetensors`` file
        written by ``Interactions.save``, or a name that ``fastrec data list`` shows. A glob (``logs/*.parquet``) and a
        folder of parts are read as one table. Or a frame: Polars, pandas, PyArrow, or a mapping of columns. Ids
        with NUL are refused, but NumPy arrays of fixed width (``<U8``, ``S8``) drop it at the end unseen.
    user_col, item_col, rating_col, time_col : str, optional
        Columns of a table; usual names are recognised.
    time_format : str, optional
        How a table writes its times: a strptime pattern (``%d/%m/%Y %H:%M``), or the unit of numbers: ``s``, ``ms``,
        ``us`` or ``ns``. By default text must be ISO dates, and the unit follows from the size of the numbers.
    min_rating : float, optional
        Keep interactions rated at least this. By default every rating counts as an interaction.
    k_core : int
        Keep the largest subset in which every user and item has at least this many interactions; 0 keeps all.
    unrated_negatives : bool
        Give items that only the catalogue lists an id too, so that they can be drawn as negatives. By default
        ``n_items`` counts items with at least one interaction.
    ids : Interactions, Split, Run or path, optional
        An earlier data set (a path names a run folder or a saved file) whose numbers are kept: its ids keep theirs,
        new ids follow in ascending order, and ids that have gone, or that a filter leaves out, keep empty rows.
    where : str, optional
        Keep the rows of a table for which this SQL expression over its columns is true (``event = 'purchase'``).
    weight_col : str, optional
        Column of weights, finite and at least 0: the loss of a positive and its negatives is multiplied by it. Of
        duplicates the latest row's counts. Evaluation and baselines do not look at weights.
    item_table, user_table : path or frame, optional
        Fields of items (titles, genres and any others) and of users, by the ids of the log, for ``catalog``.

    Returns
    -------
    Interactions
        Contiguous ids ascend with the ids of the source, unless ``ids`` is given; ``notes`` counts what was merged or
        left out.

    Raises
    ------
    DataError
        If nothing is there, a line is malformed (file and line are named), or nothing is left.
    ConfigError
        If columns are named for a format that has none.

    Guarantee
    ---------
    The same content gives the same ids, whatever the number of threads.
    """
    if not (is_frame(path_or_name) or isinstance(path_or_name, (str, os.PathLike))):
        raise ConfigError(
            f"{type(path_or_name).__module__}.{type(path_or_name).__qualname__}: fastrec.load takes a path, a name, a "
            "frame or a mapping of columns; from a scipy matrix m or arrays use Interactions.from_arrays, such as "
            "Interactions.from_arrays(*m.nonzero())"
        )
    with one_line("frame" if is_frame(path_or_name) else path_or_name):
        columns = {"user_col": user_col, "item_col": item_col, "rating_col": rating_col, "time_col": time_col}
        columns |= {"time_format": time_format, "where": where, "weight_col": weight_col}
        if is_frame(path_or_name):
            from fastrec.data.readers.parts.frame import read_frame
            from fastrec.data.source import Columns

            source = _with_tables(read_frame(path_or_name, Columns(*columns.values()), "frame"), item_table, user_table)
            made = from_source(
                source, name="frame", min_rating=min_rating, k_core=k_core, unrated_negatives=unrated_negatives
            )
        else:
            tables = (item_table, user_table)
            made = _load(path_or_name, columns, min_rating, k_core, unrated_negatives, tables)
    return made if ids is None else numbered_as(made, ids)


def _with_tables(source: Source, item_table: Any, user_table: Any) -> Source:
    if item_table is None and user_table is None:
        return source
    from fastrec.data.readers.parts.side_tables import with_tables

    return with_tables(source, item_table, user_table)


def _load(
    path_or_name: str | os.PathLike[str],
    columns: dict[str, str | None],
    min_rating: float | None,
    k_core: int,
    unrated_negatives: bool,
    tables: tuple[Any, Any],
) -> Interactions:
    if is_synthetic(path_or_name) or Path(path_or_name).suffix == ".safetensors":
        absent = [f"{name}={value!r}" for name, value in columns.items() if value is not None]
        absent += [f"{what}_table" for what, table in zip(("item", "user"), tables) if table is not None]
        absent += [] if min_rating is None else [f"min_rating={min_rating}"]
        if absent:
            raise ConfigError(
                f"{', '.join(absent)}: {path_or_name} is a CSR already, without columns or ratings; leave it out"
            )
        if is_synthetic(path_or_name):
            from fastrec.data.synthetic.generator import make

            made = make(str(path_or_name))
        else:
            made = Interactions.open(path_or_name)
        return (with_catalogued_items(made) if unrated_negatives else made).core(k_core)
    from fastrec.data.readers.base import read_source
    from fastrec.data.readers.many_files import glob_files, read_files
    from fastrec.data.source import Columns

    files = glob_files(os.fspath(path_or_name))
    if files is None:
        path = locate(path_or_name)
        log = read_source(path, Columns(*columns.values()))
    else:
        path = Path(path_or_name)
        log = read_files(str(path), files, Columns(*columns.values()))
    log = _with_tables(log, *tables)
    return from_source(log, name=path.name, min_rating=min_rating, k_core=k_core, unrated_negatives=unrated_negatives)


def from_frame(
    frame: Any,
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    time_format: str | None = None,
    weight_col: str | None = None,
    min_rating: float | None = None,
    k_core: int = 0,
    name: str = "frame",
) -> Interactions:
    """Build from a frame in memory; see ``Interactions.from_frame``."""
    from fastrec.data.readers.parts.frame import read_frame
    from fastrec.data.source import Columns

    columns = Columns(user_col, item_col, rating_col, time_col, time_format, weight=weight_col)
    source = read_frame(frame, columns, name)
    return from_source(source, name=name, min_rating=min_rating, k_core=k_core)


def is_frame(source: Any) -> bool:
    """Whether it holds its data in memory, in named columns."""
    return not isinstance(source, (str, os.PathLike)) and (
        isinstance(source, Mapping) or any(hasattr(type(source), name) for name in ("columns", "column_names"))
    )


def is_synthetic(path_or_name: str | os.PathLike[str]) -> bool:
    """Whether it names a log that is generated, and no file or folder of that name is here."""
    with one_line(path_or_name):
        if Path(path_or_name).exists():
            return False
    from fastrec.data.synthetic.generator import SHAPES

    return str(path_or_name) in SHAPES


def locate(path_or_name: str | os.PathLike[str]) -> Path:
    """The path itself where it exists, else the folder that the registry finds or fetches under the name.

    Raises
    ------
    DataError
        If there is neither.
    """
    from fastrec.data.datasets.registry import resolve

    return resolve(path_or_name)


def from_source(
    log: Source,
    *,
    name: str,
    min_rating: float | None = None,
    k_core: int = 0,
    unrated_negatives: bool = False,
    max_ids: int = MAX_IDS,
) -> Interactions:
    """Number the ids of a frame that a reader made, build the CSR and fill titles and catalog."""
    frame = log.frame
    from fastrec.data.encode import encode_ids

    users, user_ids = encode_ids(frame["user"], max_ids=max_ids)
    items, item_ids = encode_ids(frame["item"], max_ids=max_ids)
    made = Interactions.from_codes(
        users,
        user_ids,
        items,
        item_ids,
        frame["timestamp"].to_numpy() if "timestamp" in frame.columns else None,
        frame["rating"].to_numpy() if "rating" in frame.columns and min_rating is not None else None,
        weights=frame["weight"].to_numpy() if "weight" in frame.columns else None,
        min_rating=min_rating,
        k_core=k_core,
        name=name,
    )
    made = replace(made, catalog=log.catalog, notes=log.notes + made.notes)
    if unrated_negatives:
        made = with_catalogued_items(made)
    if log.catalog.movies is not None:
        titles = text_array(log.catalog.titles_of(made.item_ids))
        made = replace(made, titles=titles)
    return made


def with_catalogued_items(interactions: Interactions) -> Interactions:
    """Ids for the items that only the catalogue lists, in ascending order with the others.

    Raises
    ------
    DataError
        If the source came without a catalogue of items.
    """
    catalog = interactions.catalog
    if catalog is None or catalog.movies is None:
        raise DataError(
            f"{interactions.name}: unrated_negatives needs a catalogue of items (movies.dat, u.item or movies.csv), "
            "and there is none; leave the option out"
        )
    every = np.union1d(interactions.item_ids, catalog.movies["item"].to_numpy())
    every = text_array(every.tolist()) if every.dtype.kind == "O" else every
    new = np.searchsorted(every, interactions.item_ids).astype(np.int32)
    added = every.size - interactions.n_items
    return replace(
        interactions,
        items=frozen(new[interactions.items]),
        item_ids=every,
        notes=interactions.notes + (f"{added} catalogued items without interactions were given ids",),
    )


def load_split(
    path: str | os.PathLike[str],
    *,
    user_col: str | None = None,
    item_col: str | None = None,
    rating_col: str | None = None,
    time_col: str | None = None,
    time_format: str | None = None,
    where: str | None = None,
    weight_col: str | None = None,
    drop_overlap: bool = False,
) -> Split:
    """Load a split that comes with the data, such as the NCF paper's files or ``train.txt`` and ``test.txt``.

    Parameters
    ----------
    path : str or path
        A folder, or the name of a data set; where a folder holds several splits, the common start of one's file names
        (``Data/pinterest-20``, ``ml-100k/u1``). Known are NAME.train.rating with NAME.test.rating and perhaps
        NAME.test.negative; train.txt with test.txt; train.csv (.tsv, .parquet) with test.csv and perhaps
        validation.csv; NAME.base with NAME.test.
    user_col, item_col, rating_col, time_col : str, optional
        Columns of train.csv and its like; usual names are recognised.
    time_format : str, optional
        How they write times; see ``fastrec.load``.
    where : str, optional
        Keep the rows of train.csv and its like for which this SQL expression is true.
    weight_col : str, optional
        Their column of weights; see ``fastrec.load``. Only those of train have an effect.
    drop_overlap : bool
        Leave out validation and test pairs that an earlier part has too, counted in ``notes``; refused by default.

    Returns
    -------
    Split
        Validation is empty: ``add_validation`` takes one out of train. ``candidates`` come from ``.test.negative``.

    Raises
    ------
    DataError
        If no split is there, a line is malformed, or the parts overlap.
    ConfigError
        If columns are named for a format that has none.
    """
    from fastrec.data.readers.given_split import find_split, read_split
    from fastrec.data.source import Columns

    with one_line(path):
        direct = Path(path)
        direct = direct if direct.exists() or find_split(direct) else locate(path)
        columns = Columns(user_col, item_col, rating_col, time_col, time_format, where, weight_col)
        return read_split(direct, columns, drop_overlap=drop_overlap)


def has_split(path: str | os.PathLike[str]) -> bool:
    """Whether ``load_split(path)`` would find a split that comes with the data.

    Raises
    ------
    DataError
        If there is nothing at the path or under the name.
    """
    from fastrec.data.readers.given_split import find_split
    from fastrec.data.readers.many_files import glob_files

    if is_synthetic(path) or glob_files(os.fspath(path)) is not None:
        return False
    with one_line(path):
        direct = Path(path)
        return find_split(direct if direct.exists() or find_split(direct) else locate(path)) is not None
