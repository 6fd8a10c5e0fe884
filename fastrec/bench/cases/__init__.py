"""Every case by name. A case is a function of a ``Context`` that returns a ``Bench``, or rows that it measured itself.

They are named by module and function and imported when run: ``--list`` costs nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Refused, refused, run_bench
from fastrec.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """A named case.

    Parameters
    ----------
    name : str
        As ``--case`` takes it and records keep it.
    title : str
        What is measured, in words a newcomer understands.
    function : str
        ``"module:function"`` under ``fastrec.bench.cases``.
    when : {"quick", "default", "asked"}
        Part of ``--quick`` and of a plain run; of a plain run only; or only by name.
    """

    name: str
    title: str
    function: str
    when: str = "default"

    def build(self, context: Context) -> Bench | dict[str, Any]:
        """The case's contenders, ready to be checked and timed; or rows, from a case that measures by itself."""
        module, function = self.function.split(":")
        made: Bench | dict[str, Any] = getattr(import_module(f"fastrec.bench.cases.{module}"), function)(context)
        return made

    def run(self, context: Context) -> dict[str, Any]:
        """Check, time, and return the result as it goes into the record."""
        started = time.perf_counter()
        try:
            made = self.build(context)
        except Refused as error:
            return refused(self.name, self.title, "refused", str(error), started)
        return run_bench(self.name, self.title, made, repeats=context.repeats, min_s=context.min_s, started=started)


CASES = {
    case.name: case
    for case in (
        Case("load", "a log from its file to columns, a CSR, a split", "data:load"),
        Case("split", "leave-one-out, with a validation part", "data:split"),
        Case("sampler", "exact negatives, beside rivals and where it is hard", "sampler:sampler", "quick"),
        Case("stream", "batches on the host in shuffled order, nothing overlapped", "train:stream"),
        Case("feed", "batches drawn ahead and ready on the device, nothing trained", "train:feed", "quick"),
        Case("step", "training on one fixed batch: the ceiling of any data path", "train:step", "quick"),
        Case("end_to_end", "training as it is, every engine and rival in turn", "train:end_to_end", "quick"),
        Case("fused", "the fused engine end to end, MF and GMF, both modes", "fused:fused"),
        Case("evaluation", "ranking the test items", "rank:evaluation"),
        Case("checkpoint", "a checkpoint written, synced, read and verified", "rank:checkpoint"),
        Case("memory", "peak memory of a training run in a process of its own", "rank:memory"),
        Case("time_to_quality", "training time to validation HR@10 of .60", "quality:time_to_quality", "asked"),
        Case("default_run", "`fastrec train` as it comes, with its test accuracy", "quality:default_run", "asked"),
        Case("gpu", "large batches on a CUDA device, GMF and NVIDIA's NeuMF", "gpu:gpu", "asked"),
        Case("scaling", "cost against size, one axis at a time", "scale:scaling", "asked"),
        Case("hundred_million", "100 M positives from file to trained model", "big:hundred_million", "asked"),
    )
}


def select(names: list[str] | None, *, quick: bool) -> list[Case]:
    """The cases to run: those named, or those of a quick or plain run.

    Raises
    ------
    ConfigError
        If a name is unknown.
    """
    if names:
        unknown = [name for name in names if name not in CASES]
        if unknown:
            raise ConfigError(f"--case {unknown[0]}: no such case; there are {', '.join(CASES)}")
        return [CASES[name] for name in dict.fromkeys(names)]
    wanted = ("quick",) if quick else ("quick", "default")
    return [case for case in CASES.values() if case.when in wanted]
