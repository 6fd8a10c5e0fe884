"""Two gloo ranks as torchrun starts them, once for all checks; what ranks agree on, by threads."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from fastrec.cli.main import main
from fastrec.config import Config
from fastrec.engines.processes import Launch, launched
from fastrec.errors import CheckpointError, ConfigError, DataError
from fastrec.runs import open_run
from fastrec.training.fit import resume
from fastrec.training.ranks import in_turn, lead, same_job
from fastrec.training.update import update
from tests.conftest import ROOT
from tests.helpers.rank_worker import arguments
from tests.helpers.world import in_world, joined
from tests.training.test_options import bare

WORLD = 2


def _port() -> int:
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return int(s.getsockname()[1])


def losses(run: Path) -> list[float]:
    rows = map(json.loads, (run / "metrics.jsonl").read_text().splitlines())
    return [row["loss"] for row in rows if row["kind"] == "epoch"]


def start(world: int, *words: str) -> list[subprocess.CompletedProcess[str]]:
    """How each of ``world`` ranks of ``rank_worker`` ended."""
    environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(_port()), "WORLD_SIZE": str(world)}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "tests.helpers.rank_worker", *words]
    started = [
        subprocess.Popen(
            command, env={**environment, "RANK": str(rank)}, cwd=ROOT, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )
        for rank in range(world)
    ]  # fmt: skip
    ended = []
    for process in started:
        out, err = process.communicate(timeout=120)
        ended.append(subprocess.CompletedProcess(command, process.returncode, out, err))
    return ended


@pytest.fixture(scope="module")
def job(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[subprocess.CompletedProcess[str]]]:
    """The folder of the runs, and how each rank ended."""
    folder = tmp_path_factory.mktemp("job")
    rows = [f"u{k % 24},i{(k * 7 + k // 24) % 30},{1000 + k}" for k in range(480)]
    (folder / "log.csv").write_text("\n".join(("user,item,timestamp", *rows)) + "\n")
    return folder, start(WORLD, str(folder))


@pytest.fixture(scope="module")
def single(job: tuple[Path, Any]) -> Path:
    """The same run by one process, by the engine that several take."""
    assert main([*arguments(job[0], "single"), "--engine", "torch"]) == 0
    return job[0] / "single"


def same_weights(a: Path, b: Path) -> None:
    theirs = open_run(b).model().state_dict()
    for name, value in open_run(a).model().state_dict().items():
        torch.testing.assert_close(value, theirs[name], rtol=1e-3, atol=1e-4)


def test_two_ranks_make_the_run_of_one_process(job: tuple[Path, Any], single: Path) -> None:
    run = open_run(job[0] / "complete")
    assert losses(run.path) == pytest.approx(losses(single), rel=1e-5)
    assert run.manifest["status"] == "done"
    assert run.manifest["engine"]["processes"] == WORLD
    assert run.config["engine"] == "torch"
    same_weights(run.path, single)


def test_rank_0_prints_and_says_what_auto_took(job: tuple[Path, Any]) -> None:
    first, second = job[1]
    assert "next:    fastrec recommend" in first.stdout
    assert "2 processes: each trains its rows of every batch" in first.stdout
    assert "engine = torch, because fused, which auto takes in one process, does not train in several" in first.stdout
    assert second.stdout == ""


def test_a_killed_rank_ends_the_job_with_its_reason_and_one_process_resumes_it(job: tuple[Path, Any]) -> None:
    folder, (first, second) = job
    assert second.returncode == -9
    assert first.returncode == 1
    assert "rank 0 of 2 lost another process" in first.stderr
    assert "--resume RUN" in first.stderr
    shutil.copytree(folder / "killed", folder / "copied")
    run = open_run(folder / "killed")
    assert run.manifest["status"] == "failed"
    assert losses(run.path) == losses(folder / "complete")[:1]
    assert resume(run.path, progress=False).stopped == "all epochs"
    assert losses(run.path) == pytest.approx(losses(folder / "complete"), rel=1e-5)
    same_weights(run.path, folder / "complete")


@pytest.mark.slow
def test_four_gloo_ranks_resume_what_two_began(job: tuple[Path, Any]) -> None:
    folder = job[0]
    if not (folder / "copied").exists():
        shutil.copytree(folder / "killed", folder / "copied")
    ended = start(4, str(folder), "copied")
    assert [e.returncode for e in ended] == [0] * 4, [e.stderr for e in ended]
    assert losses(folder / "copied") == pytest.approx(losses(folder / "complete"), rel=1e-5)
    same_weights(folder / "copied", folder / "complete")


def test_an_update_by_two_ranks_is_that_of_one_process(
    job: tuple[Path, Any], single: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = tmp_path / "new.csv"
    new = [f"u{k % 26},i{(k * 5 + 3) % 33},{2000 + k}" for k in range(60)]
    log.write_text("\n".join(((job[0] / "log.csv").read_text().rstrip("\n"), *new)) + "\n")
    options: dict[str, Any] = {"epochs": 2, "progress": False, "baselines": False}
    alone = update(single, log, out=str(tmp_path / "one"), **options)
    monkeypatch.setattr("fastrec.training.fit.joined", joined)
    first, second = in_world(2, lambda _: update(single, log, out=str(tmp_path / "two"), **options))
    assert first.run.path == second.run.path == tmp_path / "two"
    assert first.metrics == second.metrics
    assert losses(tmp_path / "two") == pytest.approx(losses(alone.run.path), rel=1e-5)
    same_weights(tmp_path / "two", alone.run.path)


@pytest.mark.parametrize(
    ("command", "said"),
    [
        (["doctor"], "fastrec doctor: runs in one process, and this is one of 2"),
        (["recommend", "runs/x", "--all"], "fastrec recommend: runs in one process"),
        (["train", "--seeds", "2"], "a grid (--set, --seeds): runs in one process"),
    ],
)
def test_commands_of_one_process_are_refused(
    command: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"WORLD_SIZE": "2", "RANK": "0", "MASTER_ADDR": "host", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main(command) == 2
    assert said in capsys.readouterr().err


def test_processes_of_other_options_or_data_are_refused() -> None:
    config = Config(model="mf", lr=0.1)
    same = in_world(2, lambda p: same_job(p, config, bare()))
    assert same == [None, None]
    with pytest.raises(ConfigError, match="options: rank 1, 2 of 3 was given others than rank 0"):
        in_world(3, lambda p: same_job(p, config if not p.rank else config.override(lr=0.2), bare()))
    with pytest.raises(DataError, match="data: rank 1 of 2 was given others"):
        in_world(2, lambda p: same_job(p, config, bare(candidates=False, test=p.rank == 0)))


def test_a_run_folder_that_another_rank_does_not_see_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert in_world(1, lambda p: lead(p, tmp_path, None)) == [None]
    monkeypatch.setattr("pathlib.Path.is_dir", lambda self: False)  # noqa: ARG005
    with pytest.raises(CheckpointError, match="another process does not see it; give an --out on a file system"):
        in_world(2, lambda p: lead(p, tmp_path, None) if p.rank == 0 else (p.tell(None), p.any(True)))


def test_a_named_set_is_loaded_by_rank_0_first() -> None:
    order: list[int] = []
    in_world(3, lambda p: in_turn(p, "no-such-path", lambda: order.append(p.rank)))
    assert order[0] == 0
    assert sorted(order) == [0, 1, 2]
    with pytest.raises(DataError, match="nowhere"):
        in_world(2, lambda p: in_turn(p, "no-such-path", _fails))


def _fails() -> None:
    raise DataError("nowhere")


def test_the_place_of_a_process_is_what_torchrun_says(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WORLD_SIZE", "RANK", "LOCAL_RANK", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    assert launched() == Launch(0, 1, 0)
    values = {"WORLD_SIZE": "8", "RANK": "5", "LOCAL_RANK": "1", "MASTER_ADDR": "host", "MASTER_PORT": "29500"}
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    assert launched() == Launch(5, 8, 1)


@pytest.mark.parametrize(("device", "took"), [("cuda", "cuda:1"), ("cpu", "cpu"), ("cuda:0", None), ("cuda", None)])
def test_each_process_takes_the_device_of_its_local_rank(
    device: str, took: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from fastrec.training import resolve

    n = 1 if (device, took) == ("cuda", None) else 2
    monkeypatch.setattr(resolve, "launched", lambda: Launch(5, 8, 1))
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.device_count", lambda: n)
    if took is not None:
        assert resolve.own_device(device) == took
        return
    with pytest.raises(ConfigError, match=r"8 processes take a CUDA device each|'cuda:1': no such device"):
        resolve.own_device(device)
