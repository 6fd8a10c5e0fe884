"""The only writer of files: written to a temporary file, synced, renamed, the folder synced.

What a power cut or a kill leaves behind is the file before or the file after, never a part of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

from fastrec.errors import FastrecError

try:
    import fcntl
except ImportError:  # Windows: parts of killed writers are left where they are
    fcntl = None  # type: ignore[assignment]

_PART = re.compile(r"\.(?P<name>.+)\.\d+-\w+\.part")


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename or a new name in ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def make_folder(folder: str | os.PathLike[str]) -> None:
    """Make a folder and its missing parents such that they survive a power cut; an existing one is left as it is.

    Raises
    ------
    FastrecError
        If it cannot be made: no space, no permission, a file of that name.
    """
    folder = Path(folder)
    try:
        missing = [p for p in (folder, *folder.parents) if not p.exists()]
        folder.mkdir(parents=True, exist_ok=True)
        for made in missing:
            sync_folder(made.parent)
    except (OSError, ValueError) as error:
        raise FastrecError(
            f"{folder}: the folder cannot be made ({reason(error)}); free some space or name a folder you may write to"
        ) from error


def remove(path: str | os.PathLike[str]) -> None:
    """Remove a file; one that is gone already is not an error.

    Raises
    ------
    FastrecError
        If it cannot be removed.
    """
    try:
        Path(path).unlink(missing_ok=True)
    except OSError as error:
        raise FastrecError(
            f"{path}: cannot be removed ({reason(error)}); remove it manually, or get the permission to"
        ) from error


def reason(error: BaseException) -> str:
    """The system's words for an error, without the path that the message names already, and without Rust's number."""
    words = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r" \(os error \d+\)$", "", words)


def sweep(folder: str | os.PathLike[str], own: str) -> list[str]:
    """Remove the parts that killed writers left in ``folder``, files and folders; returns their names.

    Parameters
    ----------
    folder : path
    own : str
        Regular expression for the entire names of the files whose parts may go; other files are never touched.

    Guarantee
    ---------
    A part that a live process is writing is kept: its writer holds a lock, which ends with the process. Without
    locks (Windows, some network file systems) nothing is removed. A folder that cannot be changed is not an error.
    """
    removed: list[str] = []
    with contextlib.suppress(OSError):
        found = [(name, _PART.fullmatch(name)) for name in os.listdir(folder)]
        for name in [name for name, match in found if match and re.fullmatch(own, match["name"])]:
            with contextlib.suppress(OSError):
                path = Path(folder, name)
                is_folder = stat.S_ISDIR(os.lstat(path).st_mode)
                access = os.O_RDONLY | os.O_DIRECTORY if is_folder else os.O_RDWR
                descriptor = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
                try:
                    if fcntl and (is_folder or stat.S_ISREG(os.fstat(descriptor).st_mode)):
                        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                        shutil.rmtree(path) if is_folder else path.unlink()
                        removed.append(name)
                finally:
                    os.close(descriptor)
    return removed


def _claim(path: Path) -> tuple[Path, int]:
    """A new empty file next to ``path``, and the descriptor whose lock keeps ``sweep`` away from it."""
    while True:
        part = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        descriptor = os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o666)
        with contextlib.suppress(OSError):
            if fcntl:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        if part.exists():  # else swept between the two calls
            return part, descriptor
        os.close(descriptor)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path next to ``path`` to write to; when the block ends it takes the place of ``path`` atomically.

    If the block raises, what was written is removed and ``path`` is as it was. Parts of ``path`` that a killed process
    left are removed first.

    Parameters
    ----------
    path : path
        The file to make or replace; its folder must exist.

    Raises
    ------
    FastrecError
        If the file cannot be written: no space, no permission, no such folder.

    Cost
    ----
    Two fsyncs, some milliseconds on a disk.
    """
    path = Path(path)
    part: Path | None = None
    descriptor, placed = -1, False
    sweep(path.parent, re.escape(path.name))
    try:
        try:
            part, descriptor = _claim(path)
        except ValueError as error:  # a NUL in the name
            raise OSError(None, str(error)) from None
        yield part
        with part.open("rb") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
        placed = True
        sync_folder(path.parent)
    except BaseException as error:
        if part is not None:
            with contextlib.suppress(OSError):
                part.unlink()
        if not isinstance(error, OSError):
            raise
        raise _not_written(path, error, placed) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def atomic_folder(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a new folder next to ``path`` to fill with files; when the block ends it becomes ``path`` with all of them.

    If the block raises, the folder is removed. Parts of ``path`` that a killed process left are removed first.

    Parameters
    ----------
    path : path
        The folder to make, which must not exist; the one it goes into must.

    Raises
    ------
    FastrecError
        If it cannot be written: no space, no permission, no such folder.

    Cost
    ----
    Two fsyncs, and one for each file.
    """
    path = Path(path)
    part, descriptor, placed = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}.part"), -1, False
    sweep(path.parent, re.escape(path.name))
    try:
        part.mkdir()
        if fcntl:  # the lock keeps ``sweep`` away
            descriptor = os.open(part, os.O_RDONLY | os.O_DIRECTORY)
            with contextlib.suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield part
        for file in part.iterdir():
            with file.open("rb") as f:
                os.fsync(f.fileno())
        sync_folder(part)
        os.replace(part, path)
        placed = True
        sync_folder(path.parent)
    except BaseException as error:
        if not placed:
            shutil.rmtree(part, ignore_errors=True)
        if not isinstance(error, OSError):
            raise
        raise _not_written(path, error, placed) from error
    finally:
        if descriptor >= 0:
            os.close(descriptor)


def _not_written(path: Path, error: OSError, placed: bool) -> FastrecError:
    if placed:
        state = "the new file is in place, but a power cut may undo it"
    else:
        state = "the file before it is intact" if os.path.lexists(path) else "nothing was left behind"
    return FastrecError(
        f"{path}: cannot be written ({reason(error)}); {state}; free some space or name a folder you may write to"
    )


def write_bytes(path: str | os.PathLike[str], data: bytes) -> str:
    """Write ``data`` to ``path`` completely or not at all, and return its sha256 (see ``atomic_write``)."""
    with atomic_write(path) as part:
        part.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def sha256_file(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes. Cost: about 1 to 2 GB/s."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
