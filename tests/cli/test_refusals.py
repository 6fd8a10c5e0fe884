"""What the system refuses is one line and exit code 1 or 2; doctor and `data list` work exactly there."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

from fastrec.cli.main import main
from fastrec.data.datasets import registry
from fastrec.errors import DataError
from fastrec.runs import doctor

LISTINGS = [["doctor"], ["data", "list"]]


def listed(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main(command) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert "synthetic-small" in said.out
    assert "ml-1m" in said.out
    return said.out


def one_line(capsys: pytest.CaptureFixture[str]) -> str:
    err = capsys.readouterr().err
    assert err.startswith("fastrec: ")
    assert err.count("\n") == 1
    assert "Traceback" not in err
    return err


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A container with --user: no HOME, and no line for this user in /etc/passwd."""

    def nobody(*_: object) -> None:
        raise KeyError("getpwuid(): uid not found")

    for name in ("HOME", "XDG_CACHE_HOME", "FASTREC_DATA"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("pwd.getpwuid", nobody)
    monkeypatch.setattr("pwd.getpwnam", nobody)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize("command", LISTINGS)
def test_without_a_home_folder(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "no home folder to keep a cache in" in listed(command, capsys)


@pytest.mark.usefixtures("homeless")
@pytest.mark.parametrize(
    "command",
    [["data", "fetch", "ml-1m"], ["train", "--data", "ml-1m"], ["data", "info", "~/x.csv"], ["data", "info", "~no/x"]],
    ids=" ".join,
)
def test_what_needs_a_home_folder_says_so(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(command) == 1
    assert "home folder" in one_line(capsys)


@pytest.mark.usefixtures("homeless")
def test_without_a_home_folder_data_are_found_elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "ml-1m").mkdir()
    (tmp_path / "ml-1m" / "ratings.dat").write_text("1::1::5::1\n")
    monkeypatch.setenv("FASTREC_DATA", str(tmp_path))
    assert registry.resolve("ml-1m") == tmp_path / "ml-1m"
    monkeypatch.setenv("FASTREC_DATA", "~nobody-of-that-name/data")
    with pytest.raises(DataError, match="the home folder of '~nobody-of-that-name' is not known"):
        registry.resolve("ml-1m")


@pytest.mark.parametrize("command", LISTINGS)
def test_an_unknown_home_in_fastrec_data(
    command: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FASTREC_DATA", "~nobody-of-that-name/data")
    assert "the home folder of '~nobody-of-that-name' is not known" in listed(command, capsys)


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "FASTREC_DATA"])
@pytest.mark.parametrize("fault", ["permission", "length"])
@pytest.mark.parametrize("command", LISTINGS)
def test_with_a_folder_that_cannot_be_read(
    command: list[str],
    fault: str,
    variable: str,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Permissions do not stop root, which tests may run as: the refusal is put in its place."""
    real, closed = os.stat, str(tmp_path / "closed")

    def stat(path: Any, *args: Any, **options: Any) -> Any:
        if isinstance(path, (str, os.PathLike)) and os.fspath(path).startswith(f"{closed}{os.sep}"):
            raise PermissionError(13, "Permission denied", os.fspath(path))
        return real(path, *args, **options)

    monkeypatch.setattr(os, "stat", stat)
    monkeypatch.delenv("FASTREC_DATA", raising=False)
    monkeypatch.setenv(variable, closed if fault == "permission" else "/" + "x" * 300)
    out = listed(command, capsys)
    assert ("Permission denied" if fault == "permission" else "File name too long") in out
    assert main(["data", "fetch", "ml-1m"]) == 1
    assert "cannot be read" in one_line(capsys)


def test_doctor_without_torch(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    out = listed(["doctor"], capsys)
    assert out.count("torch is not installed") == 2
    assert "usable" in out


@pytest.mark.parametrize(
    "error", [OSError("libcudart.so.13: cannot open"), ImportError("bad\nELF"), RuntimeError("no")]
)
def test_doctor_with_a_broken_torch(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken() -> None:
        raise error

    monkeypatch.setattr(doctor, "_torch", broken)
    assert " ".join(str(error).split()) in listed(["doctor"], capsys)


def test_training_without_torch(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    (tmp_path / "x.csv").write_text("user,item,timestamp\n" + "".join(f"{k % 3},{k},{k}\n" for k in range(30)))
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "x.csv", "--no-progress"]) == 1
    assert "torch is not installed: pip install 'fastrec[train]'" in one_line(capsys)


@pytest.mark.parametrize(
    ("error", "says"),
    [
        (PermissionError(13, "Permission denied", "/data/x.csv"), "/data/x.csv: Permission denied"),
        (IsADirectoryError(21, "Is a directory", b"/data/\xff"), "/data/\\udcff: Is a directory"),
        (OSError(28, "No space left on device"), "the system refused: No space left on device"),
        (OSError("odd"), "the system refused: odd"),
        (ModuleNotFoundError("No module named 'unidecode'", name="unidecode"), "unidecode is not installed"),
        (ImportError("undefined symbol: x\ny", name="polars"), "polars cannot be loaded (undefined symbol: x\\x0ay)"),
        (MemoryError(), "out of memory (host memory)"),
    ],
    ids=lambda v: type(v).__name__ if isinstance(v, Exception) else "",
)
def test_any_refusal_of_the_system_is_one_line(
    error: Exception, says: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise error

    for name in ("data.load", "training.job.prepare", "evaluation.score.evaluate", "inference.recommender.open_run"):
        monkeypatch.setattr(f"fastrec.{name}", refuse)
    for command in (["data", "info", "x"], ["train"], ["evaluate", "R"], ["recommend", "R", "--user", "1"]):
        assert main(command) == 1
        assert says in one_line(capsys)
