"""How tests run Triton's kernels: interpreted in a process of its own, for that is chosen at import, or compiled."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]


def interpret(module: str, *checks: str) -> subprocess.CompletedProcess[str]:
    """Run ``module.check("cpu")`` for each of the checks under Triton's interpreter; "all of it" is printed at the end.

    One process for all: to import torch, Triton and fastrec takes seconds.
    """
    env = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
    code = f"import {module} as t; [getattr(t, check)('cpu') for check in {checks!r}]; print('all of it')"
    return subprocess.run([sys.executable, "-c", code], env=env, cwd=ROOT, capture_output=True, text=True)


def assert_ran(done: subprocess.CompletedProcess[str]) -> None:
    """It ended well, and at its end."""
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.strip().endswith("all of it")


def compiled(fn: Any, signature: dict[str, str], constants: dict[str, Any]) -> Any:
    """A kernel compiled ahead of time for sm_90, its pointers aligned as torch aligns them."""
    import triton
    from triton.backends.compiler import GPUTarget

    signature = {**signature, **dict.fromkeys(constants, "constexpr")}
    aligned = {(k,): [["tt.divisibility", 16]] for k, name in enumerate(fn.arg_names) if signature[name][0] == "*"}
    source = triton.compiler.ASTSource(fn=fn, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32))
    assert ".target sm_90" in made.asm["ptx"]
    assert len(made.asm["cubin"]) > 1000
    return made
