"""Synthetic logs: exact shape, the same bytes for any threads, long tails, and taste that a model can learn."""

from __future__ import annotations

import re
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec.data import Interactions
from fastrec.data.synthetic.generator import SHAPES, generate, make
from fastrec.data.synthetic.titles import GENRES, titles
from fastrec.errors import ConfigError, DataError
from tests.helpers.cases import examples

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = "8aa7c56c070f3752f93cf8049045c7aacfcb3d2ed04d28387581d6575ec809bd"


def same(a: Interactions, b: Interactions) -> bool:
    return a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize("name", ["synthetic-small", "synthetic-100k", "synthetic-1m"])
def test_named_logs_have_their_shape_to_the_unit(name: str) -> None:
    x = make(name)
    assert (x.n_users, x.n_items, x.n_interactions) == SHAPES[name]
    assert (np.bincount(x.items, minlength=x.n_items) > 0).all(), "n_items counts rated items"
    assert x.degrees.min() >= (12 if name == "synthetic-small" else 20)
    assert x.name == name
    assert x.timestamps is not None
    assert "synthetic" in x.notes[0]


def test_synthetic_1m_is_the_shape_of_movielens_1m() -> None:
    assert SHAPES["synthetic-1m"] == (6_040, 3_706, 1_000_209)


def test_the_bytes_are_pinned() -> None:
    """No libm, no global generator, no float sum of unstated order: the same log on every machine."""
    assert make("synthetic-small").fingerprint() == GOLDEN


@pytest.mark.parametrize("threads", [2, 3, 7])
def test_threads_do_not_change_a_byte(threads: int) -> None:
    one = generate(501, 300, 20_000, seed=9, threads=1)
    assert same(one, generate(501, 300, 20_000, seed=9, threads=threads))


def test_seeds_change_the_log() -> None:
    a, b = (generate(200, 300, 9_000, seed=s) for s in (0, 1))
    assert not np.array_equal(a.degrees, b.degrees)
    shared = np.intersect1d(a.users.astype(np.int64) * 300 + a.items, b.users.astype(np.int64) * 300 + b.items).size
    assert shared < 3_000, "two logs agree no more than popularity makes them"
    assert not same(generate(50, 60, 900, seed=2**32 - 1), generate(50, 60, 900, seed=2**32 - 2))


@examples(40)
@given(
    n_users=st.integers(1, 40), n_items=st.integers(1, 150), fraction=st.floats(0, 1), seed=st.integers(0, 2**32 - 1)
)
def test_any_possible_shape_is_met_without_a_repeated_pair(
    n_users: int, n_items: int, fraction: float, seed: int
) -> None:
    n = round(fraction * n_users * n_items)
    x = generate(n_users, n_items, n, seed=seed, threads=2)
    assert (x.n_users, x.n_items, x.n_interactions) == (n_users, n_items, n)
    assert np.unique(x.users.astype(np.int64) * n_items + x.items).size == n
    least = min(20, n // (4 * n_users))
    assert x.degrees.min() >= least
    if n_items <= n_users * (least // 4):
        assert x.item_counts().min() >= 1


def test_users_who_have_every_item_are_filled_exactly() -> None:
    """The last draws of a full row find almost nothing free: the exact finish has to end them."""
    x = generate(3, 1_000, 3_000)
    assert np.array_equal(x.items, np.tile(np.arange(1_000), 3))


@pytest.mark.parametrize(
    ("arguments", "options"),
    [((0, 5, 0), {}), ((5, 0, 0), {}), ((2, 3, 7), {}), ((2, 3, -1), {}), ((1, 2**31, 5), {}),
     ((2, 3, 4), {"seed": -1}), ((2, 3, 4), {"seed": 2**32}), ((2, 3, 4), {"threads": 0})],
)  # fmt: skip
def test_impossible_shapes_are_refused(arguments: tuple[int, int, int], options: dict[str, int]) -> None:
    with pytest.raises(ConfigError):
        generate(*arguments, **options)  # type: ignore[arg-type]


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(DataError, match="synthetic-1m"):
        make("synthetic-3m")


def test_activity_and_popularity_have_long_tails_like_movielens_1m() -> None:
    x = make("synthetic-1m")
    degrees, counts = np.sort(x.degrees), np.sort(x.item_counts())[::-1]
    assert 60 < np.median(degrees) < 130  # MovieLens-1M: 96
    assert degrees[-1] > 10 * degrees.mean()  # 2,314 of a mean of 166
    assert 0.3 < counts[:370].sum() / counts.sum() < 0.5  # its ten percent most popular: 43 %
    assert counts[-1853:].sum() / counts.sum() < 0.2  # its less popular half: 7 %
    order = np.argsort(-x.item_counts())
    assert abs(np.corrcoef(order, np.arange(order.size))[0, 1]) < 0.1, "an id says nothing of popularity"


def test_moments_are_distinct_within_a_user_plausible_and_apart_from_the_item() -> None:
    x = generate(300, 500, 30_000, seed=4)
    assert x.timestamps is not None
    assert x.timestamps.min() >= 946_684_800
    assert x.timestamps.max() < 946_684_800 + 4 * 365 * 86_400
    ranks = []
    for u in range(x.n_users):
        times = x.timestamps[x.indptr[u] : x.indptr[u + 1]]
        assert np.unique(times).size == times.size, "no ties: leave-one-out needs no file order"
        ranks.append(np.argsort(np.argsort(times)) / times.size)
    popularity = x.item_counts()[x.items]
    assert abs(np.corrcoef(np.concatenate(ranks), popularity)[0, 1]) < 0.03, (
        "the last items are not odder than the first"
    )
    assert generate(300, 500, 30_000, seed=4, timestamps=False).timestamps is None


def test_memory_is_the_result_and_little_else() -> None:
    generate(100, 100, 1_000)  # compiled before the count begins
    tracemalloc.start()
    x = generate(20_000, 2_000, 1_000_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert x.timestamps is not None
    assert peak < 1.2 * (x.items.nbytes + x.timestamps.nbytes) + 40 * x.n_users


def test_titles_are_plausible_distinct_and_accented() -> None:
    x = make("synthetic-1m")
    assert x.titles is not None
    shown = x.titles.tolist()
    assert len(set(shown)) == x.n_items
    assert all(re.fullmatch(r".+ \((19[3-9]\d)\)", t) for t in shown)
    assert 0.1 < sum(not t.isascii() for t in shown) / x.n_items < 0.5
    assert all(t.encode("latin-1") for t in shown), "as in the MovieLens files"
    assert any(":" in t for t in shown), "colons are what readers stumble on"
    assert len(set(titles(np.full(20_000, 1990)))) == 20_000


def test_the_catalogue_agrees_with_the_log() -> None:
    pl = pytest.importorskip("polars")
    x = make("synthetic-small")
    movies = x.catalog.movies
    assert movies["item"].to_list() == x.item_ids.tolist()
    assert movies["title"].to_list() == x.titles.tolist()
    assert movies["title_ascii"].str.contains(r"^[ -~]+$").all()
    assert movies["year"].null_count() == 0
    assert movies["genres"].list.len().is_between(1, 2).all()
    assert set(movies["genres"].explode()) == set(GENRES)
    view = x.catalog.joined()
    assert isinstance(view, pl.LazyFrame)
    table = view.collect()
    assert table.height == x.n_interactions
    assert {"user", "item", "timestamp", "datetime", "title", "year", "genres"} <= set(table.columns)
    first = table.filter(pl.col("user") == 1)
    assert first["item"].sort().to_list() == (x.row(0) + 1).tolist()


def test_genres_tell_the_taste_that_drew_the_log() -> None:
    pytest.importorskip("polars")
    x = make("synthetic-100k")
    main = np.array([GENRES.index(g[0]) for g in x.catalog.movies["genres"].to_list()])
    counts = np.zeros((x.n_users, len(GENRES)))
    np.add.at(counts, (x.users, main[x.items]), 1)
    mean = counts.sum(0) / counts.sum()
    lift = (counts / counts.sum(1, keepdims=True) / mean).max(1)
    assert np.median(lift) > 3, "the favourite genre of a user, against its share in the entire log"


def test_a_log_can_be_made_where_polars_is_not_installed() -> None:
    code = (
        "import sys; from fastrec.data.synthetic import generator as s; s.find_spec = lambda name: None;"
        "x = s.make('synthetic-small');"
        "assert 'polars' not in sys.modules and x.catalog is None and x.titles is not None;"
        "assert any('Polars is not installed' in n for n in x.notes); print(x.fingerprint())"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    assert out.stdout.strip() == make("synthetic-small").fingerprint()


@pytest.fixture
def one_torch_thread():
    """Steps this small lose more to a second thread than they gain."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.mark.usefixtures("one_torch_thread")
def test_default_gmf_beats_popularity_by_a_tenth() -> None:
    """On 99 candidates, leave-one-out, at the default width, rate, batch and epochs; a smaller log of the same kind."""
    from fastrec import models
    from fastrec.batches.stream import Stream
    from fastrec.config import Config
    from fastrec.data.split import leave_one_out
    from fastrec.engines.minibatch.engine import TorchEngine
    from fastrec.sampling import NegativeSampler
    from fastrec.sampling.order import Cursor
    from fastrec.training.resolve import resolve

    default = resolve(Config(device="cpu"))
    split = leave_one_out(generate(1_500, 1_000, 200_000, seed=3), validation=0.0)
    train, n_items = split.train, split.n_items
    sampler = NegativeSampler(
        train.indptr, train.items, n_items=n_items, n_negatives=default.negatives.negatives, seed=default.training.seed
    )
    model = models.build(
        "gmf", n_users=split.n_users, n_items=n_items, dim=default.model.dim, seed=default.training.seed
    )
    engine = TorchEngine(
        model,
        Stream(train.indptr, train.items, sampler, seed=default.training.seed),
        batch_size=default.training.batch_size,
        lr=lambda _: default.optim.lr,
    )
    for epoch in range(default.training.epochs):
        engine.advance(Cursor(epoch, 0), sys.maxsize)
    users, positives = split.test.users, split.test.items
    rng = np.random.default_rng(0)
    unseen = np.ones((split.n_users, n_items), bool)
    for part in (split.train, split.test):
        unseen[part.users, part.items] = False
    candidates = np.array([rng.choice(np.flatnonzero(unseen[u]), 99, replace=False) for u in users])
    pool = np.column_stack((positives, candidates))

    def hit_rate(scores: np.ndarray) -> float:
        return float(((scores[:, 1:] >= scores[:, :1]).sum(1) < 10).mean())

    user_vectors, item_vectors, item_bias = (np.asarray(v) for v in model.vectors())
    learnt = hit_rate(np.einsum("bd,bkd->bk", user_vectors[users], item_vectors[pool]) + item_bias[pool])
    popular = hit_rate(train.item_counts()[pool])
    assert 0.3 < popular < 0.55, "popularity alone: .45 on MovieLens-1M"
    assert learnt > popular + 0.10, (learnt, popular)
