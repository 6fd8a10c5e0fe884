"""The cases of the bench by name: those of the package, and those that a checkout of the repository adds.

A case is a function of a ``Context`` that returns a ``Bench``, or rows that it measured itself. Cases are named by
module and function and imported only when run, so ``--list`` costs nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from importlib import import_module
from typing import Any

from fastrec.bench import checkout
from fastrec.bench.context import Context
from fastrec.bench.harness import Bench, Refused, refused, run_bench
from fastrec.errors import ConfigError


@dataclass(frozen=True)
class Case:
    """A named case.

    Parameters
    ----------
    name : str
        As ``--case`` takes it and records store it.
    title : str
        What is measured, in words a newcomer understands.
    function : str
        ``"module:function"``.
    when : {"quick", "default", "asked"}
        Part of ``--quick`` and of a plain run; of a plain run only; or only by name.
    """

    name: str
    title: str
    function: str
    when: str = "default"

    def build(self, context: Context) -> Bench | dict[str, Any]:
        """The entries of the case, ready to be checked and timed; or rows, from a case that measures by itself.

        A checkout may extend a case of the package, for example by baselines.
        """
        made: Bench | dict[str, Any] = _load(self.function)(context)
        more = checkout.find()
        if isinstance(made, Bench) and self.function.startswith("fastrec."):
            if more is None:
                if self.name in EXTENDED:
                    made.notes.append(f"no baselines: they are {checkout.WHERE}")
            elif self.name in more.EXTENSIONS:
                _load(more.EXTENSIONS[self.name])(context, made)
        return made

    def run(self, context: Context) -> dict[str, Any]:
        """Check, time, and return the result as it goes into the record."""
        started = time.perf_counter()
        try:
            made = self.build(context)
        except Refused as error:
            return refused(self.name, self.title, "refused", str(error), started)
        return run_bench(self.name, self.title, made, repeats=context.repeats, min_s=context.min_s, started=started)


def _load(function: str) -> Any:
    module, name = function.split(":")
    return getattr(import_module(module), name)


OWN = (
    Case("load", "a log from its file to columns, a CSR, a split", "fastrec.bench.cases.data:load"),
    Case("split", "leave-one-out, with a validation part", "fastrec.bench.cases.data:split"),
    Case("sampler", "exact negatives, against baselines", "fastrec.bench.cases.sampler:sampler", "quick"),
    Case("feed", "batches ready on the device, nothing trained", "fastrec.bench.cases.train:feed", "quick"),
    Case("step", "training on one fixed batch: the ceiling", "fastrec.bench.cases.train:step", "quick"),
    Case("end_to_end", "training as it is, engines in turn", "fastrec.bench.cases.train:end_to_end", "quick"),
)
"""The cases of the package: what ``--quick`` needs, and reading a log."""

EXTENDED = ("sampler", "end_to_end")
"""Cases of the package that have baselines in a checkout."""

CHECKOUT_ONLY = (
    "stream", "fused", "evaluation", "recommend_all", "checkpoint", "memory", "time_to_quality", "default_run", "gpu",
    "scaling", "hundred_million",
)  # fmt: skip
"""Cases that only a checkout has; named here so that an installed package can say what it lacks."""

CHECKOUT_COMMANDS = ("compare", "report")
"""Commands that only a checkout has."""


def available() -> dict[str, Case]:
    """Every case that can run here, by name."""
    more = checkout.find()
    return {case.name: case for case in (*OWN, *(more.CASES if more else ()))}


def missing() -> str:
    """One line that says what an installed package lacks; empty in a checkout."""
    if checkout.find() is not None:
        return ""
    return (
        f"not in the installed package: the cases {', '.join(CHECKOUT_ONLY)}, the commands "
        f"{' and '.join(CHECKOUT_COMMANDS)}, and the baselines; they are {checkout.WHERE}"
    )


def select(names: list[str] | None, *, quick: bool) -> list[Case]:
    """The cases to run: those named, or those of a quick or plain run.

    Raises
    ------
    ConfigError
        If a name is unknown, or is that of a case that only a checkout has.
    """
    cases = available()
    for name in names or ():
        if name in cases:
            continue
        if name in CHECKOUT_ONLY:
            raise ConfigError(f"--case {name}: {missing()}")
        raise ConfigError(f"--case {name}: no such case; there are {', '.join(cases)}")
    if names:
        return [cases[name] for name in dict.fromkeys(names)]
    wanted = ("quick",) if quick else ("quick", "default")
    return [case for case in cases.values() if case.when in wanted]
