"""Build the preloaded shim, start a process under it, and steer it."""

from __future__ import annotations

import ctypes
import errno
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

SOURCE = Path(__file__).with_name("shim.c")
OPEN_R, OPEN_W, WRITE, FSYNC, TRUNC, RENAME, UNLINK, MKDIR, RMDIR = (1 << k for k in range(9))
EVERY = (1 << 9) - 1
DUP = 1 << 9
CHANGES = EVERY & ~OPEN_R
OFF, COUNT, KILL, TORN, FAIL, FAIL_ON, SHORT, SHORT_ON, TRACE = range(9)

FAULTS: dict[str, tuple[int, int, int]] = {
    "kill": (KILL, 0, CHANGES),
    "torn write": (TORN, 0, WRITE),
    "ENOSPC": (FAIL, errno.ENOSPC, OPEN_W | WRITE | FSYNC | TRUNC | RENAME | MKDIR),
    "ENOSPC from there on": (FAIL_ON, errno.ENOSPC, OPEN_W | WRITE | FSYNC | TRUNC | RENAME | MKDIR),
    "EIO": (FAIL, errno.EIO, EVERY),
    "EIO from there on": (FAIL_ON, errno.EIO, CHANGES),
    "short write": (SHORT, 0, WRITE),
    "short writes from there on": (SHORT_ON, 0, WRITE),
    "read-only from there on": (FAIL_ON, errno.EROFS, OPEN_W | TRUNC | RENAME | UNLINK | MKDIR | RMDIR),
    "no permission from there on": (FAIL_ON, errno.EACCES, OPEN_W | RENAME | UNLINK | MKDIR | RMDIR),
}
"""Name -> (mode, errno, calls that are fault points)."""


def why_not() -> str | None:
    """The reason why no shim can be built or preloaded here; None if one can."""
    if sys.platform != "linux":
        return f"the shim is for Linux, this is {sys.platform}"
    return None if shutil.which("cc") else "no C compiler (cc)"


def build() -> Path:
    """The compiled shim, built once per version of its source."""
    digest = hashlib.sha256(SOURCE.read_bytes()).hexdigest()[:16]
    target = Path(tempfile.gettempdir()) / f"fastrec-torture-{os.getuid()}-{digest}.so"
    if not target.exists():
        part = target.with_suffix(f".{os.getpid()}")
        subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(part), str(SOURCE), "-ldl", "-lpthread"], check=True)
        os.replace(part, target)
    return target


def preloaded(library: Path) -> dict[str, str]:
    """The environment for a process under the shim, with one thread for every library."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
    return {**os.environ, **single, "LD_PRELOAD": str(library)}


def arm(folder: Path, mode: int, n: int = 0, error: int = 0, kinds: int = EVERY, trace: int = -1) -> None:
    """From now on count the calls of this process under ``folder``, and do what the mode says at the n-th."""
    library = ctypes.CDLL(None)
    library.torture_arm.argtypes = (ctypes.c_char_p, ctypes.c_int, ctypes.c_long, *(ctypes.c_int,) * 3)
    library.torture_arm(os.fsencode(os.path.realpath(folder)), mode, n, error, kinds, trace)


def disarm() -> None:
    """Let every call through."""
    arm(Path("/nowhere"), OFF)


def seen() -> int:
    """Calls counted since ``arm``."""
    library = ctypes.CDLL(None)
    library.torture_seen.restype = ctypes.c_long
    return int(library.torture_seen())


def hits() -> int:
    """Calls that failed or were shortened since ``arm``."""
    library = ctypes.CDLL(None)
    library.torture_hits.restype = ctypes.c_long
    return int(library.torture_hits())


def active() -> bool:
    """Whether this process runs under the shim."""
    return hasattr(ctypes.CDLL(None), "torture_arm")
