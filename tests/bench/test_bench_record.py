"""Records on disk, and the tables on the terminal."""

from __future__ import annotations

import json

import pytest

from fastrec.bench import record as records
from fastrec.bench.table import Printer, human, times_text
from fastrec.errors import DataError
from tests.helpers.bench_records import case, full_record, record, row


def test_records_go_to_disk_and_back(tmp_path) -> None:
    path = tmp_path / "new" / "a.json"
    records.write(full_record(), path)
    assert records.read(path) == full_record()
    assert [p.name for p in path.parent.iterdir()] == ["a.json"]
    with pytest.raises(DataError, match="no such file"):
        records.read(tmp_path / "b.json")
    (tmp_path / "c.json").write_text("{")
    with pytest.raises(DataError, match="not a record"):
        records.read(tmp_path / "c.json")
    (tmp_path / "d.json").write_text('{"format": 7}')
    with pytest.raises(DataError, match="another version"):
        records.read(tmp_path / "d.json")
    with pytest.raises(DataError, match="cannot hold"):
        records.write({"x": float("nan")}, tmp_path / "e.json")


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0 "),
        (0.5, "0.50 "),
        (7, "7.00 "),
        (12.34, "12.3 "),
        (999.6, "1.00 k"),
        (1234, "1.23 k"),
        (2.5e6, "2.50 M"),
        (3.1e11, "310 G"),
    ],
)
def test_figures_are_written_with_prefixes(value, text) -> None:
    assert human(value) == text


def test_ratios_are_written_plainly() -> None:
    assert [times_text(x) for x in (0.25, 3.917, 41.26, 1203.7)] == ["0.25x", "3.92x", "41.3x", "1,204x"]


@pytest.mark.parametrize(("percent", "explained"), [(99.9, False), (100.1, True), (320.0, True)])
def test_more_than_the_copy_bandwidth_is_explained_where_it_is_printed(percent, explained, capsys) -> None:
    Printer().case(case("step", row("torch", [1.0], details={"bandwidth_pct": percent})))
    printed = " ".join(capsys.readouterr().out.split())
    assert f"bandwidth_pct {percent:.1f} %" in printed
    assert ("above 100 %: many of the rows come from a cache" in printed) == explained


def test_roles_of_old_records_are_read_by_their_present_names(tmp_path) -> None:
    records.write(record(x=case("x", row("a", [2.0]), row("b", [1.0], role="rival"))), tmp_path / "old.json")
    assert [r["role"] for r in records.read(tmp_path / "old.json")["cases"]["x"]["rows"]] == ["fastrec", "baseline"]


def test_the_printed_tables_tell_refusals_extrapolations_and_the_four_rates(capsys) -> None:
    printer, made = Printer(), full_record()
    printer.header(made)
    for result in made["cases"].values():
        printer.case(result)
    printer.four_rates(made["cases"])
    out = capsys.readouterr().out
    assert "REFUSED: a positive was emitted" in out
    assert "extrapolated: from 2,000 positives" in out
    assert "fused is 150x" in out
    four = out.split("The four rates")[1]
    assert [line.split()[0] for line in four.splitlines()[1:5]] == ["sampler", "feed", "step", "end_to_end"]
    json.dumps(made)
