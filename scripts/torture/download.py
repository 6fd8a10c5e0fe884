"""The download of a data set from a local server, as one more world of ``worlds``."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.data.datasets.registry import DataSet, fetch
from scripts.torture.worlds import World, nothing
from tests.helpers.local_server import serving, whole

MEMBERS = {"ratings.dat": np.random.default_rng(1).bytes(600_000), "README": b"read me"}


def _archive() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in MEMBERS.items():
            z.writestr(zipfile.ZipInfo(f"tiny/{name}", (2003, 2, 1, 0, 0, 0)), content)
    return out.getvalue()


ARCHIVE = _archive()
KNOWN = DataSet(
    "tiny",
    "a test",
    "none",
    "http://unused.invalid",
    ("ratings.dat",),
    urls=("http://unused.invalid/tiny.zip",),
    n_bytes=len(ARCHIVE),
    md5=hashlib.md5(ARCHIVE).hexdigest(),
    sha256=hashlib.sha256(ARCHIVE).hexdigest(),
    members=tuple(MEMBERS),
    inner="tiny",
)


def serve() -> tuple[str, int]:
    """Start the server in a process of its own: (url, pid)."""
    source, sink = os.pipe()
    pid = os.fork()
    if pid == 0:
        with serving(whole(ARCHIVE)) as server:
            os.write(sink, server.url.encode())
            os.close(sink)
            os.close(source)
            server.ended.wait(7200)
        os._exit(0)
    os.close(sink)
    url = os.read(source, 200).decode()
    os.close(source)
    return url, pid


def world(url: str) -> World:
    """Fetch into an empty cache."""

    def get(folder: Path) -> Any:
        return fetch(KNOWN, folder=folder / "cache", urls=[url], progress=False, silence_s=60)

    def check(folder: Path) -> str:
        there = (folder / "cache" / "tiny").exists()
        if there:
            for name, content in MEMBERS.items():
                assert (folder / "cache" / "tiny" / name).read_bytes() == content, f"{name} is not complete"
        get(folder)
        found = {p.name: p.read_bytes() for p in (folder / "cache" / "tiny").iterdir()}
        assert found == MEMBERS
        left = {p.name for p in (folder / "cache").iterdir()} - {"tiny", ".tiny.lock"}
        assert not left, f"left behind: {left}"
        return "new" if there else "nothing"

    return World("download", nothing, lambda folder: str(get(folder)), check)
