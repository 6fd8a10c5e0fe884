"""The cases on a tiny log: they run, they refuse what is broken, and what they print validates."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import jsonschema
import numpy as np
import pytest
import torch

from fastrec.bench import engines, machine, report, rivals, roofline
from fastrec.bench import record as records
from fastrec.bench.__main__ import main
from fastrec.bench.cases import CASES, scale, select
from fastrec.bench.cases import sampler as sampler_case
from fastrec.bench.checks import known
from fastrec.bench.context import Context, find_data, make_context
from fastrec.bench.harness import Refused
from fastrec.bench.table import Printer
from fastrec.data.synthetic import generator as synthetic
from fastrec.errors import ConfigError, FastrecError
from fastrec.sampling import NegativeSampler

COPY_BANDWIDTH = machine.copy_bandwidth
ROOT = Path(__file__).resolve().parents[2]
FOUR = {"sampler", "feed", "step", "end_to_end"}


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> str:
    """A saved synthetic log of 30,000 interactions."""
    path = tmp_path_factory.mktemp("bench") / "small.safetensors"
    return str(synthetic.make("synthetic-small").save(path))


@pytest.fixture(scope="module")
def context(log) -> Context:
    made = make_context(data=log, threads=2, device="cpu", quick=True)
    made.dim, made.batch_size = 8, 1024
    return made


@pytest.fixture(autouse=True)
def no_bandwidth(monkeypatch) -> None:
    """The copy bandwidth takes a second and half a gigabyte: one test of its own measures it."""
    monkeypatch.setattr(machine, "copy_bandwidth", lambda threads, **_: 1e10 * threads)


def broken_sampler(monkeypatch, breakage) -> None:
    """Break the sampler itself; the bench must notice by its own means."""
    sound = NegativeSampler.sample

    def sample(self, users, **kwargs):
        return breakage(self, np.asarray(users), sound(self, users, **kwargs))

    monkeypatch.setattr(NegativeSampler, "sample", sample)


def emit_a_positive(sampler, users, out):
    row = len(users) // 2
    out[row, 1] = sampler.items[sampler.indptr[users[row]]]
    return out


BREAKAGES = {
    "is a positive of user": emit_a_positive,
    "shape": lambda _s, _u, out: out[:, :-1],
    "dtype": lambda _s, _u, out: out.astype(np.int64),
    "items are 0 to": lambda s, _u, out: np.where(out == out.max(), s.n_items, out),
    "different items among": lambda s, u, out: constant_legal(s, u, out),
}


def constant_legal(sampler, users, out):
    """The lowest legal item of each user: valid, and no sample at all. Few users make few different items."""
    for row, user in enumerate(users):
        mine = sampler.items[sampler.indptr[user] : sampler.indptr[user + 1]]
        out[row] = np.setdiff1d(np.arange(mine.size + 1), mine)[0]
    return out


@pytest.mark.parametrize("said", BREAKAGES)
def test_a_broken_sampler_gets_no_rate(said, log, tmp_path, monkeypatch, capsys) -> None:
    broken_sampler(monkeypatch, BREAKAGES[said])
    out = tmp_path / "r.json"
    argv = ["--quick", "--threads", "1", "--device", "cpu", "--data", log, "--case", "sampler", "--json", str(out)]
    assert main(argv) == 1
    printed = capsys.readouterr().out
    assert "REFUSED" in printed
    assert said in printed
    assert "negatives/s" not in printed
    record = json.loads(out.read_text())
    jsonschema.validate(record, records.schema())
    case = record["cases"]["sampler"]
    assert case["status"] == "refused"
    assert not {"rate", "rows", "low", "high"} & case.keys()


def test_a_positive_in_the_stream_is_refused_there_too(context, monkeypatch) -> None:
    bench = CASES["stream"].build(context)
    broken_sampler(monkeypatch, emit_a_positive)
    with pytest.raises(Refused, match="is a positive"):
        bench.contenders[0].check(bench.contenders[0].run(0))


def test_quick_gives_the_four_rates_a_numpy_rival_and_the_notebook_extrapolated(log, tmp_path, capsys) -> None:
    out = tmp_path / "r.json"
    assert main(["--quick", "--threads", "2", "--device", "cpu", "--data", log, "--json", str(out)]) == 0
    record = json.loads(out.read_text())
    jsonschema.validate(record, records.schema())
    assert record["cases"].keys() >= FOUR
    assert all(record["cases"][name]["rate"] > 0 for name in FOUR)
    assert {"machine", "cases"} <= record.keys()
    rows = {row["name"]: row for name in FOUR for row in record["cases"][name]["rows"]}
    assert rows["numpy-dense"]["role"] == "rival"
    assert rows["notebook"]["extrapolated"] == "from 2,000 positives"
    (trained,) = [row for row in record["cases"]["end_to_end"]["rows"] if row["name"] == "torch"]
    assert trained["details"]["data_wait_pct"] >= 0  # the row of that name under `step` has no data path
    assert rows["torch"]["details"]["bytes_per_sample"] > 0
    printed = capsys.readouterr().out
    assert "extrapolated: from 2,000 positives" in printed
    assert "The four rates" in printed


@pytest.mark.parametrize("name", ["load", "split", "stream", "checkpoint", "evaluation"])
def test_each_default_case_runs(name, context) -> None:
    result = CASES[name].run(context)
    assert result["status"] == "ok", result.get("reason")
    assert result["rate"] > 0


def test_what_is_timed_is_all_of_the_work(context) -> None:
    """LensKit's benchmark timed one draw where it said 8,192: each call here draws every row anew."""
    for contender in CASES["sampler"].build(context).contenders:
        if contender.unit != "negatives/s":
            continue
        first, second = (np.array(contender.run(k)) for k in (0, 1))
        assert contender.work == first.size, contender.name
        if contender.role == "rival":
            continue
        assert (first != second).any(1).mean() > 0.99, contender.name


def test_the_ceiling_is_timed_in_turn_with_what_it_bounds(context) -> None:
    result = CASES["step"].run(context)
    assert [(r["of"], r["to"]) for r in result["ratios"]] == [("torch-end-to-end", "torch")]
    whole, ceiling = (next(r for r in result["rows"] if r["name"] == n) for n in ("torch-end-to-end", "torch"))
    assert result["ratios"][0]["ratio"] == np.median([a / b for a, b in zip(whole["rates"], ceiling["rates"])])
    assert (ceiling["role"], result["rate"]) == ("ceiling", ceiling["rate"])
    assert "data_wait_pct" in whole["details"]
    assert "data_wait_pct" not in ceiling["details"]


def test_an_engine_that_skips_work_or_learns_nothing_is_refused(context) -> None:
    made = engines.contender(context, "torch")
    done = made.run(0)
    made.check(done)
    with pytest.raises(Refused, match="positives"):
        made.check(done._replace(n_positives=done.n_positives - 1))
    with pytest.raises(Refused, match="not fall"):
        made.check(done._replace(loss_sum=0.6932 * done.n_samples))
    with pytest.raises(Refused, match="not finite"):
        made.check(done._replace(loss_sum=float("nan")))


def test_the_ceiling_trains_one_batch_only(context) -> None:
    made = engines.contender(context, "torch", fixed=True)
    first = made.run(0)
    assert first.n_positives % context.batch_size == 0
    assert made.run(1).loss_sum < first.loss_sum  # the same batch again and again: it is learnt by heart


def test_the_gpu_case_gives_no_figure_from_a_cpu(context) -> None:
    result = CASES["gpu"].run(context)
    assert result["status"] == "refused"
    assert "the device is cpu" in result["reason"]


def test_rivals_draw_exactly_and_train(context) -> None:
    train = context.train
    draw = rivals.dense_negatives(rivals.dense_seen(train), train.n_items, 4, seed=0)
    users = train.users
    drawn = draw(users, np.empty((users.size, 4), np.int32))
    assert not known(train.indptr, train.items, users, drawn, train.n_items).any()
    assert np.unique(drawn).size == train.n_items
    there = rivals.device_negatives(rivals.dense_seen(train), 4, "cpu")(torch.from_numpy(users)).numpy()
    assert not known(train.indptr, train.items, users, there, train.n_items).any()
    assert np.unique(there).size == train.n_items
    path = rivals.Notebook(train, dim=8)
    owners, items, labels = next(path.batches(100))
    rows = items.reshape(100, 5).numpy()
    hit = known(train.indptr, train.items, owners.reshape(100, 5)[:, 0].numpy(), rows, train.n_items)
    assert hit[:, 0].all()
    assert not hit[:, 1:].any()
    assert labels.reshape(100, 5).tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]] * 100
    loop = rivals.Careful(train, dim=8, batch_size=512)
    losses = [loop.epoch() for _ in range(3)]
    assert losses[2] < losses[0] < 0.694


def test_known_agrees_with_sets(rng) -> None:
    rows = [np.sort(rng.choice(50, rng.integers(0, 20), replace=False)) for _ in range(30)]
    indptr = np.concatenate([[0], np.cumsum([row.size for row in rows])])
    items = np.concatenate(rows).astype(np.int32)
    users, candidates = rng.integers(0, 30, 200), rng.integers(0, 50, (200, 3))
    want = [[c in set(rows[u].tolist()) for c in line] for u, line in zip(users, candidates)]
    assert known(indptr, items, users, candidates, 50).tolist() == want


def test_names_are_known_or_refused(capsys) -> None:
    assert [case.name for case in select(["split", "load", "split"], quick=False)] == ["split", "load"]
    assert {case.name for case in select(None, quick=True)} == FOUR
    with pytest.raises(ConfigError, match="no such case"):
        select(["nothing"], quick=False)
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(CASES)
    assert main(["--case", "nothing"]) == 2
    assert main(["--data", "no-such-set", "--case", "split"]) == 2


def test_without_real_data_the_synthetic_set_is_said_aloud(monkeypatch) -> None:
    monkeypatch.setattr("fastrec.data.datasets.registry.find", lambda _name: None)
    monkeypatch.setattr(synthetic, "make", lambda name: name)
    _, source, said = find_data(None)
    assert source == "synthetic-1m"
    assert "NOT real data" in said


def test_a_saved_log_is_measured_without_polars(log) -> None:
    code = (
        "import sys; sys.modules['polars'] = None\n"
        "from fastrec.bench.__main__ import main\n"
        f"sys.exit(main(['--quick', '--device', 'cpu', '--threads', '1', '--data', {log!r}, '--case', 'sampler']))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_growth_exponents_are_slopes_of_cost() -> None:
    assert scale.exponent([(10, 8.0), (100, 8.0), (1000, 8.0)]) == pytest.approx(0.0, abs=1e-12)
    assert scale.exponent([(10, 8.0), (20, 4.0), (40, 2.0)]) == pytest.approx(1.0)


def test_bytes_per_sample_follow_the_formula() -> None:
    # d = 64, fp32, SGD, N = 4: an item row in and out, a fifth of a user row, and the ids
    assert roofline.bytes_per_sample(64, 4) == 2 * 64 * 4 * 1.2 + 4 * 1.2
    dense = roofline.dense_bytes_per_sample(64, 4, 10_000, 1000)
    assert dense == pytest.approx(3 * 64 * 4 * 1.2 + 4 * 1.2 + 10_000 * 64 * (2 * 12 + 8) / 5000)
    found = roofline.beside_bandwidth(1e6, 500.0, 1e9)
    assert found["bandwidth_pct"] == 50.0


def test_the_loop_rival_draws_no_positive(context) -> None:
    train = context.train
    users = train.users[::7][:300]
    drawn = sampler_case._loop(train, users, 4)(0)
    assert not known(train.indptr, train.items, users, drawn, train.n_items).any()


def test_the_machine_is_measured_and_described() -> None:
    assert 1e8 < COPY_BANDWIDTH(1, size_bytes=1 << 24, repeats=2) < 1e13
    assert machine.peak_bytes() > 50e6
    found = machine.describe(2, "cpu", machine.bandwidth(2))
    assert found["copy_bytes_per_s"] == {"1": 1e10, "2": 2e10}
    assert found["versions"]["numpy"] == np.__version__
    assert found["calibration"]["low"] <= found["calibration"]["rate"] <= found["calibration"]["high"]


def test_a_fresh_process_has_a_peak_of_its_own_and_tells_how_it_failed() -> None:
    ballast = np.ones(40 << 20)  # 320 MB here must not count there
    code = "import json; from fastrec.bench.machine import peak_bytes; print(json.dumps({'peak': peak_bytes()}))"
    assert machine.fresh_process(code)["peak"] < ballast.nbytes
    with pytest.raises(FastrecError, match="no module for this"):
        machine.fresh_process("raise SystemExit('no module for this')")


def test_the_sampler_case_prints_the_whole_table_and_the_report_takes_what_does_the_same_work(
    log, monkeypatch, capsys
) -> None:
    monkeypatch.setattr(sampler_case, "GOWALLA", (300, 500, 6000))
    monkeypatch.setattr(sampler_case, "WIDE", (500, 10**7, 20_000))
    monkeypatch.setattr(sampler_case, "FULL_BUT_ONE", (20, 70))
    monkeypatch.setattr("fastrec.data.datasets.registry.find", lambda _name: None)
    context = make_context(data=log, threads=2, device="cpu")
    monkeypatch.setattr(Context, "repeats", 1)
    monkeypatch.setattr(Context, "min_s", 0.0)
    result = CASES["sampler"].run(context)
    assert result["status"] == "ok", result.get("reason")
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [
        "fastrec", "fastrec-1-thread", "fastrec-shuffled", "numpy-dense", "numpy-searchsorted", "notebook-loop",
        "construction", "gowalla", "gowalla-searchsorted", "wide", "wide-shuffled", "one-legal-item",
        "first_call_empty_cache", "first_call_disk_cache",
    ]  # fmt: skip
    assert "binary search" in rows["wide-shuffled"]["details"]["membership"]
    empty, disk = (rows[f"first_call_{cache}_cache"]["details"] for cache in ("empty", "disk"))
    assert empty["of_it_sample_s"] > disk["of_it_sample_s"] > 0
    beside = {(r["of"], r["to"]) for r in result["ratios"]}
    assert beside >= {("fastrec", "numpy-dense"), ("fastrec-shuffled", "fastrec"), ("gowalla", "gowalla-searchsorted")}
    Printer().case(result)
    printed = capsys.readouterr().out
    assert "fastrec-shuffled is" in printed
    assert "whole_s" in printed
    shown, head, against = report._contenders(result)
    assert (head["name"], len(shown)) == ("fastrec", 6)
    assert {"gowalla", "wide"}.isdisjoint(row["name"] for row in shown)
    assert "notebook-loop" in against
