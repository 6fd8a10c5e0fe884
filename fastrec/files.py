"""Files that are whole or absent: written aside, synced, renamed, the folder synced; and their sha256.

What a power cut or a kill leaves behind is the file before or the file after, never a part of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.errors import FastrecError


def sync_folder(folder: str | os.PathLike[str]) -> None:
    """Make a rename or a new name in ``folder`` survive a power cut (a no-op where folders cannot be opened)."""
    if not hasattr(os, "O_DIRECTORY"):
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def aside(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a path beside ``path`` to write to; when the block ends it takes the place of ``path`` atomically.

    If the block raises, what was written is removed and ``path`` is as it was.

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
    part = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield part
        with part.open("rb") as f:
            os.fsync(f.fileno())
        os.replace(part, path)
        sync_folder(path.parent)
    except BaseException as error:
        with contextlib.suppress(OSError):
            part.unlink()
        # safetensors reports a failed write as its own exception type, with the system's words inside
        if isinstance(error, OSError) or type(error).__name__ == "SafetensorError":
            reason = getattr(error, "strerror", None) or str(error)
            before = "the file before it is intact" if path.exists() else "nothing was left behind"
            raise FastrecError(
                f"{path}: cannot be written ({reason}); {before}; free some space or name a folder you may write to"
            ) from error
        raise


def write_atomic(path: str | os.PathLike[str], data: bytes) -> str:
    """Write ``data`` to ``path`` whole or not at all, and return its sha256 (see ``aside``)."""
    with aside(path) as part:
        part.write_bytes(data)
    return hashlib.sha256(data).hexdigest()


def write_tensors(
    path: str | os.PathLike[str], tensors: Mapping[str, Any], metadata: Mapping[str, str] | None = None
) -> str:
    """Write NumPy arrays or torch tensors (or both) as one safetensors file, atomically, and return its sha256.

    Parameters
    ----------
    path : path
        The file to make or replace.
    tensors : mapping of str to ndarray or torch.Tensor
        Any device, contiguous or not.
    metadata : mapping with at most one key, optional
        Text kept in the header. The format's writer keeps several keys in no fixed order, so that one is the limit:
        put JSON into it.

    Guarantee
    ---------
    Equal tensors under equal names give equal bytes, in whatever order they were put in and of whichever kind: the
    file has no time, path or other trace of its making.
    """
    if metadata is not None and len(metadata) > 1:
        raise ValueError(f"metadata keys {sorted(metadata)}: at most one, for a fixed byte order; put JSON into it")
    meta = None if metadata is None else dict(metadata)
    ordered = {name: tensors[name] for name in sorted(tensors)}
    with aside(path) as part:
        part.touch()
        mode = part.stat().st_mode & 0o777  # what the umask allows; safetensors makes its files 0600
        if all(isinstance(value, np.ndarray) for value in ordered.values()):
            from safetensors import numpy as numpy_format

            numpy_format.save_file({k: np.ascontiguousarray(v) for k, v in ordered.items()}, part, metadata=meta)
        else:
            import torch
            from safetensors import torch as torch_format

            plain = {k: torch.as_tensor(v).detach().cpu().contiguous() for k, v in ordered.items()}
            torch_format.save_file(plain, part, metadata=meta)
        part.chmod(mode)
        digest = sha256_file(part)
    return digest


def sha256_file(path: str | os.PathLike[str]) -> str:
    """sha256 of a file's bytes. Cost: about 1 to 2 GB/s."""
    with Path(path).open("rb") as f:
        return hashlib.file_digest(f, "sha256").hexdigest()
