"""Interactions: ids, duplicates, thresholds, k-core, saving; and the kernels under them against plain Python."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec.data import Interactions, load
from fastrec.data.csr_build import factorize
from fastrec.errors import DataError
from tests.helpers.cases import examples

ROW = st.tuples(st.integers(-3, 6), st.integers(0, 7), st.integers(0, 4), st.integers(1, 5))
"""user, item, timestamp, rating: few values, so that duplicates and ties abound."""


def columns(rows: list[tuple[int, int, int, int]]) -> list[np.ndarray]:
    return [np.array(column) for column in zip(*rows)]


def triples(x: Interactions) -> set[tuple]:
    """(user id, item id, timestamp) of every interaction."""
    assert x.timestamps is not None
    return set(zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist(), x.timestamps.tolist()))


def latest(rows: list[tuple[int, int, int, int]]) -> dict[tuple[int, int], tuple[int, int, int]]:
    """(user, item) -> (timestamp, row, rating) of the latest row, ties to the later one."""
    kept: dict[tuple[int, int], tuple[int, int, int]] = {}
    for row, (u, i, t, r) in enumerate(rows):
        if (u, i) not in kept or (t, row) > kept[u, i][:2]:
            kept[u, i] = (t, row, r)
    return kept


@examples(200)
@given(st.lists(ROW, min_size=1, max_size=60))
def test_from_arrays_keeps_the_latest_of_each_pair(rows: list[tuple[int, int, int, int]]) -> None:
    made = Interactions.from_arrays(*columns(rows))
    kept = latest(rows)
    assert triples(made) == {(u, i, t) for (u, i), (t, _, _) in kept.items()}
    assert made.user_ids.tolist() == sorted({u for u, *_ in rows})
    assert made.item_ids.tolist() == sorted({i for _, i, *_ in rows})
    pairs = zip(made.user_ids[made.users].tolist(), made.item_ids[made.items].tolist())
    assert made.file_order is not None
    assert made.file_order.tolist() == [kept[pair][1] for pair in pairs]
    dropped = len(rows) - len(kept)
    assert made.notes == ((f"{dropped} duplicate (user, item) rows merged, the latest kept",) if dropped else ())


@examples(100)
@given(st.lists(ROW, min_size=1, max_size=60), st.integers(2, 5))
def test_min_rating_is_asked_of_the_latest_rating(rows: list[tuple[int, int, int, int]], least: int) -> None:
    expected = {(u, i, t) for (u, i), (t, _, r) in latest(rows).items() if r >= least}
    if not expected:
        with pytest.raises(DataError, match=f"no interaction is left with min_rating={least}"):
            Interactions.from_arrays(*columns(rows), min_rating=least)
        return
    made = Interactions.from_arrays(*columns(rows), min_rating=least)
    assert triples(made) == expected
    assert made.degrees.min() > 0
    assert made.item_counts().min() > 0
    assert f"{len(latest(rows)) - len(expected)} interactions rated below {least} left out" in made.notes


def core_by_sets(pairs: set[tuple[int, int]], k: int) -> set[tuple[int, int]]:
    while True:
        users, items = [u for u, _ in pairs], [i for _, i in pairs]
        kept = {(u, i) for u, i in pairs if users.count(u) >= k and items.count(i) >= k}
        if kept == pairs:
            return kept
        pairs = kept


@examples(200)
@given(st.sets(st.tuples(st.integers(0, 8), st.integers(0, 8)), min_size=1), st.integers(0, 4))
def test_k_core_is_the_largest_subset(pairs: set[tuple[int, int]], k: int) -> None:
    users, items = (np.array(c) for c in zip(*sorted(pairs)))
    expected = core_by_sets(pairs, k)
    if not expected:
        with pytest.raises(DataError, match=f"no interaction is left with k_core={k}"):
            Interactions.from_arrays(users, items, k_core=k)
        return
    made = Interactions.from_arrays(users, items, k_core=k)
    assert set(zip(made.user_ids[made.users].tolist(), made.item_ids[made.items].tolist())) == expected
    assert made.degrees.min() >= k
    assert made.item_counts().min() >= k


def test_k_core_takes_as_many_rounds_as_it_needs() -> None:
    """A chain in which every round frees the next link."""
    n = 50
    users = np.concatenate((np.arange(n), np.arange(n), [1000, 1000, 1001, 1001]))
    items = np.concatenate((np.arange(n), np.arange(1, n + 1), [2000, 2001, 2000, 2001]))
    made = Interactions.from_arrays(users, items, k_core=2)
    assert made.user_ids.tolist() == [1000, 1001]
    assert made.notes == ("100 interactions outside the 2-core left out",)


@examples(100)
@given(st.lists(st.integers(-(2**62), 2**62), min_size=1, max_size=50), st.integers(0, 40))
def test_contiguous_is_unique_with_inverse(values: list[int], shift: int) -> None:
    for ids in (np.array(values), np.array(values) >> shift, np.array([str(v) for v in values])):
        codes, distinct = factorize(ids, "user")
        expected, inverse = np.unique(ids, return_inverse=True)
        assert codes.dtype == np.int32
        assert np.array_equal(codes, inverse)
        assert np.array_equal(distinct, expected)


def test_contiguous_takes_both_of_its_paths() -> None:
    dense = np.array([5, 3, 5, 4])
    for ids in (dense, dense * 2**40):
        codes, distinct = factorize(ids, "item")
        assert codes.tolist() == [2, 0, 2, 1]
        assert distinct.tolist() == sorted(set(ids.tolist()))


@pytest.mark.parametrize(
    ("users", "items", "more", "says"),
    [
        ([1.0, 2.0], [1, 2], {}, "user ids are float64; they must be integers or strings, never floats"),
        ([1, 2], [1], {}, r"items has shape \(1,\)"),
        ([1, 2], [1, 2], {"timestamps": [1]}, r"timestamps has shape \(1,\)"),
        ([1, 2], [1, 2], {"timestamps": [1.5, 2.0]}, "timestamps are float64; they must be integers"),
        ([[1, 2]], [1, 2], {}, "one-dimensional"),
        ([], [], {}, "user ids are float64|no interactions"),
        (np.array([2**63], np.uint64), [1], {}, "user id 9223372036854775808 does not fit 64 bits with sign"),
        (np.array(["a", 1], object), [1, 2], {}, "user id 1 in row 1 is not text"),
        ([1, 2], [1, 2], {"min_rating": 3}, "min_rating=3 needs ratings"),
        ([1, 2], [1, 2], {"min_rating": 3, "ratings": [4.0, np.nan]}, "rating of row 1 is nan"),
    ],
)
def test_arrays_that_do_not_fit(users: object, items: object, more: dict, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Interactions.from_arrays(users, items, **more)


def test_no_rows_is_an_error() -> None:
    with pytest.raises(DataError, match="no interactions; there is nothing to build from"):
        Interactions.from_arrays(np.empty(0, int), np.empty(0, int))


def test_from_frame_reads_polars_pandas_like_and_mappings() -> None:
    data = {"user_id": [7, 2, 7], "movie": ["b", "a", "a"], "rating": [5, 3, 4], "ts": [1, 2, 3]}
    frames = (pl.DataFrame(data), pl.LazyFrame(data), {k: np.array(v) for k, v in data.items()})
    made = [Interactions.from_frame(frame, name="toy") for frame in frames]
    for one in made:
        assert one.fingerprint() == made[0].fingerprint()
        assert triples(one) == {(7, "b", 1), (2, "a", 2), (7, "a", 3)}
        assert one.name == "toy"
    assert Interactions.from_frame(frames[0], min_rating=4).n_interactions == 2
    with pytest.raises(DataError, match="frame, data row 1: user_id is missing"):
        Interactions.from_frame(pl.DataFrame({"user_id": [1, None], "item": [1, 2]}))
    with pytest.raises(DataError, match="column 'user' mixes types"):
        Interactions.from_frame({"user": np.array(["a", 1], object), "item": [1, 2]})


def test_from_frame_agrees_with_from_arrays_on_text() -> None:
    users, items = ["é", "z", "a", "é", "𝄞"], ["10", "9", "B", "9", "9"]
    a = Interactions.from_arrays(users, items)
    b = Interactions.from_frame({"user": users, "item": items})
    assert a.fingerprint() == b.fingerprint()


@pytest.mark.parametrize("mmap", [True, False])
@pytest.mark.parametrize("text", [True, False])
def test_save_and_open_give_the_same_log(tmp_path: Path, text: bool, mmap: bool) -> None:
    users, items = ["zoë", "", "abel", "zoë"], ["x" * 300, "ж", "1", "1"]
    if not text:
        users, items = [5, 2**40, 1, 5], [3, 2, 1, 1]  # type: ignore[list-item]
    made = Interactions.from_arrays(users, items, [4, 3, 2, 1], name="toy")
    from dataclasses import replace

    made = replace(made, titles=np.array(["Les Misérables", "b", "c"]), notes=("one", "two"))
    opened = Interactions.open(made.save(tmp_path / "toy.safetensors"), mmap=mmap)
    for what in ("indptr", "items", "timestamps", "file_order", "user_ids", "item_ids", "titles"):
        assert np.array_equal(getattr(opened, what), getattr(made, what)), what
    assert (opened.name, opened.notes) == ("toy", ("one", "two"))
    assert opened.fingerprint() == made.fingerprint() == load(tmp_path / "toy.safetensors").fingerprint()
    assert [p.name for p in tmp_path.iterdir()] == ["toy.safetensors"]


def test_a_damaged_saved_file_is_an_error(tmp_path: Path) -> None:
    path = Interactions.from_arrays([1, 2], [3, 4]).save(tmp_path / "x.safetensors")
    whole = path.read_bytes()
    for cut in (0, 4, 9, len(whole) - 1):
        path.write_bytes(whole[:cut])
        with pytest.raises(
            DataError, match=r"x\.safetensors: not a complete safetensors file|x\.safetensors: not a saved"
        ):
            Interactions.open(path)
    with pytest.raises(DataError, match="no such file"):
        load(tmp_path / "none.safetensors")


def test_fingerprint_sees_every_part_of_the_data() -> None:
    base = ([1, 1, 2], [1, 2, 2], [5, 6, 7])
    prints = {
        Interactions.from_arrays(*base).fingerprint(),
        Interactions.from_arrays(*base, name="other").fingerprint(),
    }
    assert len(prints) == 1
    for changed in (([1, 1, 3], *base[1:]), (base[0], [1, 2, 1], base[2]), (*base[:2], [5, 6, 8]), base[:2]):
        prints.add(Interactions.from_arrays(*changed).fingerprint())
    assert len(prints) == 5


def test_ids_follow_the_rows_and_not_the_threads(monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator) -> None:
    users, items = rng.integers(0, 2**50, 1 << 18) >> 30, rng.integers(0, 5000, 1 << 18)
    prints = set()
    for threads in (1, 2, 5):
        monkeypatch.setattr("fastrec.data.csr_build.available_threads", lambda t=threads: t)
        prints.add(Interactions.from_arrays(users << 40, items, np.arange(users.size)).fingerprint())
    assert len(prints) == 1


@examples(100)
@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=1, max_size=60))
def test_without_timestamps_the_later_row_is_the_latest(rows: list[tuple[int, int]]) -> None:
    made = Interactions.from_arrays(*(np.array(column) for column in zip(*rows)))
    kept = {pair: row for row, pair in enumerate(rows)}
    pairs = zip(made.user_ids[made.users].tolist(), made.item_ids[made.items].tolist())
    assert made.timestamps is None
    assert made.file_order is not None
    assert made.file_order.tolist() == [kept[pair] for pair in pairs]


ARRAYS = ("indptr", "items", "timestamps", "file_order", "user_ids", "item_ids", "titles")


def given() -> dict[str, np.ndarray]:
    return {
        "indptr": np.array([0, 2, 3]),
        "items": np.array([0, 1, 1], np.int32),
        "user_ids": np.array([5, 6]),
        "item_ids": np.array(["a", "b"]),
        "timestamps": np.array([7, 8, 9]),
        "file_order": np.array([0, 1, 2], np.int32),
        "titles": np.array(["A", "B"]),
    }


@pytest.mark.parametrize("how", ["own", "view", "read-only view", "wide", "strided"])
def test_nobody_can_change_the_arrays(how: str, tmp_path: Path) -> None:
    """A sampler reads them without a copy: a caller that writes to its own arrays must not reach them."""
    arrays = given()
    if how == "view":
        arrays = {k: v[:] for k, v in arrays.items()}
    elif how == "read-only view":
        views = {k: v[:] for k, v in arrays.items()}
        for v in views.values():
            v.flags.writeable = False
    elif how == "wide":
        arrays["items"], arrays["indptr"] = arrays["items"].astype(np.int64), arrays["indptr"].astype(np.uint32)
    elif how == "strided":
        arrays = {k: np.repeat(v, 2)[::2] for k, v in arrays.items()}
    made = Interactions(**(views if how == "read-only view" else arrays))
    before = {k: getattr(made, k).tolist() for k in ARRAYS}
    for values in arrays.values():
        assert values.flags.writeable, "the caller's own arrays stay writable"
        values[...] = values[0]
    assert {k: getattr(made, k).tolist() for k in ARRAYS} == before
    derived = [made, made.keep(np.array([True, False, True])), made.core(1)]
    derived += [Interactions.open(made.save(tmp_path / "x.safetensors"), mmap=mmap) for mmap in (True, False)]
    derived.append(Interactions.from_arrays([1, 1, 2], [1, 2, 2], [1, 2, 3]))
    for one in derived:
        for what in ARRAYS:
            array = getattr(one, what)
            if array is None:
                continue
            with pytest.raises(ValueError, match="read-only"):
                array[0] = array[-1]
            with pytest.raises(ValueError, match="WRITEABLE"):
                array.flags.writeable = True
        with pytest.raises(ValueError, match="read-only"):
            one.row(0)[0] = 1


def test_arrays_that_nobody_can_change_are_not_copied(tmp_path: Path) -> None:
    path = Interactions(**given()).save(tmp_path / "x.safetensors")
    opened = Interactions.open(path)
    again = Interactions(**{what: getattr(opened, what) for what in ARRAYS})
    for what in ARRAYS:
        assert np.shares_memory(getattr(again, what), getattr(opened, what)), what


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("user_ids", ["u\0", "u"], r"user id 'u\\x00' in row 0 holds NUL"),
        ("item_ids", ("i", "i\0"), r"item id 'i\\x00' in row 1 holds NUL"),
        ("user_ids", np.array(["u\0", "u"], object), "holds NUL"),
        ("user_ids", np.ma.array([1, 2], mask=[True, False]), "masked array"),
        ("items", np.ma.array([0, 1, 1], mask=[True, False, False]), "masked array"),
        ("timestamps", np.ma.array([0, 1, 1], mask=[True, False, False]), "masked array"),
        ("timestamps", [1.5, 2, 3], "timestamps are float64; they must be integers"),
        ("timestamps", np.array([2**63, 0, 0], np.uint64), "timestamps are uint64; they must be integers"),
        ("timestamps", ["a", "b", "c"], "must be integers"),
        ("file_order", [True, False, True], "must be integers"),
        ("user_ids", [[5], [6]], "one-dimensional"),
        ("user_ids", [1.5, 2.5], "never floats"),
        ("user_ids", [None, "a"], "is not text"),
        ("titles", [1, 2], "must be text"),
        ("titles", ["A"], "1 titles for 2 items"),
        ("indptr", [[0, 2, 3]], "one-dimensional"),
        ("indptr", None, "one-dimensional"),
        ("name", 5, "name = 5: must be text"),
        ("notes", "one", "must be a tuple of texts"),
        ("notes", (1,), "must be a tuple of texts"),
    ],
)
def test_what_is_no_log_is_refused_where_it_is_made(field: str, value: object, says: str) -> None:
    with pytest.raises(DataError, match=says):
        Interactions(**{**given(), field: value})


def test_ids_that_hold_nul_are_refused_wherever_they_can_be_seen() -> None:
    for make in (
        lambda: Interactions.from_arrays(["u\0", "u"], [1, 2]),
        lambda: Interactions.from_arrays([1, 2], ["i", "i\0"]),
        lambda: Interactions.from_arrays(np.array(["u\0", "u"], object), [1, 2]),
        lambda: Interactions.from_frame(pl.DataFrame({"user": ["u\0", "u"], "item": [1, 2]})),
        lambda: Interactions.from_frame({"user": [1, 2], "item": ["i", "i\0"]}),
        lambda: Interactions.from_arrays(["u\0v", "u"], [1, 2]),
        lambda: Interactions.from_arrays(np.array(["u", "u\0v"]), [1, 2]),
        lambda: Interactions.from_arrays(np.array(["u", "-", "u\0v"])[::2], [1, 2]),
        lambda: Interactions(**{**given(), "user_ids": np.array(["u", "u\0v"])}),
    ):
        with pytest.raises(DataError, match="holds NUL"):
            make()
    assert Interactions.from_arrays(np.array(["u", "uv"]), [1, 2]).n_users == 2


def test_text_that_is_no_unicode_cannot_be_saved(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not Unicode text"):
        Interactions.from_arrays(["\ud800"], [1]).save(tmp_path / "x.safetensors")
    assert not list(tmp_path.iterdir())
