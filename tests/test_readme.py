"""The README tells the truth: its Python runs, its commands parse, its make targets exist."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from fastrec.cli.main import parser

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text()
PYTHON = re.findall(r"```python\n(.*?)```", README, re.S)
COMMANDS = [
    line.split("#")[0].strip() for block in re.findall(r"```sh\n(.*?)```", README, re.S) for line in block.splitlines()
]


def test_the_sampler_example_runs_as_it_stands() -> None:
    (example,) = [block for block in PYTHON if "NegativeSampler" in block]
    scope: dict[str, object] = {}
    exec(example, scope)
    assert scope["negatives"].shape == (3, 4)  # type: ignore[attr-defined]


def test_the_training_example_runs_on_a_small_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (example,) = [block for block in PYTHON if "fastrec.train" in block]
    small = example.replace('"ml-1m"', '"synthetic-small"').replace("epochs=20", "epochs=1, progress=False")
    assert small.count("synthetic-small") == 1
    assert "epochs=1," in small
    monkeypatch.chdir(tmp_path)
    exec(small, {})
    assert list((tmp_path / "runs").iterdir())


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("fastrec ")])
def test_commands_parse(command: str) -> None:
    parser().parse_args(shlex.split(command)[1:])


def test_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    named = {c.split()[1] for c in COMMANDS if c.startswith("make ")} | set(re.findall(r"`make ([a-z-]+)`", README))
    assert named
    assert named <= targets


@pytest.mark.parametrize("link", sorted(set(re.findall(r"\]\((?!http)([^)#]+)\)", README))))
def test_links_lead_somewhere(link: str) -> None:
    assert (ROOT / link).exists()
