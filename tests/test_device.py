"""A device that does not exist is refused wherever one can be named; nothing falls back to the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fastrec.batches import device as devices
from fastrec.batches.device import check_device, open_device
from fastrec.bench.__main__ import main as bench
from fastrec.bench.context import make_context
from fastrec.cli.main import main
from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.errors import ConfigError
from fastrec.training.fit import resume
from fastrec.training.job import train
from fastrec.training.resolve import resolve
from tests.helpers.training import make_engine, positives

UNKNOWN = (
    "mps", "foo", "gpu", "Cuda", "CUDA:0", "cuda:", "cuda:x", "cuda:-1", "cuda 0", "cuda:00", "cuda:\uff11", " cuda",
    "gpu:0", "CPU", "cpu:0", "cpu:3", "cpu ", "AUTO", "xla", "",
)  # fmt: skip


def pretend(monkeypatch: pytest.MonkeyPatch, n: int) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: n > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: n)


@pytest.mark.parametrize("n", [0, 2])
@pytest.mark.parametrize("name", UNKNOWN)
def test_an_unknown_device_is_refused_with_those_there_are(name: str, n: int, monkeypatch: pytest.MonkeyPatch) -> None:
    pretend(monkeypatch, n)
    there = "cpu, cuda, cuda:0, cuda:1" if n else "cpu"
    refused = rf"device = .*no such device; .*[Tt]he devices here are {there}$|^device = '': is empty"
    for check in (check_device, open_device, lambda d: resolve(Config(device=d)), lambda d: make_engine(device=d)):
        with pytest.raises(ConfigError, match=refused):
            check(name)


@pytest.mark.parametrize(
    ("name", "meant"),
    [("Cuda", "cuda"), ("gpu", "cuda"), ("CUDA:0", "cuda:0"), ("gpu:1", "cuda:1"), ("cuda:x", "cuda"), ("cdua", "cuda"),
     ("cpu:3", "cpu"), ("CPU", "cpu"), ("Auto", "auto")],
)  # fmt: skip
def test_the_device_meant_is_named(name: str, meant: str) -> None:
    with pytest.raises(ConfigError, match=f"did you mean '{meant}'"):
        check_device(name)


def test_devices_that_exist_are_taken_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    assert devices.available_devices() == ["cpu"] or torch.cuda.is_available()
    pretend(monkeypatch, 0)
    assert (check_device("auto"), check_device("cpu")) == ("cpu", "cpu")
    with pytest.raises(ConfigError, match="finds no CUDA device; use device = cpu"):
        check_device("cuda:0")
    pretend(monkeypatch, 2)
    assert [check_device(d) for d in ("auto", "cpu", "cuda", "cuda:1")] == ["cuda", "cpu", "cuda", "cuda:1"]
    with pytest.raises(ConfigError, match=r"device = 'cuda:9': no such device; the devices here are cpu, cuda, cuda:0"):
        check_device("cuda:9")


def test_train_evaluates_the_device_before_it_loads_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["train", "--data", "no/such/folder", "--device", "Cuda"]) == 2
    assert "did you mean 'cuda'" in capsys.readouterr().err
    (tmp_path / "c.toml").write_text('device = "gpu"\n')
    assert main(["train", "--data", "no/such/folder", "--config", "c.toml"]) == 2
    assert "did you mean 'cuda'" in capsys.readouterr().err
    with pytest.raises(ConfigError, match="no such device"):
        train("no/such/folder", device="mps")
    assert not list(tmp_path.glob("runs/*"))


def test_a_resumed_run_takes_no_unknown_device(tmp_path: Path) -> None:
    indptr, items = positives()
    log = Interactions(indptr, items, user_ids=np.arange(23), item_ids=np.arange(31), name="small")
    train(
        log, split="ratio", out=str(tmp_path / "run"), epochs=1, dim=4, progress=False, tensorboard=False, candidates=5
    )
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        resume(tmp_path / "run", device="Cuda")
    assert main(["train", "--resume", str(tmp_path / "run"), "--device", "mps"]) == 2


def test_bench_takes_no_unknown_device(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ConfigError, match="did you mean 'cuda'"):
        make_context(data="no/such/folder", device="Cuda")
    assert bench(["--case", "sampler", "--data", "no/such/folder", "--device", "mps"]) == 2
    assert "he devices here are" in capsys.readouterr().err


def test_resolving_twice_changes_nothing() -> None:
    for options in ({}, {"model": "mf"}, {"optimizer": "adamw"}, {"engine": "fused", "optimizer": "sgd"}):
        once = resolve(Config(device="cpu", **options))
        assert resolve(once) == once
