"""A pack of hostile files made by a script: each is read right or refused, within bounded time and memory."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import os
import resource
import stat
import tempfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zstandard

from fastrec.config.files import read_toml
from fastrec.data import has_split, load, load_split
from fastrec.data.datasets.fetch import unpack
from fastrec.data.interactions import Interactions
from fastrec.files import load_tensors, parse_json
from scripts.torture.children import in_child

CPU_S = 60
BYTES_PER_S = 2**20
"""A file of this many bytes more may take a second more: what takes the square of a length does not end in it."""
HEAD = b"user,item\n"
Make = Callable[[Path, int], Any]
"""(folder, bytes of a large file) -> what is read afterwards."""


def written(name: str, content: bytes, read: Callable[[Path], Any] = load) -> Make:
    """A file with fixed content."""

    def make(folder: Path, _: int) -> Any:
        (folder / name).write_bytes(content)
        return lambda: read(folder / name)

    return make


def long_line(name: str, head: bytes, unit: bytes) -> Make:
    """A file of one endless line."""

    def make(folder: Path, size: int) -> Any:
        with (folder / name).open("wb") as f:
            f.write(head)
            block = unit * (1 + (1 << 20) // len(unit))
            for _ in range(max(1, size // len(block))):
                f.write(block)
        return lambda: load(folder / name)

    return make


def sparse(name: str, head: bytes) -> Make:
    """A file of zeros that takes no room on the disk."""

    def make(folder: Path, size: int) -> Any:
        with (folder / name).open("wb") as f:
            f.write(head)
            f.truncate(size)
        return lambda: load(folder / name)

    return make


def bomb(name: str, pack: Callable[[bytes], bytes]) -> Make:
    """A small file that unpacks to a large one."""
    return lambda folder, size: written(name, pack(HEAD + b"1,2\n" * (min(size, 1 << 28) // 4)))(folder, size)


def archive(members: dict[str, bytes], link: str | None = None) -> bytes:
    """A zip file; ``link`` names a member that is a symbolic link to /etc/passwd."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as z:
        for name, content in members.items():
            z.writestr(name, content)
        if link:
            info = zipfile.ZipInfo(link)
            info.create_system, info.external_attr = 3, (stat.S_IFLNK | 0o777) << 16
            z.writestr(info, "/etc/passwd")
    return out.getvalue()


def unpacked(content: bytes, member: str) -> Make:
    """An archive from which one member is taken; nothing may appear outside its folder."""

    def make(folder: Path, _: int) -> Any:
        (folder / "in").mkdir()
        (folder / "in" / "x.zip").write_bytes(content)

        def read() -> None:
            try:
                unpack(folder / "in" / "x.zip", folder / "in" / "out", {member: "a"})
                assert not (folder / "in" / "out" / "a").is_symlink(), "a link was made"
            finally:
                outside = {p.name for p in folder.iterdir()} | {p.name for p in (folder / "in").iterdir()}
                assert outside <= {"in", "x.zip", "out"}, f"written outside: {outside}"

        return read

    return make


def special(kind: str) -> Make:
    """A pipe, a loop of links, a folder, a device or a socket under a table's name."""

    def make(folder: Path, _: int) -> Any:
        path = folder / "log.csv"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "loop":
            path.symlink_to("log.csv")
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to("/dev/zero")
        return lambda: load(path)

    return make


def header_of(size: int) -> Make:
    """A safetensors file that claims a header of this many bytes."""
    return written("x.safetensors", size.to_bytes(8, "little") + b"{}", load_tensors)


def parts(train: bytes, test: bytes) -> Make:
    """A given split of two tables."""

    def make(folder: Path, _: int) -> Any:
        (folder / "train.csv").write_bytes(train)
        (folder / "test.csv").write_bytes(test)
        return lambda: (has_split(folder), load_split(folder))

    return make


def json_of(content: bytes) -> Make:
    """JSON for the checked parser; it refuses with ValueError, which its callers turn into their own."""

    def read(path: Path) -> None:
        try:
            parse_json(path.read_bytes())
        except ValueError:
            return

    return written("x.json", content, read)


DEEP = 200_000
CASES: dict[str, Make] = {
    "gzip bomb": bomb("log.csv.gz", lambda data: gzip.compress(data, 9)),
    "zstd bomb": bomb("log.csv.zst", lambda data: zstandard.compress(data, 3)),
    "gzip in gzip": written("log.csv.gz", gzip.compress(gzip.compress(HEAD + b"1,2\n" * 99))),
    "truncated gzip": written("log.csv.gz", gzip.compress(HEAD + b"1,2\n" * 9999)[:60]),
    "truncated zstd": written("log.csv.zst", zstandard.compress(HEAD + os.urandom(0) + b"1,2\n" * 99)[:20]),
    "gzip with a tail": written("log.csv.gz", gzip.compress(HEAD + b"1,2\n") + b"garbage"),
    "bzip2": written("log.csv.bz2", bz2.compress(HEAD + b"1,2\n")),
    "zip as csv": written("log.csv", archive({"a": b"b"})),
    "escaping member": unpacked(archive({"../../escaped": b"x", "a": b"y"}), "../../escaped"),
    "absolute member": unpacked(archive({"/tmp/escaped-by-fastrec": b"x"}), "/tmp/escaped-by-fastrec"),
    "a link as member": unpacked(archive({"b": b"x"}, link="a"), "a"),
    "zip bomb": unpacked(archive({"a": bytes(300 << 20)}), "a"),
    "truncated zip": unpacked(archive({"a": b"x" * 999})[:-30], "a"),
    "a line without end, csv": long_line("log.csv", HEAD + b"1,", b"x"),
    "a line without end, dat": long_line("ratings.dat", b"1::2::3::4\n1::", b"7"),
    "a line without end, jsonl": long_line("log.jsonl", b'{"user": "', b"x"),
    "a line without end, list": long_line("train.txt", b"1 ", b"2 "),
    "an open quote": long_line("log.csv", HEAD + b'1,"', b"x\n"),
    "a header without end": long_line("log.csv", b"user,item", b",c"),
    "zeros, csv": sparse("log.csv", HEAD),
    "zeros, dat": sparse("ratings.dat", b"1::2::3::4\n"),
    "zeros, parquet": sparse("log.parquet", b"PAR1"),
    "zeros, safetensors": lambda folder, size: _zeros(folder, size),
    "only newlines": written("log.csv", HEAD + b"\n" * (1 << 20)),
    "empty": written("log.csv", b""),
    "only a header": written("log.csv", HEAD),
    "header twice": written("log.csv", HEAD + b"1,2\n" + HEAD + b"3,4\n"),
    "100,000 columns": written("log.csv", HEAD[:-1] + b",c" * 100_000 + b"\n1,2" + b",3" * 100_000 + b"\n"),
    "UTF-16": written("log.csv", (HEAD + b"1,2\n").decode().encode("utf-16")),
    "escapes in ids": written("log.csv", HEAD + b"\x1b[31mu,<script>alert(1)</script>\n../../u,\x07\n"),
    "numbers beyond all": written("log.csv", b"user,item,rating,time\n1,2,1e308,1e18\n1,3,-1e400,9e99\n"),
    "NaN as rating": written("log.csv", b"user,item,rating\n1,2,nan\n1,3,inf\n"),
    "2^63 as id": written("log.csv", HEAD + b"9223372036854775808,1\n1,2\n"),
    "deep JSON lines": written("log.jsonl", b'{"user": 1, "item": ' + b"[" * DEEP + b"]" * DEEP + b"}\n"),
    "deep JSON": json_of(b"[" * DEEP + b"]" * DEEP),
    "deep objects": json_of(b'{"a":' * DEEP + b"1" + b"}" * DEEP),
    "a number of a million digits": json_of(b"1" * 1_000_000),
    "deep TOML": written("x.toml", b"a = " + b"[" * DEEP + b"]" * DEEP, read_toml),
    "long TOML key": written("x.toml", b".".join([b"a"] * 50_000) + b" = 1", read_toml),
    "header of 2^63 bytes": header_of(2**63),
    "header of 100 MB": header_of(100_000_000),
    "header of nothing": header_of(0),
    "saved Interactions of 8 bytes": written("x.safetensors", bytes(8), Interactions.open),
    "a test of other users": parts(HEAD + b"1,2\n", HEAD + b"a,b\n"),
    "a test without rows": parts(HEAD + b"1,2\n", HEAD),
    "the same rows in both": parts(HEAD + b"1,2\n", HEAD + b"1,2\n"),
    "a pipe": special("pipe"),
    "a loop of links": special("loop"),
    "a folder": special("folder"),
    "a device": special("device"),
    "HTML": written("log.csv", b"<!DOCTYPE html><html><body>404</body></html>"),
    "JSON array as jsonl": written("log.jsonl", json.dumps([{"user": 1, "item": 2}]).encode()),
}


def _zeros(folder: Path, size: int) -> Any:
    path = folder / "x.safetensors"
    with path.open("wb") as f:
        f.write((64).to_bytes(8, "little"))
        f.truncate(size)
    return lambda: load_tensors(path)


def tried(make: Make, size: int) -> tuple[str, str | None, int]:
    """(outcome, what is wrong or None, bytes at most) of one case, in a child with a limit of processor time."""
    with tempfile.TemporaryDirectory(prefix="fastrec-pack-") as folder:

        def work() -> None:
            read = make(Path(folder), size)
            most = CPU_S + size // BYTES_PER_S
            resource.setrlimit(resource.RLIMIT_CPU, (most, most))
            read()

        end = in_child(work, 4 * (CPU_S + size // BYTES_PER_S))
    if end.how not in ("returned", "refused"):
        return end.how, f"{end.how}: {end.value}", end.peak_bytes
    if end.how == "refused" and not 0 < len(end.value) < 1500:
        return end.how, f"an unclear message: {end.value[:300]!r}", end.peak_bytes
    return end.how, None, end.peak_bytes


def main(size: int, names: list[str] | None = None) -> dict[str, Any]:
    """Every case, or those named; ``size`` is the bytes of the large files."""
    found: dict[str, str] = {}
    wrong, most = [], 0
    for name, make in CASES.items():
        if names is None or name in names:
            found[name], fault, peak = tried(make, size)
            most = max(most, peak)
            if fault:
                wrong.append(f"pack, {name}: {fault}")
            if peak > 6 * size + (3 << 30):
                wrong.append(f"pack, {name}: {peak / 1e9:.1f} GB of memory")
    outcomes = {how: sum(v == how for v in found.values()) for how in set(found.values())}
    return {"cases": len(found), "outcomes": outcomes, "large_file_bytes": size, "peak_bytes": most, "wrong": wrong}
