"""Files that the runs of a grid have in common, kept once: ``OUT/shared/SHA256``, a hard link in each run folder."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Callable
from pathlib import Path

from fastrec.files import make_folder, sha256_file, sync_folder


class Shared:
    """Puts files of equal names into run folders, written once.

    Each run folder stays complete by itself: it may be copied, moved or deleted. Where the file system has no hard
    links every run gets a copy.

    Parameters
    ----------
    folder : path
        Made when the first file is put.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._digests: dict[str, str] = {}

    def put(self, path: Path, write: Callable[[Path], str]) -> str:
        """Make the file ``path``, by ``write`` the first time a file of its name is put; returns its sha256."""
        digest = self._digests.get(path.name)
        if digest is not None and self._link(self.folder / digest, path):
            return digest
        digest = self._digests[path.name] = write(path)
        make_folder(self.folder)
        kept = self.folder / digest
        if not kept.exists():
            self._link(path, kept)
        elif sha256_file(kept) == digest:  # an earlier process of this grid put it here
            self._link(kept, path)
        return digest

    @staticmethod
    def _link(source: Path, target: Path) -> bool:
        """Make ``target`` another name of ``source``, in place of what it was; False where that cannot be done."""
        part = target.with_name(f".{target.name}.{os.getpid()}-{secrets.token_hex(4)}.part")
        try:
            os.link(source, part)
            os.replace(part, target)
            sync_folder(target.parent)
        except OSError:
            with contextlib.suppress(OSError):
                part.unlink(missing_ok=True)
            return False
        return True
