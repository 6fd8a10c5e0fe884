"""Work in forked children of a warm process: what it returned, refused or raised, or the signal that ended it.

A child starts in milliseconds where a new interpreter with torch takes seconds.
"""

from __future__ import annotations

import json
import os
import resource
import select
import signal
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fastrec.errors import FastrecError

LIMIT_S = 180.0
"""Seconds after which a child counts as hung. Generous: other jobs may use the machine."""


class End(NamedTuple):
    """The end of a child."""

    how: str
    """"returned", "refused" (a FastrecError), "raised", "killed", "hung" or "crashed"."""
    value: Any
    """What it returned, the message, the traceback, or the signal."""
    peak_bytes: int = 0


def in_child(work: Callable[[], Any], limit_s: float = LIMIT_S) -> End:
    """Run ``work`` in a forked child with its output discarded; its JSON result comes back."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        os.close(source)
        _serve(work, sink)
    os.close(sink)
    try:
        text, hung = _read(source, pid, time.monotonic() + limit_s)
    finally:
        os.close(source)
    _, status, used = os.wait4(pid, 0)
    peak = used.ru_maxrss * 1024
    if hung:
        return End("hung", f"after {limit_s:.0f} s", peak)
    if os.WIFSIGNALED(status):
        number = os.WTERMSIG(status)
        return End("killed" if number == signal.SIGKILL else "crashed", signal.Signals(number).name, peak)
    try:
        how, value = json.loads(text)
    except ValueError:
        return End("crashed", f"exit status {os.waitstatus_to_exitcode(status)} without a result", peak)
    return End(how, value, peak)


def _serve(work: Callable[[], Any], sink: int) -> None:
    """The child: never returns."""
    try:
        void = os.open(os.devnull, os.O_RDWR)
        for k in range(3):
            os.dup2(void, k)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        try:
            said = ("returned", work())
        except FastrecError as error:
            said = ("refused", str(error))
        except BaseException as error:
            said = ("raised", "".join(traceback.format_exception(error))[-3000:])
        data = json.dumps(said).encode()
        while data:
            data = data[os.write(sink, data) :]
    finally:
        os._exit(0)


def _read(source: int, pid: int, deadline: float) -> tuple[str, bool]:
    parts: list[bytes] = []
    while True:
        ready, _, _ = select.select([source], [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            os.kill(pid, signal.SIGKILL)
            return "", True
        part = os.read(source, 1 << 16)
        if not part:
            return b"".join(parts).decode(), False
        parts.append(part)


def descriptors() -> int:
    """Open file descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def resident_bytes(pid: int | str = "self") -> int:
    """Resident memory of a process."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
