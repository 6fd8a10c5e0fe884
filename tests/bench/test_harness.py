"""The harness refuses before it times, interleaves, pairs ratios, and flags noise."""

from __future__ import annotations

import numpy as np
import pytest

from fastrec.bench import harness
from fastrec.bench.checks import check_batch, check_loss, check_negatives
from fastrec.bench.harness import Bench, Entry, Refused, measure, ratios, run_bench, spread
from fastrec.bench.table import Printer
from fastrec.errors import ConfigError
from fastrec.sampling import NegativeSampler


def passes(_output: object) -> None:
    return None


def entry(name: str, **kwargs) -> Entry:
    return Entry(
        name, kwargs.pop("run", lambda _k: None), kwargs.pop("work", 10.0), kwargs.pop("check", passes), **kwargs
    )


def test_entries_are_called_in_turn_and_each_with_the_calibration(monkeypatch) -> None:
    log: list[str] = []
    monkeypatch.setattr(harness, "calibration_rate", lambda: log.append("c") or 1.0)
    monkeypatch.setattr(harness, "_timed", lambda c, *_: log.append(c.name) or 1.0)
    measure([entry("a"), entry("b")], repeats=3)
    assert log == ["c", "a", "b", *["c", "a", "c", "b"] * 3]


def test_a_case_may_take_more_rounds_but_never_fewer(monkeypatch) -> None:
    monkeypatch.setattr(harness, "_timed", lambda *_: 1.0)
    monkeypatch.setattr(harness, "calibration_rate", lambda: 1.0)
    for rounds, expected in ((None, 5), (3, 5), (11, 11)):
        bench = Bench([entry("a"), entry("b")], pairs=[("b", "a")], rounds=rounds)
        result = run_bench("x", "x", bench, repeats=5, min_s=0.1)
        assert [len(row["rates"]) for row in result["rows"]] == [expected] * 2
        assert [(r["of"], r["to"]) for r in result["ratios"]] == [("b", "a")]


def test_rates_are_work_over_time_and_the_median_counts(monkeypatch) -> None:
    seconds = iter([1.0, 0.5, 0.25, 1.0])  # warm call, then three rounds
    monkeypatch.setattr(harness, "_timed", lambda *_: next(seconds))
    monkeypatch.setattr(harness, "calibration_rate", lambda: harness.REFERENCE_RATE / 2)
    (row,) = measure([entry("a", work=6.0)], repeats=3, min_s=0.1)
    assert row["rates"] == [12.0, 24.0, 6.0]
    assert (row["rate"], row["low"], row["high"]) == (12.0, 6.0, 24.0)
    assert row["calibrated"] == 24.0  # the machine ran at half the reference speed
    assert row["noisy"]


def test_fast_work_is_called_many_times_between_two_readings(monkeypatch) -> None:
    calls: list[int] = []
    monkeypatch.setattr(harness, "_timed", lambda _c, _first, n: calls.append(n) or 0.01 * n)
    (row,) = measure([entry("a", work=1.0)], repeats=2, min_s=0.2)
    assert calls == [1, 20, 20]
    assert row["rate"] == pytest.approx(100.0)


def test_every_call_has_its_own_number() -> None:
    seen: list[int] = []
    measure([entry("a", run=seen.append)], repeats=2, min_s=1e-9)
    assert seen == list(range(len(seen)))


def test_a_failed_check_refuses_everything_before_any_clock(monkeypatch) -> None:
    def refuse(_output: object) -> None:
        raise Refused("wrong shape")

    monkeypatch.setattr(harness, "_timed", lambda c, *_: pytest.fail(f"{c.name} was timed"))
    result = run_bench("x", "", Bench([entry("a"), entry("b", check=refuse)]), repeats=2, min_s=0.01)
    assert result["status"] == "refused"
    assert "b: wrong shape" in result["reason"]
    assert not {"rate", "rows", "low", "high"} & result.keys()


def test_an_assertion_in_a_check_refuses_too_but_another_error_is_raised() -> None:
    def wrong(_output: object) -> None:
        raise AssertionError("3 rows")

    def broken(_output: object) -> None:
        raise KeyError("a bug in the case itself")

    assert run_bench("x", "", Bench([entry("a", check=wrong)]), repeats=1, min_s=0.01)["status"] == "refused"
    with pytest.raises(KeyError):
        run_bench("x", "", Bench([entry("a", check=broken)]), repeats=1, min_s=0.01)


def test_the_case_is_closed_even_when_refused() -> None:
    closed: list[bool] = []

    def wrong(_output: object) -> None:
        raise AssertionError

    run_bench("x", "", Bench([entry("a", check=wrong)], close=lambda: closed.append(True)), repeats=1, min_s=0.01)
    assert closed == [True]


def test_ratios_are_of_the_fastest_own_row_round_by_round_within_one_unit() -> None:
    own = {"name": "a", "unit": "x/s", "role": "fastrec", "rates": [5.0, 5.0, 8.0], "rate": 5.0}
    best = {"name": "b", "unit": "x/s", "role": "fastrec", "rates": [10.0, 20.0, 40.0], "rate": 20.0}
    baseline = {"name": "c", "unit": "x/s", "role": "baseline", "rates": [100.0], "rate": 100.0}
    other = {"name": "d", "unit": "y/s", "role": "baseline", "rates": [1.0, 1.0, 1.0], "rate": 1.0}
    assert ratios([own, best, baseline, other]) == [
        {"of": "b", "to": "a", "ratio": 4.0, "low": 2.0, "high": 5.0},
        {"of": "b", "to": "c", "ratio": 0.2, "low": 0.1, "high": 0.4},
    ]


def test_ratios_keep_to_given_pairs_and_need_a_row_of_fastrecs_own() -> None:
    rows = [{"name": n, "unit": "x/s", "role": "cost", "rates": [r], "rate": r} for n, r in (("a", 8.0), ("b", 2.0))]
    assert ratios(rows) == []
    assert ratios(rows, [("b", "a")]) == [{"of": "b", "to": "a", "ratio": 0.25, "low": 0.25, "high": 0.25}]


def extrapolated(name: str, start_up_s: float, monkeypatch) -> dict:
    """A case with an entry whose part takes ``start_up_s`` and then a second per half of its work."""
    seconds = {passes: 2.0 + start_up_s, len: 1.0 + start_up_s}
    monkeypatch.setattr(harness, "calibration_rate", lambda: 1.0)
    monkeypatch.setattr(harness, "_timed", lambda e, *_: seconds.get(e.run, 0.001))
    slow = entry(name, role="baseline", run=passes, half=len, extrapolated="from 2,000 positives")
    return run_bench("x", "", Bench([entry("own"), slow]), repeats=3, min_s=0.1)


def test_an_extrapolation_that_start_up_dominates_has_no_ratio(monkeypatch) -> None:
    """4,567x the notebook was printed from 2,000 positives; it is 282x to 360x from 20,000."""
    result = extrapolated("notebook", 6.0, monkeypatch)
    slow = result["rows"][1]
    assert slow["details"]["start_up_pct"] == pytest.approx(75.0)
    assert result["ratios"] == []
    (note,) = result["notes"]
    assert note.startswith("no ratio to notebook: start-up takes 75 % of its time")
    printed: list[str] = []
    monkeypatch.setattr(Printer, "line", lambda _self, text="": printed.append(text))
    Printer(colour=False).case(result)
    assert not any("own is" in line for line in printed)


def test_an_extrapolation_whose_cost_is_per_positive_keeps_its_ratio(monkeypatch) -> None:
    result = extrapolated("notebook", 0.1, monkeypatch)
    assert result["rows"][1]["details"]["start_up_pct"] == pytest.approx(100 * 0.1 / 2.1)
    assert [(r["of"], r["to"]) for r in result["ratios"]] == [("own", "notebook")]
    assert result["notes"] == []


def test_an_extrapolated_entry_must_say_how_to_tell_its_start_up() -> None:
    with pytest.raises(ConfigError, match="give half"):
        measure([entry("a", extrapolated="from 2,000 positives")])


def test_spread_and_bad_arguments() -> None:
    assert spread([5.0]) == 0.0
    assert spread([1.0, 2.0, 3.0]) == 1.0
    assert spread([1.0, 2.0, 3.0, 4.0, 5.0]) == pytest.approx(2 / 3)
    with pytest.raises(ConfigError, match="repeats=0"):
        measure([entry("a")], repeats=0)
    with pytest.raises(ConfigError, match="names must differ"):
        measure([entry("a"), entry("a")])


@pytest.fixture
def toy():
    """80 users of 400 items, 10 positives each, with a right answer for every positive."""
    rng = np.random.default_rng(3)
    rows = [np.sort(rng.choice(400, 10, replace=False)) for _ in range(80)]
    items = np.concatenate(rows).astype(np.int32)
    indptr = np.arange(0, 801, 10, dtype=np.int64)
    users = np.repeat(np.arange(80, dtype=np.int32), 10)
    negatives = NegativeSampler(indptr, items, n_items=400, seed=1).sample(users, epoch=0, start=0)
    facts = {"indptr": indptr, "items": items, "users": users, "n_items": 400, "n_negatives": 4}
    return negatives, facts


def test_right_negatives_pass(toy) -> None:
    negatives, facts = toy
    assert check_negatives(negatives, **facts) == {"false_negative_rate": 0.0}


def broken_positive(x, facts):
    x[17, 2] = facts["items"][facts["indptr"][facts["users"][17]]]
    return x


@pytest.mark.parametrize(
    ("breakage", "said"),
    [
        (broken_positive, "row 17 slot 2"),
        (lambda x, _f: x[:, :3], "shape"),
        (lambda x, _f: x[:-1], "shape"),
        (lambda x, _f: x.astype(np.int64), "dtype"),
        (lambda x, _f: np.where(x == x.max(), 400, x).astype(np.int32), "items are 0 to 399"),
        (lambda x, _f: np.where(x == x.min(), -1, x).astype(np.int32), "run from -1"),
    ],
)
def test_each_fault_of_negatives_is_refused(toy, breakage, said) -> None:
    negatives, facts = toy
    with pytest.raises(Refused, match=said):
        check_negatives(breakage(negatives.copy(), facts), **facts)


def test_constant_negatives_are_refused() -> None:
    indptr, items = np.array([0, 1], np.int64), np.array([0], np.int32)
    users = np.zeros(5000, np.int32)
    with pytest.raises(Refused, match="only 1 different"):
        check_negatives(
            np.full((5000, 4), 7, np.int32), indptr=indptr, items=items, users=users, n_items=2000, n_negatives=4
        )


def test_an_approximate_baseline_is_told_its_share_of_false_negatives(toy) -> None:
    negatives, facts = toy
    assert check_negatives(broken_positive(negatives.copy(), facts), **facts, exact=False) == {
        "false_negative_rate": pytest.approx(1 / negatives.size)
    }


def test_a_batch_needs_its_positive_in_column_0(toy) -> None:
    negatives, facts = toy
    users, positives = facts["users"], facts["items"]
    batch = np.concatenate([positives[:, None], negatives], axis=1)
    kwargs = {"indptr": facts["indptr"], "positives": positives, "n_items": 400, "n_negatives": 4}
    assert check_batch(users, batch, **kwargs)["false_negative_rate"] == 0.0
    with pytest.raises(Refused, match="column 0"):
        check_batch(users, batch[:, ::-1].copy(), **kwargs)
    with pytest.raises(Refused, match="int32"):
        check_batch(users.astype(np.int64), batch, **kwargs)


def test_a_loss_must_be_finite_and_fall() -> None:
    assert check_loss(0.7, 0.6) == {"loss_before": 0.7, "loss_after": 0.6}
    with pytest.raises(Refused, match="not fall"):
        check_loss(0.6, 0.6)
    with pytest.raises(Refused, match="not finite"):
        check_loss(0.6, float("nan"))
