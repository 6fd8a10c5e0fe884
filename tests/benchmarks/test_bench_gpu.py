"""The cases that a CUDA device runs, on one: apart from the other cases' tests, whose needs such a machine may lack."""

from __future__ import annotations

import pytest
import torch

from fastrec.bench.cases import available
from fastrec.bench.context import make_context
from fastrec.data.synthetic import generator as synthetic


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device; scripts/gpu_check.sh runs this on one")
@pytest.mark.parametrize("name", ["feed", "step", "gpu"])
def test_cases_run_on_the_device(name, tmp_path) -> None:
    shape = "synthetic-1m" if name == "gpu" else "synthetic-small"  # a loss falls only where steps are many
    log = str(synthetic.make(shape).save(tmp_path / "log.safetensors"))
    result = available()[name].run(make_context(data=log, threads=2, device="cuda", quick=True))
    assert result["status"] == "ok", result.get("reason")
