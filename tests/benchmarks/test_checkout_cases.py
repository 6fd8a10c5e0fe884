"""The cases and baselines of a checkout on a small log."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from benchmarks import process, report
from benchmarks.baselines import draws, external, pytorch
from benchmarks.cases import gpu, scale
from benchmarks.cases import sampler as sampler_case
from fastrec.bench import machine
from fastrec.bench.cases import available
from fastrec.bench.checks import known
from fastrec.bench.context import Context, make_context
from fastrec.bench.harness import Refused
from fastrec.bench.table import Printer
from fastrec.data.synthetic import generator as synthetic
from fastrec.errors import ConfigError, FastrecError
from tests.helpers.bench_cases import broken_sampler, emit_a_positive, small_context


@pytest.fixture(scope="module")
def log(tmp_path_factory) -> str:
    """A saved synthetic log of 30,000 interactions."""
    path = tmp_path_factory.mktemp("bench") / "small.safetensors"
    return str(synthetic.make("synthetic-small").save(path))


@pytest.fixture(scope="module")
def context(log) -> Context:
    return small_context(log)


def test_a_positive_in_the_stream_is_refused_there_too(context, monkeypatch) -> None:
    bench = available()["stream"].build(context)
    broken_sampler(monkeypatch, emit_a_positive)
    with pytest.raises(Refused, match="is a positive"):
        bench.entries[0].check(bench.entries[0].run(0))


@pytest.mark.parametrize("name", ["stream", "checkpoint", "evaluation", "recommend_all"])
def test_default_cases_run(name, context) -> None:
    result = available()[name].run(context)
    assert result["status"] == "ok", result.get("reason")
    assert result["rate"] > 0


def test_every_case_can_be_imported() -> None:
    from fastrec.bench.cases import _load

    for case in available().values():
        assert callable(_load(case.function)), case.name


def test_the_gpu_case_gives_no_figure_from_a_cpu(context) -> None:
    result = available()["gpu"].run(context)
    assert result["status"] == "refused"
    assert "the device is cpu" in result["reason"]


@pytest.mark.parametrize("name", ["gmf-b8192", "fused-gmf-b8192"])
def test_the_engines_of_the_gpu_case_can_be_built_and_train(name, context) -> None:
    """On the CPU, so that a wrong option is seen without a device."""
    made = gpu.device_entry(context, name)
    assert made.name == name
    made.check(made.run(0))
    assert gpu.WHAT[name] in made.what


def test_baselines_draw_exactly_and_train(context) -> None:
    train = context.train
    draw = draws.dense_negatives(draws.dense_seen(train), train.n_items, 4, seed=0)
    users = train.users
    drawn = draw(users, np.empty((users.size, 4), np.int32))
    assert not known(train.indptr, train.items, users, drawn, train.n_items).any()
    assert np.unique(drawn).size == train.n_items
    there = draws.device_negatives(draws.dense_seen(train), 4, "cpu")(torch.from_numpy(users)).numpy()
    assert not known(train.indptr, train.items, users, there, train.n_items).any()
    assert np.unique(there).size == train.n_items
    path = pytorch.Notebook(train, dim=8)
    owners, items, labels = next(path.batches(100))
    rows = items.reshape(100, 5).numpy()
    hit = known(train.indptr, train.items, owners.reshape(100, 5)[:, 0].numpy(), rows, train.n_items)
    assert hit[:, 0].all()
    assert not hit[:, 1:].any()
    assert labels.reshape(100, 5).tolist() == [[1.0, 0.0, 0.0, 0.0, 0.0]] * 100
    loop = pytorch.Careful(train, dim=8, batch_size=512)
    losses = [loop.epoch() for _ in range(3)]
    assert losses[2] < losses[0] < 0.694


@pytest.mark.parametrize("fast", [1, 3])
def test_the_notebook_runs_with_whichever_number_of_threads_is_faster(fast, context, monkeypatch) -> None:
    before, seen, clock = torch.get_num_threads(), [], [0.0]
    sound = pytorch.Notebook.train

    def train(self, n_positives: int) -> float:
        clock[0] += n_positives * (1.0 if self.threads == fast else 5.0)
        seen.append(self.threads)
        return sound(self, min(n_positives, 64))

    monkeypatch.setattr(pytorch.Notebook, "train", train)
    monkeypatch.setattr(pytorch.time, "perf_counter", lambda: clock[0])
    made = pytorch.fastest_notebook(context.train, threads=3, dim=8)
    assert (made.threads, set(seen)) == (fast, {1, 3})
    assert torch.get_num_threads() == before


def test_the_notebook_loop_draws_no_positive(context) -> None:
    train = context.train
    users = train.users[::7][:300]
    drawn = draws.notebook_loop(train, users, 4)(0)
    assert not known(train.indptr, train.items, users, drawn, train.n_items).any()


def test_external_baselines_that_are_not_installed_are_reported(context, monkeypatch, tmp_path) -> None:
    monkeypatch.delenv("FASTREC_RIVALS", raising=False)
    monkeypatch.setenv("FASTREC_BASELINES", str(tmp_path))
    found = external.Baselines(context.train, threads=(1,), dim=8, n_negatives=4)
    found.close()
    assert found.entries == []
    assert "make bench-baselines" in found.notes[0]
    monkeypatch.setenv("FASTREC_RIVALS", str(tmp_path))
    with pytest.raises(ConfigError, match="FASTREC_BASELINES"):
        external.interpreter()


def test_growth_exponents_are_slopes_of_cost() -> None:
    assert scale.exponent([(10, 8.0), (100, 8.0), (1000, 8.0)]) == pytest.approx(0.0, abs=1e-12)
    assert scale.exponent([(10, 8.0), (20, 4.0), (40, 2.0)]) == pytest.approx(1.0)


def test_a_fresh_process_has_a_peak_of_its_own_and_tells_how_it_failed() -> None:
    ballast = np.ones(80 << 20)  # 670 MB here must not count there
    assert process.fresh_process("import_torch")["peak_bytes"] < ballast.nbytes
    with pytest.raises(FastrecError, match=r"No module named benchmarks\.workers\.nothing"):
        process.fresh_process("nothing")


@pytest.fixture
def first_calls(monkeypatch) -> list[dict]:
    """The worker runs once, with the kernels that this test session has compiled; then its answers are made up."""
    answer = process.fresh_process("first_call")
    assert answer["compiled"] + answer["from_disk"] > 0
    answers = [{**answer, "compiled": 3, "from_disk": 0}, {**answer, "compiled": 0, "from_disk": 3}]
    told: list[dict] = []

    def run(worker: str, *, env: dict[str, str]) -> dict:
        told.append({"worker": worker, **env})
        return answers[min(len(told), 2) - 1]

    monkeypatch.setattr(sampler_case, "fresh_process", run)
    return told


def test_the_sampler_case_prints_the_whole_table_and_the_report_takes_what_does_the_same_work(
    log, monkeypatch, capsys, first_calls
) -> None:
    monkeypatch.setattr(machine, "copy_bandwidth", lambda threads, **_: 1e10 * threads)
    monkeypatch.setattr(sampler_case, "GOWALLA", (300, 500, 6000))
    monkeypatch.setattr(sampler_case, "WIDE", (500, 10**7, 20_000))
    monkeypatch.setattr(sampler_case, "FULL_BUT_ONE", (20, 70))
    monkeypatch.setattr("fastrec.data.datasets.registry.find", lambda _name: None)
    context = make_context(data=log, threads=2, device="cpu")
    monkeypatch.setattr(Context, "repeats", 1)
    monkeypatch.setattr(Context, "min_s", 0.0)
    result = available()["sampler"].run(context)
    assert result["status"] == "ok", result.get("reason")
    rows = {row["name"]: row for row in result["rows"]}
    assert list(rows) == [
        "fastrec", "fastrec-1-thread", "fastrec-shuffled", "construction", "numpy-dense", "numpy-searchsorted",
        "notebook-loop", "gowalla", "gowalla-searchsorted", "wide", "wide-shuffled", "one-legal-item",
        "first_call_empty_cache", "first_call_disk_cache",
    ]  # fmt: skip
    assert "binary search" in rows["wide-shuffled"]["details"]["membership"]
    assert len({told["NUMBA_CACHE_DIR"] for told in first_calls}) == 1
    assert rows["first_call_disk_cache"]["details"]["of_it_sample_s"] > 0
    compared = {(r["of"], r["to"]) for r in result["ratios"]}
    assert compared >= {
        ("fastrec", "numpy-dense"),
        ("fastrec-shuffled", "fastrec"),
        ("gowalla", "gowalla-searchsorted"),
    }
    Printer().case(result)
    printed = capsys.readouterr().out
    assert "fastrec-shuffled is" in printed
    assert "whole_s" in printed
    shown, head, against = report._entries(result)
    assert head["name"] == "fastrec"
    assert {"gowalla", "wide"}.isdisjoint(row["name"] for row in shown)
    assert "numpy-dense" in against


@pytest.mark.usefixtures("first_calls")
def test_a_first_call_that_took_kernels_from_elsewhere_is_refused() -> None:
    bench = sampler_case.Bench()
    sampler_case._first_calls(bench)
    empty, disk = bench.entries
    empty.check(empty.run(0))
    read = dict(disk.run(0))
    disk.check(read)
    with pytest.raises(Refused, match="came from the disk"):
        empty.check(read)
    with pytest.raises(Refused, match="the first negatives were"):
        disk.check({**read, "drawn": [[0]]})
    bench.close()
