"""The Triton dropout mask equals the Numba one, under Triton's interpreter."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

triton = pytest.importorskip("triton", reason="Triton is not installed")

CODE = """
import torch
from fastrec.models.parts import dropout_cuda as gpu_dropout
from fastrec.models.parts.dropout import AddressedDropout
positions = torch.tensor([0, 5, 2**33 + 7, 12345678901])
for seed in (0, 7, 2**32 - 1):
    for width in (1, 4, 7, 16):
        drop = AddressedDropout(0.3, seed)
        drop.at(3, positions)
        expected = drop.kept(torch.Size((4, 5, width)), 2)
        found = gpu_dropout.kept(seed, torch.tensor([3]), 2, positions, int(drop.limit), (4, 5, width))
        assert torch.equal(expected, found), (seed, width)
        assert 0 < expected.float().mean() < 1 or width == 1
print("equal")
"""


def test_triton_mask_equals_numba_mask() -> None:
    """In a process of its own: the interpreter is chosen when Triton is imported."""
    env = {**os.environ, "TRITON_INTERPRET": "1"}
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", CODE], env=env, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == "equal"


def test_triton_mask_compiles_for_hopper_without_a_gpu() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from fastrec.models.parts.dropout_cuda import kept_kernel

    kinds = {"out": "*i8", "positions": "*i64", "epoch": "*i64", "seed": "i64", "tag": "i32", "limit": "i64"}
    kinds |= {"layer": "i32", "columns": "i32", "width": "i32", "n_blocks": "i64", "SIZE": "constexpr"}
    source = ASTSource(fn=kept_kernel, signature=kinds, constexprs={"SIZE": 256})
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert "sm_90" in compiled.asm["ptx"]
