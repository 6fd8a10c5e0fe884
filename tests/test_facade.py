"""The public names: those of the stub, each found at its home."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import fastrec

STUB = Path(fastrec.__file__).with_suffix(".pyi")


def names_of_the_stub() -> set[str]:
    tree = ast.parse(STUB.read_text())
    imported = {a.asname or a.name for node in tree.body if isinstance(node, ast.ImportFrom) for a in node.names}
    return imported | {"__version__"}


def test_stub_and_module_list_the_same_names() -> None:
    assert set(fastrec.__all__) == names_of_the_stub() == set(dir(fastrec))


@pytest.mark.parametrize("name", sorted(names_of_the_stub()))
def test_every_name_is_found(name: str) -> None:
    assert getattr(fastrec, name) is not None


def test_a_wrong_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Interaction'"):
        fastrec.Interaction  # noqa: B018
