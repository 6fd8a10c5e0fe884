"""Synthetic interaction logs of a stated shape, addressed by seed: for trying out, testing and scaling, not for claims.

Popularity and activity are long-tailed and taste has topics, so that a model that learns beats popularity; see
``fastrec.data.synthetic.kernels`` for what is drawn.
"""

from __future__ import annotations

from dataclasses import replace
from importlib.util import find_spec

import numpy as np
from numpy.typing import NDArray

from fastrec.data.arrays import frozen
from fastrec.data.interactions import Interactions
from fastrec.data.synthetic import titles as synthetic_titles
from fastrec.data.synthetic.kernels import apportion, draw_rows, item_facts, shuffled, user_weights
from fastrec.errors import ConfigError, DataError
from fastrec.jit import resolve_threads, run_ranges
from fastrec.sampling.csr import MAX_ITEMS

N_TOPICS = 18

SHAPES: dict[str, tuple[int, int, int]] = {
    "synthetic-small": (600, 400, 30_000),
    "synthetic-100k": (943, 1_682, 100_000),
    "synthetic-1m": (6_040, 3_706, 1_000_209),
    "synthetic-10m": (69_878, 10_677, 10_000_054),
    "synthetic-20m": (138_493, 26_744, 20_000_263),
    "synthetic-100m": (1_000_000, 100_000, 100_000_000),
}
"""Users, items and interactions of each named log; 100k, 1m, 10m and 20m are those of MovieLens."""


def generate(
    n_users: int,
    n_items: int,
    n_interactions: int,
    *,
    seed: int = 0,
    name: str | None = None,
    timestamps: bool = True,
    titles: bool = False,
    threads: int | None = None,
) -> Interactions:
    """A log with exactly these counts.

    Parameters
    ----------
    n_users, n_items, n_interactions : int
        The shape; at most ``n_users * n_items`` interactions.
    seed : int
        0 to 2^32-1.
    name : str, optional
        What the log is called in messages and records.
    timestamps : bool
        Whether each interaction gets a time, distinct within its user; 8 bytes each.
    titles : bool
        Whether items get titles, years and genres, and the log a catalogue: about 1 KB an item.
    threads : int, optional
        Threads to draw with; all usable ones if left out.

    Returns
    -------
    Interactions
        ``user_ids`` and ``item_ids`` count from 1.

    Raises
    ------
    ConfigError
        If the shape or the seed is impossible.

    Guarantee
    ---------
    The same bytes for any number of threads, on any machine. No item twice in a row of the CSR. Every user has at
    least d = min(20, n_interactions // (4 * n_users)) interactions, and every item has one if n_items is at most
    n_users * (d // 4); beyond that, some items may have none.

    Cost
    ----
    4 bytes per interaction (12 with timestamps) and 20 per item; no temporary of the size of the log.
    """
    if not 0 <= seed < 2**32:
        raise ConfigError(f"seed={seed}: must be in 0 to 2^32-1")
    if n_users < 1 or not 1 <= n_items <= MAX_ITEMS or not 0 <= n_interactions <= n_users * n_items:
        raise ConfigError(
            f"n_users={n_users}, n_items={n_items}, n_interactions={n_interactions}: there must be at least one user, "
            f"1 to {MAX_ITEMS} items, and at most n_users * n_items = {n_users * n_items} interactions"
        )
    threads = resolve_threads(threads)
    key = np.uint64(seed)
    indptr = np.zeros(n_users + 1, dtype=np.int64)
    np.cumsum(_degrees(n_users, n_items, n_interactions, key, threads), out=indptr[1:])
    ids = np.empty(n_items, dtype=np.int32)
    shuffled(key, ids)
    items = np.empty(n_interactions, dtype=np.int32)
    moments = np.empty(n_interactions if timestamps else 0, dtype=np.int64)

    def work(lo: int, hi: int) -> None:
        longest = int(np.diff(indptr[lo : hi + 1]).max())
        scratch = (np.zeros(n_items // 64 + 1, np.uint64), np.empty(longest, np.int64), np.empty(longest, np.int64))
        draw_rows(indptr, ids, min(N_TOPICS, n_items), key, *scratch, items, moments, lo, hi)

    run_ranges(work, n_users, threads)
    made = Interactions(
        indptr=frozen(indptr),
        items=frozen(items),
        user_ids=np.arange(1, n_users + 1),
        item_ids=np.arange(1, n_items + 1),
        timestamps=frozen(moments) if timestamps else None,
        name=name or f"synthetic-{n_users}x{n_items}x{n_interactions}",
        notes=(f"synthetic: generated from seed {seed}, no real data",),
    )
    return _with_catalog(made, ids, key) if titles else made


def _with_catalog(made: Interactions, ids: NDArray[np.int32], seed: np.uint64) -> Interactions:
    """Add titles, and a catalogue where Polars is installed (a log saved or trained elsewhere needs none)."""
    n = made.n_items
    first, second, years = (np.empty(n, np.int64) for _ in range(3))
    span = synthetic_titles.FIRST_YEAR, synthetic_titles.LAST_YEAR
    item_facts(seed, ids, min(N_TOPICS, n), *span, first, second, years)
    titles = synthetic_titles.titles(years)
    made = replace(made, titles=np.array(titles, dtype=np.str_))
    if find_spec("polars") is None:
        return replace(made, notes=(*made.notes, "no catalogue: Polars is not installed"))
    import polars as pl

    from fastrec.data.catalog import Catalog, movies_frame, with_datetime

    def ratings() -> pl.DataFrame:
        columns = {"user": made.user_ids[made.users], "item": made.item_ids[made.items]}
        return pl.DataFrame(columns if made.timestamps is None else columns | {"timestamp": made.timestamps})

    schema = {"user": pl.Int64, "item": pl.Int64} | ({} if made.timestamps is None else {"timestamp": pl.Int64})
    movies = movies_frame(made.item_ids, titles, synthetic_titles.genres(first, second))
    return replace(made, catalog=Catalog(movies=movies, ratings=with_datetime(pl.defer(ratings, schema=schema))))


def _degrees(n_users: int, n_items: int, total: int, seed: np.uint64, threads: int) -> NDArray[np.int64]:
    """int64[U] that adds up to ``total``: a least degree, and the rest by activity up to a cap."""
    weights = np.empty(n_users)
    run_ranges(lambda lo, hi: user_weights(seed, weights, lo, hi), n_users, threads)
    mean = total // n_users
    degrees = np.full(n_users, max(min(20, mean // 4), min(2, mean)), dtype=np.int64)
    cap = min(n_items, max(mean + 1, n_items * 3 // 5))  # the most active MovieLens-1M user rated 62 % of the films
    rest = total - int(degrees.sum())
    while rest > 0:
        rest = apportion(weights, rest, cap, degrees)
    return degrees


def make(name: str, *, seed: int = 0, threads: int | None = None) -> Interactions:
    """One of the named logs of ``SHAPES``, with titles and a catalogue.

    Raises
    ------
    DataError
        If there is none of that name.
    """
    if name not in SHAPES:
        raise DataError(f"no synthetic log is called {name!r}; there are {', '.join(SHAPES)}")
    return generate(*SHAPES[name], seed=seed, name=name, titles=True, threads=threads)
