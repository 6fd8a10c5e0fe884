"""Malformed sources: one clear error that names file, line and remedy; nothing is dropped without a word."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec.data import Interactions, load, load_split
from fastrec.data.loading import from_source
from fastrec.data.readers.base import read_source
from fastrec.errors import ConfigError, DataError

GOOD = "1::10::5::100\n2::11::4::101\n"


@pytest.mark.parametrize(
    ("bad", "says"),
    [
        ("3::12::5\n", r"line 3: only 3 fields in '3::12::5', but every line must be user::item::rating::timestamp"),
        ("3::12\n", "line 3: only 2 fields"),
        ("3\n", "line 3: only 1 fields"),
        ("3::12::5::\n", "line 3: timestamp '' is not an integer"),
        ("3::12::5::102::9\n", "line 3: 5 fields"),
        ("3::12::5::102::\n", "line 3: 5 fields"),
        ("3::12::five::102\n", "line 3: rating 'five' is not a number"),
        ("3::12::nan::102\n", "line 3: rating 'nan' is not a finite number"),
        ("3::12::inf::102\n", "line 3: rating 'inf' is not a finite number"),
        ("3::::5::102\n", "line 3: item '' is not an integer"),
        ("x::12::5::102\n", "line 3: user 'x' is not an integer"),
        ("3::12.5::5::102\n", "line 3: item '12.5' is not an integer"),
        ("3::12::5::102.5\n", "line 3: timestamp '102.5' is not an integer"),
        (f"{2**64}::12::5::102\n", "line 3: user '18446744073709551616' does not fit 64 bits"),
        ("3:12:5:102\n", "line 3: only 1 fields"),
        ("3:x:12::5::102\n", "line 3: only 3 fields"),
        ("3::12:: 5::102 \n", "line 3: rating ' 5' is not a number"),
        ("\n3::12::5::102\n", "line 3: blank"),
        ("3::12::5::102\x00\n", "line 3: timestamp"),
        ('"3"::12::5::102\n', "line 3: user '\"3\"' is not an integer"),
    ],
)
@pytest.mark.parametrize("last", [True, False])
def test_a_bad_line_of_ratings_dat_is_named(tmp_path: Path, bad: str, says: str, last: bool) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text(GOOD + bad + ("" if last else GOOD))
    with pytest.raises(DataError, match=says) as raised:
        load(path)
    assert str(path) in str(raised.value)


@pytest.mark.parametrize("at", [1, 70_001, 100_000])
def test_one_bad_line_among_many_is_found_wherever_it_stands(tmp_path: Path, at: int) -> None:
    lines = [f"{k % 900}::{k}::5::{k}" for k in range(100_000)]
    path = tmp_path / "ratings.dat"
    for bad in ("7::8::5::1::9", "7::8::5", "7::8::x::9"):
        path.write_text("\n".join([*lines[: at - 1], bad, *lines[at:]]) + "\n")
        with pytest.raises(DataError, match=rf"line {at}: "):
            load(path)


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("u.data", "1\t2\t3\t4\n1\t3\t5\n", r"u\.data, line 2: only 3 fields"),
        ("u.data", "1\t2\t3\t4\n1\t3\tx\t5\n", "line 2: rating 'x'"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3\n", "line 2: only 3 fields"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n1,3,3,4,5\n", "line 3: 5 fields"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,,4\n", "line 2: rating '' is not a number"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n", "no line of data"),
        ("ratings.csv", "userId,movieId,rating,timestamp\n1,2,3,4\n,3,3,4\n", "line 3: userId '' is empty"),
        ("log.csv", 'user,item,rating\n1,"2",3\n1,"3"\n', "line 3: 2 fields, but the first line names 3"),
        ("log.csv", 'user,item,rating\n1,"a\nb",3\n1,"c",x\n', "line 4: rating 'x'"),
        ("log.csv", 'user,item\n1,"a\n', "unexpected end of data"),
        ("log.csv", "1,31,2.5\n1,32,3\n", "no user column recognised among 1, 31, 2.5; name it with --user-col"),
        ("log.csv", "user,thing\n1,2\n", "no item column recognised among user, thing; name it with --item-col"),
        ("log.csv", "user,user,item\n1,2,3\n", "two columns are called 'user'"),
        ("log.csv", "user,item\n1.0,2\n", "user id '1.0' is a decimal number"),
        ("log.csv", "user,item,date\n1,2,yesterday\n", "data row 0: time 'yesterday' is neither"),
        ("train.txt", "1 2 3\n1 x\n", "line 2: item 'x' is not an integer"),
        ("train.txt", "1\n2\n", "no line holds a user and an item"),
        ("odd.bin", "hello world\n", "fits no known format"),
        ("log.csv", "a,b\rc,d\n", r"line 1: 'a,b\\rc,d' holds no names of columns"),
    ],
)
def test_bad_input_of_every_text_format_is_named(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=says) as raised:
        load(path)
    assert name in str(raised.value)


def test_a_table_that_is_not_utf8_names_its_line(tmp_path: Path) -> None:
    (tmp_path / "log.csv").write_bytes("user,item\na,b\n\u00e9,c\n".encode("latin-1"))
    with pytest.raises(DataError, match=r"log\.csv, line 3: not UTF-8, in b'\\xe9,c'\. Save the file as UTF-8"):
        load(tmp_path / "log.csv")


def test_what_once_ended_in_a_traceback(tmp_path: Path) -> None:
    """Found by changing bytes of good files at random."""
    quoted = b'user,item\n"a",b\n"c",d\n'
    files = {
        "cut/log.csv.gz": gzip.compress(quoted * 500)[:-9],
        "list/train.txt.gz": gzip.compress(b"0 1 2\n1 2 3\n" * 500)[:-9],
        "list/test.txt": b"0 3\n",
        "film/ratings.csv": b"userId,movieId,rating,timestamp\n1,2,3,4\n",
        "film/movies.csv.gz": gzip.compress(b"movieId,title,genres\n2,B,Drama\n" * 500)[:-9],
        "ncf/x.train.rating": b"0\t1\t5\t7\n",
        "ncf/x.test.rating": b"0\t2\t5\t8\n",
        "ncf/x.test.negative": b"(0,2)\t99999999999999999999\n",
        "odd/log.csv": quoted + b"e,\xff\n",
    }
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(content)
    for folder, says in (
        ("cut", r"log\.csv\.gz: not a complete gzip file"),
        ("list", r"train\.txt\.gz: not a complete gzip file"),
        ("film", r"movies\.csv\.gz: not a complete gzip file"),
        ("odd", r"log\.csv, line 4: not UTF-8"),
    ):
        with pytest.raises(DataError, match=says):
            load(tmp_path / folder)
    with pytest.raises(DataError, match=r"x\.test\.negative, line 1: .* 64-bit integers"):
        load_split(tmp_path / "ncf")


def test_a_folder_that_hides_a_named_set_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ml-100k").mkdir()
    (tmp_path / "ml-100k" / "manifest.json").write_text("{}")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(DataError, match=r"ml-100k: .*only manifest\.json\. It hides the data set of that name"):
        load("ml-100k")


def test_missing_and_empty_sources(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.dat"):
        load(tmp_path / "none.dat")
    (tmp_path / "ratings.dat").touch()
    for path in (tmp_path, tmp_path / "ratings.dat"):
        with pytest.raises(DataError, match=r"ratings\.dat: the file is empty"):
            load(path)
    (tmp_path / "ratings.dat").write_text("\n\n")
    with pytest.raises(DataError, match=r"ratings\.dat"):
        load(tmp_path)
    (tmp_path / "ratings.dat").unlink()
    with pytest.raises(DataError, match=r"an empty folder\. Known are: ml-100k"):
        load(tmp_path)
    for name in ("a.csv", "b.csv"):
        (tmp_path / name).write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match=r"several files could hold the interactions \(a\.csv, b\.csv\)"):
        load(tmp_path)


def test_a_gzip_file_cut_short(tmp_path: Path) -> None:
    whole = gzip.compress((GOOD * 1000).encode())
    (tmp_path / "ratings.dat.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="not a complete gzip file"):
        load(tmp_path)
    (tmp_path / "ratings.dat.gz").write_bytes(whole[:12])
    with pytest.raises(DataError, match="not a complete gzip file"):
        load(tmp_path)
    (tmp_path / "ratings.dat.gz").write_bytes(gzip.compress(b""))
    with pytest.raises(DataError, match="there is nothing in the file"):
        load(tmp_path)


def test_a_parquet_file_that_is_none_or_holds_gaps(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    path.write_bytes(b"PAR1 and then nothing")
    with pytest.raises(DataError, match="not a readable Parquet file"):
        load(path)
    for frame, says in (
        (pl.DataFrame({"user": [1, None], "item": [1, 2]}), "data row 1: user is missing"),
        (pl.DataFrame({"user": [1.0, 2.0], "item": [1, 2]}), "user column 'user' is Float64; ids are integers or text"),
        (pl.DataFrame({"user": [1], "item": [2], "rating": ["good"]}), "rating column 'rating' is String"),
        (pl.DataFrame({"user": [1], "item": [2], "rating": [float("nan")]}), "data row 0: rating is missing or no"),
        (pl.DataFrame({"user": [2**64 - 1], "item": [2]}, schema_overrides={"user": pl.UInt64}), "fit 64 bits"),
        (pl.DataFrame({"user": [], "item": []}, schema={"user": pl.Int64, "item": pl.Int64}), "no rows"),
        (pl.DataFrame({"user": [1], "item": [2], "time": [True]}), "time column is Boolean"),
    ):
        frame.write_parquet(path)
        with pytest.raises(DataError, match=says):
            load(path)


@pytest.mark.parametrize(
    ("film", "says"),
    [
        ("2::No genres\n", r"movies\.dat, line 2: '2::No genres' is not MovieID::Title::Genres"),
        ("x::Film::Drama\n", "line 2: MovieID 'x' is not a 64-bit integer"),
        ("1::Twice::Drama\n", "lists item 1 more than once"),
    ],
)
def test_a_bad_line_of_movies_dat_is_named(tmp_path: Path, film: str, says: str) -> None:
    (tmp_path / "ratings.dat").write_text(GOOD)
    (tmp_path / "movies.dat").write_text("1::Film::Drama\n" + film)
    with pytest.raises(DataError, match=says):
        load(tmp_path)


def test_bad_lines_of_the_other_catalogues_are_named(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(GOOD)
    (tmp_path / "users.dat").write_text("1::F::1::10::02460\n2::M::1::10\n")
    with pytest.raises(DataError, match=r"users\.dat, line 2: only 4 fields"):
        load(tmp_path)
    hundred = tmp_path / "100k"
    hundred.mkdir()
    (hundred / "u.data").write_text("1\t1\t3\t4\n")
    (hundred / "u.item").write_text("1|Film|01-Jan-1995||url|" + "|".join("0" * 18) + "\n")
    with pytest.raises(DataError, match=r"u\.item, line 1: 23 fields .* make 24"):
        load(hundred)
    table = tmp_path / "csv"
    table.mkdir()
    (table / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")
    (table / "movies.csv").write_text('movieId,title,genres\nx,"A, B (1990)",Drama\n')
    with pytest.raises(DataError, match=r"movies\.csv: not a table of movieId,title,genres"):
        load(table)


def test_too_many_distinct_ids(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text("".join(f"{k}::1::5::9\n" for k in range(6)))
    log = read_source(tmp_path)
    with pytest.raises(DataError, match="6 distinct user ids, but contiguous ids are int32: at most 5"):
        from_source(log, name="x", max_ids=5)
    assert from_source(log, name="x", max_ids=6).n_users == 6
    with pytest.raises(DataError, match="3 distinct item ids, but contiguous ids are int32: at most 2"):
        Interactions.from_arrays([1, 1, 1], ["a", "b", "c"], max_ids=2)
    sparse = np.arange(1, 8, dtype=np.int64) * 2**40
    with pytest.raises(DataError, match="7 distinct user ids"):
        Interactions.from_arrays(sparse, np.ones(7, int), max_ids=6)


def test_nothing_left_is_an_error_that_names_the_filter(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(GOOD)
    with pytest.raises(DataError, match=r"no interaction is left with min_rating=5\.5"):
        load(tmp_path, min_rating=5.5)
    with pytest.raises(DataError, match="no interaction is left with k_core=2"):
        load(tmp_path, k_core=2)
    with pytest.raises(DataError, match="k_core=-1"):
        load(tmp_path, k_core=-1)
    with pytest.raises(DataError, match="unrated_negatives needs a catalogue"):
        load(tmp_path, unrated_negatives=True)
    (tmp_path / "bare.csv").write_text("user,item\n1,2\n")
    with pytest.raises(DataError, match="min_rating=3 needs ratings, and there are none"):
        load(tmp_path / "bare.csv", min_rating=3)


def test_options_that_a_ready_csr_cannot_honour(tmp_path: Path) -> None:
    saved = Interactions.from_arrays([1, 2], [1, 1]).save(tmp_path / "x.safetensors")
    with pytest.raises(ConfigError, match=r"min_rating=3: .*x\.safetensors is a CSR already"):
        load(saved, min_rating=3)
    assert load(saved, k_core=1).n_items == 1
    with pytest.raises(DataError, match="no interaction is left with k_core=2"):
        load(saved, k_core=2)


def ncf(folder: Path, negative: str) -> Path:
    (folder / "t.train.rating").write_text("0\t1\t5\t10\n1\t2\t3\t12\n")
    (folder / "t.test.rating").write_text("0\t3\t5\t20\n1\t0\t5\t21\n")
    (folder / "t.test.negative").write_text(negative)
    return folder


@pytest.mark.parametrize(
    ("negative", "says"),
    [
        ("(0,3)\t0\t2\n", r"no line for the test pair \(1,0\)"),
        ("(0,3)\t0\t2\n(1,0)\n", "line 2: .* is not"),
        ("(0,3)\t0\t2\n(1,0)\t3\tx\n", "line 2: .* is not"),
        ("(0,3)\t0\t2\n(1,0)\t3\n(1,1)\t3\n", "3 lines for 2 test pairs"),
        ("(0,3)\t0\t2\n(0,3)\t0\t1\n", r"line 2: \(0,3\) is in line 1 too"),
        ("(0,3)\t0\t0\n(1,0)\t3\n", "line 1: an item occurs twice"),
        ("", "the file is empty"),
    ],
)
def test_bad_candidate_files_are_named(tmp_path: Path, negative: str, says: str) -> None:
    with pytest.raises(DataError, match=says):
        load_split(ncf(tmp_path, negative))


def test_splits_that_are_none(tmp_path: Path) -> None:
    (tmp_path / "ratings.dat").write_text(GOOD)
    with pytest.raises(DataError, match="has no split of its own"):
        load_split(tmp_path)
    (tmp_path / "train.txt").write_text("1 2 3\n")
    with pytest.raises(DataError, match=r"train\.txt is there but no test\.txt"):
        load_split(tmp_path)
    (tmp_path / "test.txt").write_text("1 3\n")
    with pytest.raises(DataError, match="user 1 has item 3 in train and in test"):
        load_split(tmp_path)
    (tmp_path / "test.txt").write_text("a 3\n")
    with pytest.raises(DataError, match="differ in their columns"):
        load_split(tmp_path)
