"""Raw bytes of a file: its kind by its first bytes, and its content, unpacked within a limit.

Kinds are recognised whatever the name says: gzip and zstd are unpacked, plain text is left to the readers, and anything
else is refused by its own name, which a parser of columns could not give.
"""

from __future__ import annotations

import contextlib
import gzip
import io
import os
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from fastrec.errors import ConfigError, DataError

PACKED = (".gz", ".zst")
"""Suffixes that are looked through; the content decides how it is unpacked."""

LIMIT_VARIABLE = "FASTREC_MAX_UNPACKED"
_LEAST_LIMIT, _MOST_RATIO = 1 << 26, 64
_HEAD = 4096
_BLOCK = 1 << 18
_ZSTD_BLOCK = 1 << 9  # bytes fed at once: 4 of them can unpack to 128 KiB

_UNPACK = "unpack it (gzip and zstd are read as they are)"
_EXPORT = "export it as CSV or Parquet"
JSON = "JSON"
_UTF8 = "save it as UTF-8"
_AGAIN = "fetch it again, or export it as CSV or Parquet"
_SIGNATURES: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "a zip archive (or an Excel or NumPy file, which are zip archives)", _UNPACK),
    (b"PK\x05\x06", "an empty zip archive", _AGAIN),
    (b"PK\x07\x08", "a zip archive in several parts", _UNPACK),
    (b"\xfd7zXZ\x00", "an xz file", _UNPACK),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive", _UNPACK),
    (b"Rar!\x1a\x07", "a RAR archive", _UNPACK),
    (b"LZIP\x01", "an lzip file", _UNPACK),
    (b"\x04\x22\x4d\x18", "an lz4 file", _UNPACK),
    (b"\x1f\x9d", "a file packed by compress (.Z)", _UNPACK),
    (b"\xff\x06\x00\x00sNaPpY", "a Snappy file", _UNPACK),
    (b"!<arch>\n", "an ar archive", _UNPACK),
    (b"ARROW1\x00\x00", "an Arrow (Feather) file", "name it .arrow"),
    (b"FEA1\x00", "a Feather file", _EXPORT),
    (b"Obj\x01", "an Avro file", _EXPORT),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file", _EXPORT),
    (b"SQLite format 3\x00", "an SQLite database", _EXPORT),
    (b"\x93NUMPY", "a NumPy .npy file", _EXPORT),
    (b"MATLAB 5.0 MAT-file", "a MATLAB file", _EXPORT),
    (b"RDX3\n", "an R data file", _EXPORT),
    (b"RDX2\n", "an R data file", _EXPORT),
    (b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1", "an old Office file (.xls, .doc)", _EXPORT),
    (b"%PDF-", "a PDF", _EXPORT),
    (b"{\\rtf", "an RTF text", _EXPORT),
    (b"\x89PNG\r\n\x1a\n", "a PNG image", _AGAIN),
    (b"\xff\xd8\xff", "a JPEG image", _AGAIN),
    (b"GIF87a", "a GIF image", _AGAIN),
    (b"GIF89a", "a GIF image", _AGAIN),
    (b"\x7fELF", "a program (ELF)", _AGAIN),
    (b"version https://git-lfs.github.com/spec/", "a Git LFS pointer, not the file itself", "run `git lfs pull`"),
    (b"\xff\xfe\x00\x00", "UTF-32 text", _UTF8),
    (b"\x00\x00\xfe\xff", "UTF-32 text", _UTF8),
    (b"\xff\xfe", "UTF-16 text", _UTF8),
    (b"\xfe\xff", "UTF-16 text", _UTF8),
)


def require_file(path: Path) -> Path:
    """The path itself if it is a file with content.

    Raises
    ------
    DataError
        If it is missing, a folder, something that is not a regular file, or empty.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder; give the path of a file in it")
    if not path.is_file():
        kind = "is not a regular file (a device, pipe or socket)" if path.exists() else "no such file"
        raise DataError(f"{path}: {kind}; give the path of an existing one")
    if path.stat().st_size == 0:
        raise DataError(f"{path}: the file is empty; it may be a download that failed: fetch it again")
    return path


@contextlib.contextmanager
def one_line(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn an error of the system (permission, a file used as a folder, a name too long) into a ``DataError``."""
    try:
        yield
    except OSError as error:
        where = os.fsdecode(path if error.filename is None else error.filename)
        where = where if len(where) <= 300 else f"{where[:297]}..."
        raise DataError(f"{where}: cannot be read: {error.strerror or error}; check the path and its rights") from None
    except MemoryError:
        raise DataError(f"{os.fsdecode(path)}: needs more memory than there is; use a larger machine") from None


def expanded(path: str | os.PathLike[str], what: str = "") -> Path:
    """The path with ``~`` and ``~user`` replaced; messages call it ``what``, by default as it is given.

    Raises
    ------
    DataError
        If there is no such user, or no home folder.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError:
        name = os.fsdecode(path)
        raise DataError(
            f"{what or name}: the home folder of {name.split('/')[0]!r} is not known; give the full path"
        ) from None


def packing(head: bytes) -> str | None:
    """ "gzip" or "zstd" for the first bytes of a packed file, None for others."""
    if head[:2] == b"\x1f\x8b":
        return "gzip"
    return "zstd" if head[:4] == b"\x28\xb5\x2f\xfd" else None


def is_parquet(path: Path) -> bool:
    """Whether the file begins as Parquet does."""
    with require_file(path).open("rb") as f:
        return f.read(4) == b"PAR1"


def is_json(path: Path) -> bool:
    """Whether the file, unpacked, begins as JSON does: with an object, or an array of objects."""
    with open_content(path, json=True) as f:
        start = f.read(_HEAD).removeprefix(b"\xef\xbb\xbf").split()
    text = b"".join(start[:3])
    return text.startswith((b'{"', b"{}", b"[{", b"[]"))


def foreign(head: bytes) -> tuple[str, str] | None:
    """The fault of first bytes that are not text in UTF-8 or Latin-1, and advice; None for text."""
    for signature, what, remedy in _SIGNATURES:
        if head.startswith(signature):
            return what, remedy
    if head[:4] == b"PAR1":
        return "a Parquet file", "name it .parquet"
    if head[:3] == b"BZh" and head[4:10] in (b"1AY&SY", b"\x17rE8P\x90"):
        return "a bzip2 file", _UNPACK
    if head[:3] == b"ORC" and head[3:4] < b" ":
        return "an ORC file", _EXPORT
    if head[257:262] == b"ustar":
        return "a tar archive", "unpack it"
    if head[:1] == b"\x80" and head[1:2] in b"\x02\x03\x04\x05" and len(head) > 1:
        return "a Python pickle", _EXPORT
    if head[8:9] == b"{" and 0 < int.from_bytes(head[:8], "little") < 1 << 32:
        return "a safetensors file", "name it .safetensors if Interactions.save wrote it"
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip()[:16].lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml")):
        return "a web page or XML", "it may be an error page in place of a download: fetch it again"
    if start[:1] == b"{" and start[1:].lstrip()[:1] in (b'"', b"}"):
        return JSON, "name it .jsonl if each line is an object"
    zeros_even, zeros_odd = head[::2].count(0), head[1::2].count(0)
    half = len(head) // 2
    if half and max(zeros_even, zeros_odd) > 0.4 * half and min(zeros_even, zeros_odd) < 0.05 * half:
        return "UTF-16 text", _UTF8
    if zeros_even + zeros_odd > 0.3 * len(head):
        return f"binary ({zeros_even + zeros_odd} of its first {len(head)} bytes are NUL), not text", _AGAIN
    return None


def unpack_limit(packed: int) -> int:
    """Most bytes that a packed file of this size may unpack to.

    64 times its size and at least 64 MiB (logs reach 4 to 20 times), but no more than half of the machine's memory;
    or what the variable ``FASTREC_MAX_UNPACKED`` says.

    Raises
    ------
    ConfigError
        If the variable is not a number of bytes.
    """
    given = os.environ.get(LIMIT_VARIABLE)
    if given:
        if not (given.isascii() and given.isdigit() and len(given) < 20 and int(given)):
            raise ConfigError(f"{LIMIT_VARIABLE}={given[:40]!r}: must be a number of bytes, such as 8000000000")
        return int(given)
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min(max(_LEAST_LIMIT, _MOST_RATIO * packed), max(_LEAST_LIMIT, memory // 2))


def over_limit(where: str, packed: int, limit: int) -> DataError:
    """The error for content that passes its limit."""
    return DataError(
        f"{where}: unpacks to more than {limit:,} bytes, the limit for {packed:,} packed bytes. If it is sound, unpack "
        f"it first, or set {LIMIT_VARIABLE} to a larger number of bytes"
    )


def _unpacked(f: IO[bytes], how: str) -> Iterator[bytes]:
    """Content of an open gzip or zstd file, in blocks of bounded size."""
    if how == "gzip":
        with gzip.GzipFile(fileobj=f) as content:
            while block := content.read(_BLOCK):
                yield block
        return
    import zstandard

    unpacker = zstandard.ZstdDecompressor(max_window_size=1 << 27)
    data = f.read(_ZSTD_BLOCK)
    while data:
        frame = unpacker.decompressobj()
        while not frame.eof:
            if not data and not (data := f.read(_ZSTD_BLOCK)):
                raise EOFError("it ends inside a frame")
            yield frame.decompress(data)
            data = b""
        data = frame.unused_data or f.read(_ZSTD_BLOCK)


def _gzip_header_fault(head: bytes) -> str | None:
    """What is wrong with the header of a gzip file: reserved flags, or its checksum. Source: RFC 1952."""
    flags = head[3] if len(head) > 3 else 0
    if flags & 0xE0:
        return "reserved flags"
    if not flags & 2:
        return None
    end = 10
    if flags & 4:
        end += 2 + int.from_bytes(head[end : end + 2], "little")
    for flag in (8, 16):  # name, comment
        if flags & flag:
            end = head.find(b"\0", end) + 1 or len(head)
    return (
        None if head[end : end + 2] == (zlib.crc32(head[:end]) & 0xFFFF).to_bytes(2, "little") else "a wrong checksum"
    )


def blocks_of(path: Path) -> Iterator[bytes]:
    """The content of a packed file, block by block.

    Raises
    ------
    DataError
        If the stream is damaged or cut short, or passes ``unpack_limit``.
    """
    with path.open("rb") as f:
        head = f.read(1 << 17)
        how = packing(head)
        if how == "gzip" and (fault := _gzip_header_fault(head)):  # Python reads on, Polars' lazy scan does not
            raise DataError(f"{path}: not a complete gzip file ({fault} in its header); fetch it again")
        f.seek(0)
        packed = os.fstat(f.fileno()).st_size
        limit, total = unpack_limit(packed), 0
        blocks = _unpacked(f, str(how))
        while True:
            try:
                block = next(blocks, None)
            except Exception as error:
                if not isinstance(error, (OSError, EOFError, zlib.error)) and type(error).__name__ != "ZstdError":
                    raise
                raise DataError(f"{path}: not a complete {how} file ({error}); fetch it again") from None
            if block is None:
                return
            total += len(block)
            if total > limit:
                raise over_limit(str(path), packed, limit)
            yield block


class _Stream(io.RawIOBase):
    """``blocks_of`` as a file."""

    def __init__(self, path: Path) -> None:
        self._blocks = blocks_of(path)
        self._rest = memoryview(b"")

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._rest:
            block = next(self._blocks, None)
            if block is None:
                return 0
            self._rest = memoryview(block)
        n = min(len(buffer), len(self._rest))
        buffer[:n] = self._rest[:n]
        self._rest = self._rest[n:]
        return n

    def close(self) -> None:
        self._blocks.close()  # type: ignore[attr-defined]  # a generator: closes the file under it
        super().close()


def open_content(path: Path, *, json: bool = False) -> IO[bytes]:
    """A text file in binary, unpacked if it is packed; with ``json`` JSON is text too.

    Raises
    ------
    DataError
        If it is missing, empty, or of a kind that holds no text; on reading, if it is damaged or passes the limit.
    """
    with require_file(path).open("rb") as f:
        head = f.read(_HEAD)
    how = packing(head)
    content: Any = path.open("rb") if how is None else io.BufferedReader(_Stream(path), _BLOCK)
    if how is not None:
        try:
            head = content.peek(_HEAD)[:_HEAD]
        except DataError:
            content.close()
            raise
    what = foreign(head) or ((f"{packing(head)} again", "unpack it once") if packing(head) and how else None)
    if what is not None and not (json and what[0] == JSON):
        content.close()
        inside = f"{how} file that holds " if how else ""
        raise DataError(f"{path}: is {'a ' if how else ''}{inside}{what[0]}, not a log in text; {what[1]}")
    opened: IO[bytes] = content
    return opened


def content_of(path: Path, *, json: bool = False) -> Path | bytes:
    """The path itself for a plain text file, the content in memory for a packed one.

    Raises
    ------
    DataError
        As ``open_content``; also if a packed file holds nothing.
    """
    with open_content(path, json=json) as f:
        if isinstance(f, io.BufferedReader) and not isinstance(f.raw, _Stream):
            return path
        whole = io.BytesIO()  # getvalue() does not copy, unlike b"".join
        while block := f.read(_BLOCK):
            whole.write(block)
    if not whole.tell():
        raise DataError(f"{path}: there is nothing in the packed file; fetch it again")
    return whole.getvalue()
