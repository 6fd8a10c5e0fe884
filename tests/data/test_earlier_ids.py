"""``load(DATA, ids=EARLIER)``: a data set that grows keeps the numbers of its users and items."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fastrec import runs
from fastrec.data import load
from fastrec.data.earlier import numbered_as
from fastrec.data.interactions import Interactions
from fastrec.data.split import leave_one_out
from fastrec.errors import ConfigError, DataError
from tests.helpers.cases import examples

OLD = "user,item,timestamp\n30,a,1\n10,b,2\n30,c,3\n20,c,4\n30,b,9\n"
NEW = "user,item,timestamp\n5,z,7\n30,b,5\n10,aa,6\n30,c,3\n40,c,8\n5,b,9\n"


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    paths = tmp_path / "old.csv", tmp_path / "new.csv"
    for path, text in zip(paths, (OLD, NEW)):
        path.write_text(text)
    return paths


def pairs(x: Interactions) -> set[tuple[Any, Any, int]]:
    assert x.timestamps is not None
    return set(zip(x.user_ids[x.users].tolist(), x.item_ids[x.items].tolist(), x.timestamps.tolist()))


def test_known_ids_keep_their_numbers_and_new_ones_follow(files: tuple[Path, Path]) -> None:
    old = load(files[0])
    new = load(files[1], ids=old)
    assert old.user_ids.tolist() == [10, 20, 30]
    assert new.user_ids.tolist() == [10, 20, 30, 5, 40]
    assert new.item_ids.tolist() == ["a", "b", "c", "aa", "z"]
    assert new.degrees.tolist() == [1, 0, 2, 2, 1]
    assert new.item_counts()[0] == 0
    assert pairs(new) == pairs(load(files[1]))
    assert "2 new users, 1 users without interactions here; 2 new items, 1 items without" in new.notes[-1]
    assert load(files[0], ids=old).fingerprint() == old.fingerprint()


def test_a_run_a_split_and_saved_files_give_the_same_numbers(files: tuple[Path, Path], tmp_path: Path) -> None:
    old = load(files[0])
    split = leave_one_out(old)
    run = runs.create(tmp_path / "run", config={"model": "mf"}, split=split)
    sources = [split, run, runs.open_run(tmp_path / "run"), tmp_path / "run", str(tmp_path / "run")]
    sources.append(old.save(tmp_path / "old.safetensors"))
    runs.save_split(tmp_path / "split.safetensors", split)
    sources.append(tmp_path / "split.safetensors")
    expected = load(files[1], ids=old).fingerprint()
    for source in sources:
        assert load(files[1], ids=source).fingerprint() == expected, source


def test_filters_come_first_and_leave_empty_rows(files: tuple[Path, Path]) -> None:
    files[1].write_text("user,item,timestamp\n5,c,7\n30,b,5\n10,aa,6\n30,c,3\n5,b,9\n")
    core = load(files[1], ids=load(files[0]), k_core=2)
    assert core.user_ids.tolist() == [10, 20, 30, 5]
    assert core.item_ids.tolist() == ["a", "b", "c"]
    assert core.degrees.tolist() == [0, 0, 2, 2]
    assert pairs(core) == pairs(load(files[1], k_core=2))


def test_titles_are_those_of_the_data_then_the_earlier_ones_then_the_id() -> None:
    base = Interactions.from_arrays([1, 1, 2], [7, 8, 9])
    old = replace(base, titles=np.array(["seven", "eight", "nine"]))
    new = replace(Interactions.from_arrays([1, 3], [8, 6]), titles=np.array(["six", "EIGHT"]))
    assert new.item_ids.tolist() == [6, 8]
    assert numbered_as(new, old).titles.tolist() == ["seven", "EIGHT", "nine", "six"]
    assert numbered_as(replace(new, titles=None), old).titles.tolist() == ["seven", "eight", "nine", "6"]
    assert numbered_as(new, base).titles.tolist() == ["7", "EIGHT", "9", "six"]
    assert numbered_as(replace(new, titles=None), base).titles is None


ROWS = st.lists(st.tuples(st.integers(-5, 9), st.integers(-5, 9)), min_size=1, max_size=30)


@examples(200)
@given(ROWS, ROWS, st.booleans())
def test_numbers_are_kept_for_any_two_logs(one: list, two: list, text: bool) -> None:
    def build(rows: list) -> Interactions:
        columns = [[str(x) if text else x for x in column] for column in zip(*rows)]
        return Interactions.from_arrays(*columns, timestamps=np.arange(len(rows)))

    old, alone = build(one), build(two)
    new = numbered_as(alone, old)
    for what in ("user_ids", "item_ids"):
        earlier, ids, own = (getattr(x, what).tolist() for x in (old, new, alone))
        assert ids[: len(earlier)] == earlier
        assert ids[len(earlier) :] == [i for i in own if i not in earlier]  # ascending, as in the log by itself
    assert pairs(new) == pairs(alone)
    assert numbered_as(numbered_as(alone, old), new).fingerprint() == new.fingerprint()


def test_what_gives_no_numbers_is_refused(files: tuple[Path, Path], tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"user ids are integers, those of .* text"):
        load(files[1], ids=Interactions.from_arrays(["u"], ["i"]))
    with pytest.raises(ConfigError, match=r"ids = a builtins\.int: must be Interactions"):
        load(files[1], ids=3)
    with pytest.raises(DataError, match="no such file"):
        load(files[1], ids=tmp_path / "nothing.safetensors")
    with pytest.raises(DataError, match="not a complete safetensors file"):
        load(files[1], ids=files[0])
    with pytest.raises(DataError, match="no such file"):
        load(files[1], ids=tmp_path)
    twice = Interactions([0, 1, 1], [0], [4, 4], [1])
    with pytest.raises(DataError, match="user id 4 twice"):
        load(files[1], ids=twice)
    from safetensors.numpy import save_file

    save_file({"x": np.zeros(3)}, tmp_path / "weights.safetensors")
    with pytest.raises(DataError, match="holds no user and item ids"):
        load(files[1], ids=tmp_path / "weights.safetensors")
