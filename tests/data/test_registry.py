"""Named data sets: where they are looked for, in which order, and what is said when they cannot be had."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from fastrec.data.datasets import registry
from fastrec.data.datasets.registry import SETS, cache_dir, fetch, find, found, resolve
from fastrec.data.synthetic.generator import SHAPES
from fastrec.errors import DataError, DataNotFoundError


@pytest.fixture(autouse=True)
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """An empty $FASTREC_DATA, cache and working folder, and no network."""
    here = {name: tmp_path / name for name in ("data", "xdg", "cwd")}
    for folder in here.values():
        folder.mkdir()
    monkeypatch.setenv("FASTREC_DATA", str(here["data"]))
    monkeypatch.setenv("XDG_CACHE_HOME", str(here["xdg"]))
    monkeypatch.chdir(here["cwd"])

    def no_network(*_: object, **__: object) -> str:
        raise DataNotFoundError("no network in this test")

    monkeypatch.setattr(registry, "download", no_network)
    return here


def fill(folder: Path, *files: str) -> Path:
    folder.mkdir(parents=True)
    for name in files:
        (folder / name).write_text("1::1::5::1\n")
    return folder


def test_a_path_is_taken_as_given(places: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    file = places["cwd"] / "log.csv"
    file.write_text("user,item\n1,1\n")
    assert resolve("log.csv").samefile(file)
    assert resolve(file) == file
    monkeypatch.setenv("HOME", str(places["cwd"]))
    assert resolve("~/log.csv") == file


def test_the_order_is_path_then_environment_then_cache(places: dict[str, Path]) -> None:
    with pytest.raises(DataNotFoundError, match="no network"):
        resolve("ml-1m", progress=False)
    cached = fill(cache_dir() / "ml-1m", "ratings.dat")
    assert resolve("ml-1m") == cached == places["xdg"] / "fastrec" / "ml-1m"
    given = fill(places["data"] / "ml-1m", "ratings.dat")
    assert resolve("ml-1m") == given
    beside = fill(places["cwd"] / "ml-1m", "ratings.dat")
    assert resolve("ml-1m").samefile(beside)
    assert resolve("ml-1m", allow_path=False) == given


def test_gzipped_files_count(places: dict[str, Path]) -> None:
    folder = fill(places["data"] / "ncf-ml-1m", "ml-1m.train.rating.gz", "ml-1m.test.rating", "ml-1m.test.negative")
    assert resolve("ncf-ml-1m") == folder


def test_any_folder_under_the_environment_goes_by_its_name(places: dict[str, Path]) -> None:
    mine = fill(places["data"] / "my-shop", "log.parquet")
    assert resolve("my-shop") == mine
    with pytest.raises(DataError, match="neither a file or folder nor a known data set"):
        resolve("..", allow_path=False)


@pytest.mark.parametrize("files", [(), ("movies.dat",)])
def test_an_incomplete_folder_of_the_users_own_is_named_not_passed_over(
    places: dict[str, Path], files: tuple[str, ...]
) -> None:
    fill(cache_dir() / "ml-1m", "ratings.dat")
    folder = fill(places["data"] / "ml-1m", *files)
    with pytest.raises(DataError, match=r"has no ratings\.dat") as caught:
        resolve("ml-1m")
    assert str(folder) in str(caught.value)
    assert not isinstance(caught.value, DataNotFoundError), "not a reason to go on with other data"
    assert ("ml-1m", str(folder), "incomplete: no ratings.dat") in found()


def test_an_incomplete_folder_in_the_cache_is_fetched_again() -> None:
    fill(cache_dir() / "ml-1m", "movies.dat")
    assert find("ml-1m") is None
    with pytest.raises(DataNotFoundError, match="no network"):
        resolve("ml-1m", progress=False)


def test_a_set_that_cannot_be_had_says_which_folder_to_fill_and_how(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(DataNotFoundError) as caught:
        resolve("ml-1m", progress=False)
    for part in (
        "no network",
        "download https://files.grouplens.org",
        "ml-1m/ratings.dat",
        f"FASTREC_DATA={places['data']}",
    ):
        assert part in str(caught.value)
    monkeypatch.delenv("FASTREC_DATA")
    with pytest.raises(DataNotFoundError, match=r"or set FASTREC_DATA to a folder that holds ml-1m/"):
        resolve("ml-1m", progress=False)
    with pytest.raises(DataNotFoundError, match=f"so that {cache_dir()}/ml-1m/ratings.dat exists"):
        resolve("ml-1m", allow_fetch=False)


def test_an_environment_that_names_the_set_itself_is_noticed(
    places: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fill(places["cwd"] / "films", "ratings.dat")
    monkeypatch.setenv("FASTREC_DATA", str(folder))
    with pytest.raises(DataNotFoundError, match=r"holds ratings\.dat itself, pass that folder as the data"):
        resolve("ml-1m", progress=False)


@pytest.mark.parametrize("name", [n for n, s in SETS.items() if not s.fetchable])
def test_sets_without_a_pinned_hash_are_read_from_a_folder_never_fetched(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object, **__: object) -> str:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(registry, "download", touched)
    for call in (resolve, fetch):
        with pytest.raises(DataNotFoundError, match="To provide it manually: get the files from https://"):
            call(name)


@pytest.mark.parametrize(
    ("wrong", "meant"),
    [("ml1m", "ml-1m"), ("ML-1M", "ml-1m"), ("movielens-1m", "ml-1m"), ("synthetic-2m", "synthetic-1m")],
)
def test_an_unknown_name_lists_the_known_and_the_close(wrong: str, meant: str) -> None:
    for call in (resolve, fetch):
        with pytest.raises(DataError) as caught:
            call(wrong)
        assert not isinstance(caught.value, DataNotFoundError), "a slip of the pen is not missing data"
        before, _, after = str(caught.value).partition("Known sets:")
        assert meant in before.partition("did you mean")[2]
        assert all(name in after for name in (*SETS, *SHAPES))


@pytest.mark.parametrize("missing", ["nowhere/log.csv", "log.csv", "./ml-9m", "/no/such/folder"])
def test_a_missing_path_is_called_a_path(missing: str) -> None:
    with pytest.raises(DataError, match="no such file or folder"):
        resolve(missing)


def test_synthetic_sets_are_told_apart() -> None:
    with pytest.raises(DataError, match="generated, not read"):
        resolve("synthetic-1m")


def test_the_list_shows_every_set_and_its_state(places: dict[str, Path]) -> None:
    folder = fill(places["data"] / "gowalla", "train.txt", "test.txt")
    rows = {name: (where, state) for name, where, state in found()}
    assert list(rows) == [*SETS, *SHAPES]
    assert rows["gowalla"] == (str(folder), "ready")
    assert rows["ml-1m"] == (None, "can be fetched, 5.9 MB")
    assert rows["ml-latest-small"][1].startswith("manually, from https://")
    assert rows["synthetic-1m"] == (None, "generated: 6,040 x 3,706, 1,000,209 interactions")


def test_the_cache_follows_xdg(monkeypatch: pytest.MonkeyPatch, places: dict[str, Path]) -> None:
    monkeypatch.setenv("HOME", str(places["cwd"]))
    for useless in ("", "relative/path"):  # the XDG specification: a relative path is to be ignored
        monkeypatch.setenv("XDG_CACHE_HOME", useless)
        assert cache_dir() == places["cwd"] / ".cache" / "fastrec"


@pytest.mark.parametrize("known", [s for s in SETS.values() if s.fetchable], ids=lambda s: s.name)
def test_pins_are_whole(known: registry.DataSet) -> None:
    assert known.n_bytes
    assert len(known.md5 or "") == 32
    assert known.sha256 is None or len(known.sha256) == 64
    assert known.urls[0] == f"https://files.grouplens.org/datasets/movielens/{known.name}.zip"
    assert all(url.startswith("https://") and url.endswith(f"/{known.name}.zip") for url in known.urls)
    assert set(known.required) <= set(known.members)
    assert all(os.path.basename(m) == m for m in known.members)
    assert known.licence


@pytest.mark.real_data
def test_real_sets_are_complete(real_data, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()  # the real environment again
    for name in ("ml-1m", "ml-100k", "ml-latest-small", "ncf-ml-1m", "gowalla"):
        assert find(name) == real_data(name)
