"""The short and the complete help of train, and shell completion."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from fastrec.cli.main import main
from fastrec.cli.options import flag
from fastrec.cli.train import BRIEF
from fastrec.config import OPTIONS


def help_of(*words: str, capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit, match=r"^0$"):
        main(["train", *words])
    return capsys.readouterr().out


def test_the_short_help_lists_what_most_runs_need(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("--help", capsys=capsys)
    assert [name for name in OPTIONS if f"  {flag(name)}" in text] == [name for name in OPTIONS if name in BRIEF]
    assert f"{len(OPTIONS) - len(BRIEF)} more options: fastrec train --help-all" in text
    assert "--resume" in text


def test_the_complete_help_lists_everything(capsys: pytest.CaptureFixture[str]) -> None:
    text = help_of("--help-all", capsys=capsys)
    assert [name for name in OPTIONS if f"  {flag(name)}" not in text] == []
    assert "more options" not in text


def test_an_option_outside_the_short_help_is_suggested(capsys: pytest.CaptureFixture[str]) -> None:
    help_of("--help", capsys=capsys)
    with pytest.raises(SystemExit, match=r"^2$"):
        main(["train", "--warmupp", "3"])
    assert "did you mean --warmup" in capsys.readouterr().err


@pytest.mark.parametrize("shell", ["bash", "zsh", "tcsh"])
def test_completion_knows_commands_flags_and_choices(shell: str, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("shtab", reason="shtab is not installed")
    assert main(["completion", shell]) == 0
    script = capsys.readouterr().out
    for word in ("recommend", "--batch-size" if shell != "tcsh" else "batch-size", "lazy-adam"):
        assert word in script
    if shell != "tcsh" and (program := shutil.which(shell)):
        assert subprocess.run([program, "-n"], input=script, text=True).returncode == 0
