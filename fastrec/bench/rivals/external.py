"""Rivals from other projects, each in a process of the environment that ``make bench-rivals`` sets up."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.harness import Contender, Refused
from fastrec.bench.machine import ROOT
from fastrec.data.interactions import Interactions

SCRIPTS = {
    "lenskit-flexmf": "lenskit_flexmf.py",
    "implicit-bpr": "implicit_bpr.py",
    "cornac-bpr": "cornac_bpr.py",
}


def interpreter() -> Path | None:
    """The rivals' own Python: ``$FASTREC_RIVALS`` (an environment's folder) or ``.venv-rivals``; None if not set up."""
    folder = Path(os.environ.get("FASTREC_RIVALS") or ROOT / ".venv-rivals")
    python = folder / "bin" / "python"
    return python if python.is_file() else None


class Rival:
    """A rival's process: started by the first ``run``, answering one line for each, ended by ``close``.

    Parameters
    ----------
    name : str
        A key of ``SCRIPTS``.
    csr : Path
        NPZ with ``indptr``, ``items``, ``n_items``.
    threads, dim, n_negatives : int
        What it is told.
    """

    def __init__(self, name: str, csr: Path, *, threads: int, dim: int, n_negatives: int) -> None:
        self.name, self.threads = name, threads
        options = json.dumps({"threads": threads, "dim": dim, "n_negatives": n_negatives})
        script = ROOT / "benchmarks" / "rivals" / SCRIPTS[name]
        python = interpreter()
        if python is None:
            raise Refused("the rivals' environment is not set up; run make bench-rivals")
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process)
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [str(python), str(script), str(csr), options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            env=environment,
        )
        self.facts = self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            code = self._process.wait()
            self._log.seek(0)
            said = self._log.read().decode(errors="replace").strip()[-600:]
            raise Refused(f"its process ended with {code}: {said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self) -> dict[str, Any]:
        """Its work once; what it says about it."""
        assert self._process.stdin is not None
        self._process.stdin.write("run\n")
        self._process.stdin.flush()
        return self._answer()

    def close(self) -> None:
        """End the process."""
        if self._process.stdin:
            self._process.stdin.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._process.stdout:
            self._process.stdout.close()
        self._log.close()


def _trained(answer: dict[str, Any]) -> dict[str, Any]:
    if not answer["finite"]:
        raise Refused("its factors are not finite")
    if not answer["moved"]:
        raise Refused("its factors did not move: nothing was trained")
    return {}


class Rivals:
    """Every rival that starts, as contenders, and the reasons why others do not stand in the table.

    Parameters
    ----------
    train : Interactions
        What they train on.
    threads : tuple of int
        One contender for each rival and each number of threads: two often run slower than one.
    """

    def __init__(self, train: Interactions, *, threads: tuple[int, ...], dim: int, n_negatives: int) -> None:
        self.contenders: list[Contender] = []
        self.notes: list[str] = []
        self._open: list[Rival] = []
        self._folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-")
        if interpreter() is None:
            self.notes.append("LensKit, implicit and Cornac are not in the table: make bench-rivals sets them up")
            return
        csr = Path(self._folder.name) / "csr.npz"
        np.savez(csr, indptr=train.indptr, items=train.items, n_items=np.int64(train.n_items))
        for name in SCRIPTS:
            for n in dict.fromkeys(threads):
                try:
                    rival = Rival(name, csr, threads=n, dim=dim, n_negatives=n_negatives)
                except Refused as error:
                    self.notes.append(f"{name} is not in the table: {error}")
                    break
                self._open.append(rival)
                self.contenders.append(self._contender(rival))

    @staticmethod
    def _contender(rival: Rival) -> Contender:
        facts = dict(rival.facts)
        what, work = facts.pop("what"), facts.pop("samples_per_run")
        return Contender(
            f"{rival.name}-{rival.threads}",
            lambda _k: rival.run(),
            work,
            _trained,
            what=what,
            role="rival",
            threads=rival.threads,
            details=lambda _rate: facts,
        )

    def close(self) -> None:
        """End every process and remove the CSR's copy."""
        for rival in self._open:
            rival.close()
        self._folder.cleanup()
