"""The command line before any work: help, flags that are wrong or have another name, and what starting up imports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fastrec.cli.main import main

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("command", [[], ["data"]])
def test_without_a_command_the_help_is_shown(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 0
    out = capsys.readouterr().out
    assert out.startswith("usage: fastrec")
    assert ("fetch" if command else "recommend") in out


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["train", "--dat", "x"], "unknown option --dat; did you mean --data?"),
        (["train", "--batch", "3"], "unknown option --batch; did you mean --batch-size?"),
        (["train", "--batch=3"], "unknown option --batch; did you mean --batch-size?"),
        (["train", "--no-prog"], "unknown option --no-prog; did you mean --no-progress?"),
        (["train", "--bach-size", "3"], "unknown option --bach-size; did you mean --batch-size?"),
        (["data", "info", "x", "--user"], "unknown option --user; did you mean --user-col or --user-table?"),
        (["evaluate", "x", "--jso"], "unknown option --jso; did you mean --json?"),
        (["--vers"], "unknown option --vers; did you mean --version?"),
        (["train", "--zzzzzz"], "unknown option --zzzzzz; `fastrec train --help` lists what there is"),
        (["train", "--lr-h", "0.1"], "--lr-h is now called --output-lr; use that name"),
        (["train", "--l2-h=0.1"], "--l2-h is now called --output-l2; use that name"),
        (["train", "--init-h", "one"], "--init-h is now called --output-init; use that name"),
        (["train", "--test-share", ".1"], "--test-share is now called --test-fraction; use that name"),
        (["train", "--avoid", "all"], "--avoid is now called --exclude; use that name"),
        (["train", "--model", "svd"], "invalid choice: 'svd' (choose from"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_a_wrong_flag_is_refused_with_the_right_one(
    command: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stop:
        main(command)
    assert stop.value.code == 2
    assert says in capsys.readouterr().err


@pytest.mark.parametrize("command", [["--help"], ["train", "--help"], ["update", "--help"], ["data", "info", "--help"]])
def test_help_imports_nothing_heavy(command: list[str]) -> None:
    code = (
        "import sys\nfrom fastrec.cli.main import main\n"
        f"try:\n    main({command!r})\nexcept SystemExit:\n    pass\n"
        "print(sorted({'torch', 'polars', 'numba', 'numpy', 'tensorboard', 'tqdm'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.splitlines()[-1] == "[]", done.stderr


def test_former_names_are_not_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help-all"])
    out = capsys.readouterr().out
    assert "--lr-h" not in out
    assert "--output-lr" in out
