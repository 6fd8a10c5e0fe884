"""The programs that scripts start in processes of their own."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from fastrec.data import Interactions

SCRIPTS = Path(__file__).resolve().parents[2] / "scripts"


def run(script: str, *arguments: str, told: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(SCRIPTS / script), *arguments]
    environment = {**os.environ, "PYTHONPATH": str(SCRIPTS.parent)}
    return subprocess.run(command, input=told, capture_output=True, text=True, env=environment)


def test_the_worker_of_compare_answers_each_turn_and_goes_on_where_it_was() -> None:
    options = {"engine": "fused", "model": "mf", "optimizer": "sgd", "fused_mode": "deterministic", "device": "cpu"}
    options |= {"dim": 8, "batch_size": 512, "lr": 0.02, "threads": 1}
    settings = {"engine": "fused", "data": "synthetic-small", "options": options}
    done = run("compare_worker.py", json.dumps(settings), told="2\n3\n")
    assert done.returncode == 0, done.stderr
    first, second = map(json.loads, done.stdout.splitlines())
    assert (first["cursor"], second["cursor"]) == ([0, 1024], [0, 2560])
    assert first["samples"] == 1024 * 5
    assert float.fromhex(first["loss"]) > 0


def test_a_synthetic_log_is_written_for_gpu_check(tmp_path, monkeypatch) -> None:
    spec = importlib.util.spec_from_file_location("gpu_setup", SCRIPTS / "gpu_setup.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr("fastrec.data.synthetic.generator.SHAPES", {"synthetic-1m": (30, 40, 300)})
    assert module.log(str(tmp_path / "log.safetensors")) == 0
    assert Interactions.open(tmp_path / "log.safetensors").n_interactions == 300


@pytest.mark.parametrize(("model", "engine"), [("gmf", "torch"), ("mlp", "torch"), ("gmf", "fused")])
def test_the_worker_of_kill_resume_has_a_valid_config(model, engine) -> None:
    spec = importlib.util.spec_from_file_location("kill_resume_worker", SCRIPTS / "kill_resume_worker.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.config(model, engine).training.engine == ("fused" if engine == "fused" else "auto")
    assert module.log().n_users == 2000
