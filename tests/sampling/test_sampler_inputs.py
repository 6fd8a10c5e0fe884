"""What a sampler makes of its inputs: stored entries, named columns, integers, memory that others hold."""

from __future__ import annotations

import itertools
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import sparse

from fastrec.batches.stream import Batch, Stream
from fastrec.errors import ConfigError, DataError
from fastrec.jit import resolve_threads
from fastrec.sampling import NegativeSampler
from fastrec.sampling.csr import check_csr
from fastrec.sampling.order import Order

ROOT = Path(__file__).resolve().parents[2]
INTEGERS = (np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64)


def rows_of(sampler: NegativeSampler) -> list[list[int]]:
    return [sampler.items[a:b].tolist() for a, b in itertools.pairwise(sampler.indptr.tolist())]


def matrix(rows: list[list[tuple[int, Any]]], n_items: int, dtype: Any = np.float64) -> sparse.csr_matrix:
    """A CSR with exactly these stored (item, value) entries."""
    indptr = np.cumsum([0, *map(len, rows)])
    stored = [entry for row in rows for entry in row]
    data = np.array([value for _, value in stored], dtype)
    return sparse.csr_matrix((data, np.array([i for i, _ in stored], int), indptr), shape=(len(rows), n_items))


# ---- a stored positive is never drawn --------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*INTEGERS, np.bool_, np.float32, np.float64, np.complex128])
def test_repeats_of_a_stored_entry_are_one_positive_whatever_they_add_up_to(dtype: Any) -> None:
    times = 256 if np.dtype(dtype).itemsize == 1 else 65536
    m = matrix([[(1, 1)] * times, [(3, 0), (2, 1), (0, 0)]], 4, dtype)
    s = NegativeSampler.of(m, n_negatives=50, seed=3)
    assert rows_of(s) == [[1], [2]]
    assert 1 not in s.sample([0] * 9, epoch=0, start=0)
    assert (s.describe()["zeros_dropped"], s.describe()["duplicates_merged"]) == (2, times - 1)


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32, np.float64])
def test_entries_that_cancel_are_positives_and_zeros_next_to_them_are_not(dtype: Any) -> None:
    m = matrix([[(2, 1), (2, -1), (0, 0), (0, 0)], [(1, 0), (1, 5)], []], 4, dtype)
    s = NegativeSampler.of(m)
    assert rows_of(s) == [[2], [1], []]
    assert (s.describe()["zeros_dropped"], s.describe()["duplicates_merged"]) == (3, 1)


def test_values_that_are_not_zero_count_be_they_tiny_infinite_or_nan() -> None:
    m = matrix([[(0, np.nan), (1, np.inf), (1, -np.inf), (2, 5e-324), (3, -0.0)]], 5)
    assert rows_of(NegativeSampler.of(m)) == [[0, 1, 2]]


def test_the_callers_matrix_is_left_as_it_is_and_excluded_ones_are_counted() -> None:
    m, far = matrix([[(1, 1), (0, 1)]], 6), matrix([[(3, 1), (3, -1), (4, 0)]], 6)
    s = NegativeSampler.of(m, exclude=[far])
    assert rows_of(s) == [[0, 1, 3]]
    assert m.indices.tolist() == [1, 0]
    assert far.data.tolist() == [1, -1, 0]
    d = s.describe()
    assert (d["excluded_csrs"], d["excluded_zeros_dropped"], d["excluded_duplicates_merged"]) == ([1], [1], [1])
    assert (d["zeros_dropped"], d["duplicates_merged"]) == (0, 0)


def test_rows_that_ascend_and_rows_that_do_not_give_the_same_sampler(rng: np.random.Generator) -> None:
    dense = rng.random((40, 30)) < 0.3
    kept = sparse.csr_matrix(dense.astype(np.int8))
    mixed = matrix([[(int(i), 1) for i in rng.permutation(np.flatnonzero(row))] for row in dense], 30)
    assert rows_of(NegativeSampler.of(kept)) == rows_of(NegativeSampler.of(mixed))
    assert rows_of(NegativeSampler.of(kept)) == [np.flatnonzero(row).tolist() for row in dense]


BROKEN = """
import sys
import numpy as np
from scipy import sparse
from fastrec.errors import FastrecError
from fastrec.sampling import NegativeSampler
def broken(what):
    m = sparse.csr_matrix(np.eye(4, dtype=np.int8))
    if what == "overflow":
        m.indptr[-1] = 2**31 - 1
    elif what == "negative":
        m.indptr[2] = -(2**31)
    elif what == "start":
        m.indptr[0] = -5
    elif what == "backwards":
        m.indptr[1] = 4
    elif what == "short":
        m.indptr = m.indptr[:-1]
    elif what == "empty":
        m.indptr = m.indptr[:0]
    elif what == "data":
        m.data = m.data[:1]
    elif what == "item":
        m.indices[2] = 2**31 - 1
    elif what == "below":
        m.indices[2] = -1
    m.has_sorted_indices = m.has_canonical_format = False
    return m

for what in sys.argv[1:]:
    for where in ("of", "exclude"):
        print(what, where, end=": ", flush=True)  # before a crash
        m = broken(what)
        try:
            if where == "of":
                NegativeSampler.of(m).sample([0], epoch=0, start=0)
            else:
                NegativeSampler([0] * 5, np.empty(0, int), n_items=4, exclude=[m])
            print("taken")
        except FastrecError as error:
            print(error)
"""
WHAT = ["overflow", "negative", "start", "backwards", "short", "empty", "data", "item", "below"]


def test_a_broken_scipy_matrix_is_refused_and_the_process_lives() -> None:
    done = subprocess.run([sys.executable, "-c", BROKEN, *WHAT], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    said = [line.partition(": ") for line in done.stdout.splitlines()]
    assert [place for place, _, _ in said] == [f"{what} {where}" for what in WHAT for where in ("of", "exclude")]
    for place, _, message in said:
        assert message.startswith("the matrix's "), place


def test_a_one_dimensional_scipy_array_is_refused() -> None:
    flat = sparse.csr_array(np.array([0, 1, 1]))
    with pytest.raises(ConfigError, match="two dimensions"):
        NegativeSampler.of(flat)


def test_a_damaged_list_array_is_refused() -> None:
    pa = pytest.importorskip("pyarrow")
    buffers = [None, pa.py_buffer(np.array([0, 10**9, 2], np.int32))]
    damaged = pa.Array.from_buffers(pa.list_(pa.int32()), 2, buffers, children=[pa.array([1, 2], pa.int32())])
    with pytest.raises(DataError, match="damaged"):
        NegativeSampler.of(damaged, n_items=5)
    with pytest.raises(ConfigError, match="list view"):
        NegativeSampler.of(pa.array([[1, 2], []], pa.list_view(pa.int32())), n_items=5)


# ---- a frame's columns by name ---------------------------------------------------------------------------------------


class Frame(dict):  # type: ignore[type-arg]
    """As much of a pandas DataFrame as is read: labels of any type, columns of a given dtype."""

    iloc = columns = property(lambda self: list(self))  # type: ignore[assignment]

    def __getitem__(self, name: Any) -> Any:
        class Column(np.ndarray):
            isna = lambda self: np.zeros(self.size, bool)  # noqa: E731
            to_numpy = lambda self: np.asarray(self)  # noqa: E731

        return np.asarray(dict.__getitem__(self, name)).view(Column)


def frames(columns: dict[Any, Any]) -> list[Any]:
    found: list[Any] = [Frame(columns)]
    if all(isinstance(name, str) for name in columns):
        found.append(pytest.importorskip("polars").DataFrame(columns))
    return found


@pytest.mark.parametrize("names", [("user", "item"), ("USER_ID:token", "item-id:token"), ("visitorid", "asin")])
def test_columns_are_found_by_name_whatever_their_place(names: tuple[str, str]) -> None:
    user, item = names
    for frame in frames({"rating": [1, 1, 1], item: [1, 4, 0], user: [0, 0, 1]}):
        assert rows_of(NegativeSampler.of(frame, n_items=6)) == [[1, 4], [0]]
        s = NegativeSampler([0, 0, 0, 0], np.empty(0, int), n_items=6, exclude=[frame])
        assert rows_of(s) == [[1, 4], [0], []]


def test_a_frame_and_interactions_find_the_same_columns() -> None:
    from fastrec.data import Interactions
    from fastrec.sampling.sources import ITEM_COLUMNS, USER_COLUMNS

    pl = pytest.importorskip("polars")
    for user in USER_COLUMNS:
        for item in ITEM_COLUMNS:
            frame = pl.DataFrame({item.upper(): [1, 2, 0], "n": [1, 2, 3], f"{user}:token": [0, 0, 1]})
            direct = NegativeSampler.of(frame, n_items=5)
            assert rows_of(direct) == rows_of(NegativeSampler.of(Interactions.from_frame(frame), n_negatives=1))


@pytest.mark.parametrize(
    ("columns", "options", "error", "message"),
    [
        ({"a": [0], "b": [1]}, {}, ConfigError, "no user column recognised among 'a', 'b'"),
        ({"user": [0], "b": [1]}, {}, ConfigError, "no item column recognised among 'user', 'b'"),
        ({0: [0], 1: [1]}, {}, ConfigError, "no user column recognised among 0, 1"),
        ({"user": [0], "item": [1]}, {"user_col": "users"}, ConfigError, "no column 'users'"),
        ({"user": [0], "item": [1]}, {"user_col": "item"}, ConfigError, "both user and item"),
        ({"user": [0.5], "item": [1]}, {}, DataError, "'user' is float64: ids must be integers"),
        ({"user": [0], "item": ["x"]}, {}, DataError, "'item' is"),
        ({"user": [True], "item": [1]}, {}, DataError, "'user' is bool"),
        ({"user": [-1], "item": [1]}, {}, DataError, "'user' holds -1"),
        ({"user": [0], "item": [9]}, {}, DataError, r"holds 9, which is not in \[0, n_items=6\)"),
        ({"user": [10**12], "item": [1]}, {}, DataError, "holds 1000000000000 in a frame of 1 rows"),
        ({"user": [2**31 - 2], "item": [1]}, {}, DataError, "which asks for 2147483647 users"),
        ({"user": np.array([2**64 - 1], np.uint64), "item": [1]}, {}, DataError, "holds 18446744073709551615 in"),
        ({"user": [0], "item": np.array([2**63 + 1], np.uint64)}, {}, DataError, "holds 9223372036854775809, which"),
        ({"user": [0], "item": [10**12]}, {}, DataError, "holds 1000000000000, which"),
    ],
)
def test_a_frame_that_cannot_be_read_is_refused_in_one_line(columns, options, error, message) -> None:  # type: ignore[no-untyped-def]
    for frame in frames(columns):
        with pytest.raises(error, match=message) as caught:
            NegativeSampler.of(frame, n_items=6, **options)
        assert "\n" not in str(caught.value)


def test_a_user_beyond_those_of_the_positives_is_refused_under_exclude() -> None:
    for frame in frames({"user": [3], "item": [1]}):
        with pytest.raises(DataError, match=r"holds 3, which is not in \[0, n_users=2\)"):
            NegativeSampler([0, 0, 0], np.empty(0, int), n_items=6, exclude=[frame])


def test_columns_that_are_named_by_numbers_and_unsigned_ids_are_read() -> None:
    frame = Frame({0: np.array([1, 4, 1, 0], np.uint64), 1: np.array([0, 0, 0, 1], np.uint64)})
    s = NegativeSampler.of(frame, n_items=6, user_col=1, item_col=0)
    assert rows_of(s) == [[1, 4], [0]]
    assert s.describe()["duplicates_merged"] == 1


# ---- pairs, COO and other tables -------------------------------------------------------------------------------------


def test_pairs_coo_and_tables_give_the_same_rows_as_a_frame() -> None:
    pa = pytest.importorskip("pyarrow")
    users, items = np.array([1, 0, 1, 1, 2]), np.array([4, 1, 0, 4, 3])
    columns = {"user": users, "item": items}
    coo = sparse.coo_matrix((np.ones(6), (np.append(users, 0), np.append(items, 5))), shape=(3, 6))
    coo.data[-1] = 0
    for source in (
        (users, items),
        (users.tolist(), items.tolist()),
        columns,
        pa.table(columns),
        coo,
        sparse.coo_array(coo),
    ):
        s = NegativeSampler.of(source, n_items=6)
        assert rows_of(s) == [[1], [0, 4], [3]], type(source)
        assert s.describe()["duplicates_merged"] == 1
    assert NegativeSampler.of(coo).describe()["zeros_dropped"] == 1


def test_two_arrays_that_read_both_ways_are_refused() -> None:
    with pytest.raises(DataError, match=r"may be \(indptr, items\) or \(users, items\)"):
        NegativeSampler.of(([0, 1, 3], [1, 2, 3]), n_items=6)
    assert rows_of(NegativeSampler.of(([0, 1, 2], [1, 2, 3]), n_items=6)) == [[1], [2], [3]]
    assert rows_of(NegativeSampler.of(([0, 1, 3, 3], [1, 2, 3]), n_items=6)) == [[1], [2, 3], []]


@pytest.mark.parametrize(
    ("source", "error", "message"),
    [
        (([0, -1], [1, 2]), DataError, "'user' holds -1"),
        (([0, 1], [1, 9]), DataError, "'item' holds 9"),
        (sparse.lil_matrix((2, 6)), ConfigError, r"'lil' format: convert it with \.tocsr\(\)"),
        (sparse.dok_matrix((2, 6)), ConfigError, r"'dok' format: convert it with \.tocsr\(\)"),
        ({"a": [1]}, ConfigError, "no user column recognised"),
        ({"user": [0], "item": [0.5]}, DataError, "'item' is float64"),
    ],
)
def test_pairs_and_matrices_that_cannot_be_read_are_refused_in_one_line(source, error, message) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(error, match=message) as caught:
        NegativeSampler.of(source, n_items=6)
    assert "\n" not in str(caught.value)


def test_nulls_of_an_arrow_table_and_a_lazy_frame_are_refused() -> None:
    pa, pl = pytest.importorskip("pyarrow"), pytest.importorskip("polars")
    with pytest.raises(DataError, match="'item' holds 1 nulls"):
        NegativeSampler.of(pa.table({"user": [0, 1], "item": [1, None]}), n_items=6)
    with pytest.raises(ConfigError, match=r"lazy frame: collect it first"):
        NegativeSampler.of(pl.LazyFrame({"user": [0], "item": [1]}), n_items=6)


# ---- integers ---------------------------------------------------------------------------------------------------

NOT_WHOLE = [0.5, 1.0, np.float64(1), np.float32(1), "1", True, np.True_, np.ma.masked, np.ma.array(1), None, [1], 1j]
WHOLE = [1, np.int8(1), np.uint64(1), np.array(1), np.array(1, np.uint16)]


def callers() -> dict[str, Any]:
    s = NegativeSampler([0, 1, 2], [1, 0], n_items=4)
    order, users = Order(10, 0), np.zeros(1, np.int32)
    stream = Stream(np.array([0, 1, 2]), np.array([1, 0], np.int32), s, seed=0)
    return {
        "n_items": lambda v: NegativeSampler([0, 0], np.empty(0, int), n_items=v),
        "n_negatives": lambda v: NegativeSampler([0, 1], [0], n_items=4, n_negatives=v),
        "seed": lambda v: NegativeSampler([0, 1], [0], n_items=4, seed=v),
        "memory_budget": lambda v: NegativeSampler([0, 1], [0], n_items=4, memory_budget=v),
        "tag": lambda v: NegativeSampler([0, 1], [0], n_items=4, tag=0.5 if v is None else v),
        "epoch": lambda v: s.sample(users, epoch=v, start=0),
        "start": lambda v: s.sample(users, epoch=0, start=v),
        "threads": lambda v: resolve_threads(0.5 if v is None else v),
        "sample.threads": lambda v: s.sample(users, epoch=0, start=0, threads=0.5 if v is None else v),
        "order.n": lambda v: Order(v, 0),
        "order.seed": lambda v: Order(10, v),
        "order.epoch": lambda v: order.positions(v, 0, 1),
        "order.start": lambda v: order.positions(0, v, 1),
        "order.stop": lambda v: order.positions(0, 0, v),
        "batch.k": lambda v: order.batch(0, v, 5),
        "batch_size": lambda v: order.batch(0, 0, v),
        "rank": lambda v: order.batch(0, 0, 5, rank=v, world=2),
        "world": lambda v: order.batch(0, 0, 5, world=v),
        "stream.seed": lambda v: Stream(np.array([0, 1, 2]), np.array([1, 0], np.int32), s, seed=v),
        "read.epoch": lambda v: stream.read(v, 0, 1),
        "read.start": lambda v: stream.read(0, v, 1),
        "read.stop": lambda v: stream.read(0, 0, v),
        "check_csr": lambda v: check_csr([0, 0], np.empty(0, int), v),
        "of": lambda v: NegativeSampler.of(([0, 0], np.empty(0, int)), n_items=v),
    }


@pytest.mark.parametrize("name", callers())
def test_numbers_that_are_not_whole_are_refused_and_integers_of_any_kind_taken(name: str) -> None:
    call = callers()[name]
    for value in NOT_WHOLE:
        with pytest.raises(ConfigError):
            call(value)
    for value in WHOLE:
        call(value)


def test_an_epoch_of_step_by_steps_is_refused_by_name_and_value() -> None:
    s = NegativeSampler([0, 1], [1], n_items=4)
    with pytest.raises(ConfigError, match=r"epoch=0\.5 \(float\): must be an integer"):
        s.sample([0], epoch=0.5, start=0)
    torch = pytest.importorskip("torch")
    assert np.array_equal(s.sample([0], epoch=torch.tensor(2), start=0), s.sample([0], epoch=2, start=0))
    for value in (torch.tensor(2.0), torch.tensor(True), torch.tensor([2])):
        with pytest.raises(ConfigError, match="epoch="):
            s.sample([0], epoch=value, start=0)


# ---- masked arrays ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mask", [False, True])
def test_masked_arrays_are_refused_wherever_they_enter(mask: bool) -> None:
    def masked(*values: int) -> Any:
        return np.ma.array(values, mask=[mask] * len(values))

    s = NegativeSampler([0, 1, 2], [1, 0], n_items=4)
    for call in (
        lambda: s.sample(masked(0, 1), epoch=0, start=0),
        lambda: s.sample([0, 1], epoch=0, positions=masked(0, 1)),
        lambda: s.sample([0, 1], epoch=0, start=0, out=np.ma.array(np.zeros((2, 4), np.int32))),
        lambda: NegativeSampler(masked(0, 1), [0], n_items=4),
        lambda: NegativeSampler([0, 1], masked(0), n_items=4),
        lambda: NegativeSampler([0, 1], [0], n_items=4, exclude=[([0, 1], masked(0))]),
        lambda: NegativeSampler([0, 1], [0], n_items=2, distribution="weights", weights=masked(1, 1)),
        lambda: Order(3, 0).positions(0, 0, 3, out=np.ma.array(np.zeros(3, np.int64))),
    ):
        with pytest.raises((ConfigError, DataError), match=r"masked|MaskedArray"):
            call()


# ---- memory that others hold -----------------------------------------------------------------------------------------

SHAPES = [{}, {"memory_budget": 0}, {"distinct": True}, {"distribution": "popularity", "alpha": 0}]


@pytest.mark.parametrize("options", SHAPES, ids=["bitmap", "search", "distinct", "popularity"])
def test_what_the_caller_does_with_its_arrays_afterwards_changes_nothing(options: dict[str, Any]) -> None:
    users = np.tile(np.arange(20, dtype=np.int32), 50)
    indptr, items = np.arange(21, dtype=np.int64) * 3, np.tile(np.array([1, 4, 9], np.int32), 20)
    far = np.zeros(21, np.int64), np.empty(0, np.int32)
    s = NegativeSampler(indptr, items, n_items=30, exclude=[far], **options)
    alone = NegativeSampler(indptr, items, n_items=30, **options)
    expected = s.sample(users, epoch=0, start=0)
    for array in (indptr, items, far[0]):
        assert not any(np.shares_memory(array, own) for own in (s.indptr, s.items, alone.indptr, alone.items))
        array[...] = 2**30
    assert np.array_equal(s.sample(users, epoch=0, start=0), expected)
    assert np.array_equal(alone.sample(users, epoch=0, start=0), expected)


@pytest.mark.parametrize("what", ["indptr", "items", "bitmap"])
def test_what_a_sampler_shows_of_itself_cannot_be_written(what: str) -> None:
    s = NegativeSampler([0, 2, 3], [1, 4, 0], n_items=6)
    shown = getattr(s, what)
    shown = shown[0] if what == "bitmap" else shown
    assert not shown.flags.writeable
    with pytest.raises(ValueError, match="WRITEABLE"):
        shown.flags.writeable = True
    with pytest.raises(AttributeError):
        setattr(s, what, np.zeros(3, np.int64))


def overlaps(n: int) -> dict[str, tuple[Any, Any, Any]]:
    """(out, users, positions) where out lies over one of them, from its start, its middle or backwards."""
    rng = np.random.default_rng(5)
    base = np.zeros(8 * n, np.int32)
    out = base[2 * n : 6 * n].reshape(n, 4)
    users, found = rng.integers(0, 20, n).astype(np.int32), {}
    for name, at in (("start", 2 * n), ("middle", 3 * n + 7), ("end", 6 * n - 5), ("before", 2 * n - 3)):

        def view(at: int = at) -> Any:
            memory = base.copy()
            memory[at : at + n] = users
            return memory[2 * n : 6 * n].reshape(n, 4), memory[at : at + n], None

        found[name] = view()
    backwards = base.copy()
    backwards[6 * n - 1 : 5 * n - 1 : -1] = users
    found["backwards"] = backwards[2 * n : 6 * n].reshape(n, 4), backwards[6 * n - 1 : 5 * n - 1 : -1], None
    wide = np.zeros(4 * n, np.int64)
    wide[n : 2 * n] = rng.permutation(n)
    found["positions"] = wide.view(np.int32)[2 * n : 6 * n].reshape(n, 4), users, wide[n : 2 * n]
    assert out.shape == (n, 4)
    return found


@pytest.mark.parametrize("options", SHAPES, ids=["bitmap", "search", "distinct", "popularity"])
@pytest.mark.parametrize("where", overlaps(8))
def test_out_that_overlaps_what_is_read_gives_the_same_draws(where: str, options: dict[str, Any]) -> None:
    indptr, items = np.arange(21, dtype=np.int64) * 3, np.tile(np.array([1, 4, 9], np.int32), 20)
    s = NegativeSampler(indptr, items, n_items=30, **options)
    for threads in (1, 2):
        out, users, positions = overlaps(8192)[where]
        place = {"start": 0} if positions is None else {"positions": positions.copy()}
        expected = s.sample(users.copy(), epoch=0, **place)
        place = {"start": 0} if positions is None else {"positions": positions}
        assert np.array_equal(s.sample(users, epoch=0, out=out, threads=threads, **place), expected)


def small_stream() -> Stream:
    indptr, items = np.arange(21, dtype=np.int64) * 3, np.tile(np.array([1, 4, 9], np.int32), 20)
    return Stream(indptr, items, NegativeSampler(indptr, items, n_items=30), seed=0)


def test_a_stream_refuses_memory_that_does_not_fit_or_overlaps() -> None:
    stream = small_stream()
    good = stream.read(0, 0, 10)
    wide = np.zeros((10, 6), np.int32)
    for out in (
        Batch(good.users[:9], good.items, good.positions),
        Batch(good.users, good.items[:, :4], good.positions),
        Batch(good.users, good.items[:9], good.positions),
        Batch(good.users, good.items, good.positions[:9]),
        Batch(good.users.astype(np.int64), good.items, good.positions),
        Batch(good.users, good.items, good.positions.astype(np.int32)),
        Batch(wide[:, 1], wide[:, :5], good.positions),
        Batch(good.users, good.positions.repeat(3).view(np.int32)[:50].reshape(10, 5), None),  # type: ignore[arg-type]
        Batch(good.users, np.asarray(memoryview(good.items).toreadonly()), good.positions),
    ):
        with pytest.raises(ConfigError, match=r"^out\."):
            stream.read(0, 0, 10, out)
    assert np.array_equal(stream.read(0, 0, 10, Batch(good.users, wide[:, 1:], good.positions)).items, wide[:, 1:])


def test_a_stream_checks_its_csr_and_keeps_no_memory_of_the_caller() -> None:
    indptr, items = np.arange(21, dtype=np.int64) * 3, np.tile(np.array([1, 4, 9], np.int32), 20)
    sampler = NegativeSampler(indptr, items, n_items=30)
    stream = Stream(indptr, items, sampler, seed=0)
    expected = stream.read(1, 0, 60)
    indptr[...], items[...] = 2**40, 2**30
    assert np.array_equal(stream.read(1, 0, 60).items, expected.items)
    assert stream.users_of.tolist() == np.repeat(np.arange(20), 3).tolist()
    assert stream.items_of.tolist() == [1, 4, 9] * 20
    for wrong, message in (((indptr, items), "positives"), (([0, 1], [1]), "users")):
        with pytest.raises(DataError, match=message):
            Stream(*map(np.asarray, wrong), sampler, seed=0)
