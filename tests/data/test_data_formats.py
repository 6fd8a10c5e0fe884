"""One reader per on-disk format, found by looking at the file or folder."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec.data import Interactions, load, load_split
from fastrec.errors import ConfigError, DataError

ROWS = [(7, 30, 5.0, 1000), (7, 10, 3.0, 900), (2, 30, 4.0, 800), (2, 20, 1.5, 1200), (9, 10, 2.0, 5)]
"""user, item, rating, timestamp, in the order of the file."""


def write(path: Path, text: str, *, gz: bool = False, encoding: str = "utf-8") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    if gz:
        path = path.with_name(path.name + ".gz")
        path.write_bytes(gzip.compress(text.encode(encoding)))
    else:
        path.write_bytes(text.encode(encoding))
    return path


def lines(separator: str, rows: list[tuple] = ROWS, columns: int = 4) -> str:
    return "".join(separator.join(str(int(v) if v == int(v) else v) for v in row[:columns]) + "\n" for row in rows)


def check(loaded: Interactions, *, times: bool = True) -> None:
    """The five rows of ROWS, whatever they were written as."""
    assert loaded.user_ids.tolist() == [2, 7, 9]
    assert loaded.item_ids.tolist() == [10, 20, 30]
    assert loaded.indptr.tolist() == [0, 2, 4, 5]
    assert loaded.items.tolist() == [1, 2, 0, 2, 0]
    assert loaded.file_order is not None
    assert loaded.file_order.tolist() == [3, 2, 1, 0, 4]
    if times:
        assert loaded.timestamps is not None
        assert loaded.timestamps.tolist() == [1200, 800, 900, 1000, 5]
    else:
        assert loaded.timestamps is None


@pytest.mark.parametrize("gz", [False, True])
@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("ratings.dat", lines("::")),
        ("u.data", lines("\t")),
        ("ratings.csv", "userId,movieId,rating,timestamp\n" + lines(",")),
        ("log.tsv", "user\titem\tscore\ttime\n" + lines("\t")),
        ("atomic.inter", "user_id:token\titem_id:token\trating:float\ttimestamp:float\n" + lines("\t")),
        ("semi.csv", "date;rating;ITEM-ID;User\n" + lines(";", [(t, r, i, u) for u, i, r, t in ROWS])),
        ("quoted.csv", '"user","title","item","ts"\n' + "".join(f'{u},"a, ""b""",{i},{t}\n' for u, i, _, t in ROWS)),
        ("crlf.csv", "user,item,rating,timestamp\r\n" + lines(",").replace("\n", "\r\n")),
        ("noend.csv", "user,item,rating,timestamp\n" + lines(",").rstrip("\n")),
        ("blank_end.csv", "user,item,rating,timestamp\n" + lines(",") + "\n\n"),
        ("bom.csv", "\ufeffuser,item,rating,timestamp\n" + lines(",")),
        ("millis.csv", "user,item,timestamp\n" + "".join(f"{u},{i},{t + 10**9}000\n" for u, i, _, t in ROWS)),
    ],
    ids=lambda v: v if "\n" not in v else "",
)
def test_every_text_format_gives_the_same_log(tmp_path: Path, name: str, text: str, gz: bool) -> None:
    loaded = load(write(tmp_path / name, text, gz=gz))
    if name == "millis.csv":
        assert loaded.notes == ("times taken for milliseconds, by their size",)
        assert loaded.timestamps is not None
        loaded = load_again_without_offset(loaded)
    check(loaded)
    assert load(tmp_path).name == tmp_path.name
    assert load(tmp_path).file_order is not None


def load_again_without_offset(loaded: Interactions) -> Interactions:
    from dataclasses import replace

    assert loaded.timestamps is not None
    return replace(loaded, timestamps=loaded.timestamps - 10**9)


def test_parquet_gives_the_same_log(tmp_path: Path) -> None:
    columns = {"user_id": np.int32, "item_id": np.uint16, "rating": np.float64, "timestamp": np.int64}
    pl.DataFrame(
        {name: np.array([row[k] for row in ROWS]).astype(dtype) for k, (name, dtype) in enumerate(columns.items())}
    ).write_parquet(tmp_path / "log.parquet")
    check(load(tmp_path / "log.parquet"))
    check(load(tmp_path))


def test_columns_can_be_named(tmp_path: Path) -> None:
    path = write(
        tmp_path / "odd.csv", "who,item,what,stars,when\n" + "".join(f"{u},0,{i},{r},{t}\n" for u, i, r, t in ROWS)
    )
    check(load(path, user_col="who", item_col="what", time_col="when"))
    check(load(path, user_col="who", item_col="what"), times=False)
    assert load(path, user_col="who", item_col="what", min_rating=4).n_interactions == 2


def test_a_sniffed_format_does_not_depend_on_the_name(tmp_path: Path) -> None:
    check(load(write(tmp_path / "whatever.txt", lines("::"))))
    check(load(write(tmp_path / "numbers", lines("\t"))))
    check(load(write(tmp_path / "set.train.rating", lines("\t"))))


def test_fewer_columns_are_read_too(tmp_path: Path) -> None:
    check(load(write(tmp_path / "a.data", lines("\t", columns=3))), times=False)
    check(load(write(tmp_path / "b.data", lines("\t", columns=2))), times=False)


def test_string_ids_stay_text(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item,timestamp\nzoë,B00X,3\nabel,0001,2\nzoë,0001,1\n")
    loaded = load(path)
    assert loaded.user_ids.tolist() == ["abel", "zoë"]
    assert loaded.item_ids.tolist() == ["0001", "B00X"]
    assert loaded.row(1).tolist() == [0, 1]


def test_a_late_id_that_is_text_makes_its_column_text_and_no_other(tmp_path: Path) -> None:
    path = write(tmp_path / "log.csv", "user,item\n" + "".join(f"{k},{k}\n" for k in range(1, 5000)) + "5000,B7\n")
    loaded = load(path)
    assert loaded.user_ids.dtype == np.int64
    assert loaded.item_ids.dtype.kind == "U"
    assert loaded.item_ids[-1] == "B7"


def test_64_bit_ids_stay_exact(tmp_path: Path) -> None:
    big = 2**62 + 1
    loaded = load(write(tmp_path / "log.csv", f"user,item\n{big},{big + 2}\n{big + 1},-5\n"))
    assert loaded.user_ids.tolist() == [big, big + 1]
    assert loaded.item_ids.tolist() == [-5, big + 2]
    loaded = load(write(tmp_path / "ratings.dat", f"{big}::1::5::7\n{big + 1}::1::5::7\n"))
    assert loaded.user_ids.tolist() == [big, big + 1]


def test_ids_past_64_bits_become_text_in_a_table(tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "log.csv", f"user,item\n{2**64},1\n3,2\n"))
    assert loaded.user_ids.tolist() == [str(2**64), "3"]


@pytest.mark.parametrize(
    "times",
    [
        ["2020-01-01 00:00:02", "2020-01-01 00:00:01"],
        ["2020-01-01T00:00:02", "2020-01-01T00:00:01"],
        ["2020-01-01T01:00:02+01:00", "2020-01-01T01:00:01+01:00"],
        ["1577836802", "1577836801"],
        ["1577836802.0", "1577836801.0"],
    ],
)
def test_times_become_seconds_utc(tmp_path: Path, times: list[str]) -> None:
    loaded = load(write(tmp_path / "log.csv", f"user,item,time\n1,1,{times[0]}\n1,2,{times[1]}\n"))
    assert loaded.timestamps is not None
    assert loaded.timestamps.tolist() == [1577836802, 1577836801]
    view = loaded.catalog.joined().collect()
    assert view["datetime"].to_list()[0] == datetime(2020, 1, 1, 0, 0, 2, tzinfo=UTC)


def test_datetimes_of_a_parquet_file_become_seconds_utc(tmp_path: Path) -> None:
    stamp = datetime(2020, 1, 1, 0, 0, 2, tzinfo=UTC)
    for dtype in (pl.Datetime("ns", "UTC"), pl.Datetime("ms", "Europe/Paris"), pl.Datetime("us")):
        series = pl.Series("ts", [stamp]).dt.replace_time_zone(None).dt.replace_time_zone("UTC")
        series = series.dt.convert_time_zone(dtype.time_zone) if dtype.time_zone else series.dt.replace_time_zone(None)
        pl.DataFrame({"user": [1], "item": [1], "ts": series.cast(dtype)}).write_parquet(tmp_path / "log.parquet")
        loaded = load(tmp_path / "log.parquet")
        assert loaded.timestamps is not None
        assert loaded.timestamps.tolist() == [1577836802], dtype
    pl.DataFrame({"user": [1], "item": [1], "date": [stamp.date()]}).write_parquet(tmp_path / "log.parquet")
    assert load(tmp_path / "log.parquet").timestamps.tolist() == [1577836800]  # type: ignore[union-attr]


def test_order_within_a_second_survives_the_cut_to_seconds(tmp_path: Path) -> None:
    loaded = load(write(tmp_path / "log.csv", "user,item,time\n1,5,10.7\n1,6,10.2\n1,7,10.9\n1,8,9.0\n"))
    assert loaded.timestamps is not None
    assert loaded.file_order is not None
    assert loaded.timestamps.tolist() == [10, 10, 10, 9]
    assert loaded.item_ids[np.argsort(loaded.file_order)].tolist() == [8, 6, 5, 7]
    assert "times cut to full seconds" in loaded.notes[-1]


def test_adjacency_lists_as_one_log_and_as_their_split(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "0 5 3\n1 3 \n2\n")
    write(tmp_path / "test.txt", "0 4\n1  5 9\n")
    whole = load(tmp_path)
    assert whole.item_ids.tolist() == [3, 4, 5, 9]
    assert whole.n_interactions == 6
    assert whole.timestamps is None
    assert "load_split keeps it" in whole.notes[0]
    split = load_split(tmp_path)
    assert split.train.items.tolist() == [0, 2, 0]
    assert split.test.items.tolist() == [1, 2, 3]
    assert split.validation.n_interactions == 0
    assert (split.n_users, split.n_items) == (2, 4)
    assert not split.comparable
    assert load(tmp_path / "train.txt").n_interactions == 3


def test_adjacency_lists_of_text_ids(tmp_path: Path) -> None:
    write(tmp_path / "train.txt", "ann b1 b2\nbob b2\n")
    write(tmp_path / "test.txt", "ann b3\n")
    split = load_split(tmp_path)
    assert split.train.user_ids.tolist() == ["ann", "bob"]
    assert split.test.item_ids[split.test.items].tolist() == ["b3"]


def ncf(folder: Path, stem: str = "toy", gz: bool = False) -> Path:
    write(folder / f"{stem}.train.rating", "0\t1\t5\t10\n0\t2\t4\t11\n1\t2\t3\t12\n", gz=gz)
    write(folder / f"{stem}.test.rating", "0\t3\t5\t20\n1\t0\t5\t21\n", gz=gz)
    write(folder / f"{stem}.test.negative", "(1,0)\t3\t0\t8\n(0,3)\t0\t7\t9\n", gz=gz)
    return folder


@pytest.mark.parametrize("gz", [False, True])
def test_ncf_files_with_their_candidates(tmp_path: Path, gz: bool) -> None:
    split = load_split(ncf(tmp_path, gz=gz))
    assert split.train.item_ids.tolist() == [0, 1, 2, 3, 7, 8, 9]  # candidates need ids too
    assert split.train.items.tolist() == [1, 2, 2]
    assert split.test.items.tolist() == [3, 0]
    assert split.candidates is not None
    assert split.candidates.tolist() == [[0, 4, 6], [3, 5, -1]]  # in the order of the test pairs, own item dropped
    assert "1 candidate rows held the test item itself; it was dropped there" in split.notes
    assert not split.comparable  # the layout is the paper's, the data are not
    assert load(tmp_path).n_interactions == 5


def test_a_folder_with_two_ncf_sets_asks_which(tmp_path: Path) -> None:
    ncf(tmp_path, "a")
    ncf(tmp_path, "b")
    with pytest.raises(DataError, match=r"holds 2 splits \(a, b\); give one as .*a"):
        load_split(tmp_path)
    assert load_split(tmp_path / "b").n_users == 2


def test_tables_called_train_validation_and_test(tmp_path: Path) -> None:
    for part, row in (("train", "1,1\n1,2\n"), ("valid", "1,3\n"), ("test", "1,4\n2,1\n")):
        write(tmp_path / f"{part}.csv", "user,item\n" + row)
    split = load_split(tmp_path)
    assert [p.n_interactions for p in (split.train, split.validation, split.test)] == [2, 1, 2]
    assert split.notes == (
        "1 users of the test part have no interaction in train",
        "1 items of the test part have no interaction in train",
    )
    assert load(tmp_path).n_interactions == 5
    for part in ("train", "valid", "test"):
        text = (tmp_path / f"{part}.csv").read_text()
        (tmp_path / f"{part}.csv").write_text(text.replace("user,item", "who,what"))
    with pytest.raises(DataError, match="no user column recognised"):
        load_split(tmp_path)
    assert load_split(tmp_path, user_col="who", item_col="what").train.n_interactions == 2
    assert load(tmp_path, user_col="who", item_col="what").n_interactions == 5


def test_named_columns_for_a_split_without_names_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--time-col t: .*toy\.train\.rating has no named columns"):
        load_split(ncf(tmp_path), time_col="t")


def test_a_log_and_a_catalogue_whose_ids_never_meet(tmp_path: Path) -> None:
    write(tmp_path / "ratings.csv", "userId,movieId,rating\n1,A1,3\n")
    write(tmp_path / "movies.csv", "movieId,title,genres\n1,Film (1990),Drama\n")
    with pytest.raises(DataError, match="item ids of the log are String, those of its catalogue Int64"):
        load(tmp_path)


def test_named_columns_for_a_format_without_names_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "ratings.dat", lines("::"))
    with pytest.raises(ConfigError, match="--user-col x"):
        load(path, user_col="x")


def test_the_same_rows_in_any_file_order_give_the_same_csr(tmp_path: Path) -> None:
    a = load(write(tmp_path / "a.dat", lines("::")))
    b = load(write(tmp_path / "b.dat", lines("::", ROWS[::-1])))
    assert a.fingerprint() == b.fingerprint()


def test_a_filter_on_data_that_bring_their_own_split_is_refused(tmp_path: Path) -> None:
    from fastrec.config import Config
    from fastrec.training.job import prepare

    ncf(tmp_path)
    config = Config().override(data=str(tmp_path))
    assert prepare(config).test.n_interactions == 2
    with pytest.raises(ConfigError, match=r"min_rating: .* comes with its own split"):
        prepare(config.override(min_rating=4.0))
    assert prepare(config.override(min_rating=4.0, split="leave-one-out")).train.n_interactions >= 1
