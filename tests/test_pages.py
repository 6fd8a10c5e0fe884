"""Every command and snippet of docs/ runs, on small data, page by page in the order of the page."""

from __future__ import annotations

import re
import runpy
import shlex
from pathlib import Path

import polars as pl
import pytest

from fastrec.cli.main import main

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted((ROOT / "docs").glob("*.md"))
BLOCK = re.compile(r"```(\w*)\n(.*?)```", re.S)
LANGUAGES = {"sh", "python", "text", "json", "toml", "sql"}
"""``text`` is not run: what needs other data, minutes or a GPU."""


def blocks(page: Path) -> list[tuple[str, str]]:
    return BLOCK.findall(page.read_text())


def tables(folder: Path) -> None:
    """The files that the pages name."""
    n = 240
    log = pl.DataFrame(
        {
            "user": [f"u{k % 12}" for k in range(n)],
            "item": [f"i{(k * 7 + k // 12) % 30}" for k in range(n)],
            "timestamp": [1_700_000_000 + 60 * k for k in range(n)],
        }
    )
    log.write_csv(folder / "clicks.csv")
    log.with_columns(event=pl.Series(["purchase", "purchase", "view"] * (n // 3))).write_csv(folder / "events.csv")
    ids = [f"i{k}" for k in range(30)]
    genres = ["Drama" if k % 2 else "Comedy" for k in range(30)]
    pl.DataFrame({"item": ids, "title": [f"Item {k}" for k in range(30)], "genres": genres}).write_csv(
        folder / "items.csv"
    )
    pl.DataFrame({"user": [f"u{k}" for k in range(12)], "age": list(range(20, 32))}).write_csv(folder / "users.csv")


def small(text: str) -> str:
    """The same on a set of seconds."""
    text = re.sub(r"\bml-(100k|1m)\b", "synthetic-small", text)
    return re.sub(r"epochs([ =])\d+", r"epochs\g<1>1", text)


@pytest.mark.parametrize(
    "page", [p for p in PAGES if {k for k, _ in blocks(p)} & {"sh", "python"}], ids=lambda p: p.stem
)
def test_what_a_page_says_runs(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    tables(tmp_path)
    scope: dict[str, object] = {}
    for language, text in blocks(page):
        if language == "python":
            exec(compile(small(text), str(page), "exec"), scope)
        elif language == "sh":
            for line in filter(None, (line.split("  #")[0].strip() for line in text.splitlines())):
                assert line.startswith("fastrec "), (
                    f"{page.name}: {line}: mark what is not a command of fastrec as text"
                )
                try:
                    code = main(shlex.split(small(line))[1:])
                except SystemExit as end:  # --help
                    code = end.code
                assert code == 0, (line, capsys.readouterr().err)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_every_block_has_a_language(page: Path) -> None:
    assert {k for k, _ in blocks(page)} <= LANGUAGES


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.stem)
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!http)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_in_the_index() -> None:
    text = (ROOT / "docs" / "index.md").read_text()
    assert [p.name for p in PAGES if p.name != "index.md" and f"({p.name})" not in text] == []


def test_the_options_page_is_what_config_says() -> None:
    made = runpy.run_path(str(ROOT / "scripts" / "make_options_page.py"))["page"]()
    assert (ROOT / "docs" / "options.md").read_text() == made, "run scripts/make_options_page.py"
