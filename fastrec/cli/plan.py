"""``fastrec plan``: what a training of given sizes takes of memory, and which options fit."""

from __future__ import annotations

import argparse
import os
from typing import Any

from fastrec.engines.plan import GB, STATE, Plan
from fastrec.errors import ConfigError
from fastrec.terminal import say, say_json, table

PER_USER = 10
"""Positives per user where ``--positives`` is left out."""


def add_commands(commands: Any) -> None:
    """Add ``plan``."""
    plan = commands.add_parser(
        "plan",
        help="say what a training of given sizes takes of memory, and what fits",
        description="Compute the memory of each process of a training from its sizes: weights, gradients, optimiser, "
        "log, exchange. Nothing is loaded or tried; the formulas are in the docstring of fastrec.engines.plan. Numbers "
        "may be written as 1e8.",
    )
    sizes = plan.add_argument_group("sizes")
    for name, text in (("users", "users"), ("items", "items")):
        sizes.add_argument(f"--{name}", type=_count, required=True, metavar="N", help=f"number of {text}")
    sizes.add_argument("--dim", type=_count, default=64, metavar="N", help="factors (default 64)")
    sizes.add_argument(
        "--positives", type=_count, metavar="N", help=f"training interactions (default {PER_USER} for each user)"
    )
    where = plan.add_argument_group("machines")
    where.add_argument("--gpus", type=_number, default=0, metavar="N", help="CUDA devices in all; 0: the CPU (default)")
    where.add_argument("--processes", type=_count, default=1, metavar="N", help="processes on the CPU (default 1)")
    where.add_argument("--hosts", type=_count, default=1, metavar="N", help="machines (default 1)")
    where.add_argument("--gpu-memory", type=float, default=80, metavar="GB", help="of one GPU (default 80)")
    where.add_argument("--memory", type=float, metavar="GB", help="of one machine (default: that of this one)")
    run = plan.add_argument_group("training")
    run.add_argument("--optimizer", choices=sorted(STATE), default="adam", help="the update rule (default adam)")
    run.add_argument("--negatives", type=_count, default=4, metavar="N", help="negatives per positive (default 4)")
    run.add_argument(
        "--batch-size",
        type=_count,
        default=65_536,
        metavar="N",
        help="positives of a batch (default 65536)",
    )
    run.add_argument("--precision", choices=("fp32", "bf16", "fp16"), help="default bf16 on GPUs, fp32 on the CPU")
    plan.add_argument("--json", action="store_true", help="print JSON: the terms, totals, advice")
    plan.set_defaults(run=_plan)


def _number(text: str) -> int:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number; write 100000000 or 1e8") from None
    if value != value or value in (float("inf"), float("-inf")) or value != int(value) or value < 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not a count; write 100000000 or 1e8")
    return int(value)


def _count(text: str) -> int:
    if not (value := _number(text)):
        raise argparse.ArgumentTypeError("must be at least 1")
    return value


def _plan(args: argparse.Namespace) -> None:
    notes = []
    if args.positives is None:
        notes.append(f"assumed: {PER_USER} positives for each user; give --positives")
    memory = args.memory
    if memory is None:
        memory = _own_memory() / GB
        notes.append(f"assumed: machines of {memory:,.0f} GB, as this one; give --memory")
    if args.gpus > 1:
        notes.append("several GPUs train by autograd over NCCL, which is untested: docs/scale.md")
    if not (0 < args.gpu_memory < 1e6 and 0 < memory < 1e6):
        raise ConfigError(f"--gpu-memory {args.gpu_memory:g}, --memory {memory:g}: give GB above 0, below 1,000,000")
    plan = Plan(
        args.users,
        args.items,
        args.dim,
        args.positives or PER_USER * args.users,
        gpus=args.gpus,
        processes=args.processes,
        hosts=args.hosts,
        optimizer=args.optimizer,
        negatives=args.negatives,
        batch_size=args.batch_size,
        precision=args.precision or ("bf16" if args.gpus else "fp32"),
        gpu_memory=args.gpu_memory * GB,
        memory=memory * GB,
        notes=tuple(notes),
    )
    if args.json:
        say_json(plan.to_dict())
        return
    say(_shown(plan))


def _shown(plan: Plan) -> str:
    rows = [("per process", "where", "GB", "formula")]
    for part in plan.parts():
        where = part.where if plan.gpus and part.where == "host" else "GPU" if plan.gpus else "host"
        rows.append((part.name, where, f"{part.n_bytes / GB:,.2f}", part.formula))
    if plan.gpus:
        of = f"of {plan.gpu_memory / GB:,.0f}"
        rows.append(("in all, on the GPU", "GPU", f"{plan.device_bytes() / GB:,.2f}", of))
    rows.append(("in all, on the host", "host", f"{plan.host_bytes() / GB:,.2f}", ""))
    n = plan.world // plan.hosts
    each = f"{n} process{'es' * (n > 1)}, of {plan.memory / GB:,.0f}"
    rows.append(("machine", "host", f"{plan.machine_bytes() / GB:,.2f}", each))
    lines = [table(rows), *plan.advice(), *(f"note: {note}" for note in plan.notes)]
    return "\n".join(lines)


def _own_memory() -> float:
    try:
        return float(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    except (AttributeError, ValueError, OSError):  # not a POSIX system
        raise ConfigError("--memory: this system does not say how much memory it has; give GB") from None
