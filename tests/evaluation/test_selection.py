"""What weights are selected by: spelling, refusals, and a validation that evaluation's own functions agree with."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from fastrec.data.split import Split
from fastrec.errors import ConfigError
from fastrec.evaluation import metrics, selection
from fastrec.evaluation.candidates import candidates_for
from fastrec.evaluation.selection import Selection, Validator, resolve_selection, sample_users
from tests.helpers.fakes import Mlp, VectorModel, interactions, random_parts
from tests.helpers.oracle import philox


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("full:NDCG@10", "full:NDCG@10"),
        ("FULL:ndcg@10", "full:NDCG@10"),
        (" Candidates:hr@5 ", "candidates:HR@5"),
        ("full:recall@20", "full:Recall@20"),
        ("candidates:Mrr@1000000", "candidates:MRR@1000000"),
    ],
)
def test_a_selection_has_one_spelling(text: str, canonical: str) -> None:
    assert str(Selection.parse(text)) == canonical
    assert Selection.parse(canonical) == Selection.parse(text)


LISTED = r"protocols: full, candidates; metrics: HR, NDCG, MRR, Recall"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("NDCG@10", rf"must be PROTOCOL:METRIC@K, such as full:NDCG@10; {LISTED}"),
        ("full:NDCG", "must be PROTOCOL:METRIC@K"),
        ("", "must be PROTOCOL:METRIC@K"),
        ("test:NDCG@10", f"unknown protocol 'test'; {LISTED}"),
        ("ful:NDCG@10", f"unknown protocol 'ful'; {LISTED}; did you mean full"),
        ("full:NDGC@10", f"unknown metric 'NDGC'; {LISTED}; did you mean NDCG"),
        ("full:@10", f"unknown metric ''; {LISTED}"),
        *((f"full:NDCG@{k}", "must be an integer in 1 to 1,000,000") for k in ("0", "-1", "1.5", "", "x", "²")),
        ("full:NDCG@1000001", "must be an integer in 1 to 1,000,000"),
        ("full:NDCG@10@10", "must be an integer"),
    ],
)
def test_what_is_no_selection_is_refused_with_the_list(text: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        Selection.parse(text)


def test_a_new_metric_can_be_selected_by_without_another_change(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    assert metrics.metric_names() == ["HR", "NDCG", "MRR", "Recall"]
    for table in ("_REGISTERED", "_ORDER"):
        monkeypatch.setattr(metrics, table, dict(getattr(metrics, table)))

    @metrics.metric("Precision")
    def precision(lists: metrics.Lists, k: int) -> np.ndarray:
        return lists.sums((lists.ranks <= k).astype(np.float64)) / k

    split = Split(*random_parts(rng, 30, 60))
    model = VectorModel(rng.normal(size=(30, 4)), rng.normal(size=(60, 4)))
    validator = Validator.of(split, Selection.parse("full:precision@3"))
    assert validator is not None
    assert set(validator(model)) == {"full:Precision@3", "full:HR@3", "full:NDCG@3"}
    with pytest.raises(ConfigError, match="is registered by"):
        metrics.metric("ndcg")(lambda lists, k: lists.best())  # noqa: ARG005


def test_full_ranking_of_validation_by_a_loop(rng: np.random.Generator) -> None:
    """Recall@3 and NDCG@3 over users of train; items of train hidden, items of test ordinary, unlearned ones misses."""
    split = Split(*random_parts(rng, 40, 50, (12, 4, 3)))
    model = VectorModel(rng.normal(size=(40, 4)), rng.normal(size=(50, 4)))
    scores = model.score_all(torch.arange(40)).detach().numpy().astype(np.float64)
    learned, found = split.train.item_counts() > 0, []
    for user in range(40):
        known, positives = split.train.row(user), split.validation.row(user)
        if not known.size or not positives.size:
            continue
        order = [i for i in np.argsort(-scores[user]) if i not in known]
        hits = [order[r] in positives and learned[order[r]] for r in range(3)]
        found.append(sum(hits) / positives.size)
    validator = Validator.of(split, Selection.parse("full:Recall@3"))
    assert validator is not None
    assert validator.value(model) == pytest.approx(np.mean(found))
    mlp = Mlp(model.p.detach(), model.q.detach())
    assert validator.value(mlp) == pytest.approx(np.mean(found))
    assert validator.describe() | {"n_users": len(found), "of_users": len(found)} == validator.describe()


def test_candidates_of_validation_are_the_frozen_ones_of_users_in_train(rng: np.random.Generator) -> None:
    train = interactions([[0, 1], [2, 3], []], 300)
    split = Split(train, interactions([[3], [], [4, 5, 6]], 300), interactions([[], [], []], 300))
    validator = Validator.of(split, Selection.parse("candidates:NDCG@10"))
    assert validator is not None
    assert validator.frozen is not None
    assert validator.part.users.tolist() == validator.frozen.users.tolist() == [0]
    assert np.array_equal(validator.frozen.items, candidates_for(split, "validation").items[:1])
    model = VectorModel(rng.normal(size=(3, 4)), rng.normal(size=(300, 4)))
    assert validator(model)["candidates:NDCG@10"] == validator.frozen.evaluate(model, (10,))["NDCG@10"]
    cold = replace(split, validation=interactions([[], [], [4]], 300))
    assert Validator.of(cold, Selection.parse("candidates:NDCG@10")) is None


@pytest.mark.parametrize(("rows", "why"), [([[], []], "no validation part"), ([[], [4]], "of a user in train")])
def test_selection_without_validation_is_refused_where_it_is_asked_for(rows: list[list[int]], why: str) -> None:
    split = Split(interactions([[0], []], 9), interactions(rows, 9), interactions([[], []], 9))
    assert resolve_selection(None, split) is None
    with pytest.raises(ConfigError, match=rf"select = full:HR@5: there is .*{why}.*set validation"):
        resolve_selection("full:hr@5", split)


def test_the_default_is_resolved_where_there_is_validation(rng: np.random.Generator) -> None:
    split = Split(*random_parts(rng, 9, 40))
    assert resolve_selection(None, split) == selection.DEFAULT
    assert resolve_selection("CANDIDATES:ndcg@10", split) == selection.LEGACY


def test_a_sample_of_users_is_by_address_and_nests() -> None:
    users = np.arange(3, 900, 2)
    few, many = sample_users(users, 50, 7), sample_users(users, 200, 7)
    assert few.size == 50
    assert set(few) <= set(many) <= set(users)
    assert not np.array_equal(few, sample_users(users, 50, 8))
    keys = {int(u): (w := philox((0, int(u), 2, 0), (7, 5)))[1] << 32 | w[0] for u in users}
    assert sorted(sorted(keys, key=lambda u: keys[u])[:50]) == few.tolist()
    assert sample_users(users, users.size, 7) is users


def test_a_large_catalogue_is_validated_on_a_recorded_sample(
    monkeypatch: pytest.MonkeyPatch, rng: np.random.Generator
) -> None:
    monkeypatch.setattr(selection, "FEWEST_USERS", 5)
    split = Split(*random_parts(rng, 60, 100))
    model = VectorModel(rng.normal(size=(60, 4)), rng.normal(size=(100, 4)))
    part = Validator.of(split, Selection.parse("full:NDCG@10"), scores=1200)
    assert part is not None
    about = part.describe()
    assert about["n_users"] == 12 < about["of_users"]
    assert about["n_positives"] == part.part.n_interactions
    assert part.notes == [f"validation by full:NDCG@10 ranks a fixed sample of 12 of {about['of_users']} users"]
    whole = Validator.of(split, Selection.parse("full:NDCG@10"))
    assert whole is not None
    assert whole.notes == []
    assert part.metrics(model).n_users == 12
    floor = Validator.of(split, Selection.parse("full:NDCG@10"), scores=100)
    assert floor is not None
    assert floor.describe()["n_users"] == 5
