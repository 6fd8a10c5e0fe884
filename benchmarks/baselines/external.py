"""Baselines from other projects, each in a process of the environment that ``make bench-baselines`` sets up."""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.bench.checkout import ROOT
from fastrec.bench.harness import Entry, Refused
from fastrec.data.interactions import Interactions
from fastrec.errors import ConfigError

SCRIPTS = {
    "lenskit-flexmf": "lenskit_flexmf.py",
    "implicit-bpr": "implicit_bpr.py",
    "cornac-bpr": "cornac_bpr.py",
}

LISTS = {"implicit-recommend": "implicit_recommend.py"}
"""Baselines that list items by given vectors: the NPZ has ``users`` and ``vectors`` too."""


def interpreter() -> Path | None:
    """The Python of ``$FASTREC_BASELINES`` (a virtual environment) or of ``.venv-baselines``; None if not set up."""
    if "FASTREC_RIVALS" in os.environ:
        raise ConfigError("FASTREC_RIVALS is now FASTREC_BASELINES: set that one, and unset this one")
    folder = Path(os.environ.get("FASTREC_BASELINES") or ROOT / ".venv-baselines")
    python = folder / "bin" / "python"
    return python if python.is_file() else None


class Baseline:
    """A baseline in a process of its own: one answer for each ``run``, ended by ``close``.

    Parameters
    ----------
    name : str
        A key of ``SCRIPTS`` or ``LISTS``.
    csr : Path
        NPZ with ``indptr``, ``items``, ``n_items``.
    threads, dim, n_negatives : int
        Its options.
    """

    def __init__(self, name: str, csr: Path, *, threads: int, dim: int, n_negatives: int) -> None:
        self.name, self.threads = name, threads
        options = json.dumps({"threads": threads, "dim": dim, "n_negatives": n_negatives})
        script = ROOT / "benchmarks" / "baselines" / "peers" / (SCRIPTS | LISTS)[name]
        python = interpreter()
        if python is None:
            raise Refused("the baselines' environment is not set up; run make bench-baselines")
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
            error = self._log.read().decode(errors="replace").strip()[-600:]
            raise Refused(f"its process ended with {code}: {error}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def run(self) -> dict[str, Any]:
        """Do its work once; return its answer."""
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


class Baselines:
    """Every baseline that starts, as an entry, and the reasons why others are missing.

    Parameters
    ----------
    train : Interactions
        What they train on.
    threads : tuple of int
        One entry per baseline and number of threads: two often run slower than one.
    """

    def __init__(self, train: Interactions, *, threads: tuple[int, ...], dim: int, n_negatives: int) -> None:
        self.entries: list[Entry] = []
        self.notes: list[str] = []
        self._open: list[Baseline] = []
        self._folder = tempfile.TemporaryDirectory(prefix="fastrec-bench-")
        if interpreter() is None:
            self.notes.append("LensKit, implicit and Cornac are not in the table: make bench-baselines installs them")
            return
        csr = Path(self._folder.name) / "csr.npz"
        np.savez(csr, indptr=train.indptr, items=train.items, n_items=np.int64(train.n_items))
        for name in SCRIPTS:
            for n in dict.fromkeys(threads):
                try:
                    baseline = Baseline(name, csr, threads=n, dim=dim, n_negatives=n_negatives)
                except Refused as error:
                    self.notes.append(f"{name} is not in the table: {error}")
                    break
                self._open.append(baseline)
                self.entries.append(self._entry(baseline))

    @staticmethod
    def _entry(baseline: Baseline) -> Entry:
        facts = dict(baseline.facts)
        what, work = facts.pop("what"), facts.pop("samples_per_run")
        return Entry(
            f"{baseline.name}-{baseline.threads}",
            lambda _k: baseline.run(),
            work,
            _trained,
            what=what,
            role="baseline",
            threads=baseline.threads,
            details=lambda _rate: facts,
        )

    def close(self) -> None:
        """End every process and remove the copy of the CSR."""
        for baseline in self._open:
            baseline.close()
        self._folder.cleanup()
