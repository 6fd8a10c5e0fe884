"""Times of every reader become seconds by one rule: unit by size, ISO dates, or what ``time_format`` says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec.config import Config
from fastrec.data import Interactions, load, load_split
from fastrec.errors import ConfigError, DataError
from fastrec.training.job import prepare

BASE = 1_717_200_000
FACTORS = {"seconds": 1, "milliseconds": 10**3, "microseconds": 10**6, "nanoseconds": 10**9}


def _write(name: str, header: str, separator: str, tail: str) -> Callable[[Path, list[str]], Path]:
    def write(folder: Path, times: list[str]) -> Path:
        rows = [separator.join(["1", str(k + 1), *tail.split(), time]) for k, time in enumerate(times)]
        (folder / name).write_text(header + "".join(row + "\n" for row in rows))
        return folder / name

    return write


READERS = {
    "csv": _write("log.csv", "user,item,time\n", ",", ""),
    "quoted csv": _write("log.csv", '"user",item,time\n', ",", ""),
    "tsv": _write("log.tsv", "user\titem\trating\ttime\n", "\t", "5"),
    "dat": _write("ratings.dat", "", "::", "5"),
    "u.data": _write("u.data", "", "\t", "5"),
    "NCF": _write("x.train.rating", "", "\t", "5"),
}


def _parquet(folder: Path, times: list[str], dtype: type[pl.DataType] = pl.Int64) -> Path:
    frame = pl.DataFrame({"user": [1] * len(times), "item": range(1, len(times) + 1), "time": times})
    frame.with_columns(pl.col("time").cast(dtype)).write_parquet(folder / "log.parquet")
    return folder / "log.parquet"


READERS["parquet"] = _parquet
READERS["parquet of floats"] = lambda folder, times: _parquet(folder, times, pl.Float64)
READERS["csv of floats"] = lambda folder, times: READERS["csv"](folder, [f"{time}.0" for time in times])


@pytest.mark.parametrize("unit", FACTORS)
@pytest.mark.parametrize("reader", READERS)
def test_the_unit_follows_from_the_size_in_every_reader(tmp_path: Path, reader: str, unit: str) -> None:
    seconds = [BASE, BASE - 7, BASE + 30_000_000, 0]
    path = READERS[reader](tmp_path, [str(s * FACTORS[unit]) for s in seconds])
    log = load(path)
    assert log.timestamps is not None
    assert log.timestamps.tolist() == seconds
    assert (f"times taken for {unit}, by their size" in log.notes) == (unit != "seconds")
    assert log.catalog is not None
    assert log.catalog.ratings is not None
    view = log.catalog.ratings.collect()
    assert view["timestamp"].to_list() == seconds
    assert view["datetime"].dt.year().to_list() == [2024, 2024, 2025, 1970]


@pytest.mark.parametrize("reader", READERS)
def test_a_mixture_of_units_is_refused_with_its_row(tmp_path: Path, reader: str) -> None:
    path = READERS[reader](tmp_path, ["1685577600000", "1717200000", "1700000000000"])
    first = 1 if reader in ("dat", "u.data", "NCF") else 0
    with pytest.raises(DataError, match=rf"{path.name}, \w+ ?\w* {first + 1}: time 1717200000(\.0)? reads as seconds"):
        load(path)


@pytest.mark.parametrize("factor", FACTORS.values())
def test_frames_follow_the_same_rule(factor: int) -> None:
    for times in (np.array([BASE, BASE - 7]) * factor, np.array([BASE, BASE - 7], np.float64) * factor):
        log = Interactions.from_frame({"user": [1, 1], "item": [1, 2], "time": times})
        assert log.timestamps is not None
        assert log.timestamps.tolist() == [BASE, BASE - 7]


def test_parts_of_a_split_report_their_units(tmp_path: Path) -> None:
    (tmp_path / "x.train.rating").write_text(f"1\t1\t5\t{BASE}000\n")
    (tmp_path / "x.test.rating").write_text(f"1\t2\t5\t{BASE + 1}\n")
    split = load_split(tmp_path)
    assert split.train.timestamps is not None
    assert split.train.timestamps.tolist() == [BASE]
    assert "train: times taken for milliseconds, by their size" in split.notes
    assert "train: times taken for milliseconds, by their size" in load(tmp_path).notes


@pytest.mark.parametrize("time", ["9.3e18", "1e300", "99999999999999999999", "-1e19", "9223372036854775807"])
def test_a_time_beyond_any_date_is_refused_with_its_row(tmp_path: Path, time: str) -> None:
    (tmp_path / "log.csv").write_text(f"user,item,time\n1,1,1\n1,2,{time}\n")
    with pytest.raises(DataError, match=r"log\.csv, data row 1: time .* is out of range"):
        load(tmp_path / "log.csv")


DATES = {
    "2024-01-05": 1704412800,
    "2024/01/05": 1704412800,
    "2024-01-05 10:00": 1704448800,
    "2024-01-05T10:00:30": 1704448830,
    "2024-01-05 10:00:30.999": 1704448830,
    "2024-01-05T10:00:30Z": 1704448830,
    "2024-01-05T10:00:30+02:00": 1704441630,
    "2024-01-05T10:00:30-0230": 1704457830,
    "2024-01-05 10:00:30 UTC": 1704448830,
    "1969-12-31 23:59:59": -1,
}


def test_iso_dates_of_several_forms_are_read_in_any_order(tmp_path: Path) -> None:
    for order in (list(DATES), list(DATES)[::-1]):
        log = load(READERS["csv"](tmp_path, order))
        assert log.timestamps is not None
        assert log.file_order is not None
        assert sorted(log.timestamps.tolist()) == sorted(DATES.values())
        assert log.catalog is not None
        assert log.catalog.ratings is not None
        assert log.catalog.ratings.collect()["timestamp"].to_list() == [DATES[date] for date in order]


@pytest.mark.parametrize(
    "date",
    [
        *("05/01/2024 10:00", "05-01-2024", "13/01/2024", "01.02.2024", "5 Jan 2024", "2024-1-5", "2024-13-01"),
        *("2024-02-30", "2024-01-05 25:00", "2024-01-05 10:00+99:00", "24-01-05", "2024", "now"),
    ],
)
@pytest.mark.parametrize("first", [True, False])
def test_dates_that_are_not_iso_are_refused_with_the_row(tmp_path: Path, date: str, first: bool) -> None:
    others = ["2024-01-05 10:00:00"] * 2
    path = READERS["csv"](tmp_path, [date, *others] if first else [*others, date])
    with pytest.raises(DataError, match=rf"log\.csv, data row {0 if first else 2}: .* --time-format"):
        load(path)


def test_a_time_format_reads_what_iso_does_not(tmp_path: Path) -> None:
    times = ["05/01/2024 10:00", "31/12/2023 23:30"]
    path = READERS["csv"](tmp_path, times)
    for log in (
        load(path, time_format="%d/%m/%Y %H:%M"),
        prepare(
            Config(data=str(path), time_format="%d/%m/%Y %H:%M", split="time", test_fraction=0.5, validation=0.0)
        ).train,
        Interactions.from_frame(
            pl.DataFrame({"user": [1, 1], "item": [1, 2], "time": times}), time_format="%d/%m/%Y %H:%M"
        ),
    ):
        assert log.timestamps is not None
        assert set(log.timestamps.tolist()) <= {1704448800, 1704065400}
    with pytest.raises(DataError, match=r"data row 1: time '31/12/2023 23:30' does not match --time-format %m/%d/%Y"):
        load(path, time_format="%m/%d/%Y %H:%M")
    (tmp_path / "days.csv").write_text("user,item,date\n1,1,20240105\n1,2,20240106\n")
    days = load(tmp_path / "days.csv", time_format="%Y%m%d")
    assert days.timestamps is not None
    assert days.timestamps.tolist() == [1704412800, 1704499200]


def test_a_time_format_names_the_unit(tmp_path: Path) -> None:
    path = READERS["csv"](tmp_path, ["1685577600000", "1717200000", "5"])
    log = load(path, time_format="ms")
    assert log.timestamps is not None
    assert log.timestamps.tolist() == [1685577600, 1717200, 0]
    with pytest.raises(DataError, match="out of range"):
        load(READERS["csv"](tmp_path, ["1e13", "5.0"]), time_format="s")
    with pytest.raises(DataError, match="--time-format ms cannot read a time column of String"):
        load(READERS["csv"](tmp_path, ["2024-01-05"]), time_format="ms")


def test_a_time_format_without_use_is_refused(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_text("user,item\n1,1\n")
    with pytest.raises(DataError, match="--time-format %Y needs a column of times"):
        load(tmp_path / "log.csv", time_format="%Y")
    for reader in ("dat", "u.data", "NCF"):
        with pytest.raises(ConfigError, match=r"--time-format %Y: .* has no named columns"):
            load(READERS[reader](tmp_path, ["5"]), time_format="%Y")
    with pytest.raises(ConfigError, match="time_format='%Y'"):
        load(tmp_path / "x.safetensors", time_format="%Y")
    frame = pl.DataFrame({"user": [1], "item": [1], "time": [1.5]})
    with pytest.raises(DataError, match="--time-format %Y cannot read a time column of Float64"):
        Interactions.from_frame(frame, time_format="%Y")
