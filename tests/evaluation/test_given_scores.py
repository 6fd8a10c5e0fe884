"""evaluate_scores: scores from anywhere give what evaluate gives; what cannot be ranked is refused by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest

from fastrec import evaluate_scores
from fastrec.data.split import Split
from fastrec.errors import ConfigError, DataError
from fastrec.evaluation.score import score_split
from tests.helpers.fakes import Mlp, interactions

N_USERS, N_ITEMS = 12, 40
USER_IDS, ITEM_IDS = np.array([f"u{k}" for k in range(N_USERS)]), np.arange(100, 100 + N_ITEMS)


@pytest.fixture
def split(rng: np.random.Generator) -> Split:
    rows: list[list[list[int]]] = [[], [], []]
    for user in range(N_USERS):
        own = rng.permutation(N_ITEMS)[:9].tolist()
        rows[0].append(own[:6])
        rows[1].append(own[6:7])
        rows[2].append(own[7 : 7 + user % 3])
    parts = [interactions(part, N_ITEMS, "mine test", user_ids=USER_IDS, item_ids=ITEM_IDS) for part in rows]
    return Split(*parts)


def frame_of(scores: np.ndarray) -> pl.DataFrame:
    users, items = np.divmod(np.arange(scores.size), N_ITEMS)
    return pl.DataFrame({"user": USER_IDS[users], "item": ITEM_IDS[items], "score": scores.ravel()}).sample(
        fraction=1.0, shuffle=True, seed=1
    )


@pytest.mark.parametrize("form", ["array", "float64", "function", "frame", "pandas-like", "rank"])
def test_every_form_gives_what_a_model_with_these_scores_gives(
    split: Split, rng: np.random.Generator, form: str
) -> None:
    users, items = rng.integers(-3, 4, (N_USERS, 3)), rng.integers(-3, 4, (N_ITEMS, 3))  # with many ties
    scores = (users @ items.T).astype(np.float32)
    given: Any = {
        "array": lambda: scores,
        "float64": lambda: scores.astype(np.float64) * (1 + 1e-12),
        "function": lambda: lambda wanted: scores[wanted],
        "frame": lambda: frame_of(scores),
        "pandas-like": lambda: {name: frame_of(scores)[name].to_numpy() for name in ("user", "item", "score")},
        "rank": lambda: frame_of(-scores).rename({"score": "rank"}),
    }[form]()
    want = score_split(Mlp(users, items), split)
    assert evaluate_scores(given, split) == want
    assert list(evaluate_scores(given, split, protocol="full")) == ["full ranking"]
    assert list(evaluate_scores(given, split, protocol="candidates")) == [name for name in want if "cand" in name]


def test_scores_that_differ_in_float64_only_are_not_tied(split: Split) -> None:
    base = 1 + np.arange(N_ITEMS) * 1e-12
    scores = np.tile(base, (N_USERS, 1))
    got = evaluate_scores(scores, split, protocol="full")
    assert got == evaluate_scores(np.tile(np.arange(N_ITEMS, dtype=np.float32), (N_USERS, 1)), split, protocol="full")
    assert got["full ranking"]["HR@10"] > 0
    assert evaluate_scores(np.zeros((N_USERS, N_ITEMS)), split, protocol="full")["full ranking"]["HR@10"] == 0


def test_items_that_a_frame_leaves_out_come_last_and_tied(split: Split) -> None:
    test = pl.DataFrame({"user_id": USER_IDS[split.test.users], "item_id": ITEM_IDS[split.test.items]})
    perfect = test.with_columns(rank=pl.col("item_id").rank("ordinal").over("user_id"))
    dense = np.zeros((N_USERS, N_ITEMS))
    dense[split.test.users, split.test.items] = 9.0 - perfect["rank"].to_numpy()
    got = evaluate_scores(perfect, split)
    assert got == evaluate_scores(dense, split)
    assert got["full ranking"]["HR@10"] > 0.8
    seen = pl.DataFrame({"user": USER_IDS[split.train.users], "item": ITEM_IDS[split.train.items]})
    nothing = seen.with_columns(score=pl.lit(1))
    assert evaluate_scores(nothing, split, protocol="full", cutoffs=(10,))["full ranking"]["HR@10"] == 0


def test_what_cannot_be_ranked_is_refused_by_name(split: Split) -> None:
    whole = frame_of(np.random.default_rng(0).random((N_USERS, N_ITEMS)))
    nan = whole.with_columns(score=pl.when(pl.col("user") == "u4").then(float("nan")).otherwise(pl.col("score")))
    array = np.zeros((N_USERS, N_ITEMS))
    array[0, 2] = array[1, 2] = np.nan  # user 0 has no test item, and counts all the same
    cases: list[tuple[Any, type[Exception], str]] = [
        (
            whole.filter(~pl.col("user").is_in(["u1", "u2"])),
            DataError,
            r"user 'u1' of the test part has no row \(2 are",
        ),
        (pl.concat([whole, whole.head(2)]), DataError, r"more than once \(2 rows too many\)"),
        (nan, DataError, r"score of user 'u4', item 1\d\d is nan \(40 of 480"),
        (whole.with_columns(item=pl.col("item") + 1), DataError, "item 140 of row .* is not among the 40 items"),
        (whole.with_columns(user=pl.lit("x")), DataError, "user 'x' of row 0 is not among the 12 users"),
        (whole.drop("score"), ConfigError, "it needs a column score or rank"),
        (whole.drop("item"), ConfigError, "it needs a column item or item_id"),
        (whole.with_columns(score=pl.lit("high")), ConfigError, "it must hold numbers"),
        (array, DataError, r"scores\[0, 2\] = nan \(2 of 480 are not finite"),
        (lambda users: array[users], DataError, "not finite"),
        (array[:, 1:], ConfigError, r"scores are \[12, 39\], the split has \[12, 40\]"),
        (lambda _: array[:5], ConfigError, r"the function gave \[5, 40\] for 12 users"),
        (array.astype(np.float16), ConfigError, "float16"),
        ("scores.csv", ConfigError, "scores is a str"),
    ]
    for given, kind, words in cases:
        with pytest.raises(kind, match=words):
            evaluate_scores(given, split)
    with pytest.raises(ConfigError, match="protocol='all'"):
        evaluate_scores(array, split, protocol="all")
