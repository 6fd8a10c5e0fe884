"""The real data sets, read in place: the notebook's numbers and every format that a publisher uses."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from fastrec.data import Interactions, leave_one_out, load, load_split

Folder = Callable[[str], Path]
pytestmark = pytest.mark.real_data


@pytest.fixture(scope="module")
def ml1m(real_data: Folder) -> Interactions:
    return load(real_data("ml-1m"))


def test_ml1m_has_the_notebooks_counts(ml1m: Interactions) -> None:
    assert (ml1m.n_interactions, ml1m.n_users, ml1m.n_items) == (1_000_209, 6_040, 3_706)
    assert ml1m.catalog.movies.height == 3_883
    assert ml1m.notes == ()


def test_ml1m_leave_one_out_has_the_notebooks_counts(ml1m: Interactions) -> None:
    split = leave_one_out(ml1m)
    assert split.test.n_interactions == 6_040
    assert split.train.n_interactions + split.validation.n_interactions == 994_169
    assert (split.train.n_interactions, split.validation.n_interactions) == (892_037, 102_132)
    assert np.array_equal(split.validation.degrees, -(-(ml1m.degrees - 1) // 10))


def test_ncf_files_keep_their_split_and_candidates(real_data: Folder) -> None:
    split = load_split(real_data("ncf-ml-1m"))
    assert (split.train.n_interactions, split.validation.n_interactions, split.test.n_interactions) == (
        994_169,
        0,
        6_040,
    )
    assert (split.n_users, split.n_items) == (6_040, 3_706)
    assert split.candidates.shape == (6_040, 99)
    assert split.comparable
    assert int((split.candidates < 0).any(axis=1).sum()) == 156
    assert "156 candidate rows" in " ".join(split.notes)
