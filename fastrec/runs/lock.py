"""One process trains a run at a time: a lock on the folder that ends with the process, however it ends."""

from __future__ import annotations

import contextlib
import os
import warnings
from collections.abc import Iterator
from pathlib import Path

from fastrec.errors import CheckpointError

LOCK = ".lock"
_held: set[int] = set()


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run folder for the length of the block.

    The lock is the operating system's (``flock``; ``msvcrt.locking`` on Windows): a dead process holds none, and the
    file ``.lock`` that stays behind means nothing by itself.

    Raises
    ------
    CheckpointError
        If another process, or another thread of this one, trains the run; or if the folder cannot be written.
    """
    path = folder / LOCK
    try:
        # a link is not followed: the file it names is somebody else's
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
    except OSError as error:
        raise CheckpointError(
            f"{path}: cannot be opened ({error.strerror}), so nothing keeps a second training out of this run; make "
            "the folder writable, or delete that file"
        ) from None
    if not _lock(descriptor, path):
        holder = ""
        with contextlib.suppress(OSError):  # on Windows a locked file cannot be read
            holder = os.read(descriptor, 32).decode("ascii", "replace").strip()
        os.close(descriptor)
        who = f" (process {holder})" if holder.isdigit() else ""
        raise CheckpointError(f"{folder}: is being trained already{who}; wait for it to end, or stop it first")
    _held.add(descriptor)
    try:
        with contextlib.suppress(OSError):  # the number is for the message only: a full disk does not matter
            os.ftruncate(descriptor, 0)
            os.write(descriptor, str(os.getpid()).encode())
        yield
    finally:
        if descriptor in _held:
            _held.discard(descriptor)
            os.close(descriptor)


def _lock(descriptor: int, path: Path) -> bool:
    """Take the lock without waiting; False where it is held. Says so where the file system has no locks."""
    try:
        import fcntl
    except ImportError:
        return _lock_windows(descriptor)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        warnings.warn(f"{path}: no lock ({error.strerror}); do not train this run twice at once", stacklevel=4)
    return True


def _lock_windows(descriptor: int) -> bool:
    import msvcrt

    try:
        msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined, unused-ignore]
    except OSError:
        return False
    return True


def _release() -> None:
    """In a forked child: it must not keep the lock of a parent that dies."""
    for descriptor in _held:
        os.close(descriptor)
    _held.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_release)
