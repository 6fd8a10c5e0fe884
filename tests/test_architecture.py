"""The structure: imports run one way at any depth, Polars and torch stay in their wings, the facade is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

from fastrec.jit import ROOMS

PACKAGE = Path(__file__).resolve().parent.parent / "fastrec"
ORDER = ROOMS
MODULES = {
    ".".join(("fastrec", *p.relative_to(PACKAGE).with_suffix("").parts)).removesuffix(".__init__"): p
    for p in sorted(PACKAGE.rglob("*.py"))
}

EXCEPTIONS: dict[tuple[str, str], str] = {
    ("fastrec.data.interactions", "fastrec.data.loading"): "Interactions.from_frame, the constructor that users know",
    ("fastrec.training.fit", "fastrec.inference.recommender"): "Result.recommender() hands a trained run to its use",
}
"""(importer, imported) -> why this arrow may run against the line; at most three."""


def imports_of(name: str) -> list[tuple[str, int]]:
    """Every module of fastrec that a module imports, at any depth of its code, with the line.

    What is under ``if TYPE_CHECKING`` counts too: a type is an arrow. The facade ``fastrec/__init__.py`` resolves its
    names lazily and is left out by the callers.
    """
    path, found = MODULES[name], []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it from fastrec on"
            for alias in node.names:
                deep = f"{node.module}.{alias.name}"
                found.append((deep if deep in MODULES else node.module or "", node.lineno))
    return found


def inside(dotted: str) -> bool:
    return dotted in MODULES and dotted != "fastrec"


def room(dotted: str) -> str:
    return dotted.split(".")[1]


def arrows() -> dict[str, set[str]]:
    """module -> the modules of fastrec it imports, the exceptions left out."""
    return {
        name: {to for to, _ in imports_of(name) if inside(to) and to != name and (name, to) not in EXCEPTIONS}
        for name in MODULES
        if name != "fastrec"
    }


def test_every_module_is_in_a_room() -> None:
    assert {room(name) for name in MODULES if name != "fastrec"} <= set(ORDER)


def test_imports_run_one_way() -> None:
    against = [
        f"{name}:{line} imports {to}"
        for name in MODULES
        if name != "fastrec"
        for to, line in imports_of(name)
        if inside(to) and ORDER.index(room(to)) > ORDER.index(room(name)) and (name, to) not in EXCEPTIONS
    ]
    assert not against, f"these arrows run against the line: {against}"


def test_no_circle_of_imports_at_any_depth() -> None:
    left = arrows()
    while leaves := [name for name, found in left.items() if not found & left.keys()]:
        for name in leaves:
            del left[name]
    assert not left, f"these import one another: { {name: sorted(to & left.keys()) for name, to in left.items()} }"


def test_exceptions_are_few_and_real() -> None:
    assert len(EXCEPTIONS) <= 3
    for (name, to), reason in EXCEPTIONS.items():
        assert reason
        assert to in {found for found, _ in imports_of(name)}, f"{name} does not import {to}: drop it"


@pytest.mark.parametrize("name", MODULES)
def test_polars_and_torch_stay_in_their_wings(name: str) -> None:
    tops = {dotted.split(".")[0] for dotted, _ in imports_of(name)}
    if "polars" in tops:
        assert room(name) == "data", f"{name}: polars is imported in fastrec/data only"
    if tops & {"torch", "triton"} and room(name) in ("sampling", "data"):
        twins = ("fastrec.sampling.triton_twin", "fastrec.sampling.triton_general")
        assert name in twins, f"{name}: torch and triton are not imported here"


@pytest.mark.parametrize("name", MODULES)
def test_no_module_outgrows_400_lines(name: str) -> None:
    assert len(MODULES[name].read_text().splitlines()) <= 400


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(out.stdout.split())


def test_import_fastrec_loads_neither_torch_nor_polars() -> None:
    assert not {"torch", "polars", "numba"} & loaded_after("import fastrec")


def test_sampling_needs_numpy_and_numba_only() -> None:
    code = "import fastrec.sampling"
    extra = loaded_after(code) - loaded_after("import numba, numpy, concurrent.futures")
    assert not {m for m in extra if m in {"torch", "polars", "scipy", "pyarrow", "safetensors", "triton"}}


def test_saved_interactions_open_without_polars() -> None:
    assert "polars" not in loaded_after("from fastrec.data import Interactions")
