"""The house: imports run one way, Polars and torch stay in their wings, and importing fastrec is light."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parent.parent / "fastrec"
ROOMS = "errors config jit sampling data models runs ranking fused training bench cli __main__"
ORDER = ROOMS.split()
MODULES = sorted(PACKAGE.rglob("*.py"))


def imports_of(path: Path) -> list[tuple[str, int]]:
    """Every module that a file imports, at any depth of its code, with the line."""
    found = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found += [(alias.name, node.lineno) for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}:{node.lineno}: relative import; write it from fastrec on"
            found.append((node.module or "", node.lineno))
            found += [(f"{node.module}.{alias.name}", node.lineno) for alias in node.names]
    return found


def room(dotted: str) -> str | None:
    parts = dotted.split(".")
    return parts[1] if parts[0] == "fastrec" and len(parts) > 1 and parts[1] in ORDER else None


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_one_way(path: Path) -> None:
    relative = path.relative_to(PACKAGE)
    here = relative.parts[0].removesuffix(".py")
    if here == "__init__":
        return  # the façade resolves its names lazily
    assert here in ORDER, f"{relative} stands in no room of the house: {ORDER}"
    for dotted, line in imports_of(path):
        there = room(dotted)
        if there is not None:
            assert ORDER.index(there) <= ORDER.index(here), f"{relative}:{line} imports {dotted}: the arrow runs back"
        top = dotted.split(".")[0]
        if top == "polars":
            assert here == "data", f"{relative}:{line}: polars lives in fastrec/data alone"
        if top in ("torch", "triton") and here in ("sampling", "data"):
            assert relative.name == "gpu.py", f"{relative}:{line}: {top} may not be imported in {here}/"


def test_no_circle_of_imports_at_the_top_of_modules() -> None:
    """Within a room too: imports inside functions may point back (they load a wing late), those at the top may not."""
    names = {"fastrec." + ".".join(p.relative_to(PACKAGE).with_suffix("").parts): p for p in MODULES}
    arrows = {}
    for name, path in names.items():
        top = ast.Module(
            [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)], []
        )
        found = set()
        for node in ast.walk(top):
            if isinstance(node, ast.ImportFrom):
                found |= {node.module or "", *(f"{node.module}.{alias.name}" for alias in node.names)}
        arrows[name] = found & names.keys() - {name}
    while leaves := [name for name, found in arrows.items() if not found & arrows.keys()]:
        for name in leaves:
            del arrows[name]
    assert not arrows, f"these import one another: {sorted(arrows)}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_no_module_outgrows_400_lines(path: Path) -> None:
    assert len(path.read_text().splitlines()) <= 400


def loaded_after(statement: str) -> set[str]:
    code = f"import sys; {statement}; print(*{{m.split('.')[0] for m in sys.modules}})"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent)
    return set(out.stdout.split())


def test_import_fastrec_loads_neither_torch_nor_polars() -> None:
    assert not {"torch", "polars", "numba"} & loaded_after("import fastrec")


def test_sampling_needs_numpy_and_numba_alone() -> None:
    code = "import fastrec.sampling"
    extra = loaded_after(code) - loaded_after("import numba, numpy, concurrent.futures")
    assert not {m for m in extra if m in {"torch", "polars", "scipy", "pyarrow", "safetensors", "triton"}}


def test_saved_interactions_open_without_polars() -> None:
    assert "polars" not in loaded_after("from fastrec.data import Interactions")
