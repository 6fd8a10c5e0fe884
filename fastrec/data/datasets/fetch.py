"""Download an archive from one of several sources, check it against its pinned hash, unpack it by member name.

A download stays in a ``.part`` file until its size and hash are right, and what is unpacked stays in a folder of
its own until it is complete: a name that exists is complete, whatever interrupted the run before.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import http.client
import lzma
import os
import queue
import shutil
import ssl
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from fastrec.data.content import over_limit, unpack_limit
from fastrec.errors import DataError, DataNotFoundError, shown
from fastrec.files import sync_folder
from fastrec.terminal import printable, say

SILENCE_S = 8.0
"""Seconds without one byte, over all sources together, after which a download gives up."""

_RESUMES = 20
_CHUNK = 1 << 18
_ZIP_FAULTS = (
    *(zipfile.BadZipFile, EOFError, RuntimeError, NotImplementedError, ValueError, OverflowError),
    *(zlib.error, lzma.LZMAError, struct.error),
)


class _DiskError(OSError):
    """The part cannot be read or written: a fault of this machine, not of a source."""


@contextlib.contextmanager
def _on_disk() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _DiskError(error.errno, error.strerror or str(error)) from None


@contextlib.contextmanager
def _one_line(path: Path) -> Iterator[None]:
    try:
        yield
    except _DiskError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; free some space there") from None


def download(
    urls: Sequence[str],
    part: Path,
    *,
    n_bytes: int | None = None,
    md5: str | None = None,
    sha256: str | None = None,
    label: str = "download",
    progress: bool = True,
    silence_s: float = SILENCE_S,
) -> str:
    """Fill ``part`` from the first source with the pinned bytes, resuming where an earlier try stopped.

    Parameters
    ----------
    urls : sequence of str
        Sources of the same bytes, in order of preference.
    part : Path
        File to fill. What it holds already is not asked for again.
    n_bytes : int, optional
        Size in bytes, where it is known.
    md5, sha256 : str, optional
        Pinned digests in hexadecimal; at least one.
    label : str
        Name shown next to the progress bar, on stderr.
    progress : bool
        Show the bar.
    silence_s : float
        Seconds without a byte after which to give up, shared out evenly among the sources still to be tried. Looking
        up a host name counts too.

    Returns
    -------
    str
        The source that completed it.

    Raises
    ------
    DataNotFoundError
        If no source gave the bytes: what each one did. ``part`` stays for the next try, unless its bytes were wrong.
    DataError
        If ``part`` cannot be read or written.

    Guarantee
    ---------
    Returns only if ``part`` has the pinned size and digests. TLS certificates are always checked.
    """
    if not (md5 or sha256):
        raise DataError(f"{label}: no pinned hash, so it cannot be fetched; provide it manually")
    with _one_line(part):
        return _from_any(urls, part, n_bytes, md5, sha256, label=label, progress=progress, silence_s=silence_s)


def _from_any(
    urls: Sequence[str],
    part: Path,
    n_bytes: int | None,
    md5: str | None,
    sha256: str | None,
    *,
    label: str,
    progress: bool,
    silence_s: float,
) -> str:
    faults: dict[str, str] = {}
    deadline = time.monotonic() + silence_s
    for k, url in enumerate(urls):
        for _ in range(_RESUMES):
            before = _size(part)
            budget = (deadline - time.monotonic()) / (len(urls) - k)
            try:
                if n_bytes is None or before != n_bytes:
                    _append(url, part, n_bytes, budget, label=label, progress=progress)
            except _DiskError:
                raise
            except (OSError, http.client.HTTPException, ValueError) as error:
                faults[url] = _reason(error)
                silent = isinstance(error, TimeoutError)
                if _size(part) != before:  # data arrived, so the clock restarts at its last byte
                    deadline = time.monotonic() + silence_s - (budget if silent else 0)
                if _size(part) > before and not silent:
                    continue  # cut off on the way: the same source can go on from here
                if before and isinstance(error, _StalePartError):
                    with _on_disk():
                        part.unlink(missing_ok=True)
                    continue
                break
            deadline = time.monotonic() + silence_s
            wrong = _mismatch(part, n_bytes, md5, sha256)
            if wrong is None:
                return url
            faults[url] = wrong
            with _on_disk():
                part.unlink()
            if not before:
                break  # all of it came from this source: the next one
    tried = "\n".join(f"  {url}: {fault}" for url, fault in faults.items())
    kept = f"\n{_size(part):,} bytes are kept in {part}; the next try goes on from there." if _size(part) else ""
    raise DataNotFoundError(f"{label} could not be fetched:\n{tried}{kept}")


class _StalePartError(OSError):
    """The server cannot resume at the end of the part."""


def _append(url: str, part: Path, n_bytes: int | None, patience_s: float, *, label: str, progress: bool) -> None:
    """One connection: ask for what ``part`` lacks and write it as it comes."""
    start = _size(part)
    if n_bytes is not None and start > n_bytes:
        raise _StalePartError(f"{part} has {start:,} bytes, more than the {n_bytes:,} expected")
    headers = {"User-Agent": "fastrec", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    with _opened(urllib.request.Request(url, headers=headers), patience_s) as response:
        if response.status == 206:
            begins = response.headers.get("Content-Range", "").removeprefix("bytes ").partition("-")[0]
            if begins != str(start):
                raise _StalePartError(f"answered with bytes from {begins or '?'}, asked for them from {start}")
        else:
            start = 0
        length = response.headers.get("Content-Length")
        end = start + int(length) if length is not None else n_bytes
        if n_bytes is not None and end != n_bytes:
            raise OSError(f"offers {end:,} bytes, but {n_bytes:,} are expected: not the same file")
        _write(response, part, start, end, label=label, progress=progress)


def _write(response: Any, part: Path, start: int, end: int | None, *, label: str, progress: bool) -> None:
    from tqdm import tqdm

    bar = tqdm(
        total=end,
        initial=start,
        desc=printable(label),
        unit="B",
        unit_scale=True,
        file=sys.stderr,
        disable=not progress,
    )
    at = start
    try:
        with bar, contextlib.ExitStack() as stack:
            with _on_disk():
                out = stack.enter_context(part.open("r+b" if start else "wb", buffering=0))
                out.seek(start)
            # read1: returns what has come, so that a slow server moves the bar and keeps its time-out fresh
            while chunk := response.read1(_CHUNK):
                at += len(chunk)
                if end is not None and at > end:
                    raise OSError(f"sent more than the {end:,} bytes it announced")
                bar.update(len(chunk))
                while chunk:  # a nearly full disk takes a part
                    with _on_disk():
                        chunk = chunk[out.write(chunk) or 0 :]
    except TimeoutError:
        raise TimeoutError(f"fell silent after {at:,} bytes") from None
    if end is not None and at < end:
        raise OSError(f"broke off after {at:,} of {end:,} bytes")


@contextlib.contextmanager
def _opened(request: urllib.request.Request, patience_s: float) -> Iterator[Any]:
    """Connect in a thread of its own: neither a name look-up nor a slow header obeys a socket's time-out."""
    answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
    given_up = threading.Event()

    def connect() -> None:
        try:
            answer: Any = urllib.request.urlopen(request, timeout=max(patience_s, 0.001))
        except Exception as error:
            answer = error
        answers.put(answer)
        if given_up.is_set() and not isinstance(answer, Exception):
            answer.close()

    threading.Thread(target=connect, name="fastrec-connect", daemon=True).start()
    try:
        answer = answers.get(timeout=max(patience_s, 0.001))
    except queue.Empty:
        given_up.set()
        raise TimeoutError(f"no answer within {patience_s:.1f} s") from None
    if isinstance(answer, urllib.error.HTTPError):
        answer.close()
        if answer.code == 416:
            raise _StalePartError("cannot go on from where the last try stopped")
        raise OSError(f"HTTP {answer.code} {answer.reason}")
    if isinstance(answer, Exception):
        raise answer
    with answer:
        yield answer


def _reason(error: BaseException) -> str:
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its TLS certificate was refused: {error.verify_message}"
    if isinstance(error, TimeoutError):
        return str(error) if error.errno is None and str(error) != "timed out" else "no answer in time"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error) or type(error).__name__


def _size(path: Path) -> int:
    with _on_disk():
        try:
            return path.stat().st_size
        except FileNotFoundError:
            return 0


def _mismatch(path: Path, n_bytes: int | None, md5: str | None, sha256: str | None) -> str | None:
    """The difference from the pins, or None."""
    size = _size(path)
    if n_bytes is not None and size != n_bytes:
        return f"{size:,} bytes, but {n_bytes:,} are pinned"
    for name, pinned in (("sha256", sha256), ("md5", md5)):
        if pinned is None:
            continue
        with _on_disk(), path.open("rb") as f:
            found = hashlib.file_digest(f, lambda name=name: hashlib.new(name, usedforsecurity=False)).hexdigest()  # type: ignore[misc]
        if found != pinned:
            return f"wrong {name} {found}, but {pinned} is pinned: the bytes are not the publisher's"
    return None


def unpack(archive: Path, folder: Path, members: Mapping[str, str]) -> None:
    """Write the named members of a zip archive as plain files of ``folder``, which appears completely or not at all.

    One call at a time for one folder: ``exclusive`` sees to that.

    Parameters
    ----------
    archive : Path
        A zip file.
    folder : Path
        Where the files go. An older folder of that name is replaced.
    members : mapping of str to str
        Member name in the archive to plain file name. Nothing else is unpacked, so that a member called ``../x`` or
        a link cannot write anywhere.

    Raises
    ------
    DataError
        If the archive is damaged, lacks a member or holds one that passes ``unpack_limit``, or ``folder`` cannot be
        written.
    """
    atomic_write, old = (folder.with_name(f".{folder.name}.{what}") for what in ("unpacking", "old"))
    try:
        for leftover in (atomic_write, old):  # of a run that was killed here
            shutil.rmtree(leftover, ignore_errors=True)
        atomic_write.mkdir()
        with zipfile.ZipFile(archive) as z:
            for member, name in members.items():
                if Path(name).name != name or name in {"", ".", ".."}:
                    raise DataError(f"{archive}: {member} may not be unpacked to {name!r}: not a plain file name")
                info = z.getinfo(member)
                limit = unpack_limit(info.compress_size)
                if info.file_size > limit:  # zipfile reads no more than the size that is declared
                    raise over_limit(f"{archive}: {member}", info.compress_size, limit)
                with z.open(member) as source, (atomic_write / name).open("wb") as out:
                    shutil.copyfileobj(source, out, _CHUNK)
                    out.flush()
                    os.fsync(out.fileno())  # on the disk before the folder gets its name
        sync_folder(atomic_write)
        if folder.exists():
            os.replace(folder, old)
        os.replace(atomic_write, folder)
        sync_folder(folder.parent)
        shutil.rmtree(old, ignore_errors=True)
    except KeyError as error:
        raise DataError(f"{archive}: {error.args[0]}") from None
    except DataError:
        raise
    except (*_ZIP_FAULTS, OSError) as error:
        # bz2 raises OSError without a number, and a damaged directory makes zipfile seek before the start
        if not isinstance(error, OSError) or error.errno in (None, errno.EINVAL):
            why = shown(str(error), 200)[1:-1]
            raise DataError(f"{archive}: not a sound zip archive ({why}); delete it and fetch it again") from None
        raise DataError(f"{folder}: cannot be written: {error.strerror or error}") from None
    finally:
        shutil.rmtree(atomic_write, ignore_errors=True)


@contextlib.contextmanager
def exclusive(path: Path) -> Iterator[None]:
    """Hold the lock file ``path`` against other processes and threads; waits, and says so, while another holds it."""
    import fcntl

    try:
        lock = path.open("w")
    except OSError as error:
        raise DataError(f"{path}: cannot be written: {error.strerror}; change its rights, or delete it") from None
    with lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say(f"waiting for another process that holds {path}", err=True, flush=True, keep="")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(base: Path, name: str, *, complete: bool) -> None:
    """Remove the remains of a killed fetch of one set in ``base``, unless a fetch of it is running.

    The half of a folder that was being unpacked or replaced goes; the downloaded ``.part`` goes where the set is
    complete, and stays otherwise: the next fetch resumes from it.
    """
    import fcntl

    left = [base / f".{name}.unpacking", base / f".{name}.old", *([base / f"{name}.zip.part"] if complete else [])]
    if not any(map(os.path.lexists, left)):
        return
    with (
        contextlib.suppress(OSError),
        (base / f".{name}.lock").open("w") as lock,
    ):  # OSError: held, or a read-only cache
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        for path in left:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path, ignore_errors=True)
            else:
                path.unlink(missing_ok=True)
