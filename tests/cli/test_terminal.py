"""What is printed: nothing that steers the terminal, nothing that it cannot show, whatever the data hold."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fastrec import runs
from fastrec.cli.main import main
from fastrec.data.split import Split
from fastrec.models import build
from fastrec.terminal import joined, printable, say, say_json, shown, table
from tests.helpers.fakes import interactions

ROOT = Path(__file__).resolve().parents[2]
EVIL = "\x1b[31mred\x07 \r\n\x85 \u202eback \x7f\u2028 \u200b\ud800"


def steers(text: str, keep: str = "\n") -> list[str]:
    kinds = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return [c for c in text if c not in keep and unicodedata.category(c) in kinds and c not in "\u200c\u200d"]


def stream(encoding: str) -> io.TextIOWrapper:
    return io.TextIOWrapper(io.BytesIO(), encoding=encoding)


def test_control_characters_are_shown_escaped() -> None:
    said = printable(EVIL)
    assert said == r"\x1b[31mred\x07 \x0d\x0a\x85 \u202eback \x7f\u2028 \u200b\ud800"
    assert printable("a\tb\nc", keep="\n") == "a\\x09b\nc"
    assert (
        printable("Amélie 天 می\u200cروم \U0001f468\u200d\U0001f469")
        == "Amélie 天 می\u200cروم \U0001f468\u200d\U0001f469"
    )


@given(
    text=st.text(st.characters(codec=None, categories=None)),
    encoding=st.sampled_from(["ascii", "cp1252", "utf-8", "latin-1", "cp437"]),
)
@settings(deadline=None)
def test_any_text_can_be_shown_on_any_terminal(text: str, encoding: str) -> None:
    out = shown(text, stream(encoding))
    out.encode(encoding)
    assert not steers(out, keep="")
    assert shown(out, stream(encoding)) == out
    assert printable(printable(text)) == printable(text)


@pytest.mark.parametrize(
    ("encoding", "expected"),
    [("utf-8", "Tōkyō “é” ☃"), ("cp1252", "Tokyo “é” \\u2603"), ("ascii", 'Tokyo "e" \\u2603'), (None, "Tōkyō “é” ☃")],
)
def test_what_the_encoding_lacks_is_transliterated(encoding: str | None, expected: str) -> None:
    assert shown("Tōkyō “é” ☃", io.StringIO() if encoding is None else stream(encoding)) == expected


def test_saying_to_a_closed_stream_is_nothing(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    monkeypatch.setattr(sys, "stderr", None)
    say("lost", err=True)
    assert capsys.readouterr().out == ""


def test_json_is_ascii_and_says_the_same(capsys: pytest.CaptureFixture[str]) -> None:
    say_json([EVIL[:-1], "Tōkyō"])
    out = capsys.readouterr().out
    assert out.isascii()
    assert not steers(out)
    assert json.loads(out) == [EVIL[:-1], "Tōkyō"]


def test_columns_are_aligned_by_what_is_shown() -> None:
    assert table([("a", "b"), ("\x1b", "c")]) == "a     b\n\\x1b  c"


def make_run(folder: Path, user: str, title: str) -> Path:
    fields: dict[str, Any] = {
        "user_ids": np.array([user, "zz"]), "item_ids": np.array(["a\x1b", "b", "c"]), "titles": np.array([title] * 3)
    }  # fmt: skip
    parts = [interactions(rows, 3, f"x\x1b {p}", **fields) for p, rows in (("train", [[0], [1]]), ("v", [[], []]))]
    test = interactions([[1], []], 3, "x test", **fields)
    run = runs.create(folder, config={"model": "mf"}, split=Split(*parts, test, notes=("a \x1b]0;note\x07",)))
    run.save_model(build("mf", n_users=2, n_items=3, dim=2, seed=0))
    return folder


def fastrec(*args: str, cwd: Path, **env: str) -> subprocess.CompletedProcess[bytes]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), **env}
    return subprocess.run(
        [sys.executable, "-m", "fastrec", *args], cwd=cwd, env=environment, capture_output=True, timeout=240
    )


@pytest.mark.parametrize("encoding", ["cp1252", "ascii", "utf-8", "ascii:strict"])
def test_a_title_that_the_terminal_lacks_ends_nothing(tmp_path: Path, encoding: str) -> None:
    run = make_run(tmp_path / "run", "ü ser", "Tōkyō \x1b[31m\x07")
    done = fastrec("recommend", str(run), "--user", "ü ser", cwd=tmp_path, PYTHONIOENCODING=encoding, PYTHONUTF8="0")
    assert done.returncode == 0, done.stderr
    out = done.stdout.decode(encoding.split(":")[0])
    assert ("Tōkyō" if encoding == "utf-8" else "Tokyo") in out
    assert "\\x1b[31m\\x07" in out
    assert not steers(out)
    as_json = fastrec("recommend", str(run), "--user", "ü ser", "--json", cwd=tmp_path, PYTHONIOENCODING=encoding)
    assert as_json.returncode == 0, as_json.stderr
    assert as_json.stdout.isascii()
    assert json.loads(as_json.stdout)[0]["title"] == "Tōkyō \x1b[31m\x07"


def test_errors_notes_and_file_names_are_escaped(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "r\x1b[31m", "u\x1b[2J", "t\u202e")
    csv = tmp_path / "f\x1b.csv"
    csv.write_text("user\x1b[31m,item\x9b\nu,1\n")
    commands = [
        ["recommend", str(run), "--user", "no\x1bbody"],
        ["recommend", str(run), "--user", "u\x1b[2J"],
        ["recommend", str(run), "--user", "u\x1b[2J", "--json"],
        ["recommend", str(tmp_path / "no\x1b\nfastrec: done"), "--user", "1"],
        ["evaluate", str(run)],
        ["evaluate", str(run), "--json"],
        ["export", str(run), "--to", "npz", "--out", str(tmp_path / "o\x1b.npz")],
        ["export", str(run), "--to", "npz", "--out", str(tmp_path / "no\x07/o.npz")],
        ["data", "info", str(csv)],
        ["data", "info", str(csv), "--user-col", "\x1b[31mx"],
        ["data", "info", str(tmp_path / "n\x1bo.csv")],
        ["data", "fetch", "ml-\x1b"],
        ["train", "--data", str(csv), "--out", str(tmp_path / "x\x1b")],
        ["train", "--config", str(tmp_path / "c\x1b.toml")],
        ["train", "--resume", str(tmp_path / "no\x1bne")],
        ["train", "--preset", "p\x1b"],
    ]
    for command in commands:
        main(command)
        said = capsys.readouterr()
        assert said.out + said.err, command
        assert not steers(said.out + said.err), command
        assert "\nfastrec: done" not in said.err
    for command in (["train", "--\x1b[31m"], ["\x1b"], ["train", "--dim", "\x1b\n"]):
        with pytest.raises(SystemExit):
            main(command)
        assert not steers(capsys.readouterr().err), command


@pytest.mark.parametrize("user", ["-x", "--x", "-5", "--no-such", " lead", "two words", "", "-k9", "a=b", "--user"])
def test_ids_may_look_like_options(tmp_path: Path, user: str, capsys: pytest.CaptureFixture[str]) -> None:
    run = make_run(tmp_path / "run", user or "\u3000", "t")
    given = ["--user", user] if user != "--user" else ["--user=--user"]
    code = main(["recommend", str(run), *given, "-k", "1"])
    said = capsys.readouterr()
    if user:
        assert code == 0, said.err
        assert "rank" in said.out
    else:
        assert code == 1
        assert "user '': not among the 2 users" in said.err


def test_an_option_that_follows_is_no_value() -> None:
    from fastrec.cli.main import parser

    commands = parser()
    assert joined(["recommend", "R", "--user", "--json"], commands) == ["recommend", "R", "--user", "--json"]
    assert joined(["train", "--user-col", "-id", "--dim", "-4"], commands) == ["train", "--user-col=-id", "--dim", "-4"]
    with pytest.raises(SystemExit):
        main(["recommend", "R", "--user", "--json"])
