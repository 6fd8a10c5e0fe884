"""The only writer and the only reader of safetensors files; a checksum in the header finds a flipped bit.

Source: the format at https://github.com/huggingface/safetensors (8 bytes of header length, JSON, then the data).
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fastrec.errors import DataError, shown
from fastrec.files.atomic import atomic_write, reason
from fastrec.files.checked import expect, parse_json

_CHUNK = 1 << 23
_MAX_HEADER = 100_000_000
"""The limit of the safetensors library."""
_MARK = b'"checksum":"'
_CODES = {
    "BOOL": "bool",
    **{f"{kind.upper()}{8 * n}": f"<{kind}{n}" for kind in "iu" for n in (1, 2, 4, 8)},
    **{f"F{8 * n}": f"<f{n}" for n in (2, 4, 8)},
    "BF16": "<u2",  # NumPy has no bfloat16: read by ``load_tensors``
}
_NAMES = {np.dtype(v): k for k, v in _CODES.items() if k != "BF16"}


@dataclass(frozen=True)
class FileArray:
    """A one-dimensional array that is in a file of raw little-endian values: written from there, never in memory.

    Parameters
    ----------
    path : Path
    dtype : dtype
    n : int
        Number of values.
    """

    path: Path
    dtype: np.dtype[Any]
    n: int

    @property
    def size(self) -> int:
        """Bytes."""
        return self.n * self.dtype.itemsize

    def __getitem__(self, chunk: slice) -> NDArray[np.uint8]:
        """The bytes of a slice with a start and a stop."""
        stop = min(chunk.stop, self.size)
        return np.fromfile(self.path, np.uint8, stop - chunk.start, offset=chunk.start)

    def values(self, start: int, stop: int) -> NDArray[Any]:
        """The values from ``start`` to ``stop``."""
        return np.fromfile(self.path, self.dtype, stop - start, offset=start * self.dtype.itemsize)


def write_tensors(
    path: str | os.PathLike[str],
    tensors: Mapping[str, Any],
    metadata: Mapping[str, str] | None = None,
    *,
    checksum: bool = False,
) -> str:
    """Write NumPy arrays or torch tensors (or both) as one safetensors file, atomically, and return its sha256.

    Parameters
    ----------
    path : path
        The file to make or replace.
    tensors : mapping of str to ndarray, torch.Tensor or FileArray
        Any device, contiguous or not.
    metadata : mapping of str to str, optional
        Text kept in the header.
    checksum : bool
        Keep a checksum of header and data in the header, which ``map_safetensors`` verifies.

    Raises
    ------
    FastrecError
        If the file cannot be written.

    Guarantee
    ---------
    Equal tensors under equal names give equal bytes, in whatever order they were put in and of whichever kind: the
    file has no time, path or other trace of its making.

    Cost
    ----
    One pass of sha256, two with ``checksum``.
    """
    raw = {name: _raw(value, f"{path}: {name}") for name, value in tensors.items()}
    # wide types first, so that every tensor is aligned behind a header of a multiple of 8 bytes
    order = sorted(raw, key=lambda name: (-np.dtype(_CODES[raw[name][0]]).itemsize, name))
    header: dict[str, Any] = {}
    if metadata is not None or checksum:
        header["__metadata__"] = dict(
            sorted({**(metadata or {}), **({"checksum": "0" * 64} if checksum else {})}.items())
        )
    end = 0
    for name in order:
        code, shape, data = raw[name]
        header[name] = {"dtype": code, "shape": shape, "data_offsets": [end, end + data.size]}
        end += data.size
    text = json.dumps(header, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    head = len(text).to_bytes(8, "little") + text
    if checksum:
        digest = _combined(head, _digests([raw[name][2] for name in order]))
        at = head.index(_MARK) + len(_MARK)
        head = head[:at] + digest.encode() + head[at + 64 :]
    sha256 = hashlib.sha256(head)
    with atomic_write(path) as part, part.open("wb") as f:
        f.write(head)
        for name in order:
            data = raw[name][2]
            for at in range(0, data.size, _CHUNK):
                sha256.update(data[at : at + _CHUNK].data)
                f.write(data[at : at + _CHUNK].data)
    return sha256.hexdigest()


def _raw(value: Any, what: str) -> tuple[str, list[int], NDArray[np.uint8] | FileArray]:
    """Code of the type, shape, and the bytes of an array or tensor."""
    if isinstance(value, FileArray):
        return _NAMES[value.dtype], [value.n], value
    if hasattr(value, "detach"):
        value = value.detach().cpu().contiguous()
        shape, name = list(value.shape), str(value.dtype).removeprefix("torch.")
        if name == "bfloat16":
            import torch

            return "BF16", shape, value.reshape(-1).view(torch.uint8).numpy()
        value = value.numpy()
    array = np.ascontiguousarray(value)
    array = array.astype(array.dtype.newbyteorder("<"), copy=False)
    if array.dtype not in _NAMES:
        raise DataError(f"{what} is {array.dtype}, which safetensors files do not hold; convert it to numbers")
    return _NAMES[array.dtype], list(np.shape(value)), array.reshape(-1).view(np.uint8)


def _combined(head: bytes, digests: Sequence[bytes]) -> str:
    """The checksum: sha256 of the header, its own place zeroed, and of the sha256 of each chunk of each tensor."""
    return hashlib.sha256(head + b"".join(digests)).hexdigest()


def _digests(parts: Sequence[NDArray[np.uint8] | FileArray]) -> list[bytes]:
    chunks = [(part, at) for part in parts for at in range(0, part.size, _CHUNK)]
    return _in_threads(lambda chunk: hashlib.sha256(chunk[0][chunk[1] : chunk[1] + _CHUNK].data).digest(), chunks)


def _in_threads(work: Callable[[Any], bytes], chunks: Sequence[Any]) -> list[bytes]:
    """``work`` of each chunk; hashing and reading release the lock of the interpreter."""
    if len(chunks) < 4:
        return [work(chunk) for chunk in chunks]
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with ThreadPoolExecutor(min(8, count)) as pool:
        return list(pool.map(work, chunks))


class _Entry(NamedTuple):
    code: str
    shape: list[int]
    start: int
    end: int


class _Header(NamedTuple):
    entries: dict[str, _Entry]
    """In the order of their bytes, from the start of the file on."""
    metadata: dict[str, str]
    head: bytes


def map_safetensors(
    path: str | os.PathLike[str], *, mmap: bool = True, verify: bool = True
) -> tuple[dict[str, NDArray[Any]], dict[str, str]]:
    """Read a safetensors file as read-only arrays over mapped memory, with its metadata, all of it checked.

    Source: the format at https://github.com/huggingface/safetensors (8 bytes of header length, JSON, then the data).

    Parameters
    ----------
    path : path
    mmap : bool
        Leave the arrays on disk until touched; else read them.
    verify : bool
        Compare header and data with the checksum, where the header has one.

    Raises
    ------
    DataError
        If the file is missing, truncated, damaged or not in the format.

    Cost
    ----
    ``verify`` reads the file once, at about 1.1 GB/s per thread with up to 8 threads, in chunks of 8 MiB (324 MB:
    0.29 s of processor time); the pages are then in the cache of the system for what comes next.
    """
    path = Path(path)
    try:
        with _opened(path) as f:
            header = _read_header(f, verify=verify)
            raw = np.memmap(path, dtype=np.uint8, mode="r") if mmap else np.fromfile(path, dtype=np.uint8)
        raw.flags.writeable = False
        tensors: dict[str, NDArray[Any]] = {}
        for name, (code, shape, start, end) in header.entries.items():
            if code == "BF16":
                raise ValueError(f"{name} is bfloat16")
            array = raw[start:end].view(_CODES[code]).reshape(shape).view(np.ndarray)
            tensors[name] = np.require(array, requirements="A")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; save one with Interactions.save") from None
    except (OSError, ValueError, OverflowError) as error:
        raise DataError(f"{path}: not a complete safetensors file ({reason(error)}); make it again") from None
    return tensors, header.metadata


def load_tensors(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a safetensors file as torch tensors on the CPU that own their memory, bfloat16 among them.

    Raises
    ------
    DataError
        If the file is missing, truncated or not in the format.
    """
    import torch

    path, tensors = Path(path), {}
    try:
        with _opened(path) as f:
            for name, (code, shape, start, end) in _read_header(f, verify=True).entries.items():
                f.seek(start)
                data = np.empty(end - start, np.uint8)
                if f.readinto(data.data) != data.size:  # type: ignore[attr-defined]
                    raise ValueError("it ends too early")
                if code == "BF16":
                    tensors[name] = torch.from_numpy(data).view(torch.bfloat16).reshape(shape)
                else:
                    tensors[name] = torch.from_numpy(data.view(_CODES[code]).reshape(shape))
    except (OSError, ValueError, OverflowError, TypeError, RuntimeError) as error:
        raise DataError(f"{path}: not a complete safetensors file ({reason(error)})") from None
    return tensors


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    if not stat.S_ISREG(path.stat().st_mode):  # opening a pipe would wait for its writer
        raise ValueError("not a file")
    with path.open("rb") as f:
        yield f


_ENTRY = {"dtype": str, "shape": [int], "data_offsets": [int]}


def _read_header(f: BinaryIO, *, verify: bool) -> _Header:
    """Read and check a header: its entries tile the data without gap or overlap, and the checksum fits.

    Raises ValueError with the reason.
    """
    size = os.fstat(f.fileno()).st_size
    prefix = f.read(8)
    length = int.from_bytes(prefix, "little")
    if len(prefix) < 8 or length > min(size - 8, _MAX_HEADER):
        raise ValueError(f"header of {length} bytes in a file of {size}")
    head = prefix + f.read(length)
    table = parse_json(head[8:])
    expect(table, {str: object}, "header")
    metadata = table.pop("__metadata__", {})
    expect(metadata, {str: str}, "__metadata__")
    entries, at = {}, len(head)
    for name, entry in table.items():
        expect(entry, _ENTRY, name)
        if entry["dtype"] not in _CODES or len(entry["data_offsets"]) != 2:
            raise ValueError(f"{name} has dtype {shown(entry['dtype'])} and offsets {shown(entry['data_offsets'])}")
        start, end = entry["data_offsets"]
        n_bytes = math.prod(entry["shape"]) * np.dtype(_CODES[entry["dtype"]]).itemsize
        if any(n < 0 for n in entry["shape"]) or not 0 <= start <= end or end - start != n_bytes:
            raise ValueError(f"{name} of shape {shown(entry['shape'])} has bytes {start} to {end}")
        entries[name] = _Entry(entry["dtype"], entry["shape"], len(head) + start, len(head) + end)
    entries = dict(sorted(entries.items(), key=lambda pair: (pair[1].start, pair[1].end)))
    for name, entry in entries.items():
        if entry.start != at:
            raise ValueError(f"{name} starts at byte {entry.start} where byte {at} comes next")
        at = entry.end
    if at != size:
        raise ValueError(f"its tensors end at byte {at} of a file of {size}")
    if verify and "checksum" in metadata:
        _verify(f, head, entries)
    return _Header(entries, metadata, head)


def _verify(f: BinaryIO, head: bytes, entries: Mapping[str, _Entry]) -> None:
    begin = head.find(_MARK) + len(_MARK)
    digest = head[begin : begin + 64]
    blank = head[:begin] + b"0" * 64 + head[begin + 64 :]
    chunks = [(at, min(_CHUNK, e.end - at)) for e in entries.values() for at in range(e.start, e.end, _CHUNK)]

    def work(chunk: tuple[int, int]) -> bytes:  # read, not mapped: a bad sector is an OSError there, else a SIGBUS
        return hashlib.sha256(os.pread(f.fileno(), chunk[1], chunk[0])).digest()

    if digest != _combined(blank, _in_threads(work, chunks)).encode():
        raise ValueError("its checksum does not fit its content: it was damaged or altered")
