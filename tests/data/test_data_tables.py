"""JSON lines, Arrow, many files, conditions and unused columns: every kind of table gives the same log."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from fastrec.data import Interactions, leave_one_out, load, time_split
from fastrec.errors import ConfigError, DataError

FRAME = pl.DataFrame(
    {
        "visitor_id": [3, 1, 3, 2, 1, 2],
        "sku": ["b", "a", "a", "007", "b", "c"],
        "clicked_at": [1_000_000_005, 1_000_000_001, 1_000_000_003, 1_000_000_002, 1_000_000_009, 1_000_000_004],
        "event": ["view", "purchase", "purchase", "view", "purchase", "purchase"],
        "count": [1, 2, 3, 4, 5, 6],
    }
)


def gz(path: Path) -> Path:
    packed = path.with_name(path.name + ".gz")
    packed.write_bytes(gzip.compress(path.read_bytes()))
    return packed


WRITERS: dict[str, Callable[[pl.DataFrame, Path], Any]] = {
    "csv": lambda f, p: f.write_csv(p),
    "tsv": lambda f, p: f.write_csv(p, separator="\t"),
    "parquet": lambda f, p: f.write_parquet(p),
    "jsonl": lambda f, p: f.write_ndjson(p),
    "ndjson": lambda f, p: f.write_ndjson(p),
    "json": lambda f, p: f.write_ndjson(p),
    "arrow": lambda f, p: f.write_ipc(p, compression="zstd"),
    "feather": lambda f, p: f.write_ipc(p),
    "ipc": lambda f, p: f.write_ipc_stream(p),
}


def write(kind: str, path: Path, frame: pl.DataFrame = FRAME) -> Path:
    WRITERS[kind](frame, path)
    return path


def expected(frame: pl.DataFrame = FRAME) -> Interactions:
    return Interactions.from_arrays(*(frame[name].to_numpy() for name in ("visitor_id", "sku", "clicked_at")))


@pytest.mark.parametrize("kind", WRITERS)
def test_every_kind_of_table_gives_the_same_log(tmp_path: Path, kind: str) -> None:
    path = write(kind, tmp_path / f"log.{kind}")
    loaded = load(path)
    assert loaded.fingerprint() == expected().fingerprint()
    assert "columns not used: event, count" in loaded.notes
    if kind != "json":
        assert load(tmp_path).fingerprint() == loaded.fingerprint()  # as the only table of its folder
    if kind in ("jsonl", "ndjson", "json"):
        assert load(gz(path)).fingerprint() == loaded.fingerprint()


@pytest.mark.parametrize("kind", WRITERS)
def test_where_keeps_the_rows_for_which_it_is_true(tmp_path: Path, kind: str) -> None:
    path = write(kind, tmp_path / f"log.{kind}")
    for where, kept in (
        ("event = 'purchase'", FRAME.filter(pl.col("event") == "purchase")),
        ("count >= 3 and sku <> 'c'", FRAME.filter((pl.col("count") >= 3) & (pl.col("sku") != "c"))),
        (
            "clicked_at < 1000000004 or event like 'v%'",
            FRAME.filter((pl.col("clicked_at") < 1000000004) | (pl.col("event") == "view")),
        ),
    ):
        loaded = load(path, where=where)
        assert loaded.fingerprint() == expected(kept).fingerprint(), where
        assert f"{kept.height} of 6 rows kept, where {where}" in loaded.notes
        assert loaded.catalog.ratings.collect().height == kept.height
    assert "columns not used: count" in load(path, where="event = 'purchase'").notes


def test_where_of_frames_and_of_empty_cells(tmp_path: Path) -> None:
    kept = expected(FRAME.filter(pl.col("event") == "purchase"))
    mapping = {name: FRAME[name].to_list() for name in FRAME.columns}
    for frame in (FRAME, FRAME.lazy(), mapping, FRAME.to_arrow()):
        assert load(frame, where="event = 'purchase'").fingerprint() == kept.fingerprint()
    for quote in ("", '"'):
        path = tmp_path / "gaps.csv"
        path.write_text(f"user,item,event,n\n1,{quote}5{quote},,3\n1,6,buy,\n2,5,buy,1.5\n\n")
        loaded = load(path, where="event = 'buy'")
        assert loaded.n_interactions == 2
        assert load(path, where="n > 1").n_interactions == 2
        assert load(path, where="n is null").n_interactions == 1


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("event = (select max(event) from read_csv('/etc/passwd'))", "no queries"),
        ("sku in (SELECT sku FROM self)", "no queries"),
        ("read_csv('/etc/passwd') = 'x'", "no queries"),
        ("event = 'x'; drop table y", "no queries"),
        ("event == = 3", "give one condition"),
        ("random() < 0.5", "give one condition"),
        ("evnt = 'purchase'", "no column 'evnt'"),
        ("e" * 9000 + " = 3", "no column 'eee"),
        ("count + 1", "is not a condition"),
        ("1 = 1", "names no column"),
        ("event = 'refund'", "none of the 6 rows fits"),
        ("event > 3", "--where"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl"])
def test_a_condition_that_cannot_be_used_is_refused_in_one_line(
    tmp_path: Path, kind: str, where: str, says: str
) -> None:
    path = write(kind, tmp_path / f"log.{kind}")
    with pytest.raises(ConfigError) as error:
        load(path, where=where)
    assert says in str(error.value)
    assert str(error.value).isprintable()
    assert len(str(error.value)) < 1000


def test_where_for_a_format_without_names_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("1::1::5::1\n")
    with pytest.raises(ConfigError, match=r"--where rating > 3: .* has no named columns"):
        load(tmp_path / "ratings.dat", where="rating > 3")


@pytest.mark.parametrize(
    ("line", "says"),
    [
        ('{"user": 1, "it', "line 3: .* is not JSON"),
        ('{"user": 1, "item": 2} x', "line 3: .* is not JSON"),
        ("[1, 2]", "line 3: .* a list, not an object"),
        ("null", "line 3: .* a NoneType, not an object"),
        ('{"user": 1}', "data row 2: item is missing"),
        ('{"user": 1, "item": 2.5}', "item column 'item' is Float64"),
        ('{"user": 1, "item": [2]}', "not a table of JSON objects|item column 'item' is List"),
        ('{"user": 1, "item": 18446744073709551616}', "data row 2: item 18446744073709551616 does not fit 64 bits"),
    ],
)
@pytest.mark.parametrize("after", ["", '{"user": 9, "item": 9}\n'])
def test_a_bad_line_of_json_is_named(tmp_path: Path, line: str, says: str, after: str) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"user": 1, "item": 1}\n{"user": 2, "item": 1}\n' + line + "\n" + after)
    with pytest.raises(DataError, match=says) as error:
        load(path)
    assert str(error.value).isprintable()


def test_a_json_array_is_refused_with_what_to_write(tmp_path: Path) -> None:
    path = tmp_path / "log.json"
    path.write_text('[{"user": 1, "item": 1},\n {"user": 2, "item": 1}]\n')
    with pytest.raises(DataError, match=r"line 1: .*write one object per line"):
        load(path)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("kind", ["arrow", "ipc"])
def test_damaged_arrow_is_refused_or_read(tmp_path: Path, kind: str, seed: int) -> None:
    path = write(kind, tmp_path / f"log.{kind}")
    good, rng, refused = path.read_bytes(), np.random.default_rng(seed), 0
    for _ in range(100):
        bad = bytearray(good)
        bad[rng.integers(len(bad))] ^= int(rng.integers(1, 256))
        path.write_bytes(bytes(bad[: rng.integers(8, len(bad))]) if rng.random() < 0.3 else bytes(bad))
        try:
            load(path)
        except DataError as error:
            refused += str(error).isprintable()
    assert refused > 10


@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "arrow"])
def test_a_folder_of_parts_a_glob_and_a_hive_layout_are_one_table(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "export"
    folder.mkdir()
    for k in range(3):
        uuid = f"0000000{k}-aaaa-bbbb-cccc-0123456789ab"
        write(kind, folder / f"part-0000{k}-{uuid}.{kind}", FRAME[2 * k : 2 * k + 2])
    (folder / "_SUCCESS").touch()
    (folder / f".part-00000.{kind}.crc").write_bytes(b"crc")
    for loaded in (load(folder), load(f"{folder}/part-*.{kind}"), load(folder / f"*.{kind}")):
        assert loaded.fingerprint() == expected().fingerprint()
        assert "3 files read as one table, in the order of their names" in loaded.notes
    hive = tmp_path / "hive"
    for (event,), part in FRAME.group_by("event"):
        (hive / f"event={event}" / "n=1").mkdir(parents=True)
        write(kind, hive / f"event={event}" / "n=1" / f"data_0.{kind}", part.drop("event"))
    assert load(hive).fingerprint() == expected().fingerprint()
    assert load(hive, where="event = 'purchase' and n = 1").n_interactions == 4
    assert load(f"{hive}/**/*.{kind}").fingerprint() == expected().fingerprint()


def test_a_column_of_the_path_can_be_the_time(tmp_path: Path) -> None:
    for day in ("2024-01-02", "2024-01-01"):
        (tmp_path / f"date={day}").mkdir()
        pl.DataFrame({"user": [1, 2], "item": [int(day[-1]), 3]}).write_parquet(tmp_path / f"date={day}" / "x.parquet")
    loaded = load(tmp_path)
    assert loaded.n_interactions == 3
    assert leave_one_out(loaded, validation=0).test.n_interactions == 1
    assert loaded.timestamps is not None
    assert loaded.timestamps.max() == 1704153600


def test_parts_that_differ_and_tables_that_are_no_parts(tmp_path: Path) -> None:
    FRAME.write_parquet(tmp_path / "part-0.parquet")
    FRAME.rename({"sku": "item"}).write_parquet(tmp_path / "part-1.parquet")
    with pytest.raises(DataError, match=r"part-1\.parquet: its columns are read as .* must have the same columns"):
        load(tmp_path)
    (tmp_path / "part-1.parquet").rename(tmp_path / "users.parquet")
    with pytest.raises(DataError, match="several files could hold the interactions"):
        load(tmp_path)
    with pytest.raises(DataError, match="no file matches"):
        load(tmp_path / "*.csv")


def test_one_part_of_text_makes_the_ids_text(tmp_path: Path) -> None:
    (tmp_path / "part-0.csv").write_text("user,item\n1,7\n2,8\n")
    (tmp_path / "part-1.csv").write_text("user,item\n1,007\n2,x\n")
    assert load(tmp_path).item_ids.tolist() == ["007", "7", "8", "x"]


def test_frames_are_loaded() -> None:
    mapping = {name: FRAME[name].to_list() for name in FRAME.columns}
    for frame in (FRAME, FRAME.lazy(), mapping, FRAME.to_arrow()):
        assert load(frame).fingerprint() == expected().fingerprint()
        assert load(frame, user_col="sku", item_col="visitor_id").n_users == 4


@pytest.mark.parametrize("kind", ["csv", "parquet", "jsonl", "arrow"])
def test_a_column_of_dates_is_named_where_the_split_needs_one(tmp_path: Path, kind: str) -> None:
    frame = FRAME.drop("clicked_at").with_columns(bought=pl.lit("2024-01-02 10:00:00"))
    frame = frame.with_columns(pl.col("bought").str.to_datetime()) if kind == "parquet" else frame
    loaded = load(write(kind, tmp_path / f"log.{kind}", frame))
    for split in (leave_one_out, time_split):
        with pytest.raises(DataError, match="column 'bought' holds dates: --time-col bought"):
            split(loaded)


@pytest.mark.parametrize("name", ["sku", "product", "content_id", "video_id", "url"])
@pytest.mark.parametrize("time", ["clicked_at", "created_at", "event_time", "event_timestamp", "watched_at"])
def test_more_usual_names_of_columns(name: str, time: str) -> None:
    loaded = load({"customer": [1, 2], name: [5, 6], time: [3, 4]})
    assert loaded.item_ids.tolist() == [5, 6]
    assert loaded.timestamps is not None
