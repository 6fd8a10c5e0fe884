"""Long ids and numbers, ids with NUL, columns that are not needed, and what the system refuses."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec.data import Interactions, has_split, load, load_split
from fastrec.data.datasets import registry
from fastrec.data.datasets.registry import resolve
from fastrec.errors import ConfigError, DataError, FastrecError

LONG = "x" * 20_000
IDS = [*(f"u{k}" for k in range(4_999)), LONG]


def peak_of(call: object) -> tuple[object, int]:
    tracemalloc.start()
    try:
        return call(), tracemalloc.get_traced_memory()[1]  # type: ignore[operator]
    finally:
        tracemalloc.stop()


LOGS = {
    "log.csv": "user,item\n" + "".join(f"{u},{u}\n" for u in IDS),
    "log.tsv": "user\titem\n" + "".join(f"{u}\t{u}\n" for u in IDS),
    "ratings.dat": "".join(f"{u}::{u}\n" for u in IDS),
    "train.txt": "".join(f"{u} {u}\n" for u in IDS),
}


@pytest.mark.parametrize("name", LOGS)
def test_one_long_id_does_not_cost_its_length_for_every_id(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text(LOGS[name])
    load(path)  # what is compiled and imported at the first call is not counted
    made, peak = peak_of(lambda: load(path))
    assert peak < 20e6  # 400 MB in fixed width
    assert made.user_ids.tolist() == sorted(IDS)
    assert made.user_ids[0] == "u0"
    saved = made.save(tmp_path / "saved.safetensors")
    assert saved.stat().st_size < 1e6
    again, peak = peak_of(lambda: Interactions.open(saved))
    assert peak < 20e6
    assert again.fingerprint() == made.fingerprint()
    assert again.core(1).keep(np.ones(5000, bool)).item_ids.tolist() == sorted(IDS)


@pytest.mark.parametrize("make", [list, tuple, lambda ids: np.array(ids, dtype=object), pl.Series])
def test_long_ids_in_memory(make: object) -> None:
    ids = make(IDS)  # type: ignore[operator]
    Interactions.from_arrays(["a"], ["b"])  # compiled outside the measurement
    made, peak = peak_of(lambda: Interactions.from_arrays(ids, ids))
    assert peak < 20e6
    assert made.item_ids.tolist() == sorted(IDS)
    short = Interactions.from_arrays(make(["b", "a"]), make(["x", "y"]))  # type: ignore[operator]
    assert short.user_ids.dtype.kind == "U"
    assert short.user_ids.tolist() == ["a", "b"]


def test_equal_ids_have_one_fingerprint_whatever_holds_them() -> None:
    fixed = Interactions.from_arrays(np.array(["a", "b"]), np.array(["x", "y"]))
    objects = np.empty(2, object)
    objects[:] = ["a", "b"]
    held = Interactions(fixed.indptr, fixed.items, objects, fixed.item_ids)
    assert held.fingerprint() == fixed.fingerprint()


def test_one_long_title_does_not_cost_its_length_for_every_title(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating\n" + "".join(f"1,{k},5\n" for k in range(5_000)))
    movies = "".join(f"{k},{'y' * 20_000 if k == 7 else 'Film'},Drama\n" for k in range(5_000))
    (tmp_path / "movies.csv").write_text("movieId,title,genres\n" + movies)
    load(tmp_path)
    made, peak = peak_of(lambda: load(tmp_path))
    assert peak < 20e6
    assert len(made.titles[7]) == 20_000
    assert Interactions.open(made.save(tmp_path / "saved.safetensors")).titles[8] == "Film"
    assert load(tmp_path, unrated_negatives=True).n_items == 5_000


def test_a_long_id_in_the_first_row_of_a_table(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user,item\n1,{'z' * 200_000}\n2,b\n")
    assert load(path).n_items == 2
    path.write_text(f'user,item\n1,"{"z" * 200_000}"\n2,b\n')
    with pytest.raises(
        DataError, match=r"log\.csv, line 2: field larger than field limit \(131072\)\. Shorten it, or .* Parquet"
    ):
        load(path)


def test_blank_lines_at_the_end_do_not_set_the_layout(tmp_path: Path) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::2\n" + "\n" * 100_000)
    assert load(path).n_interactions == 1
    path.write_text("\n" * 20 + "1::2\n")
    with pytest.raises(DataError, match=r"ratings\.dat, line 1: blank; every line must be"):
        load(path)


def test_long_ids_survive_a_core_and_a_mask() -> None:
    made = Interactions.from_arrays(IDS, IDS)
    assert made.core(1).n_items == 5_000
    kept = load_kept(made)
    assert LONG in kept.item_ids.tolist()


def load_kept(made: Interactions) -> Interactions:
    mask = np.zeros(made.n_interactions, bool)
    mask[-1] = mask[0] = True
    return made.keep(mask).reindex("a mask")


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("log.csv", "user,item\n1,2\n{},3\n", r"log\.csv, data row 1: user id '7+\.\.\.' is a number of 5000 digits"),
        (
            "log.csv",
            "user,item,rating,time\n1,2,3,4\n1,3,3,{}\n",
            r"data row 1: time '7+\.\.\.' does not fit 64 bits",
        ),
        ("log.csv", 'user,item,time\n1,2,4\n1,"3",{}\n', r"log\.csv, data row 1: time '7+\.\.\.' does not fit 64 bits"),
        ("ratings.dat", "1::2\n{}::3\n", r"ratings\.dat, line 2: user '7+\.\.\.' does not fit 64 bits"),
        ("ratings.dat", "1::2::3::4\n1::3::3::{}\n", r"line 2: timestamp '7+\.\.\.' does not fit 64 bits"),
        ("u.data", "1\t2\n1\t{}\n", r"u\.data, line 2: item '7+\.\.\.' does not fit 64 bits"),
        ("u.data", "1\t2\t3\n1\t3\t{}\n", r"u\.data, line 2: rating '7+\.\.\.' is not a finite number"),
        ("train.txt", "1 2\n1 {}\n", r"train\.txt, line 2: item '7+\.\.\.' does not fit 64 bits"),
    ],
)
def test_long_numbers_are_named_by_file_and_line(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text.format("7" * 5000))
    with pytest.raises(DataError, match=says) as error:
        load(path)
    assert len(str(error.value)) < 600


def test_numbers_of_4300_digits_are_ids_of_text_in_tables(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_text(f"user,item\n1,2\n{'7' * 4300},3\n")
    assert sorted(load(path).user_ids.tolist(), key=len) == ["1", "7" * 4300]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("movies.dat", "{}::A::B\n", r"movies\.dat, line 1: MovieID '7+\.\.\.' is not a 64-bit integer"),
        ("users.dat", "{}::F::1::1::1\n", r"users\.dat, line 1: user '7+\.\.\.' does not fit 64 bits"),
        ("users.dat", "1::F::{}::1::1\n", r"users\.dat, line 1: age '7+\.\.\.' does not fit 64 bits"),
        ("users.dat", "1::F::1::1\n", r"users\.dat, line 1: only 4 fields .* user::gender::age::occupation::zip"),
        ("users.dat", "1::F::1::1::1::x\n2::F::1::1::1\n", r"users\.dat, line 2: only 5 fields .*::zip::field6"),
        ("movies.dat", "1::A\n", r"movies\.dat, line 1: '1::A' is not MovieID::Title::Genres"),
    ],
)
def test_catalogues_of_movielens_name_line_and_layout(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::3::4\n")
    (tmp_path / name).write_text(text.format("7" * 5000))
    with pytest.raises(DataError, match=says) as error:
        load(tmp_path)
    assert len(str(error.value)) < 600


def test_further_fields_of_the_films_and_users_stop_nothing(tmp_path: Path) -> None:
    plain, more = tmp_path / "plain", tmp_path / "more"
    for folder, user, film in ((plain, "", ""), (more, "::x y::1", "::1999::de")):
        folder.mkdir()
        (folder / "ratings.dat").write_text("1::2::3::4\n1::3::3::5\n2::2::3::4\n")
        (folder / "users.dat").write_text(f"1::F::1::10::48067{user}\n2::M::56::16::70072{user}\n")
        (folder / "movies.dat").write_text(f"2::A::Drama{film}\n3::B::War|Drama{film}\n")
    one, other = load(plain), load(more)
    assert other.titles is not None
    assert other.titles.tolist() == ["A", "B"]
    for table in ("movies", "users"):
        assert getattr(one.catalog, table).equals(getattr(other.catalog, table)), table


def test_further_fields_of_ml_100k_stop_nothing(tmp_path: Path) -> None:
    flags = "|".join("0" * 18 + "1")
    (tmp_path / "u.data").write_text("1\t2\t3\t4\n1\t3\t3\t5\n")
    (tmp_path / "u.user").write_text("1|24|M|tech|85711|more\n")
    (tmp_path / "u.item").write_text(f"2|A|1-1-1990||url|{flags}|x\n3|B|1-1-1990||url|{flags}|y\n")
    log = load(tmp_path)
    assert log.titles is not None
    assert log.titles.tolist() == ["A", "B"]
    assert log.catalog.movies["genres"].to_list() == [["Western"], ["Western"]]
    assert log.catalog.users.columns == ["user", "gender", "age", "occupation", "zip"]
    (tmp_path / "u.genre").write_text("a|0\nb|1\n")  # flags of genres that it does not name
    with pytest.raises(DataError, match=r"u\.item, line 1: 25 fields .* 2 genre flags make 7"):
        load(tmp_path)


@pytest.mark.parametrize("row", ["({0},3)\t1\n", "(1,{0})\t1\n", "(1,3)\t{0}\n"])
def test_long_numbers_in_the_candidates_of_the_ncf_files(tmp_path: Path, row: str) -> None:
    (tmp_path / "x.train.rating").write_text("1\t2\t5\t1\n")
    (tmp_path / "x.test.rating").write_text("1\t3\t5\t1\n")
    (tmp_path / "x.test.negative").write_text(row.format("7" * 5000))
    with pytest.raises(DataError, match=r"x\.test\.negative, line 1: .* 64-bit integers") as error:
        load_split(tmp_path)
    assert len(str(error.value)) < 600


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("log.csv", "user,item\nu,1\nu\0,1\n", r"log\.csv, line 3: user 'u\\x00' holds NUL"),
        ("log.csv", "user,item\nu,1\nv,a\0b\n", r"log\.csv, line 3: item 'a\\x00b' holds NUL"),
        ("log.csv", 'user,item\nu,1\n"u\0",1\n', r"log\.csv, line 3: "),
        ("log.tsv", "user\titem\nu\t1\nu\0\t1\n", r"log\.tsv, line 3: user 'u\\x00' holds NUL"),
        ("ratings.dat", "u::1\nu\0::1\n", r"ratings\.dat, line 2: user 'u\\x00' holds NUL"),
        ("u.data", "u\t1\t1\nu\0\t1\t1\n", r"u\.data, line 2: user 'u\\x00' holds NUL"),
        ("train.txt", "u v\nu\0 v\n", r"train\.txt, line 2: user id 'u\\x00' holds NUL"),
    ],
)
def test_an_id_that_ends_in_nul_is_refused(tmp_path: Path, name: str, text: str, says: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=says):
        load(path)


@pytest.mark.parametrize("make", [list, lambda ids: np.array(ids, dtype=object), pl.Series])
def test_an_id_that_ends_in_nul_is_refused_in_memory(make: object) -> None:
    ids = make(["u", "u\0"])  # type: ignore[operator]
    with pytest.raises(DataError, match=r"user id 'u\\x00' in row 1 holds NUL"):
        Interactions.from_arrays(ids, [1, 2])
    with pytest.raises(DataError, match=r"data row 1: item id 'u\\x00' holds NUL"):
        Interactions.from_frame({"user": [1, 2], "item": ids})


def test_an_id_that_ends_in_nul_is_refused_in_parquet(tmp_path: Path) -> None:
    path = tmp_path / "log.parquet"
    pl.DataFrame({"user": ["u", "u\0"], "item": [1, 2]}).write_parquet(path)
    with pytest.raises(DataError, match=r"log\.parquet, data row 1: user id 'u\\x00' holds NUL"):
        load(path)


def test_masked_arrays_are_refused() -> None:
    masked = np.ma.masked_array([1, 2, 3], [False, True, False])
    plain = np.array([1, 2, 3])
    for columns in ((masked, plain), (plain, masked), (plain, plain, masked)):
        with pytest.raises(DataError, match="masked array; leave the masked rows out"):
            Interactions.from_arrays(*columns)
    with pytest.raises(DataError, match="masked array; leave the masked rows out"):
        Interactions.from_arrays(plain, plain, ratings=masked, min_rating=1)
    with pytest.raises(DataError, match="column 'item': row 1 is masked in this masked array"):
        Interactions.from_frame({"user": plain, "item": masked})


@pytest.mark.parametrize(
    "movies",
    [
        'movieId,title,genres,year\n2,"A, B (1995)",Drama|War,1995\n3,C,Drama,x\n',
        'genres,year,title,movieId\nDrama|War,1995,"A, B (1995)",2\nDrama,,C,3\n',
        'title,movieId,,,genres\n"A, B (1995)",2,,,Drama|War\nC,3,,,Drama\n',
        'Movie_ID,TITLE,Genres\n2,"A, B (1995)",Drama|War\n3,C,Drama\n',
        '\ufeffmovieId,title,genres,imdb\r\n2,"A, B (1995)",Drama|War,tt"1"\r\n3,C,Drama,\r\n',
    ],
)
def test_movies_csv_is_read_by_the_names_of_its_columns(tmp_path: Path, movies: str) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n1,3,3,5\n")
    (tmp_path / "movies.csv").write_text(movies, newline="")
    made = load(tmp_path)
    assert made.titles.tolist() == ["A, B (1995)", "C"]
    assert made.catalog.movies["genres"].to_list() == [["Drama", "War"], ["Drama"]]
    assert made.catalog.movies["year"].to_list() == [1995, None]


def test_movies_csv_without_what_is_needed_is_named(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv").write_text("userId,movieId,rating,timestamp\n1,2,3,4\n")
    (tmp_path / "movies.csv").write_text("movieId,title\n2,A\n")
    assert load(tmp_path).titles.tolist() == ["A"]
    for movies, says in (
        ("movieId,genres\n2,A\n", r"movies\.csv: not a table of .*: no title column among movieId, genres"),
        ("film,title\n2,A\n", "no item column among film, title"),
        ("movieId,title\n2,A\n,B\n", r"movies\.csv, data row 1: movieId or title is missing"),
        ("movieId,title\n2,A\n2.5,B\n", r"data row 1: movieId '2\.5' is not a 64-bit integer"),
        (f"movieId,title\n2,A\n{'7' * 5000},B\n", r"data row 1: movieId '7+\.\.\.' is not a 64-bit integer"),
        ('movieId,"title\n2,A\n', r"movies\.csv: not a table"),
    ):
        (tmp_path / "movies.csv").write_text(movies)
        with pytest.raises(DataError, match=says):
            load(tmp_path)


def test_the_parts_of_a_split_may_differ_in_order_and_in_columns_not_needed(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item,rating,timestamp\n1,2,3,4\n2,3,3,5\n")
    (tmp_path / "test.csv").write_text("timestamp,item,rating,user\n9,3,3,1\n")
    split = load_split(tmp_path)
    assert split.test.timestamps.tolist() == [9]
    assert not split.notes
    (tmp_path / "test.csv").write_text("item,user,remark\n3,1,x\n")
    split = load_split(tmp_path)
    assert (split.test.user_ids[split.test.users].tolist(), split.test.timestamps) == ([1], None)
    assert split.notes[0] == "test: columns not used: remark"
    assert split.notes[1:] == tuple(
        f"{name} is not in every part of the split, so it is not used" for name in ("rating", "timestamp")
    )
    whole = load(tmp_path)
    assert whole.n_interactions == 3
    assert whole.catalog.ratings.collect().columns == ["user", "item"]


def test_what_the_system_refuses_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "ratings.dat").write_text("1::2::3::4\n")
    os.mkfifo(tmp_path / "pipe.csv")
    (tmp_path / "loop").symlink_to("loop")
    for where in (
        tmp_path / "ratings.dat" / "x",
        tmp_path / "ratings.dat" / "x.safetensors",
        tmp_path / ("n" * 300),
        tmp_path / ("n" * 300 + ".safetensors"),
        "n" * 5000,
        "~nobody-of-that-name",
        "~nobody-of-that-name/data.csv",
        "a\0b",
        tmp_path / "pipe.csv",
        tmp_path / "loop",
        tmp_path / "x\x1b[31m.csv",
    ):
        for call in (load, load_split, has_split, resolve):
            if call is resolve and str(where).endswith("pipe.csv"):
                continue
            if call is has_split and str(where).endswith("pipe.csv"):
                continue
            with pytest.raises(FastrecError) as error:
                call(where)
            assert str(error.value).isprintable()
    monkeypatch.setenv("FASTREC_DATA", "~nobody-of-that-name/data")
    with pytest.raises(DataError, match="the home folder of '~nobody-of-that-name' is not known"):
        load("ml-1m")


def test_without_a_home_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)  # as where neither HOME nor a passwd entry is there
    for name in ("XDG_CACHE_HOME", "FASTREC_DATA"):
        monkeypatch.delenv(name, raising=False)
    assert registry.find("ml-1m") is None
    states = {name: state for name, _, state in registry.found()}
    assert "no home folder to keep a cache in; set XDG_CACHE_HOME" in states["ml-1m"]
    for call in (lambda: registry.fetch("ml-1m"), lambda: load("ml-1m")):
        with pytest.raises(DataError, match=r"no home folder.*set XDG_CACHE_HOME"):
            call()
    monkeypatch.setenv("FASTREC_DATA", str(tmp_path))
    with pytest.raises(DataError):
        resolve("n" * 300, allow_path=False)


@pytest.mark.parametrize("fault", [errno.EACCES, errno.EIO, errno.EPERM])
def test_an_unreadable_file_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: int) -> None:
    path = tmp_path / "ratings.dat"
    path.write_text("1::2::3::4\n")
    opened = Path.open

    def refuse(self: Path, *args: object, **options: object) -> object:
        if self.name == path.name:
            raise OSError(fault, os.strerror(fault), str(self))
        return opened(self, *args, **options)  # type: ignore[call-overload]

    monkeypatch.setattr(Path, "open", refuse)
    for where in (path, tmp_path):
        with pytest.raises(DataError, match=rf"ratings\.dat: cannot be read: {os.strerror(fault)}"):
            load(where)


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not read")
def test_files_and_folders_without_the_right_to_read(tmp_path: Path) -> None:
    """As another user, in a process of its own: root may read everything."""
    (tmp_path / "shut").mkdir()
    for name in ("ratings.dat", "shut/ratings.dat", "x.safetensors", "log.parquet", "log.csv"):
        (tmp_path / name).write_text("user,item\n1,2\n")
        (tmp_path / name).chmod(0)
    (tmp_path / "shut").chmod(0)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.stat().st_uid == 0 and folder != Path("/"):
            folder.chmod(folder.stat().st_mode | 0o055)
    code = (
        "import sys, os, polars, numba, fastrec.data.split as s, fastrec.data as d\n"
        "from fastrec.data.readers import base\n"
        "base.readers()\n"
        "from fastrec.errors import FastrecError\n"
        "import safetensors\n"
        "os.setuid(65534)\n"
        "for path in sys.argv[1:]:\n"
        "    for call in (d.load, d.load_split, d.has_split):\n"
        "        try:\n"
        "            call(path)\n"
        "        except FastrecError as error:\n"
        "            print(path, 'refused', str(error).count(chr(10)))\n"
    )
    paths = [str(tmp_path / n) for n in ("ratings.dat", "shut", "shut/ratings.dat", "x.safetensors", "log.parquet")]
    done = subprocess.run(
        [sys.executable, "-c", code, *paths], capture_output=True, text=True, env={**os.environ, "HOME": "/tmp"}
    )
    assert done.returncode == 0, done.stderr
    for path in paths:
        assert f"{path} refused 0" in done.stdout


def test_an_export_to_npz_does_not_widen_the_ids(tmp_path: Path) -> None:
    from fastrec.inference.exporters import npz

    objects = np.empty(2, object)
    objects[:] = ["a", LONG]
    with pytest.raises(ConfigError, match=r"one of user_ids has 20,000 characters.*safetensors or parquet"):
        npz.save(tmp_path / "x.npz", {"user_ids": objects}, "dot")
