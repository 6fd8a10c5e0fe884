"""The cases of the package on a small log: they run, they refuse what is broken, and their records validate."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import jsonschema
import numpy as np
import pytest

from benchmarks.cases import train as baselines_of_training
from fastrec.bench import cases, checkout, engines, machine, traffic
from fastrec.bench.__main__ import main
from fastrec.bench.cases import available, select
from fastrec.bench.checks import known
from fastrec.bench.context import Context, find_data
from fastrec.bench.harness import Refused
from fastrec.data.synthetic import generator as synthetic
from fastrec.errors import ConfigError
from tests.helpers.bench_cases import broken_sampler, emit_a_positive, small_context
from tests.helpers.bench_records import schema

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
    return small_context(log)


@pytest.fixture(autouse=True)
def no_bandwidth(monkeypatch) -> None:
    """The copy bandwidth takes a second and half a gigabyte: one test of its own measures it."""
    monkeypatch.setattr(machine, "copy_bandwidth", lambda threads, **_: 1e10 * threads)


@pytest.fixture
def installed(monkeypatch, tmp_path) -> None:
    """The package as a wheel installs it: no checkout around it."""
    monkeypatch.setattr(checkout, "ROOT", tmp_path)


def constant_legal(sampler, users, out):
    """The lowest legal item of each user: valid, and no sample at all. Few users make few different items."""
    for row, user in enumerate(users):
        mine = sampler.items[sampler.indptr[user] : sampler.indptr[user + 1]]
        out[row] = np.setdiff1d(np.arange(mine.size + 1), mine)[0]
    return out


BREAKAGES = {
    "is a positive of user": emit_a_positive,
    "shape": lambda _s, _u, out: out[:, :-1],
    "dtype": lambda _s, _u, out: out.astype(np.int64),
    "items are 0 to": lambda s, _u, out: np.where(out == out.max(), s.n_items, out),
    "different items among": constant_legal,
}


@pytest.mark.parametrize("reason", BREAKAGES)
def test_a_broken_sampler_gets_no_rate(reason, log, tmp_path, monkeypatch, capsys) -> None:
    broken_sampler(monkeypatch, BREAKAGES[reason])
    out = tmp_path / "r.json"
    argv = ["--quick", "--threads", "1", "--device", "cpu", "--data", log, "--case", "sampler", "--json", str(out)]
    assert main(argv) == 1
    printed = capsys.readouterr().out
    assert "REFUSED" in printed
    assert reason in printed
    assert "negatives/s" not in printed
    record = json.loads(out.read_text())
    jsonschema.validate(record, schema())
    case = record["cases"]["sampler"]
    assert case["status"] == "refused"
    assert not {"rate", "rows", "low", "high"} & case.keys()


def test_quick_gives_the_four_rates_a_numpy_baseline_and_the_notebook(log, tmp_path, monkeypatch, capsys) -> None:
    monkeypatch.setattr(baselines_of_training, "NOTEBOOK_POSITIVES", 2_000)
    out = tmp_path / "r.json"
    assert main(["--quick", "--threads", "2", "--device", "cpu", "--data", log, "--json", str(out)]) == 0
    record = json.loads(out.read_text())
    jsonschema.validate(record, schema())
    assert record["cases"].keys() == FOUR
    assert all(record["cases"][name]["rate"] > 0 for name in FOUR)
    rows = {row["name"]: row for name in FOUR for row in record["cases"][name]["rows"]}
    assert rows["numpy-dense"]["role"] == "baseline"
    assert rows["notebook"]["extrapolated"] == "from 2,000 positives"
    assert all(rows[name]["details"]["start_up_pct"] >= 0 for name in ("notebook", "notebook-loop"))
    (trained,) = [row for row in record["cases"]["end_to_end"]["rows"] if row["name"] == "torch"]
    assert trained["details"]["data_wait_pct"] >= 0  # the row of that name under `step` has no data path
    assert rows["torch"]["details"]["bytes_per_sample"] > 0
    printed = capsys.readouterr().out
    assert "extrapolated: from 2,000 positives" in printed
    assert "The four rates" in printed


@pytest.mark.parametrize("name", ["load", "split"])
def test_the_cases_of_a_log_run(name, context) -> None:
    result = available()[name].run(context)
    assert result["status"] == "ok", result.get("reason")
    assert result["rate"] > 0


def test_what_is_timed_is_all_of_the_work(context) -> None:
    """LensKit's benchmark timed one draw where it said 8,192: each call here draws every row again."""
    for entry in available()["sampler"].build(context).entries:
        if entry.unit != "negatives/s":
            continue
        first, second = (np.array(entry.run(k)) for k in (0, 1))
        assert entry.work == first.size, entry.name
        if entry.role == "baseline":
            continue
        assert (first != second).any(1).mean() > 0.99, entry.name


def test_the_ceiling_is_timed_in_turn_with_what_it_bounds(context) -> None:
    result = available()["step"].run(context)
    assert [(r["of"], r["to"]) for r in result["ratios"]] == [("torch-end-to-end", "torch")]
    whole, ceiling = (next(r for r in result["rows"] if r["name"] == n) for n in ("torch-end-to-end", "torch"))
    assert result["ratios"][0]["ratio"] == np.median([a / b for a, b in zip(whole["rates"], ceiling["rates"])])
    assert (ceiling["role"], result["rate"]) == ("ceiling", ceiling["rate"])
    assert "data_wait_pct" in whole["details"]
    assert "data_wait_pct" not in ceiling["details"]


def test_an_engine_that_skips_work_or_learns_nothing_is_refused(context) -> None:
    made = engines.entry(context, "torch")
    done = made.run(0)
    made.check(done)
    with pytest.raises(Refused, match="positives"):
        made.check(done._replace(n_positives=done.n_positives - 1))
    with pytest.raises(Refused, match="not fall"):
        made.check(done._replace(loss_sum=0.6932 * done.n_samples))
    with pytest.raises(Refused, match="not finite"):
        made.check(done._replace(loss_sum=float("nan")))


def test_the_ceiling_trains_one_batch_only(context) -> None:
    made = engines.entry(context, "torch", fixed=True)
    first = made.run(0)
    assert first.n_positives % context.batch_size == 0
    assert made.run(1).loss_sum < first.loss_sum  # the same batch again and again: the model memorises it


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
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == list(available())
    assert main(["--case", "nothing"]) == 2
    assert main(["--data", "no-such-set", "--case", "split"]) == 2


def test_what_an_installed_package_lacks_is_what_the_checkout_adds() -> None:
    more = checkout.find()
    assert tuple(case.name for case in more.CASES) == cases.CHECKOUT_ONLY
    assert tuple(more.EXTENSIONS) == cases.EXTENDED
    assert list(available()) == [*(case.name for case in cases.OWN), *cases.CHECKOUT_ONLY]
    assert cases.missing() == ""
    for name in cases.CHECKOUT_COMMANDS:
        assert callable(checkout.command(name))


@pytest.mark.usefixtures("installed")
def test_an_installed_package_says_what_it_lacks_and_where_it_is(context, capsys) -> None:
    assert main(["--list"]) == 0
    *listed, last = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in listed] == [case.name for case in cases.OWN]
    assert all(name in last for name in (*cases.CHECKOUT_ONLY, *cases.CHECKOUT_COMMANDS, "benchmarks/"))
    for argv in (["--case", "gpu"], ["compare", "a.json", "b.json"], ["report", "--record", "a.json"]):
        assert main(argv) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert argv[-1 if argv[0] == "--case" else 0] in line
        assert "benchmarks/ of the source repository" in line
    bench = available()["sampler"].build(context)
    assert {entry.role for entry in bench.entries} == {"fastrec", "cost"}
    assert any("no baselines" in note for note in bench.notes)
    assert {of for of, _ in bench.pairs} | {to for _, to in bench.pairs} <= {entry.name for entry in bench.entries}


def test_a_copy_of_the_package_alone_lists_its_cases(tmp_path) -> None:
    """As a wheel: nothing but the package, with a stranger's package of the same name as our folder next to it."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["fastrec"]
    shutil.copytree(ROOT / "fastrec", tmp_path / "fastrec", ignore=shutil.ignore_patterns("__pycache__"))
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks" / "__init__.py").write_text("raise SystemExit('a stranger was imported')\n")
    command = [sys.executable, "-m", "fastrec.bench", "--list"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("not in the installed package: the cases stream, fused")


def test_another_package_named_benchmarks_is_refused(monkeypatch, tmp_path) -> None:
    """Found in a checkout, where someone imported a package of the same name before."""
    stranger = type(sys)("benchmarks")
    stranger.__file__ = str(tmp_path / "benchmarks" / "__init__.py")
    monkeypatch.setitem(sys.modules, "benchmarks", stranger)
    with pytest.raises(ConfigError, match="was imported from"):
        checkout.find()


def test_without_real_data_the_synthetic_set_is_reported(monkeypatch) -> None:
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


def test_bytes_per_sample_follow_the_formula() -> None:
    # d = 64, fp32, SGD, N = 4: an item row in and out, a fifth of a user row, and the ids
    assert traffic.bytes_per_sample(64, 4) == 2 * 64 * 4 * 1.2 + 4 * 1.2
    dense = traffic.dense_bytes_per_sample(64, 4, 10_000, 1000)
    assert dense == pytest.approx(3 * 64 * 4 * 1.2 + 4 * 1.2 + 10_000 * 64 * (2 * 12 + 8) / 5000)
    found = traffic.bandwidth_details(1e6, 500.0, 1e9)
    assert found["bandwidth_pct"] == 50.0


def test_the_machine_is_measured_and_described() -> None:
    assert 1e8 < COPY_BANDWIDTH(1, size_bytes=1 << 24, repeats=2) < 1e13
    assert machine.peak_bytes() > 50e6
    found = machine.describe(2, "cpu", machine.bandwidth(2))
    assert found["copy_bytes_per_s"] == {"1": 1e10, "2": 2e10}
    assert found["versions"]["numpy"] == np.__version__
    assert found["calibration"]["low"] <= found["calibration"]["rate"] <= found["calibration"]["high"]
