"""What NegativeSampler guarantees, each promise of its docstring a test; and the peers' bugs that touch sampling."""

from __future__ import annotations

import itertools
import json
import os
import threading

import numpy as np
import pytest
from scipy import sparse, stats

from fastrec.errors import ConfigError, DataError
from fastrec.sampling import NegativeSampler, kernels
from fastrec.sampling.weights import popularity, quantise

N_USERS, N_ITEMS = 80, 120
SHAPES = [
    {}, {"memory_budget": 0}, {"distinct": True}, {"distribution": "popularity"},
    {"distribution": "weights", "weights": np.arange(N_ITEMS) + 1.0, "distinct": True},
]  # fmt: skip
every_shape = pytest.mark.parametrize("options", SHAPES, ids=["bitmap", "search", "distinct", "popularity", "weights"])


def make(n_users=N_USERS, n_items=N_ITEMS, seed=11):
    rng = np.random.default_rng(seed)
    dense = rng.random((n_users, n_items)) < rng.random((n_users, 1)) * 0.8
    return np.concatenate(([0], np.cumsum(dense.sum(1)))), np.nonzero(dense)[1].astype(np.int32), dense


INDPTR, ITEMS, DENSE = make()


def build(**options) -> NegativeSampler:
    return NegativeSampler(INDPTR, ITEMS, **{"n_items": N_ITEMS, "seed": 4, **options})


@every_shape
def test_no_negative_is_a_positive_and_rows_agree_for_any_split_order_and_threads(options, rng) -> None:
    users = rng.integers(0, N_USERS, 3 * 4 * kernels.BLOCK + 5)
    s = build(**options)
    whole = s.sample(users, epoch=2, start=100)
    assert not DENSE[users[:, None], whole].any()
    positions = np.arange(100, 100 + users.size)
    cuts = [0, 1, 17, 2000, users.size]
    parts = [s.sample(users[a:b], epoch=2, start=100 + a) for a, b in itertools.pairwise(cuts)]
    assert np.array_equal(np.concatenate(parts), whole)
    for threads in (1, 2, 3, 8):
        assert np.array_equal(s.sample(users, epoch=2, positions=positions, threads=threads), whole)
    mixed = rng.permutation(users.size)
    assert np.array_equal(s.sample(users[mixed], epoch=2, positions=positions[mixed], threads=2), whole[mixed])
    assert np.array_equal(build(**options).sample(users, epoch=2, start=100), whole)  # a restart


@every_shape
def test_columns_nest(options) -> None:
    users = np.arange(N_USERS)
    wide = build(n_negatives=11, **options).sample(users, epoch=0, start=0)
    for n in (1, 2, 4, 5, 10):
        assert np.array_equal(build(n_negatives=n, **options).sample(users, epoch=0, start=0), wide[:, :n])


def test_seed_epoch_tag_and_position_each_give_another_stream() -> None:
    users = np.zeros(500, np.int32)
    drawn = {
        "seed 0 epoch 1": build(seed=0).sample(users, epoch=1, start=0),
        "seed 1 epoch 0 (the seed + epoch bug)": build(seed=1).sample(users, epoch=0, start=0),
        "seed 0 epoch 0": build(seed=0).sample(users, epoch=0, start=0),
        "tag": build(seed=0, tag=4).sample(users, epoch=0, start=0),
        "next batch": build(seed=0).sample(users, epoch=0, start=500),
        "far batch (the high word)": build(seed=0).sample(users, epoch=0, start=2**32),
    }
    names = list(drawn)
    for i, a in enumerate(names):
        for b in names[i + 1 :]:
            assert (drawn[a] == drawn[b]).mean() < 0.05, (a, b)


def test_statistics_are_equal_for_any_threads_and_add_up() -> None:
    users = np.tile(np.arange(N_USERS), 200)
    one, two = build(), build()
    one.sample(users, epoch=0, start=0)
    two.sample(users, epoch=0, start=0, threads=2)
    assert one.stats == two.stats
    assert one.stats["draws"] == users.size * 4
    assert one.stats["rejections"] > one.stats["exact_finishes"] >= 0
    assert one.stats["skipped"] == 0
    general = build(distribution="weights", weights=np.ones(N_ITEMS))
    general.sample(users, epoch=0, start=0)
    share = general.stats["rejections"] / one.stats["rejections"]
    assert 0.97 < share < 1.03


def test_out_is_filled_in_place_and_shared_without_a_copy() -> None:
    torch = pytest.importorskip("torch")
    pa = pytest.importorskip("pyarrow")
    s, users = build(), np.arange(N_USERS)
    expected = s.sample(users, epoch=0, start=0)
    tensor = torch.zeros((N_USERS, 4), dtype=torch.int32)
    assert s.sample(users, epoch=0, start=0, out=tensor.numpy()).ctypes.data == tensor.data_ptr()
    assert np.array_equal(tensor.numpy(), expected)
    assert torch.from_dlpack(expected).data_ptr() == expected.ctypes.data
    assert pa.array(expected.reshape(-1)).buffers()[1].address == expected.ctypes.data
    assert expected.__array_interface__["typestr"] == "<i4"


def test_many_python_threads_at_once() -> None:
    s, users = build(), np.tile(np.arange(N_USERS), 100)
    expected = [s.sample(users, epoch=e, start=0) for e in range(8)]
    before, found = s.stats["draws"], [None] * 8

    def work(e: int) -> None:
        for _ in range(5):
            found[e] = s.sample(users, epoch=e, start=0, threads=2)

    threads = [threading.Thread(target=work, args=(e,)) for e in range(8)]
    [t.start() for t in threads]
    [t.join() for t in threads]
    assert all(np.array_equal(a, b) for a, b in zip(found, expected))
    assert s.stats["draws"] - before == 8 * 5 * users.size * 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_works_in_a_forked_child_whose_parent_used_threads() -> None:
    s, users = build(), np.tile(np.arange(N_USERS), 100)
    expected = s.sample(users, epoch=0, start=0, threads=4)
    child = os.fork()
    if child == 0:
        ok = np.array_equal(s.sample(users, epoch=0, start=0, threads=4), expected)
        os._exit(0 if ok else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_full_users_are_refused_or_skipped_never_an_endless_loop() -> None:
    """RecBole#2193, #1028, recommenders#2163: one user who has every item hung or stopped the entire run."""
    indptr, items = [0, 3, 4, 7], [0, 1, 2, 1, 0, 1, 2]
    with pytest.raises(DataError, match=r'user 0 has 3 positives of n_items=3.*\(2 such users\).*on_full="skip"'):
        NegativeSampler(indptr, items, n_items=3)
    for options in ({}, {"memory_budget": 0}, {"distinct": True, "n_negatives": 2}, {"distribution": "popularity"}):
        if options.get("distribution"):
            with pytest.raises(DataError, match="0 of the others with a positive weight"):
                NegativeSampler([0, 1, 2], [1, 1], n_items=3, **options)
        s = NegativeSampler(indptr, items, n_items=3, on_full="skip", **{"n_negatives": 4, **options})
        drawn = s.sample([0, 1, 2, 1], epoch=0, start=0)
        assert (drawn[[0, 2]] == -1).all()
        assert set(drawn[[1, 3]].ravel().tolist()) <= {0, 2}
        assert s.stats["skipped"] == 2
        assert s.skipped_users.tolist() == [0, 2]


def test_the_first_and_the_last_item_are_drawn() -> None:
    """MLPerf's C++ sampler never drew the last item; implicit#745 counted items on the wrong axis."""
    s = NegativeSampler(*make(5, 7)[:2], n_items=200, n_negatives=8)  # more items than any row holds, and than users
    drawn = s.sample(np.repeat(np.arange(5), 2000), epoch=0, start=0)
    assert drawn.min() == 0
    assert drawn.max() == 199
    tall = NegativeSampler(np.zeros(301, int), np.empty(0, int), n_items=3)
    assert set(tall.sample(np.arange(300), epoch=0, start=0).ravel().tolist()) == {0, 1, 2}


def test_negatives_stand_with_their_own_user() -> None:
    """Spotlight paired negatives with other users by a reshape: here every row's only legal item is its user's own."""
    n = 50
    items = np.concatenate([np.delete(np.arange(n), u) for u in range(n)])
    s = NegativeSampler(np.arange(n + 1) * (n - 1), items, n_items=n, n_negatives=5)
    users = np.random.default_rng(0).permutation(np.tile(np.arange(n), 30))
    assert (s.sample(users, epoch=0, start=0, threads=2) == users[:, None]).all()


def test_a_redrawn_negative_is_the_one_returned() -> None:
    """Elliot dropped what its recursion returned, and so returned the positive, or never ended."""
    items = np.concatenate([np.delete(np.arange(50), [7, 31]), np.delete(np.arange(50), np.arange(0, 50, 2))])
    s = NegativeSampler([0, 48, 73], items.astype(np.int32), n_items=50, n_negatives=4)
    drawn = s.sample(np.repeat([0, 1], 2000), epoch=0, start=0)
    assert set(drawn[:2000].ravel()) == {7, 31}
    assert set(drawn[2000:].ravel()) == set(range(0, 50, 2))
    assert s.stats["rejections"] > drawn.size > s.stats["exact_finishes"] > 0, "both ways of redrawing were taken"


def test_documented_arguments_take_effect() -> None:
    """DGL overwrote a documented parameter; implicit ignored its seed."""
    described = build(n_negatives=3, seed=9, tag=4, memory_budget=10).describe()
    assert (described["n_negatives"], described["seed"], described["tag"]) == (3, 9, 4)
    assert described["bitmap_bytes"] == described["filter_bytes"] == 0
    assert "memory_budget is 10" in described["membership"]
    assert build().describe()["bitmap_bytes"] == 4 * 4 * N_USERS
    assert build(distribution="popularity", alpha=0.5).describe()["alpha"] == 0.5
    far = (INDPTR, (ITEMS + 1).clip(max=N_ITEMS - 1))
    json.dumps(build().describe())
    with pytest.raises(DataError, match=r"exclude\[0\]"):
        build(exclude=[far])


def test_the_callers_world_is_untouched() -> None:
    import numba

    np.random.seed(3)  # noqa: NPY002 - the global state is what must not move
    state, threads = np.random.get_state()[1].copy(), numba.get_num_threads()  # noqa: NPY002
    indptr, items = INDPTR.copy(), ITEMS.copy()
    NegativeSampler(indptr, items, n_items=N_ITEMS).sample(np.arange(N_USERS), epoch=0, start=0, threads=2)
    assert np.array_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert numba.get_num_threads() == threads
    assert np.array_equal(indptr, INDPTR)
    assert np.array_equal(items, ITEMS)


def g_test(counts: np.ndarray, expected: np.ndarray) -> float:
    """p-value of the G-test of observed counts against expected shares."""
    return float(stats.power_divergence(counts, counts.sum() * expected / expected.sum(), lambda_="log-likelihood")[1])


def test_uniform_over_every_small_catalogue() -> None:
    """Exhaustive: all 62 rows of a catalogue of 5 but the full one; every legal item occurs, alike, and no other."""
    rows = [[i for i in range(5) if mask >> i & 1] for mask in range(31)]
    s = NegativeSampler(np.cumsum([0] + [len(r) for r in rows]), np.array([i for r in rows for i in r], int), n_items=5)
    users = np.repeat(np.arange(31), 3000)
    drawn = s.sample(users, epoch=0, start=0).reshape(31, -1)
    p_values = []
    for row, found in zip(rows, drawn):
        counts = np.bincount(found, minlength=5)
        assert not counts[row].any()
        legal = np.delete(np.arange(5), row)
        assert (counts[legal] > 0).all()
        if legal.size > 1:
            p_values.append(g_test(counts[legal], np.ones(legal.size)))
    assert min(p_values) > 1e-4
    assert stats.kstest(p_values, "uniform").pvalue > 1e-3


def by_modulo(drawn: np.ndarray, shares: np.ndarray) -> np.ndarray:
    """The same draws made the biased way: a word too narrow, taken modulo, until no positive is hit; then by weight."""
    rng = np.random.default_rng(1)
    units = np.repeat(np.arange(N_ITEMS), np.maximum(1, np.round(9 * shares / shares.max())).astype(int) * (shares > 0))
    made = np.empty_like(drawn)
    for user in range(N_USERS):
        words = rng.integers(0, 3 * units.size // 2, 8 * drawn.shape[1]) % units.size
        legal = units[words][~DENSE[user, units[words]]]
        made[user] = np.resize(legal, drawn.shape[1])
    return made


@pytest.mark.parametrize("distribution", ["uniform", "popularity"])
def test_g_test_per_user_and_pooled_and_a_biased_variant_fails(distribution: str) -> None:
    s = build(distribution=distribution)
    shares = np.bincount(ITEMS, minlength=N_ITEMS) ** 0.75 if distribution == "popularity" else np.ones(N_ITEMS)
    users = np.repeat(np.arange(N_USERS), 4000)
    drawn = s.sample(users, epoch=0, start=0, threads=2).reshape(N_USERS, -1)

    def verdict(drawn: np.ndarray) -> tuple[list[float], float]:
        """p-values of each user, and of all users together."""
        p_values, pooled, expected = [], np.zeros(N_ITEMS), np.zeros(N_ITEMS)
        for user in range(N_USERS):
            legal = np.flatnonzero(~DENSE[user] & (shares > 0))
            found = np.bincount(drawn[user], minlength=N_ITEMS)
            p_values.append(g_test(found[legal], shares[legal]))
            pooled += found
            expected[legal] += found.sum() * shares[legal] / shares[legal].sum()
        return p_values, g_test(pooled, expected)

    p_values, pooled = verdict(drawn)
    assert min(p_values) > 1e-5
    assert stats.kstest(p_values, "uniform").pvalue > 1e-4
    assert pooled > 1e-4
    p_values, pooled = verdict(by_modulo(drawn, shares))
    assert max(p_values) < 1e-12
    assert pooled < 1e-12


def test_exact_finish_is_uniform() -> None:
    """Three legal items of 400: nearly every draw ends by rank."""
    row = np.delete(np.arange(400), [0, 211, 399])
    s = NegativeSampler([0, row.size], row, n_items=400)
    drawn = s.sample(np.zeros(10_000, int), epoch=0, start=0)
    assert s.stats["exact_finishes"] > 0.9 * drawn.size
    values, counts = np.unique(drawn, return_counts=True)
    assert values.tolist() == [0, 211, 399]
    assert g_test(counts, np.ones(3)) > 1e-4


def test_integer_weights_sum_up_and_keep_their_proportions() -> None:
    for weights in ([1.0], [0, 3, 1], [1e-30, 1.0], np.random.default_rng(0).random(1000) ** 9, [5e-324, 1e308]):
        units = quantise(weights, len(weights))
        assert int(units.sum(dtype=object)) == len(weights) << 32
        w = np.asarray(weights, float) / np.max(weights)
        assert ((units > 0) == (np.asarray(weights) > 0)).all()
        assert np.allclose(units / (len(weights) << 32), w / w.sum(), rtol=0, atol=2**-31)
    assert popularity(np.array([0, 1, 4]), 0.5).tolist() == [0, 1, 2]
    assert popularity(np.array([0, 7]), 0.0).tolist() == [1, 1]


def test_sources_give_the_same_sampler() -> None:
    pa = pytest.importorskip("pyarrow")
    pl = pytest.importorskip("polars")
    users = np.repeat(np.arange(N_USERS), np.diff(INDPTR))
    lists = [ITEMS[a:b].tolist() for a, b in itertools.pairwise(INDPTR)]
    mixed = np.random.default_rng(0).permutation(users.size)
    expected = build().sample(np.arange(N_USERS), epoch=0, start=0)
    kept = sparse.csr_array((np.ones(ITEMS.size), ITEMS, INDPTR), shape=(N_USERS, N_ITEMS))
    frame = pl.DataFrame({"item": ITEMS[mixed], "user": users[mixed]})
    for source, options in (
        (kept, {}),
        (pa.array(lists, pa.list_(pa.int32())), {"n_items": N_ITEMS}),
        (pa.array([[1], *lists], pa.large_list(pa.int32()))[1:], {"n_items": N_ITEMS}),
        (frame, {"n_items": N_ITEMS, "user_col": "user", "item_col": "item"}),
        ((INDPTR, ITEMS), {"n_items": N_ITEMS}),
    ):
        s = NegativeSampler.of(source, seed=4, **options)
        assert np.array_equal(s.sample(np.arange(N_USERS), epoch=0, start=0), expected)
    with pytest.raises(ConfigError, match="n_items is required"):
        NegativeSampler.of(frame)
    with pytest.raises(ConfigError, match="columns"):
        NegativeSampler.of(kept, n_items=5)
    with pytest.raises(ConfigError, match="tocsr"):
        NegativeSampler.of(kept.tocsc())
    with pytest.raises(ConfigError, match=r"cannot read positives from a builtins\.set"):
        NegativeSampler.of(set())
    with pytest.raises(DataError, match="null"):
        NegativeSampler.of(pa.array([[1], None]), n_items=5)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        ({}, ConfigError, "exactly one of start= and positions="),
        ({"start": 0, "positions": [0, 1]}, ConfigError, "exactly one"),
        ({"start": -1}, ConfigError, "start=-1"),
        ({"start": 0, "epoch": -1}, ConfigError, "epoch=-1"),
        ({"start": 0, "epoch": 2**32}, ConfigError, "epoch=4294967296"),
        ({"positions": [0, -5]}, DataError, r"positions\[1\] = -5"),
        ({"positions": [0]}, ConfigError, "positions has shape"),
        ({"positions": [0.0, 1.0]}, DataError, "positions must be a one-dimensional integer array"),
        ({"start": 0, "users": [0, N_USERS]}, DataError, rf"users\[1\] = {N_USERS} is not in \[0, n_users"),
        ({"start": 0, "users": [-1, 0]}, DataError, r"users\[0\] = -1"),
        ({"start": 0, "users": [0, 2**32]}, DataError, r"users\[1\] = 4294967296"),
        ({"start": 0, "users": [[0]]}, DataError, "users must be a one-dimensional"),
        ({"start": 0, "out": np.empty((2, 4))}, ConfigError, "out is float64"),
        ({"start": 0, "out": np.empty((2, 3), np.int32)}, ConfigError, r"out is int32\[2, 3\]"),
        ({"start": 0, "out": np.empty((4, 2), np.int32).T}, ConfigError, "C-contiguous"),
        ({"start": 0, "threads": 0}, ConfigError, "threads=0"),
    ],
)
@pytest.mark.parametrize("options", [{}, {"distinct": True}], ids=["fast", "general"])
def test_faulty_calls_are_refused_by_name(call, error, message, options) -> None:
    call = {"users": [0, 1], "epoch": 0, **call}
    with pytest.raises(error, match=message):
        build(**options).sample(call.pop("users"), **call)


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"n_items": 0}, DataError, "n_items=0"),
        ({"n_items": 2**31}, DataError, "n_items=2147483648"),
        ({"n_negatives": 0}, ConfigError, "n_negatives=0"),
        ({"seed": -1}, ConfigError, "seed=-1"),
        ({"seed": 2**32}, ConfigError, "seed="),
        ({"tag": -1}, ConfigError, "tag=-1"),
        ({"distribution": "zipf"}, ConfigError, "zipf"),
        ({"alpha": 1.0}, ConfigError, "alpha=1.0"),
        ({"distribution": "popularity", "alpha": -1.0}, ConfigError, "alpha=-1.0"),
        ({"weights": np.ones(N_ITEMS)}, ConfigError, "go together"),
        ({"distribution": "weights"}, ConfigError, "go together"),
        ({"distribution": "weights", "weights": [1.0]}, DataError, "weights has shape"),
        ({"distribution": "weights", "weights": np.full(N_ITEMS, -1.0)}, DataError, r"weights\[0\] = -1"),
        ({"distribution": "weights", "weights": np.zeros(N_ITEMS)}, DataError, "all 0"),
        ({"on_full": "ignore"}, ConfigError, "ignore"),
        ({"memory_budget": -1}, ConfigError, "memory_budget=-1"),
    ],
)
def test_faulty_samplers_are_refused_by_name(options, error, message) -> None:
    with pytest.raises(error, match=message):
        build(**options)


@pytest.mark.parametrize(
    ("indptr", "items", "message"),
    [
        ([1, 2], [0, 1], r"indptr\[0\] = 1"),
        ([0, 2, 1], [0, 1], "row of user 1"),
        ([0, 2], [1, 0], r"items\[1\] = 0 of user 0 follows 1"),
        ([0, 2], [1, 1], "drop duplicates"),
        ([0, 1], [9], r"items\[0\] = 9 of user 0 is not in"),
        ([0, 1], [-1], "is not in"),
        ([0, 1], [2**40], "is not in"),
        ([0, 1], [0, 1], "indptr ends at 1"),
        ([], [], "indptr is empty"),
        ([0.0, 1.0], [0], "indptr must be"),
        ([0, 1], [0.0], "items must be"),
    ],
)
def test_faulty_csrs_are_refused_by_their_first_offender(indptr, items, message) -> None:
    with pytest.raises(DataError, match=message):
        NegativeSampler(np.array(indptr, None if indptr else int), np.array(items, None if items else int), n_items=9)


def test_empty_calls_and_tables() -> None:
    assert build().sample(np.empty(0, int), epoch=0, start=0).shape == (0, 4)
    assert NegativeSampler([0], np.empty(0, int), n_items=3).sample([], epoch=0, positions=[]).shape == (0, 4)
