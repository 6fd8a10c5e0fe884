"""The order of the rows of a file decides neither what it holds nor whether it is refused."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec.data import load, load_split
from fastrec.errors import DataError
from tests.helpers.cases import examples

Row = tuple[str, str]

IDS = st.sampled_from(
    ["7", "07", "007", "+7", "-7", "-0", "0", "00", " 7", "7 ", "7.0", "12", "1e1", "x", "u7", "９", "1_0", str(2**63)]
)
PLAIN_IDS = st.sampled_from(["0", "1", "7", "12", "-3", str(2**63 - 1), str(-(2**63))])
TEXT_IDS = st.sampled_from(["a", "b", "u7", "007", "08"])
ROWS = st.one_of(*(st.lists(st.tuples(ids, ids), min_size=1, max_size=4) for ids in (IDS, PLAIN_IDS, TEXT_IDS)))


def _delimited(
    name: str, header: str, separator: str, tail: str = "", quote: str = ""
) -> Callable[[Path, list[Row]], Path]:
    def write(folder: Path, rows: list[Row]) -> Path:
        lines = (separator.join(f"{quote}{v}{quote}" for v in row) + tail for row in rows)
        (folder / name).write_text(header + "".join(line + "\n" for line in lines))
        return folder / name

    return write


def _list(name: str) -> Callable[[Path, list[Row]], Path]:
    def write(folder: Path, rows: list[Row]) -> Path:
        lines = [f"{user} {item} {item} {user}" if k % 2 else f"{user} {item}" for k, (user, item) in enumerate(rows)]
        (folder / name).write_text("".join(line + "\n" for line in lines))
        return folder / name

    return write


WRITERS = {
    "csv": _delimited("log.csv", "user,item\n", ","),
    "csv with ratings": _delimited("log.csv", "user,item,rating\n", ",", ",5"),
    "quoted csv": _delimited("log.csv", "user,item\n", ",", quote='"'),
    "tsv": _delimited("log.tsv", "user\titem\ttime\n", "\t", "\t5"),
    "dat": _delimited("ratings.dat", "", "::", "::5::100"),
    "dat of half stars": _delimited("ratings.dat", "", "::", "::4.5::100"),
    "u.data": _delimited("u.data", "", "\t", "\t5\t100"),
    "pairs by tabs": _delimited("pairs", "", "\t"),
    "ratings by tabs": _delimited("ratings.txt", "", "\t", "\t5"),
    "NCF": _delimited("x.train.rating", "", "\t", "\t5\t100"),
    "lists": _list("train.txt"),
    "lists by content": _list("lists"),
}


def outcome(path: Path) -> frozenset[tuple[object, object]] | None:
    """The pairs of a file by the ids of the source, None where it is refused."""
    try:
        log = load(path)
    except DataError as error:
        said = str(error)
    else:
        users, items = log.user_ids[log.users].tolist(), log.item_ids[log.items].tolist()
        return frozenset(zip(users, items))
    assert str(path) in said
    assert "\n" not in said
    return None


def outcomes(
    write: Callable[[Path, list[Row]], Path], rows: Iterable[Row]
) -> set[frozenset[tuple[object, object]] | None]:
    with tempfile.TemporaryDirectory() as folder:
        return {outcome(write(Path(folder), list(order))) for order in itertools.permutations(rows)}


@pytest.mark.parametrize("reader", WRITERS)
@examples(40)
@given(rows=ROWS)
def test_shuffled_rows_give_the_same_pairs_or_the_same_refusal(reader: str, rows: list[Row]) -> None:
    if "lists" in reader:  # the form of a line depends on its row, not on its place
        lengths = dict(zip(sorted(rows), itertools.count()))

        def write(folder: Path, order: list[Row]) -> Path:
            name = "train.txt" if reader == "lists" else "lists"
            text = "".join(f"{u} {i}" + f" {i}" * (lengths[u, i] % 3) + "\n" for u, i in order)
            (folder / name).write_text(text)
            return folder / name
    else:
        write = WRITERS[reader]
    assert len(outcomes(write, rows)) == 1


@pytest.mark.parametrize("reader", WRITERS)
@examples(20)
@given(rows=st.lists(st.tuples(PLAIN_IDS, PLAIN_IDS), min_size=1, max_size=3, unique_by=lambda row: row[0]))
def test_plain_integers_are_read_as_integers(reader: str, rows: list[Row]) -> None:
    expected = {(int(u), int(i)) for u, i in rows}
    if "lists" in reader:
        expected |= {(int(u), int(u)) for k, (u, _) in enumerate(rows) if k % 2}
    with tempfile.TemporaryDirectory() as folder:
        assert outcome(WRITERS[reader](Path(folder), rows)) == expected


@pytest.mark.parametrize("name", ["log.csv", "quoted.csv", "log.tsv"])
def test_spellings_of_one_number_are_several_ids_of_a_table(tmp_path: Path, name: str) -> None:
    separator, quote = ("\t" if name == "log.tsv" else ","), ('"' if name == "quoted.csv" else "")
    rows = [("1", "7"), ("007", "8"), ("7", "9"), ("+7", "9"), ("-0", "3"), ("0", "3")]
    for order in (rows, rows[::-1], rows[2:] + rows[:2]):
        lines = [separator.join(f"{quote}{v}{quote}" for v in row) for row in [("user", "item"), *order]]
        (tmp_path / name).write_text("\n".join(lines) + "\n")
        log = load(tmp_path / name)
        assert log.user_ids.tolist() == sorted(u for u, _ in rows)
        assert log.item_ids.tolist() == [3, 7, 8, 9]
        assert any("user ids are text: 3 of 6 are not plain integers" in note for note in log.notes)


@pytest.mark.parametrize("bad", ["007", "+7", "-0", " 7", "00"])
@pytest.mark.parametrize("at", [0, 4000, 7999])
@pytest.mark.parametrize("name", ["ratings.dat", "u.data"])
def test_an_odd_spelling_in_a_file_without_a_header_is_refused_with_its_line(
    tmp_path: Path, name: str, at: int, bad: str
) -> None:
    separator = "::" if name == "ratings.dat" else "\t"
    for column in (0, 1):
        rows = [[str(k % 90 + 1), str(k + 1), "5", "100"] for k in range(8000)]
        rows[at][column] = bad
        (tmp_path / name).write_text("".join(separator.join(row) + "\n" for row in rows))
        with pytest.raises(DataError, match=rf"line {at + 1}: (user|item) '{bad.replace('+', '.')}' is not an integer"):
            load(tmp_path / name)


def test_a_decimal_id_is_refused_wherever_it_stands(tmp_path: Path) -> None:
    for rows in ("1.0,2\n7,3\n", "7,3\n1.0,2\n"):
        (tmp_path / "log.csv").write_text("user,item\n" + rows)
        with pytest.raises(DataError, match=r"data row \d: user id '1.0' is a decimal number"):
            load(tmp_path / "log.csv")


def test_times_of_mixed_spelling_do_not_depend_on_the_first(tmp_path: Path) -> None:
    for rows in (["1,1,5", "1,2,6.5", "1,3,+7"], ["1,2,6.5", "1,3,+7", "1,1,5"], ["1,3,+7", "1,1,5", "1,2,6.5"]):
        (tmp_path / "log.csv").write_text("user,item,time\n" + "\n".join(rows) + "\n")
        log = load(tmp_path / "log.csv")
        assert log.timestamps is not None
        assert log.timestamps.tolist() == [5, 6, 7]


@pytest.mark.parametrize("line", ["(007,3)\t0\t7", "(0,3)\t007\t8", "(0,3)\t+7\t8", "( 0,3)\t7", "(0,3)\t1_0"])
def test_candidates_in_another_spelling_are_refused(tmp_path: Path, line: str) -> None:
    (tmp_path / "toy.train.rating").write_text("0\t1\t5\t10\n7\t2\t3\t12\n")
    (tmp_path / "toy.test.rating").write_text("0\t3\t5\t20\n")
    (tmp_path / "toy.test.negative").write_text(line + "\n")
    with pytest.raises(DataError, match=r"toy\.test\.negative, line 1: .* plainly spelled"):
        load_split(tmp_path)


def test_candidates_of_parts_with_text_ids_are_refused(tmp_path: Path) -> None:
    (tmp_path / "toy.train.rating").write_text("a\t1\t5\t10\n")
    (tmp_path / "toy.test.rating").write_text("a\t3\t5\t20\n")
    (tmp_path / "toy.test.negative").write_text("(0,3)\t7\n")
    with pytest.raises(DataError, match="candidates are integers, but the ids of the parts are text"):
        load_split(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "1 7 5\n1 8 4\n2 7 3\n2 9 5\n",
        "1 7 5 100\n1 8 4 101\n",
        "1  7  5\n2  8  4\n",
        "1 7 5 100 0\n1 8 4 101 0\n",
        "7 1 2\n",
    ],
)
def test_blank_separated_ratings_are_not_read_as_lists(tmp_path: Path, text: str) -> None:
    (tmp_path / "ratings.txt").write_text(text)
    with pytest.raises(DataError, match=r"ratings\.txt, line 1: every line has \d fields, .* may be ratings"):
        load(tmp_path / "ratings.txt")


def test_blank_separated_ratings_called_train_and_test_are_refused(tmp_path: Path) -> None:
    (tmp_path / "train.txt").write_text("1 7 5\n1 8 4\n2 7 3\n")
    (tmp_path / "test.txt").write_text("1 9 10\n")
    for read in (load, load_split):
        with pytest.raises(DataError, match=r"train\.txt, line 1: .* user '1' occurs on several lines"):
            read(tmp_path)
    with pytest.raises(DataError, match=r"train\.txt, line 1"):
        load(tmp_path / "train.txt")
    (tmp_path / "train.txt").write_text("1 7 5\n2 8 4\n")  # lists of one length, each user once
    assert load_split(tmp_path).train.n_interactions == 4


def test_pairs_by_blanks_and_ragged_lists_are_read(tmp_path: Path) -> None:
    (tmp_path / "pairs.txt").write_text("1 7\n1 8\n2 7\n")
    assert load(tmp_path / "pairs.txt").n_interactions == 3
    (tmp_path / "lists.txt").write_text("\n1 7 8\n2 7\n3\n")
    assert load(tmp_path / "lists.txt").n_interactions == 3


def test_a_list_of_text_after_a_user_without_items_is_refused(tmp_path: Path) -> None:
    for rows in ("5\n6 abc\n", "6 abc\n5\n", "1 2 3\nabc\n", "1 2\n3\t4\n", "3\t4\n1 2\n"):
        (tmp_path / "odd").write_text(rows)
        with pytest.raises(DataError):
            load(tmp_path / "odd")


@pytest.mark.parametrize("suffix", ["csv", "tsv", "inter"])
def test_train_and_test_tables_match_columns_by_name(tmp_path: Path, suffix: str) -> None:
    separator = "," if suffix == "csv" else "\t"
    parts = {
        "train": ["user,item,rating,time", "1,10,5,100", "1,11,4,101"],
        "test": ["note,time,item,rating,user", "x,200,12,3,1", "y,201,B7,3,2"],
    }
    for part, lines in parts.items():
        (tmp_path / f"{part}.{suffix}").write_text("".join(line.replace(",", separator) + "\n" for line in lines))
    split = load_split(tmp_path)
    assert split.train.item_ids.tolist() == ["10", "11", "12", "B7"]  # one text id makes the ids of all parts text
    assert split.test.user_ids[split.test.users].tolist() == [1, 2]
    assert split.test.timestamps is not None
    assert split.test.timestamps.tolist() == [200, 201]
    whole = load(tmp_path, min_rating=4)
    assert whole.n_interactions == 2
    assert load(tmp_path).n_interactions == 4


def test_a_column_that_only_train_has_does_not_stop_the_split(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("user,item,rating,time\n1,10,5,100\n1,11,4,101\n")
    (tmp_path / "test.csv").write_text("item,user\n12,1\n")
    split = load_split(tmp_path)
    assert split.test.n_interactions == 1
    assert split.test.timestamps is None
    whole = load(tmp_path)
    assert whole.timestamps is None
    assert {f"{name} is not in every part of the split, so it is not used" for name in ("rating", "timestamp")} <= set(
        whole.notes
    )
    assert whole.catalog is not None
    assert whole.catalog.ratings is not None
    assert whole.catalog.ratings.collect().height == 3
