"""Every case by name. A case is a function of a ``Context`` that returns a ``Bench``.

They are named by module and function and imported when run: ``--list`` costs nothing.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, run_bench
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
        ``"module:function"`` under ``fastrec.bench``.
    when : {"quick", "default", "asked"}
        Part of ``--quick`` and of a plain run; of a plain run only; or only by name.
    """

    name: str
    title: str
    function: str
    when: str = "default"

    def build(self, context: Context) -> Bench:
        """The case's contenders, ready to be checked and timed."""
        module, function = self.function.split(":")
        bench: Bench = getattr(import_module(f"fastrec.bench.{module}"), function)(context)
        return bench

    def run(self, context: Context) -> dict[str, Any]:
        """Check, time, and return the result as it goes into the record."""
        bench = self.build(context)
        return run_bench(self.name, self.title, bench, repeats=context.repeats, min_s=context.min_s)


CASES = {
    case.name: case
    for case in (
        Case("load", "a log from its file to a CSR", "cases_data:load"),
        Case("split", "leave-one-out, with a validation part", "cases_data:split"),
        Case("sampler", "exact negatives for every positive, in CSR order", "cases_sampler:sampler", "quick"),
        Case("stream", "batches on the host, in shuffled order, one thread after the other", "cases_train:stream"),
        Case("fused", "the fused engine end to end, MF and GMF, both modes", "cases_fused:fused"),
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
