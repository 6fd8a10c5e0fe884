"""Frames, arrays and tables with numbers and ids at the edge of their types: read right, or refused in one line."""

from __future__ import annotations

import io
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pyarrow
import pyarrow.parquet as pyarrow_parquet
import pytest

from fastrec.data import Interactions, load
from fastrec.data.readers.parts.parquet_check import check_parquet
from fastrec.errors import ConfigError, DataError, FastrecError

TWO = [1, 2]


class Pandas:
    """What ``from_frame`` uses of a pandas frame: ``columns``, which need not be text, and item access."""

    def __init__(self, columns: dict[Any, Any]) -> None:
        self._data = {name: np.asarray(values) for name, values in columns.items()}
        self.columns = list(columns)

    def __getitem__(self, name: Any) -> Any:
        return self._data[name]


FRAMES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "polars": pl.DataFrame,
    "lazy": lambda columns: pl.DataFrame(columns).lazy(),
    "arrays": lambda columns: {
        name: values.to_numpy() if isinstance(values, pl.Series) else np.asarray(values)
        for name, values in columns.items()
    },
    "pandas": lambda columns: Pandas(
        {name: values.to_numpy() if isinstance(values, pl.Series) else values for name, values in columns.items()}
    ),
}


def both(tmp_path: Path, kind: str, columns: dict[str, Any]) -> Interactions:
    """From a frame in memory, or from a Parquet file of the same."""
    if kind == "parquet":
        pl.DataFrame(columns).write_parquet(tmp_path / "log.parquet")
        return load(tmp_path / "log.parquet")
    return Interactions.from_frame(FRAMES[kind](columns))


KINDS = [*FRAMES, "parquet"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [pl.UInt64, pl.Int64, pl.UInt32, pl.Int8])
def test_the_largest_and_least_ids_are_exact(tmp_path: Path, kind: str, dtype: type[pl.DataType]) -> None:
    bounds = {
        pl.UInt64: (0, 2**63 - 1),
        pl.Int64: (-(2**63), 2**63 - 1),
        pl.UInt32: (0, 2**32 - 1),
        pl.Int8: (-128, 127),
    }
    ids = list(bounds[dtype])
    log = both(tmp_path, kind, {"user": pl.Series(ids, dtype=dtype), "item": pl.Series(ids[::-1], dtype=dtype)})
    assert log.user_ids.tolist() == ids
    assert log.item_ids[log.items].tolist() == ids[::-1]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("column", ["user", "item", "time"])
@pytest.mark.parametrize("value", [2**63, 2**64 - 1])
def test_integers_beyond_64_bits_with_sign_are_refused(tmp_path: Path, kind: str, column: str, value: int) -> None:
    columns = {"user": TWO, "item": TWO, "time": TWO} | {column: pl.Series([1, value], dtype=pl.UInt64)}
    with pytest.raises(DataError, match=rf"data row 1: {column} {value} does not fit 64 bits with sign"):
        both(tmp_path, kind, columns)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [1e13, 9.3e18, 1e300, -1e300, float("inf"), float("-inf"), float("nan")])
def test_float_times_out_of_range_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    says = "out of range" if 1e13 < abs(value) < float("inf") else r"is missing or no number|reads as milliseconds"
    with pytest.raises(DataError, match=rf"data row \d: .*({says})"):
        both(tmp_path, kind, {"user": TWO, "item": TWO, "time": [1.5, value]})


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [1.0, float("inf"), float("nan"), 1e300])
def test_float_ids_are_refused(tmp_path: Path, kind: str, value: float) -> None:
    for column in ("user", "item"):
        with pytest.raises(DataError, match=rf"{column} column '{column}' is Float64; ids are integers or text"):
            both(tmp_path, kind, {"user": TWO, "item": TWO} | {column: [1.0, value]})


@pytest.mark.parametrize("kind", KINDS)
def test_ids_that_end_in_nul_are_refused(tmp_path: Path, kind: str) -> None:
    if kind == "arrays":
        frame: Any = {"user": np.array(["u", "u\0"], object), "item": TWO}
        with pytest.raises(DataError, match=r"data row 1: user id 'u\\x00' holds NUL"):
            Interactions.from_frame(frame)
        return
    users = pl.Series(["u", "u\0"]) if kind != "pandas" else np.array(["u", "u\0"], object)
    with pytest.raises(DataError, match=r"data row 1: user id 'u\\x00' holds NUL"):
        both(tmp_path, kind, {"user": users, "item": TWO})


@pytest.mark.parametrize("name", ["log.csv", "quoted.csv", "log.tsv", "u.data", "ratings.dat", "train.txt"])
def test_ids_that_end_in_nul_are_refused_in_files(tmp_path: Path, name: str) -> None:
    separator = {"u.data": "\t", "log.tsv": "\t", "ratings.dat": "::", "train.txt": " "}.get(name, ",")
    header = [["user", "item"]] if name.endswith(("csv", "tsv")) else []
    tail = ["5"] if name in ("u.data", "ratings.dat") else []
    quote = '"' if name == "quoted.csv" else ""
    for rows in ([["a", "u"], ["a", "u\0"]], [["u\0", "i"], ["u", "i"]]):
        lines = [separator.join(f"{quote}{v}{quote}" for v in row) for row in header + [row + tail for row in rows]]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        with pytest.raises(DataError, match=r"(line|data row) \d: (user|item)( id)? 'u\\x00' holds NUL"):
            load(tmp_path / name)


def test_arrays_of_ids_that_would_change_are_refused() -> None:
    for users, says in (
        (["u\0", "u"], "row 0 holds NUL"),
        (np.array(["u", "u\0"], object), "row 1 holds NUL"),
        ([1, "1"], "user id 1 in row 0 is not text"),
        ([[1], [1, 2]], "not a one-dimensional array"),
        (np.ma.array([1, 2], mask=[False, True]), "row 1 is masked"),
        (np.array([1, 2**64 - 1], np.uint64), "does not fit 64 bits"),
        ([1, 2**64], "is not text"),
        ([1, float("inf")], "never floats"),
    ):
        with pytest.raises(DataError, match=says):
            Interactions.from_arrays(users, TWO)
    masked = np.ma.array([1, 2], mask=[True, False])
    for times in (masked, np.array([1, 2**63], np.uint64)):
        with pytest.raises(DataError, match="row"):
            Interactions.from_arrays(TWO, TWO, times)
    with pytest.raises(DataError, match="column 'user': row 0 is masked"):
        Interactions.from_frame({"user": masked, "item": TWO})
    unmasked = np.ma.array([1, 2], mask=False)
    assert Interactions.from_arrays(unmasked, TWO).n_users == 2


def test_columns_without_names_are_found_by_their_number() -> None:
    frame = Pandas({0: [5, 6], 1: [7, 8]})
    for user, item in (("0", "1"), (0, 1)):
        log = Interactions.from_frame(frame, user_col=user, item_col=item)
        assert log.user_ids.tolist() == [5, 6]
        assert log.item_ids.tolist() == [7, 8]
    with pytest.raises(DataError, match="no user column recognised among 0, 1"):
        Interactions.from_frame(frame)


@pytest.mark.parametrize(
    "frame",
    [
        *(5, None, [1, 2], "user", np.ones((2, 2))),
        {"user": 5, "item": TWO},
        {"user": [1, 2, 3], "item": TWO},
        {"user": [], "item": []},
        {"user": [1, "a"], "item": TWO},
        {"user": [2**200, 1], "item": TWO},
        {"user": [2**64, 1], "item": TWO},
        {"user": [1, None], "item": TWO},
        {"user": [True, False], "item": TWO},
        {"user": np.ones((2, 2), int), "item": TWO},
        {"user": np.array([b"a", b"b"]), "item": TWO},
        {"user": np.array([1j, 2]), "item": TWO},
        {"user": TWO, "item": TWO, "time": np.array(["2020-01-01", "NaT"], "M8[ns]")},
        {"user": TWO, "item": TWO, "time": np.array([1, 2], "m8[s]")},
        {"user": TWO, "item": TWO, "time": [True, False]},
        {"user": TWO, "item": TWO, "rating": ["a", "b"]},
        {"user": TWO, "item": TWO, "rating": [1e300, 1.0]},
    ],
)
def test_what_is_no_log_is_refused_in_one_line(frame: Any) -> None:
    with pytest.raises(FastrecError) as raised:
        Interactions.from_frame(frame)
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize("digits", [4301, 5000, 100_000])
@pytest.mark.parametrize("name", ["log.csv", "quoted.csv", "log.tsv"])
def test_an_id_of_thousands_of_digits_is_refused_in_a_table(tmp_path: Path, name: str, digits: int) -> None:
    separator, quote = ("\t" if name == "log.tsv" else ","), ('"' if name == "quoted.csv" else "")
    for sign in ("", "-"):
        long = quote + sign + "9" * digits + quote
        for rows in ([long, "1"], ["1", long], [long]):
            lines = [separator.join(("user", "item")), *(separator.join((row, "1")) for row in rows)]
            (tmp_path / name).write_text("\n".join(lines) + "\n")
            with pytest.raises(
                DataError, match=rf"{name}, data row {rows.index(long)}: user id .* of {digits + len(sign)}"
            ):
                load(tmp_path / name)
    for column in ("rating", "time"):
        (tmp_path / name).write_text(f"user{separator}item{separator}{column}\n1{separator}1{separator}{long}\n")
        with pytest.raises(DataError, match=name):
            load(tmp_path / name)


@pytest.mark.parametrize("name", ["ratings.dat", "u.data", "train.txt"])
def test_an_id_of_thousands_of_digits_is_refused_elsewhere(tmp_path: Path, name: str) -> None:
    separator = {"ratings.dat": "::", "u.data": "\t", "train.txt": " "}[name]
    for column in range(2):
        row = ["1", "2"]
        row[column] = "9" * 5000
        tail = [] if name == "train.txt" else ["5", "6"]
        (tmp_path / name).write_text(separator.join(["1", "3", *tail]) + "\n" + separator.join(row + tail) + "\n")
        with pytest.raises(DataError, match=rf"{name}, line 2: ") as raised:
            load(tmp_path / name)
        assert len(str(raised.value)) < 1000


DAMAGE = """
import pathlib, sys
from fastrec.data import load
from fastrec.errors import DataError
folder = pathlib.Path(sys.argv[1])
good = (folder / "good.parquet").read_bytes()
path = folder / "log.parquet"
footer = len(good) - 8 - int.from_bytes(good[-8:-4], "little")
damaged = [good[:size] for size in range(0, len(good), 13)]
for at in [*range(0, footer, 2), *range(footer, len(good))]:
    damaged += [good[:at] + bytes([value]) + good[at + 1 :] for value in {0, 121, 255, good[at] ^ 1}]
damaged = damaged[:: int(sys.argv[2])]
refused = 0
for content in damaged:
    path.write_bytes(content)
    try:
        load(path)
    except DataError as error:
        refused += 1
        assert str(path) in str(error)
print(refused)
"""


@pytest.fixture(scope="module")
def parquet() -> bytes:
    """A small file of every encoding that a log has: integers, text, floats."""
    frame = pl.DataFrame(
        {
            "user": [k % 9 for k in range(60)],
            "item": [f"i{k}" for k in range(60)],
            "rating": [k / 10 for k in range(60)],
            "time": range(60),
        }
    )
    file = io.BytesIO()
    frame.write_parquet(file)
    return file.getvalue()


@pytest.mark.parametrize("stride", [7, pytest.param(1, marks=pytest.mark.slow)])
def test_a_damaged_parquet_file_is_refused_or_read_never_a_panic(tmp_path: Path, parquet: bytes, stride: int) -> None:
    """A byte set to each of several values: Polars panics at some, and the process ends at a count below zero.

    In a child, so that a process that ends is a failure of this test only. Sampled, the stride has no factor in common
    with the number of values, so that each value is taken all over the file.
    """
    (tmp_path / "good.parquet").write_bytes(parquet)
    made = subprocess.run(
        [sys.executable, "-c", DAMAGE, str(tmp_path), str(stride)], capture_output=True, text=True, timeout=240
    )
    assert made.returncode == 0, made.stderr[-2000:]
    assert int(made.stdout.split()[-1]) > 100


@pytest.mark.parametrize("where", ["scan_parquet", "collect"])
def test_a_panic_of_polars_is_a_data_error(
    tmp_path: Path, parquet: bytes, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def panic(*_args: Any, **_options: Any) -> None:
        raise pl.exceptions.PanicException("range end index 7 out of range\nnote")

    (tmp_path / "log.parquet").write_bytes(parquet)
    monkeypatch.setattr(pl if where == "scan_parquet" else pl.LazyFrame, where, panic)
    with pytest.raises(DataError, match=r"log\.parquet: .*Polars stops with 'range end index 7 out of range'"):
        load(tmp_path / "log.parquet")


@pytest.mark.parametrize("compression", ["zstd", "snappy", "gzip", "uncompressed"])
@pytest.mark.parametrize("writer", ["polars", "pyarrow", "pyarrow pages of version 2", "pyarrow dictionary"])
def test_sound_parquet_files_pass_the_check(tmp_path: Path, writer: str, compression: str) -> None:
    rng = np.random.default_rng(5)
    columns = {
        "user": rng.integers(0, 300, 20_000),
        "item": rng.integers(0, 4, 20_000).astype(str),
        "tags": [["a", "b"]] * 20_000,
        "time": np.sort(rng.integers(0, 9**9, 20_000)),
    }
    path = tmp_path / "log.parquet"
    frame = pl.DataFrame(columns)
    if writer == "polars":
        frame.write_parquet(path, compression=compression, row_group_size=3000)  # type: ignore[arg-type]
    else:
        table = frame.to_arrow()
        if writer == "pyarrow dictionary":
            table = table.set_column(1, "item", table["item"].cast(pyarrow.string()).dictionary_encode())
        version = "2.0" if "version 2" in writer else "1.0"
        codec = "none" if compression == "uncompressed" else compression
        pyarrow_parquet.write_table(
            table, path, compression=codec, data_page_version=version, row_group_size=3000, data_page_size=1000
        )
    log = load(path)
    assert log.n_interactions == len(set(zip(columns["user"].tolist(), columns["item"].tolist())))


def test_a_count_below_zero_in_a_page_is_found_before_polars_reads(tmp_path: Path, parquet: bytes) -> None:
    path = tmp_path / "log.parquet"
    found = 0
    for at in range(4, len(parquet) - 8):
        path.write_bytes(parquet[:at] + b"\x79" + parquet[at + 1 :])  # -61 as a zigzag integer
        try:
            check_parquet(path, ["user", "item", "rating", "time"])
        except DataError as error:
            found += "-61" in str(error)
    assert found >= 12  # sizes and values of 4 pages and 3 dictionaries, and the metadata's


@pytest.mark.parametrize("what", [[(1, 2)], np.zeros((2, 2)), 7, None])
def test_what_is_no_frame_is_refused_in_one_line(what: Any) -> None:
    with pytest.raises(ConfigError, match=r"fastrec\.load takes a path, a name, a frame .*Interactions\.from_arrays\("):
        load(what)
