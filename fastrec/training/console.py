"""What training shows on stdout and stderr: output that cannot be shown never stops a run."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Iterator
from typing import Any


def say(text: str, stream: str = "stderr") -> str | None:
    """Print a line and flush it.

    Parameters
    ----------
    text : str
    stream : {"stderr", "stdout"}

    Returns
    -------
    str or None
        Why it could not be shown (a full disk, a reader that has gone, a terminal that has closed); None where it was,
        and where the stream was closed from the start: nobody expects anything there.
    """
    file = getattr(sys, stream)
    if file is None:  # `2>&-`; print would write to stdout instead
        return None
    try:
        try:
            print(text, file=file, flush=True)
        except UnicodeEncodeError:
            encoding = getattr(file, "encoding", None) or "ascii"
            print(text.encode(encoding, "backslashreplace").decode(encoding), file=file, flush=True)
    except (OSError, ValueError) as error:  # ValueError: the stream was closed since
        return getattr(error, "strerror", None) or str(error)
    return None


def on_terminal() -> bool:
    """Whether stderr is a terminal that takes output."""
    try:
        if sys.stderr is None or not sys.stderr.isatty():
            return False
        sys.stderr.flush()
    except (OSError, ValueError):
        return False
    return True


def fill_closed() -> None:
    """Put the null device where stdin, stdout or stderr is closed, so that no file of a run gets its number.

    For the command line only: the streams of a process belong to its main program.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest free number


def drop_unwritable() -> str | None:
    """Send to the null device what stdout and stderr still hold but cannot write; returns why stdout could not.

    None too where its reader has gone: it has seen enough, as with `| head`. For the command line only: Python flushes
    both when it ends, and exits with 120 where that fails.
    """
    lost = None
    for file in (sys.stderr, sys.stdout):
        if file is None:
            continue
        try:
            file.flush()
        except (OSError, ValueError) as error:
            broken = isinstance(error, BrokenPipeError)
            lost = None if broken or file is sys.stderr else getattr(error, "strerror", None) or str(error)
            with contextlib.suppress(OSError, ValueError):
                null = os.open(os.devnull, os.O_WRONLY)
                os.dup2(null, file.fileno())
                os.close(null)
    return lost


@contextlib.contextmanager
def ended_by_signals() -> Iterator[None]:
    """Let SIGTERM and SIGHUP raise KeyboardInterrupt, as Ctrl-C does; SIGHUP not where it is ignored (``nohup``)."""

    def end(number: int, _: Any) -> None:
        if number != signal.SIGTERM:
            signal.signal(number, signal.SIG_IGN)  # a closing terminal sends SIGHUP twice
        raise KeyboardInterrupt

    before: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        before[signal.SIGTERM] = signal.signal(signal.SIGTERM, end)
        hangup = getattr(signal, "SIGHUP", None)
        if hangup is not None and signal.getsignal(hangup) is not signal.SIG_IGN:
            before[hangup] = signal.signal(hangup, end)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
