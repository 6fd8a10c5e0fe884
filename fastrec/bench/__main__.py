"""``python -m fastrec.bench``: run cases, compare records, make the report."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence

from fastrec.bench import cases as registry
from fastrec.bench import compare as comparing
from fastrec.bench import record as records
from fastrec.bench.table import Printer
from fastrec.errors import FastrecError
from fastrec.terminal import say


def _run_parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m fastrec.bench",
        description="Measure fastrec and its rivals on this machine. No option is needed.",
        epilog="Also: `python -m fastrec.bench compare A.json B.json` and `python -m fastrec.bench report --help`.",
    )
    parser.add_argument("--case", nargs="+", action="extend", metavar="NAME", help="only these cases; see --list")
    parser.add_argument("--data", metavar="NAME|PATH", help="data set, or a saved Interactions file (.safetensors)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: all that this process may use)")
    parser.add_argument("--device", help="cpu, cuda, cuda:1 (default: CUDA if torch finds it)")
    parser.add_argument("--quick", action="store_true", help="the four rates and two rivals in under a minute")
    parser.add_argument("--json", metavar="FILE", help="write the record here, after each case")
    parser.add_argument("--list", action="store_true", help="list the cases and stop")
    return parser


def _compare(argv: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(
        prog="python -m fastrec.bench compare",
        description="Compare two records row by row; rates are scaled by the calibration kernel timed beside them.",
        epilog="Ends with 1 if a row of fastrec's own is slower or a case gives no rate any more, else 0.",
    )
    parser.add_argument("before")
    parser.add_argument("after")
    parser.add_argument(
        "--tolerance", type=float, default=comparing.TOLERANCE, help="share that never fails (%(default)s)"
    )
    args = parser.parse_args(argv)
    a, b = records.read(args.before), records.read(args.after)
    verdicts, left = comparing.compare(a, b, tolerance=args.tolerance)
    comparing.show(verdicts, left, Printer())
    return comparing.exit_code(verdicts, a, b)


def _report(argv: Sequence[str]) -> int:
    from fastrec.bench import report

    return report.main(argv)


def _run(argv: Sequence[str]) -> int:
    args = _run_parser().parse_args(argv)
    if args.list:
        when = {"quick": "always", "default": "not with --quick", "asked": "only by --case"}
        for case in registry.CASES.values():
            say(f"{case.name:<18} {when[case.when]:<17} {case.title}")
        return 0
    chosen = registry.select(args.case, quick=args.quick)
    from fastrec.bench.context import make_context

    context = make_context(data=args.data, threads=args.threads, device=args.device, quick=args.quick)
    record = records.run(chosen, context, printer=Printer(), json_path=args.json, argv=argv)
    return int(any(case["status"] != "ok" for case in record["cases"].values()))


def main(argv: Sequence[str] | None = None) -> int:
    """0: all is well; 1: a case refused or failed, or a comparison found fastrec slower; 2: a wrong argument."""
    argv = list(sys.argv[1:] if argv is None else argv)
    commands = {"compare": _compare, "report": _report}
    try:
        if argv and argv[0] in commands:
            return commands[argv[0]](argv[1:])
        return _run(argv)
    except FastrecError as error:
        say(f"error: {error}", err=True, keep="")
        return 2


if __name__ == "__main__":
    sys.exit(main())
