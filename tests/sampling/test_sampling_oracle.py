"""The kernels equal the plain-Python oracle byte for byte, over CSRs of every awkward shape."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from fastrec.sampling import NegativeSampler, kernels, simd
from fastrec.sampling import csr as membership
from fastrec.sampling.order import Order, fill_order
from fastrec.sampling.philox import mulhi64, philox4x32
from tests.helpers import oracle
from tests.helpers.cases import examples


def csr(rows: list[list[int]]) -> tuple[np.ndarray, np.ndarray]:
    indptr = np.cumsum([0] + [len(r) for r in rows])
    return indptr, np.array([i for r in rows for i in r], np.int32)


@st.composite
def catalogues(draw):
    """Rows over a small catalogue: random ones among an empty, a full, a one-gap, a first-item and a last-item row."""
    n = draw(st.integers(1, 70))
    some = st.lists(st.integers(0, n - 1), unique=True).map(sorted)
    gap = draw(st.integers(0, n - 1))
    awkward = [[], list(range(n)), [i for i in range(n) if i != gap], [0], [n - 1]]
    rows = draw(st.lists(st.one_of(some, st.sampled_from(awkward)), min_size=1, max_size=6))
    return n, rows


BUDGETS = {"bitmap": 2**20, "filter": 2**20, "search": 0}


def sampler_by(how: str, rows, **options) -> NegativeSampler:
    """A sampler that looks positives up in one way: a bitmap, the filter before the search, or the search alone."""
    with pytest.MonkeyPatch.context() as patch:
        if how == "filter":
            patch.setattr(membership, "CACHED_BYTES", 0)
        made = NegativeSampler(*csr(rows), memory_budget=BUDGETS[how], **options)
    built = {kind for kind in ("bitmap", "filter") if made.describe()[f"{kind}_bytes"]}
    assert built == ({how} & {"bitmap", "filter"} if how != "search" else set())
    return made


addresses = st.tuples(
    st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1), st.one_of(st.integers(0, 2**20), st.integers(0, 2**62))
)
ONE = (1, [[], [0]]), (0, 0, 0), 4


@examples(1500)
@given(catalogues(), addresses, st.integers(1, 9), st.sampled_from(list(BUDGETS)))
@example(*ONE, "bitmap")
@example(*ONE, "filter")
@example(*ONE, "search")
def test_uniform_equals_the_oracle(catalogue, address, n_negatives, how) -> None:
    (n, rows), (seed, epoch, start) = catalogue, address
    s = sampler_by(how, rows, n_items=n, n_negatives=n_negatives, seed=seed, on_full="skip")
    users = np.arange(3 * len(rows)) % len(rows)
    expected = [
        oracle.uniform(rows[u], n, n_negatives, seed=seed, epoch=epoch, position=start + k)
        for k, u in enumerate(users.tolist())
    ]
    assert s.sample(users, epoch=epoch, start=start).tolist() == expected
    full = sum(e[0] < 0 for e in expected)
    assert s.stats["skipped"] == full
    assert s.stats["draws"] == (len(users) - full) * n_negatives


@examples(500)
@given(catalogues(), addresses, st.integers(1, 9), st.sampled_from([0, 2**20]))
@example(*ONE, 0)
def test_distinct_equals_the_oracle(catalogue, address, n_negatives, budget) -> None:
    (n, rows), (seed, epoch, start) = catalogue, address
    s = NegativeSampler(
        *csr(rows), n_items=n, n_negatives=n_negatives, seed=seed, on_full="skip", distinct=True, memory_budget=budget
    )
    expected = [
        oracle.uniform(row, n, n_negatives, seed=seed, epoch=epoch, position=start + u, distinct=True)
        for u, row in enumerate(rows)
    ]
    assert s.sample(np.arange(len(rows)), epoch=epoch, start=start).tolist() == expected


@examples(500)
@given(catalogues(), addresses, st.integers(1, 6), st.booleans(), st.sampled_from([0, 2**20]), st.data())
def test_weighted_equals_the_oracle(catalogue, address, n_negatives, distinct, budget, data) -> None:
    (n, rows), (seed, epoch, start) = catalogue, address
    weight = st.one_of(st.just(0.0), st.floats(1e-9, 1e6))
    weights = data.draw(st.lists(weight, min_size=n, max_size=n).filter(any))
    s = NegativeSampler(
        *csr(rows), n_items=n, n_negatives=n_negatives, seed=seed, on_full="skip", distribution="weights",
        weights=weights, distinct=distinct, memory_budget=budget,
    )  # fmt: skip
    w = s._weights
    units, table = w.units.tolist(), (w.cut.tolist(), w.alias.tolist())
    expected = [
        oracle.weighted(row, units, table, n_negatives, seed=seed, epoch=epoch, position=start + u, distinct=distinct)
        for u, row in enumerate(rows)
    ]
    assert s.sample(np.arange(len(rows)), epoch=epoch, start=start).tolist() == expected


@pytest.mark.parametrize(
    ("budget", "cached"), [(0, 0), (2**20, 0), (3 * 2**29, 2**31)], ids=["search", "filter", "bitmap"]
)
def test_largest_catalogue(budget: int, cached: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "CACHED_BYTES", cached)
    n = 2**31 - 1
    rows = [[], [0, n - 1], list(range(0, 2000, 2))]
    s = NegativeSampler(*csr(rows), n_items=n, seed=9, memory_budget=budget)
    described = s.describe()
    assert (bool(described["bitmap_bytes"]), bool(described["filter_bytes"])) == (budget > 2**30, 0 < budget < 2**30)
    users = np.arange(300) % 3
    expected = [oracle.uniform(rows[u], n, 4, seed=9, epoch=1, position=k) for k, u in enumerate(users.tolist())]
    assert s.sample(users, epoch=1, start=0).tolist() == expected


def test_many_blocks_and_every_lane_equal_the_oracle(rng) -> None:
    """More rows than a block, rows dense enough to need every attempt, N that is not a multiple of four."""
    n, n_users = 40, 25
    rows = [sorted(rng.choice(n, k, replace=False).tolist()) for k in rng.integers(0, n, n_users)]
    users = rng.integers(0, n_users, 2 * kernels.BLOCK + 77)
    positions = rng.permutation(10 * users.size)[: users.size]
    few = list(enumerate(users[:700].tolist()))  # from a start, too: positions that are given are prefetched for
    for n_negatives in (1, 4, 6):
        expected = [
            oracle.uniform(rows[u], n, n_negatives, seed=3, epoch=2, position=int(p))
            for u, p in zip(users.tolist(), positions)
        ]
        for how in BUDGETS:
            s = sampler_by(how, rows, n_items=n, n_negatives=n_negatives, seed=3)
            in_order = [oracle.uniform(rows[u], n, n_negatives, seed=3, epoch=2, position=p) for p, u in few]
            assert s.sample([u for _, u in few], epoch=2, start=0).tolist() == in_order
            assert s.sample(users, epoch=2, positions=positions).tolist() == expected


def test_nearly_full_users_and_others_side_by_side_equal_the_oracle(rng) -> None:
    """Blocks in which most entries stay open for every attempt, for a few, and one after the other."""
    n = 300
    degrees = [n - 1] * 20 + [n - 2] * 20 + [n // 2] * 20 + [3] * 5 + [n]
    rows = [sorted(rng.choice(n, k, replace=False).tolist()) for k in degrees]
    for few in (rows[:40], rows, rows[20:60]):
        users = rng.integers(0, len(few), kernels.BLOCK + 333)
        expected = [
            oracle.uniform(few[u], n, 5, seed=1, epoch=0, position=int(p)) for p, u in enumerate(users.tolist())
        ]
        for how in BUDGETS:
            s = sampler_by(how, few, n_items=n, n_negatives=5, seed=1, on_full="skip")
            assert s.sample(users, epoch=0, start=0).tolist() == expected
        assert s.stats["exact_finishes"] > 0


@pytest.mark.parametrize("how", list(BUDGETS))
def test_the_python_body_of_the_kernel_gives_the_same(how: str, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[], [1, 3, 4], list(range(19)), [0, 19]]
    users = np.arange(24) % 4
    compiled = sampler_by(how, rows, n_items=20, n_negatives=5, seed=1)
    expected = compiled.sample(users, epoch=0, start=5)
    for name, helper in list(vars(kernels).items()):
        if hasattr(helper, "py_func"):
            monkeypatch.setattr(kernels, name, helper.py_func)
    monkeypatch.setattr("fastrec.sampling.sampler.sample_uniform", kernels.sample_uniform)
    with np.errstate(over="ignore"):
        assert np.array_equal(compiled.sample(users, epoch=0, start=5), expected)


@examples(150)
@given(st.integers(1, 9000), st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
@example(4096, 0, 0)
@example(4225, 1, 2**32 - 1)
def test_order_equals_the_oracle(n: int, seed: int, epoch: int) -> None:
    assert Order(n, seed).positions(epoch, 0, n).tolist() == oracle.order(n, seed, epoch)


def test_the_python_body_of_the_order_gives_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    o = Order(5000, 1)
    out = np.empty(5000, np.int64)
    from fastrec.sampling import order

    for name in ("_hashed", "_added", "_walked"):
        monkeypatch.setattr(order, name, getattr(order, name).py_func)
    with np.errstate(over="ignore"):
        fill_order.py_func(5000, np.uint32(o.a), np.uint32(o.b), o.keys(2), 0, out, 0, 5000)
    assert out.tolist() == oracle.order(5000, 1, 2)


def test_the_filter_passes_every_positive_and_few_others(rng) -> None:
    n, degrees = 100_000, [0, 1, 2, 3, 50, 101, 1000, 5000]
    rows = [sorted(rng.choice(n, k, replace=False).tolist()) for k in degrees]
    indptr, items = csr(rows)
    words, _ = membership.filter_of(indptr, items, 2**20)
    assert words.nbytes <= 2 * items.size + 16
    passed = []
    for user, row in enumerate(rows):
        first, size = membership.filter_row.py_func(indptr[user], indptr[user + 1])
        candidates = np.concatenate((np.array(row, np.uint32), rng.integers(0, n, 16 * 500 - len(row), np.uint32)))
        firsts, sizes = np.full(candidates.size, first), np.full(candidates.size, size)
        masks = [simd.filter_step(words, firsts, sizes, g, candidates, g) for g in range(0, candidates.size, 16)]
        found = np.array([int(m) >> lane & 1 for m in masks for lane in range(16)], bool)
        assert found[: len(row)].all()
        passed.append(found[~np.isin(candidates, row)].mean())
    assert max(passed) < 0.03


KNOWN = [
    ((0, 0, 0, 0), (0, 0), "6627e8d5 e169c58d bc57ac4c 9b00dbd8"),
    ((2**32 - 1,) * 4, (2**32 - 1,) * 2, "408f276d 41c83b0e a20bc7c6 6d5451fd"),
    ((0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344), (0xA4093822, 0x299F31D0), "d16cfe09 94fdcceb 5001e420 24126ea1"),
]


@pytest.mark.parametrize(("counter", "key", "words"), KNOWN)
def test_philox_known_answers(counter, key, words) -> None:
    """The published known answers of Random123 (kat_vectors, philox4x32 10)."""
    expected = [int(w, 16) for w in words.split()]
    assert list(oracle.philox(counter, key)) == expected
    got = philox4x32(*(np.uint64(x) for x in (*counter, *key)))
    assert [int(x) for x in got] == expected


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_mulhi64_is_the_128_bit_product(a: int, b: int) -> None:
    high, low = mulhi64(np.uint64(a), np.uint64(b))
    assert int(high) << 64 | int(low) == a * b
