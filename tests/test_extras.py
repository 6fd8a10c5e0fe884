"""What an install without the extras can do, and what it says about the rest."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest

import fastrec
from fastrec.bench.__main__ import main as bench
from fastrec.errors import EXTRAS, FastrecError, not_installed

PROJECT = tomllib.loads((Path(__file__).resolve().parent.parent / "pyproject.toml").read_text())["project"]


def names(requirements: list[str]) -> set[str]:
    return {re.split(r"[<>=;\[ ]", r)[0].lower().replace("-", "_") for r in requirements}


def test_the_sampler_is_what_a_plain_install_brings() -> None:
    assert names(PROJECT["dependencies"]) == {"numpy", "numba"}


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_extras_are_those_of_the_project_file(extra: str) -> None:
    assert set(EXTRAS[extra]) == names(PROJECT["optional-dependencies"][extra]) - {"fastrec"}


@pytest.mark.parametrize("package", [p for packages in EXTRAS.values() for p in packages])
def test_a_missing_package_has_an_install_line(package: str) -> None:
    assert re.fullmatch(rf"{package} is not installed: pip install 'fastrec\[\w+\]'", not_installed(f"{package}.part"))


def test_an_unknown_package_is_named() -> None:
    assert not_installed("scipy.sparse").startswith("scipy is not installed;")


@pytest.mark.parametrize("name", ["train", "recommend", "Recommender"])
def test_the_top_level_gives_the_install_line(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch.nn")

    monkeypatch.setattr(fastrec, "import_module", refuse)
    with pytest.raises(
        FastrecError, match=rf"fastrec\.{name}: torch is not installed: pip install 'fastrec\[train\]'"
    ) as e:
        getattr(fastrec, name)
    assert isinstance(e.value, ImportError)


def test_a_module_of_its_own_that_is_missing_is_no_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(name: str) -> None:
        raise ModuleNotFoundError(f"No module named '{name}'", name=name)

    monkeypatch.setattr(fastrec, "import_module", refuse)
    with pytest.raises(ModuleNotFoundError, match=r"fastrec\.training\.job"):
        _ = fastrec.train


def test_the_bench_says_what_a_case_needs(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise ModuleNotFoundError("No module named 'torch'", name="torch")

    monkeypatch.setattr("fastrec.bench.context.make_context", refuse)
    assert bench(["--quick", "--case", "sampler"]) == 2
    assert "pip install 'fastrec[train]'" in capsys.readouterr().err
