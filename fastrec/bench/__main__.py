"""``python -m fastrec.bench``: run cases; in a checkout also compare records and make the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastrec.bench import cases as registry
from fastrec.bench import checkout
from fastrec.bench import record as records
from fastrec.bench.table import Printer
from fastrec.errors import FastrecError, not_installed
from fastrec.terminal import say


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastrec.bench",
        description="Measure fastrec and its baselines on this machine. No option is needed.",
        epilog="Also: `python -m fastrec.bench compare A.json B.json` and `python -m fastrec.bench report --help`, "
        "in a checkout.",
    )
    parser.add_argument("--case", nargs="+", action="extend", metavar="NAME", help="only these cases; see --list")
    parser.add_argument("--data", metavar="NAME|PATH", help="data set, or a saved Interactions file (.safetensors)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all that this process may use)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: CUDA if torch finds it)")
    parser.add_argument("--quick", action="store_true", help="the four rates and two baselines in under a minute")
    parser.add_argument("--json", metavar="FILE", help="write the record here, after each case")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    return parser


def _run(argv: Sequence[str]) -> int:
    args = _run_parser().parse_args(argv)
    missing = registry.missing()
    if args.list:
        when = {"quick": "always", "default": "not with --quick", "asked": "only by --case"}
        for case in registry.available().values():
            say(f"{case.name:<18} {when[case.when]:<17} {case.title}")
        if missing:
            say(missing)
        return 0
    chosen = registry.select(args.case, quick=args.quick)
    from fastrec.bench.context import make_context

    context = make_context(data=args.data, threads=args.threads, device=args.device, quick=args.quick)
    printer = Printer()
    if missing and not args.case:
        printer.line(missing)
    record = records.run(chosen, context, printer=printer, json_path=args.json, argv=argv)
    return int(any(case["status"] != "ok" for case in record["cases"].values()))


def main(argv: Sequence[str] | None = None) -> int:
    """0: all is well; 1: a case refused or failed, or a comparison found fastrec slower; 2: a wrong argument."""
    argv = list(sys.argv[1:] if argv is None else argv)
    try:
        if argv and argv[0] in registry.CHECKOUT_COMMANDS:
            code: int = checkout.command(argv[0])(argv[1:])
            return code
        return _run(argv)
    except ModuleNotFoundError as error:
        say(f"error: {not_installed(error.name)}", err=True, keep="")
        return 2
    except FastrecError as error:
        say(f"error: {error}", err=True, keep="")
        return 2


if __name__ == "__main__":
    sys.exit(main())
