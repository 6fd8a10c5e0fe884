"""The Triton dropout mask equals the Numba one, under Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton is not installed")

CODE = """
import torch
from fastrec.models import gpu_dropout
from fastrec.models.dropout import AddressedDropout
positions = torch.tensor([0, 5, 2**33 + 7, 12345678901])
for seed in (0, 7, 2**32 - 1):
    for width in (1, 4, 7, 16):
        drop = AddressedDropout(0.3, seed)
        drop.at(3, positions)
        expected = drop.kept(torch.Size((4, 5, width)), 2)
        found = gpu_dropout.kept(seed, torch.tensor([3]), 2, positions, int(drop._limit), (4, 5, width))
        assert torch.equal(expected, found), (seed, width)
        assert 0 < expected.float().mean() < 1 or width == 1
print("equal")
"""


def test_triton_mask_equals_numba_mask() -> None:
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    root = Path(__file__).resolve().parent.parent
    done = subprocess.run([sys.executable, "-c", CODE], env=env, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"
