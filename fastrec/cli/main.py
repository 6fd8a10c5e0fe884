"""The command line: ``fastrec`` and ``python -m fastrec``. Each command calls one function of the library."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import fastrec
from fastrec.cli import (
    audit,
    baselines,
    compare,
    completion,
    data,
    doctor,
    plan,
    recommend,
    report,
    runs,
    similar,
    train,
    update,
)
from fastrec.cli.exits import EXIT_DATA, EXIT_INTERRUPTED, EXIT_USAGE, fail
from fastrec.engines.processes import refuse_several
from fastrec.errors import ConfigError, FastrecError, not_installed
from fastrec.terminal import Parser, drop_unwritable, ended_by_signals, fill_closed, joined


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code is 0, 1 (data or run at fault), 2 (usage) or 130 (interrupted)."""
    fill_closed()
    commands = parser()
    args = commands.parse_args(joined(list(sys.argv[1:] if argv is None else argv), commands))
    try:
        with ended_by_signals():  # as Ctrl-C: what was half made is taken away
            if not getattr(args, "several", False):
                refuse_several(f"fastrec {args.command}" if args.command else "fastrec")
            code = int(args.run(args) or 0)
    except ConfigError as error:
        code = fail(error, EXIT_USAGE)
    except FastrecError as error:
        code = fail(error, EXIT_DATA)
    except KeyboardInterrupt:
        code = fail("interrupted", EXIT_INTERRUPTED)
    except BrokenPipeError:  # the reader of a pipe has gone, as with `| head`
        code = 0
    except (ImportError, OSError, MemoryError) as error:  # what the system refuses is not a fault of the program
        code = fail(_refused(error), EXIT_DATA)
    lost = drop_unwritable()
    return fail(f"stdout: cannot be written ({lost})", EXIT_DATA) if lost and not code else code


def _refused(error: Exception) -> str:
    """One line for what the system refuses: a package, a file, memory."""
    if isinstance(error, ModuleNotFoundError):
        return not_installed(error.name)
    if isinstance(error, ImportError):
        return f"{error.name or 'a package'} cannot be loaded ({error}); `fastrec doctor` shows what was found"
    if isinstance(error, OSError):
        place = error.filename if error.filename is not None else "the system refused"
        return f"{os.fsdecode(place) if isinstance(place, (str, bytes)) else place}: {error.strerror or error}"
    return f"out of memory ({str(error) or 'host memory'}); use less data, or a smaller dim or batch-size"


def parser() -> Parser:
    """The complete command line, its options built from Config so that flags and TOML keys cannot drift apart.

    Without a command it prints its help.
    """
    top = Parser(
        prog="fastrec",
        description="Train, evaluate and use implicit-feedback recommenders, fast and honestly.",
        epilog="Start with `fastrec train`; then `fastrec recommend RUN --user 1`.",
    )
    top.add_argument("--version", action="version", version=f"fastrec {fastrec.__version__}")
    top.set_defaults(run=lambda _: top.print_help(), parser=top)
    commands = top.add_subparsers(title="commands", metavar="COMMAND", dest="command")
    groups = (
        data,
        train,
        update,
        runs,
        report,
        compare,
        audit,
        recommend,
        similar,
        baselines,
        plan,
        doctor,
        completion,
    )
    for group in groups:
        group.add_commands(commands)
    return top
