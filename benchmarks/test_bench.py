"""The bench's cases under pytest-benchmark: the same definitions, the same checks before the clock, saved and compared.

    make bench                      # runs this, saves the run, compares it with the last one
    make bench ARGS="-k sampler"

``FASTREC_BENCH_DATA`` names the data set (default: MovieLens-1M where it is found, else the synthetic set).
The baselines and the four rates together are ``python -m fastrec.bench``.
"""

from __future__ import annotations

import os

import pytest

from fastrec.bench.cases import available
from fastrec.bench.context import Context, make_context
from fastrec.bench.harness import Bench

CASES = available()
TIMED = [name for name, case in CASES.items() if case.when != "asked" and name != "memory"]


@pytest.fixture(scope="session")
def context() -> Context:
    return make_context(data=os.environ.get("FASTREC_BENCH_DATA"), quick=True)


@pytest.mark.parametrize("name", TIMED)
def test_case(name: str, context: Context, benchmark) -> None:
    """The case's headline entry: called once and checked, then timed."""
    bench = CASES[name].build(context)
    assert isinstance(bench, Bench)
    try:
        head = bench.entries[0]
        calls = iter(range(1 << 62))
        output = head.run(next(calls))
        facts = head.check(output) or {}

        def work() -> None:
            head.run(next(calls))
            if head.sync:
                head.sync()

        benchmark.extra_info.update(unit=head.unit, work=head.work, entry=head.name, **facts)
        benchmark.group = name
        benchmark(work)
        if benchmark.stats:
            benchmark.extra_info["rate"] = head.work / benchmark.stats.stats.median
    finally:
        if bench.close:
            bench.close()
