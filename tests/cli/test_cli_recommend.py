"""Recommend and similar on the command line: lists to look at, files for everyone, filters, titles, odd ids."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fastrec import Recommender, runs
from fastrec.cli.main import main
from fastrec.data import Catalog
from fastrec.data.catalog import movies_frame
from fastrec.data.split import Split
from fastrec.errors import DataError
from fastrec.inference.lookup import search_titles
from fastrec.models import build
from tests.helpers.fakes import interactions

USERS = ["-dash", "with space", "007", "7", "ünï", "a,b"]
TITLES = [
    "Misérables, Les (1995)",
    "Misérables, Les (1998)",
    "Star <b>\x1b[31m\nWars (1977)",
    "Heat (1995)",
    "7",
    "Alien",
]
GENRES = ["Drama", "Drama|Musical", "Sci-Fi", "Action", "", "Sci-Fi|Horror"]
ITEMS = ["m1", "m2", "m3", "0010", "Heat (1995)", "x y"]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    fields = {
        "user_ids": np.array(USERS),
        "item_ids": np.array(ITEMS),
        "titles": np.array(TITLES),
        "catalog": Catalog(movies=movies_frame(ITEMS, TITLES, GENRES)),
    }
    rows = ([[0], [1], [1], [1, 2], [5], [0, 1, 2, 3, 4]], [[1], [], [], [], [], []], [[2], [0], [], [], [], [5]])
    parts = [interactions(list(part), 6, "films train", **fields) for part in rows]
    made = runs.create(tmp_path_factory.mktemp("runs") / "run", config={"model": "mf", "dim": 4}, split=Split(*parts))
    made.save_model(build("mf", n_users=6, n_items=6, dim=4, seed=3, init_std=1.0))
    return made.path


def printed(capsys: pytest.CaptureFixture[str], *args: object, code: int = 0) -> tuple[str, str]:
    assert main([str(a) for a in args]) == code
    found = capsys.readouterr()
    assert "Traceback" not in found.err
    return found.out, found.err


@pytest.mark.parametrize("user", USERS)
def test_a_users_list_shows_titles_years_genres_and_favourites(
    run: Path, user: str, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = printed(capsys, "recommend", run, "--user", user, "-k", 6)
    if user == "a,b":
        assert out == "user a,b has interacted with every item: nothing is left to recommend\n"
        return
    lines = out.splitlines()
    assert lines[0].split() == ["rank", "item", "title", "year", "genres", "score", "|", "favourites"]
    want = Recommender.load(run).recommend(user, 6)
    assert len(lines) == 1 + want.height, "a title with a newline is one line"
    assert [line.split()[0] for line in lines[1:]] == [str(r) for r in want["rank"]]
    assert "\x1b" not in out
    if user == "007":
        assert "Misérables, Les (1998)" in lines[1].rpartition("|")[2]
        assert any("1995" in line and "Drama" in line for line in lines[1:])


def test_json_has_one_object_an_item(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = json.loads(printed(capsys, "recommend", run, "--user", "007", "--json")[0])
    assert [list(row) for row in rows] == [["rank", "item_id", "title", "score"]] * 5
    rows = json.loads(printed(capsys, "recommend", run, "--user", "007", "--user", "7", "--json")[0])
    assert [row["user_id"] for row in rows] == ["007"] * 5 + ["7"] * 4
    assert len(json.loads(printed(capsys, "recommend", run, "--all", "-k", 1, "--json")[0])) == 5


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl"])
def test_files_have_a_row_for_each_user_and_rank(
    run: Path, suffix: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / f"lists.{suffix}"
    said, _ = printed(capsys, "recommend", run, "--all", "-k", 4, "--out", out)
    assert said.strip() == str(out)
    text = {"user_id": pl.String, "item_id": pl.String}
    read = {"parquet": pl.read_parquet, "csv": lambda p: pl.read_csv(p, schema_overrides=text), "jsonl": pl.read_ndjson}
    found = read[suffix](out)
    assert found.columns == ["user_id", "rank", "item_id", "title", "score"]
    assert found.group_by("user_id", maintain_order=True).len().rows() == [
        ("-dash", 3), ("with space", 4), ("007", 4), ("7", 4), ("ünï", 4)
    ]  # fmt: skip
    _, err = printed(capsys, "recommend", run, "--all", "--out", out, code=2)
    assert "exists and is not overwritten" in err


def test_users_of_a_file(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids, out = tmp_path / "users.txt", tmp_path / "lists.parquet"
    ids.write_bytes("\ufeff-dash\r\n\nwith space\n007\nünï\n".encode())
    printed(capsys, "recommend", run, "--users", ids, "-k", 1, "--out", out)
    assert pl.read_parquet(out)["user_id"].to_list() == ["-dash", "with space", "007", "ünï"]
    ids.write_text("nobody\n007\n08\n")
    _, err = printed(capsys, "recommend", run, "--users", ids, "--json", code=1)
    assert "user 'nobody' and 1 more: not among the 6 users" in err
    rows, err = printed(capsys, "recommend", run, "--users", ids, "-k", 1, "--skip-unknown", "--json")
    assert [row["user_id"] for row in json.loads(rows)] == ["007"]
    assert "left out: 2 unknown users, the first is 'nobody'" in err
    ids.write_bytes(b"\xff\xfe\x00")
    assert "not UTF-8 text" in printed(capsys, "recommend", run, "--users", ids, "--json", code=1)[1]
    assert "cannot be read" in printed(capsys, "recommend", run, "--users", tmp_path, "--json", code=1)[1]


@pytest.mark.parametrize(
    ("options", "items"),
    [
        (["--genre", "Drama"], ["m1", "m2"]),
        (["--genre", "Drama", "--genre", "Sci-Fi"], ["m1", "m2", "m3", "x y"]),
        (["--year", "1995:"], ["m1", "m2", "0010"]),
        (["--year", ":1980"], ["m3"]),
        (["--year", "1995"], ["m1", "0010"]),
        (["--year", "1990:1996", "--genre", "Drama"], ["m1"]),
    ],
)
def test_filters(run: Path, options: list[str], items: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    args = ("recommend", run, "--user", "a,b", *options, "--json")
    assert json.loads(printed(capsys, *args)[0]) == []
    assert sorted(r["item_id"] for r in json.loads(printed(capsys, *args, "--seen")[0])) == sorted(items)
    out, _ = printed(capsys, *args[:-1])
    assert out == "user a,b: no item that fits the filters is left to recommend\n"


def test_allow_and_deny_files(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    allow, deny = tmp_path / "allow", tmp_path / "deny"
    allow.write_text("0010\nx y\nm3\n")
    deny.write_text("x y\n")
    args = ["recommend", run, "--user", "007", "--allow", allow, "--deny", deny, "--json"]
    assert sorted(r["item_id"] for r in json.loads(printed(capsys, *args)[0])) == ["0010", "m3"]
    deny.write_text("10\nx y\n")
    assert "item '10': not among the 6 items" in printed(capsys, *args, code=1)[1]
    out, err = printed(capsys, *args, "--skip-unknown")
    assert sorted(r["item_id"] for r in json.loads(out)) == ["0010", "m3"]
    assert "--deny: left out 1 unknown items" in err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--user", "7", "--year", "1999:1990"], "write 1990:1999"),
        (["--user", "7", "--year", "new"], "give a year as 1999"),
        (["--user", "7", "--year", ":"], "give a year as 1999"),
        (["--user", "7", "--genre", "drama"], "no item has genres 'drama'; there are 'Drama'"),
        (["--all"], "write them with --out"),
        (["--all", "--out", "x.csv", "--json"], "leave one of them out"),
        (["--all", "--out", "x.txt"], "must end in .parquet"),
        (["--user", "7", "-k", "0"], "k=0"),
    ],
)
def test_usage_errors(run: Path, args: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert words in printed(capsys, "recommend", run, *args, code=2)[1]


def test_similar_takes_an_id_before_a_title(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, "similar", run, "--item", "Heat (1995)", "-k", 2)
    assert out.splitlines()[0] == "similar to 7 (Heat (1995))"
    assert err == ""
    assert len(out.splitlines()) == 4


def test_similar_finds_a_part_of_a_title_and_names_the_others(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out, err = printed(capsys, "similar", run, "--item", "  MISERABLES ")
    assert out.splitlines()[0] == "similar to Misérables, Les (1998) (m2)", "it has more interactions"
    assert err == "also fit: Misérables, Les (1995) (m1)\n"
    rows = json.loads(printed(capsys, "similar", run, "--item", "miserables", "--json")[0])
    assert [list(row) for row in rows] == [["rank", "item_id", "title", "score"]] * 5
    assert "m2" not in {row["item_id"] for row in rows}
    rows = json.loads(printed(capsys, "similar", run, "--item", "alien", "--genre", "Drama", "--json")[0])
    assert {row["item_id"] for row in rows} == {"m1", "m2"}


def test_similar_without_a_fit_suggests_titles(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    _, err = printed(capsys, "similar", run, "--item", "Miserabels", code=1)
    assert "no title contains it; close are 'Misérables, Les (1998)'" in err
    assert "no title contains it" in printed(capsys, "similar", run, "--item", "", code=1)[1]


def test_a_misspelt_start_of_a_long_title_is_found() -> None:
    titles = np.array(["Star Maps (1997)", "Star Wars: Episode V - The Empire (1980)", "Star Wars: Episode IV (1977)"])
    with pytest.raises(DataError, match=r"close are 'Star Wars: Episode IV \(1977\)', 'Star Maps"):
        search_titles(titles, "star wras", np.array([9, 3, 5]))


@pytest.mark.parametrize("command", [["doctor"], ["data", "list"], ["data", "info", "synthetic-small"]])
def test_every_read_only_command_prints_json(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    out, _ = printed(capsys, *command, "--json")
    found = json.loads(out)
    assert out.isascii()
    if command == ["doctor"]:
        assert found["findings"]["fastrec"]
        assert {"name", "found_at", "state"} == set(found["data"][0])
    elif command == ["data", "list"]:
        assert "ml-1m" in {row["name"] for row in found}
    else:
        assert found["titles"] is True
        assert found["n_interactions"] > found["n_users"] > 0
        assert isinstance(found["notes"], list)
