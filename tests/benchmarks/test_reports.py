"""The schema of records, comparisons and reports: verdicts follow the intervals, the README follows the record."""

from __future__ import annotations

import copy
import struct
import zlib
from pathlib import Path

import jsonschema
import pytest

from benchmarks import charts, report
from benchmarks import compare as comparing
from fastrec.bench import record as records
from fastrec.bench.__main__ import main
from fastrec.bench.table import Printer
from fastrec.errors import ConfigError
from tests.helpers.bench_records import case, full_record, record, row, schema

README = Path(__file__).resolve().parents[2] / "README.md"


def test_the_schema_is_a_schema_and_takes_a_record() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(full_record(), schema())


@pytest.mark.parametrize(
    "damage",
    [
        lambda r: r.pop("machine"),
        lambda r: r.pop("cases"),
        lambda r: r["machine"].pop("calibration"),
        lambda r: r["cases"]["step"]["rows"][0].update(rate=-1.0),
        lambda r: r["cases"]["step"]["rows"][0].pop("calibration"),
        lambda r: r["cases"]["split"].update(rate=5.0),  # a refused case prints no rate
        lambda r: r["cases"]["split"].update(rows=[]),
        lambda r: r["cases"]["split"].pop("reason"),
        lambda r: r["data"].update(fingerprint="none"),
        lambda r: r.update(format=2),
    ],
)
def test_the_schema_refuses_a_damaged_record(damage) -> None:
    broken = full_record()
    damage(broken)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(broken, schema())


@pytest.mark.parametrize(
    ("before", "after", "want"),
    [
        ([10.0, 11.0, 12.0], [20.0, 21.0, 22.0], "faster"),
        ([20.0, 21.0, 22.0], [10.0, 11.0, 12.0], "slower"),
        ([10.0, 11.0, 12.0], [12.0, 13.0, 14.0], "same"),  # the intervals touch
        ([10.0, 11.0, 15.0], [14.0, 16.0, 17.0], "same"),
        ([100.0, 100.1, 100.2], [101.0, 101.1, 101.2], "same"),  # disjoint, but within the tolerance
    ],
)
def test_a_verdict_needs_disjoint_intervals_and_more_than_the_tolerance(before, after, want) -> None:
    a, b = record(x=case("x", row("fastrec", before))), record(x=case("x", row("fastrec", after)))
    (found,), left = comparing.compare(a, b)
    assert (found.verdict, left) == (want, [])
    assert comparing.exit_code([found], a, b) == (want == "slower")


def test_a_slower_machine_is_not_slower_code() -> None:
    a = record(x=case("x", row("fastrec", [10.0, 10.1, 10.2])))
    b = record(x=case("x", row("fastrec", [5.0, 5.05, 5.1], speed=0.5)))
    (found,), _ = comparing.compare(a, b)
    assert found.verdict == "same"
    assert found.ratio == pytest.approx(1.0)


def test_only_fastrec_and_lost_cases_fail_a_comparison() -> None:
    a = record(x=case("x", row("fastrec", [10.0]), row("numpy", [5.0], role="baseline")))
    b = record(x=case("x", row("fastrec", [10.0]), row("numpy", [1.0], role="baseline")))
    verdicts, _ = comparing.compare(a, b)
    assert [v.verdict for v in verdicts] == ["same", "slower"]
    assert comparing.exit_code(verdicts, a, b) == 0
    a, b = full_record(), full_record()
    b["cases"]["step"] = {**b["cases"]["split"], "name": "step"}
    verdicts, left = comparing.compare(a, b)
    assert comparing.exit_code(verdicts, a, b) == 1
    assert any(line.startswith("step: refused") for line in left)


def test_what_cannot_be_compared_is_said() -> None:
    a, b = full_record(), full_record()
    b["data"]["fingerprint"] = "cd" * 32
    with pytest.raises(ConfigError, match="different data"):
        comparing.compare(a, b)
    b = full_record() | {"quick": True}
    with pytest.raises(ConfigError, match="--quick"):
        comparing.compare(a, b)
    b = copy.deepcopy(a)
    b["cases"]["step"]["rows"][0]["threads"] = 1
    del b["cases"]["feed"]
    _, left = comparing.compare(a, b)
    assert any("2 threads against" in line for line in left)
    assert any(line.startswith("feed / feed: only in the first") for line in left)
    with pytest.raises(ConfigError, match="no row in common"):
        comparing.compare(record(x=case("x", row("a", [1.0]))), record(y=case("y", row("a", [1.0]))))


def test_compare_from_the_command_line(tmp_path, capsys) -> None:
    slow = full_record()
    slow["cases"]["step"]["rows"][0].update(rates=[1e6, 1.1e6, 0.9e6])
    records.write(full_record(), tmp_path / "a.json")
    records.write(slow, tmp_path / "b.json")
    a, b = str(tmp_path / "a.json"), str(tmp_path / "b.json")
    assert main(["compare", a, a]) == 0
    assert main(["compare", a, b]) == 1
    assert "0.25x" in capsys.readouterr().out
    assert main(["compare", b, a]) == 0
    assert main(["compare", a, str(tmp_path / "missing.json")]) == 2
    assert "no such file" in capsys.readouterr().err


def test_comparison_is_coloured_only_where_asked(capsys) -> None:
    verdicts, left = comparing.compare(full_record(), full_record())
    comparing.show(verdicts, left, Printer(colour=True))
    assert "\x1b[" in capsys.readouterr().out
    comparing.show(verdicts, left, Printer())
    assert "\x1b[" not in capsys.readouterr().out


def text_chunks(png: Path) -> dict[str, str]:
    """The tEXt chunks of a PNG, its checksums verified."""
    data, at, found = png.read_bytes(), 8, {}
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        kind, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert zlib.crc32(kind + body) == struct.unpack(">I", data[at + 8 + length : at + 12 + length])[0]
        if kind == b"tEXt":
            key, value = body.split(b"\x00", 1)
            found[key.decode()] = value.decode()
        at += 12 + length
    return found


@pytest.fixture(autouse=True)
def coarse_charts(monkeypatch) -> None:
    """Most of a chart's time goes into its pixels."""
    monkeypatch.setattr(charts, "DPI", 30)


@pytest.fixture
def project(tmp_path) -> tuple[Path, Path]:
    """A README with markers, and a record."""
    path = tmp_path / "benchmarks" / "records" / "a.json"
    records.write(full_record(), path)
    readme = tmp_path / "README.md"
    readme.write_text(f"# x\n\n{report.BEGIN}\n{report.END}\n\nmore\n")
    return readme, path


def test_the_readme_section_holds_the_records_figures_and_the_chart_its_digest(project) -> None:
    readme, path = project
    assert main(["report", "--readme", str(readme), "--record", str(path)]) == 0
    text = readme.read_text()
    assert text.startswith("# x\n\n<!-- bench:begin -->")
    assert text.endswith("<!-- bench:end -->\n\nmore\n")
    section = report.section_of(text)
    assert report.records_of(section) == ["benchmarks/records/a.json"]
    assert "| `sampler` | 375 M samples/s |" in section  # 300 M negatives and their 75 M positives
    assert "| notebook | 200 k samples/s (extrapolated) | 150x |" in section
    assert "what ceiling is" not in section
    for theme in ("light", "dark"):
        chart = readme.parent / "benchmarks" / "charts" / f"baselines-{theme}.png"
        assert f"benchmarks/charts/baselines-{theme}.png" in section
        assert text_chunks(chart)["Record"] == report.digest([path])
    again = readme.read_text()
    report.write_readme(readme, [path])
    assert readme.read_text() == again  # the same record, the same section


def test_a_page_is_self_contained(project, tmp_path) -> None:
    _, path = project
    scaled = full_record()
    curves = {"dim": {"train": [[8, 1e6], [16, 5e5]]}, "threads": {"sampler": [[1, 1e8], [2, 2e8]]}}
    scaled["cases"]["scaling"] = case("scaling", row("fastrec", [1.0])) | {"facts": {"curves": curves}}
    second = tmp_path / "scaling.json"
    records.write(scaled, second)
    assert main(["report", "--record", str(path), str(second), "--out", str(tmp_path / "page")]) == 0
    page = (tmp_path / "page" / "index.html").read_text()
    assert "prefers-color-scheme: dark" in page
    assert "a positive was emitted" in page
    for name in ("baselines", "scaling", "roofline"):
        assert f'src="{name}-light.png"' in page
        assert (tmp_path / "page" / f"{name}-dark.png").stat().st_size > 1000


def test_reports_refuse_what_they_cannot_show(project, tmp_path, monkeypatch, capsys) -> None:
    readme, path = project
    other = full_record()
    other["machine"]["cpu"] = "another processor"
    records.write(other, tmp_path / "b.json")
    assert main(["report", "--record", str(path), str(tmp_path / "b.json")]) == 2
    assert "another machine" in capsys.readouterr().err
    readme.write_text("no markers")
    assert main(["report", "--readme", str(readme), "--record", str(path)]) == 2
    monkeypatch.setattr(charts.importlib.util, "find_spec", lambda _name: None)
    assert main(["report", "--record", str(path), "--out", str(tmp_path / "p")]) == 2
    assert "fastrec[report]" in capsys.readouterr().err


def test_the_projects_readme_agrees_with_its_committed_record() -> None:
    section = report.section_of(README.read_text())
    named = report.records_of(section)
    assert named, f"{README.name} has no figures yet: python -m fastrec.bench report --readme README.md --record FILE"
    for path in named:
        jsonschema.validate(records.read(README.parent / path), schema())
    shown = [name for name in report.CAPTIONS if f"/{name}-light.png" in section]
    assert section == report.readme_section(README.parent, named, "benchmarks/charts", shown)
    digest = report.digest([README.parent / path for path in named])
    for name in shown:
        for theme in ("light", "dark"):
            chart = README.parent / "benchmarks" / "charts" / f"{name}-{theme}.png"
            assert text_chunks(chart)["Record"] == digest, f"{chart.name} was drawn from another record"
