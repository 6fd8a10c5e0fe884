"""Part "lost-power": the file calls of an act are recorded once; then the power is cut between any two of them.

What was not synced may be gone: data written since the last fsync of the file, names since the last fsync of their
folder. Each state that this can leave is made and checked once, as ``worlds`` checks a folder after a fault.
Source: Pillai et al., All File Systems Are Not Created Equal, OSDI 2014.
"""

from __future__ import annotations

import collections
import hashlib
import os
import random
import shutil
import struct
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from scripts.torture import shim
from scripts.torture.children import in_child
from scripts.torture.faults import copied, prepared
from scripts.torture.worlds import World

_HEAD = struct.Struct("<5i2q")
Tree = dict[str, bytes | None]
"""Path below the folder -> content, None for a folder."""


@dataclass(frozen=True)
class Event:
    """One call that succeeded."""

    kind: int
    fd: int
    flags: int
    at: int
    first: str
    second: str
    data: bytes


def recorded(world: World, folder: Path) -> list[Event]:
    """The calls of an undisturbed act in this folder."""
    with tempfile.NamedTemporaryFile(prefix="fastrec-trace-") as trace:

        def work() -> None:
            shim.arm(folder, shim.TRACE, trace=os.open(trace.name, os.O_WRONLY | os.O_APPEND))
            world.act(folder)
            shim.disarm()

        end = in_child(work)
        assert end.how == "returned", f"{world.name}: {end}"
        raw, at, found = Path(trace.name).read_bytes(), 0, []
    root = os.path.realpath(folder)
    while at < len(raw):
        kind, fd, flags, n_first, n_second, where, n_data = _HEAD.unpack_from(raw, at)
        at += _HEAD.size
        first, second = raw[at : at + n_first].decode(), raw[at + n_first : at + n_first + n_second].decode()
        at += n_first + n_second
        found.append(Event(kind, fd, flags, where, below(first, root), below(second, root), raw[at : at + n_data]))
        at += n_data
    return found


def below(path: str, root: str) -> str:
    """A path relative to the folder."""
    return os.path.normpath(path.removeprefix(root).lstrip("/")) if path else ""


@dataclass
class File:
    """Content as the program sees it, and what of it has not been synced."""

    now: bytearray
    synced: bytes
    pending: list[tuple[int, bytes | None]] = field(default_factory=list)
    """(offset, data), or (length, None) for a truncation."""

    def put(self, at: int, data: bytes | None) -> None:
        self.pending.append((at, data))
        apply(self.now, at, data)

    def sync(self) -> None:
        self.synced, self.pending = bytes(self.now), []

    def left(self, r: random.Random | None, keep: bool) -> bytes:
        """What is on the disk: the synced content with all, none or a part of what came after."""
        content = bytearray(self.synced)
        for at, data in self.pending:
            if keep or (r is not None and r.random() < 0.5):
                apply(content, at, data)
        return bytes(content)


@dataclass
class Folder:
    """Names as the program sees them, and changes that have not been synced."""

    now: dict[str, Any] = field(default_factory=dict)
    synced: dict[str, Any] = field(default_factory=dict)
    pending: list[dict[str, Any]] = field(default_factory=list)
    """Changes of names in order: name -> entry, or None where it went."""

    def change(self, names: dict[str, Any]) -> None:
        self.pending.append(names)
        rename(self.now, names)

    def sync(self) -> None:
        self.synced, self.pending = dict(self.now), []


def apply(content: bytearray, at: int, data: bytes | None) -> None:
    """Write or truncate; a gap reads as zeros."""
    if data is None:
        del content[at:]
        content.extend(bytes(at - len(content)))
        return
    content.extend(bytes(max(0, at - len(content))))
    content[at : at + len(data)] = data


def rename(entries: dict[str, Any], names: dict[str, Any]) -> None:
    """Apply a change of names."""
    for name, entry in names.items():
        if entry is None:
            entries.pop(name, None)
        else:
            entries[name] = entry


class Disk:
    """A folder under replay."""

    def __init__(self, old: Path) -> None:
        self.root = self._load(old)
        self.open: dict[int, File | Folder] = {}

    def _load(self, path: Path) -> Folder:
        made = Folder()
        for p in path.iterdir():
            content = b"" if p.is_dir() else p.read_bytes()
            made.now[p.name] = self._load(p) if p.is_dir() else File(bytearray(content), content)
        made.sync()
        return made

    def find(self, path: str) -> File | Folder:
        entry: Any = self.root
        for part in Path(path).parts:
            entry = entry.now[part]
        return entry  # type: ignore[no-any-return]

    def parent(self, path: str) -> Folder:
        found = self.find(os.path.dirname(path))
        assert isinstance(found, Folder)
        return found

    def play(self, e: Event) -> None:
        """One more call."""
        name = os.path.basename(e.first)
        if e.kind in (shim.OPEN_R, shim.OPEN_W):
            if e.first != "." and name not in self.parent(e.first).now:
                self.parent(e.first).change({name: File(bytearray(), b"")})
            self.open[e.fd] = entry = self.find(e.first)
            if e.flags & os.O_TRUNC and isinstance(entry, File) and entry.now:
                entry.put(0, None)
        elif e.kind in (shim.WRITE, shim.TRUNC):
            entry = self.open[e.fd]
            assert isinstance(entry, File)
            entry.put(e.at, e.data if e.kind == shim.WRITE else None)
        elif e.kind == shim.DUP:
            self.open[e.fd] = self.open[e.flags]
        elif e.kind == shim.FSYNC:
            self.open[e.fd].sync()
        elif e.kind == shim.MKDIR:
            self.parent(e.first).change({name: Folder()})
        elif e.kind in (shim.UNLINK, shim.RMDIR):
            self.parent(e.first).change({name: None})
        elif e.kind == shim.RENAME:
            source, target = self.parent(e.first), self.parent(e.second)
            entry = source.now[name]
            if source is target:
                source.change({name: None, os.path.basename(e.second): entry})
            else:
                source.change({name: None})
                target.change({os.path.basename(e.second): entry})

    def left(self, names: bool, data: bool, r: random.Random | None) -> Tree:
        """What is on the disk after the cut: with the names or the data that were not synced, or a part by ``r``."""
        tree: Tree = {}

        def walk(folder: Folder, path: str) -> None:
            entries = dict(folder.synced)
            # a journal keeps the changes of one folder in order: a part is a first part
            n = len(folder.pending) if names else r.randint(0, len(folder.pending)) if r is not None else 0
            for change in folder.pending[:n]:
                rename(entries, change)
            for name, entry in sorted(entries.items()):
                where = f"{path}{name}"
                if isinstance(entry, Folder):
                    tree[where] = None
                    walk(entry, f"{where}/")
                else:
                    tree[where] = entry.left(r, data)

        walk(self.root, "")
        return tree


def states(events: list[Event], old: Path, seed: str, draws: int) -> dict[str, tuple[int, str, Tree]]:
    """Digest -> (calls before the cut, variant, tree) of every distinct state that a cut can leave."""
    disk, found = Disk(old), {}
    for k in range(len(events) + 1):
        if k:
            disk.play(events[k - 1])
        variants = {"nothing unsynced": disk.left(False, False, None), "names": disk.left(True, False, None)}
        variants |= {"data": disk.left(False, True, None), "all": disk.left(True, True, None)}
        for d in range(draws):
            variants[f"draw {d}"] = disk.left(False, False, random.Random(f"{seed} {k} {d}"))
        for name, tree in variants.items():
            key = hashlib.sha256(repr(sorted(tree.items())).encode()).hexdigest()
            found.setdefault(key, (k, name, tree))
            if k == len(events) and name == "nothing unsynced":
                found["the end"] = (k, "after it returned", tree)
    return found


def write_tree(tree: Tree, folder: Path) -> None:
    """Make the files of a tree."""
    for name, content in tree.items():
        if content is None:
            (folder / name).mkdir(parents=True)
        else:
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)


def try_state(world: World, old: Path, state: tuple[int, str, Tree]) -> tuple[str, str | None]:
    """(state found, what is wrong or None) of one state."""
    k, variant, tree = state
    folder = Path(tempfile.mkdtemp(prefix="fastrec-power-", dir=old.parent))
    try:
        write_tree(tree, folder)
        end = in_child(lambda: world.check(folder))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    where = f"{world.name}, power lost after call {k} with {variant}"
    if end.how != "returned":
        return end.how, f"{where}: the check {end.how}: {end.value}"
    if variant == "after it returned" and world.durable and end.value != "new":
        return end.value, f"{where}: the state is {end.value}"
    return str(end.value), None


def main(
    seed: int, minutes: float, *, names: list[str] | None = None, most: int | None = None, draws: int = 3
) -> dict[str, Any]:
    """Check the states in an order drawn by seed until the time or the states are used up."""
    wrong: list[str] = []
    outcomes: collections.Counter[str] = collections.Counter()
    sizes: dict[str, dict[str, int]] = {}
    tried = 0
    with prepared(names) as olds:
        every: list[tuple[World, tuple[int, str, Tree]]] = []
        for world, old in olds.items():
            with copied(old) as folder:
                events = recorded(world, folder)
            found = states(events, old, f"power {seed} {world.name}", draws)
            sizes[world.name] = {"calls": len(events), "states": len(found)}
            every += [(world, state) for state in found.values()]
        deadline = time.monotonic() + 60 * minutes  # setting up is not counted
        random.Random(f"power {seed}").shuffle(every)
        every.sort(key=lambda pair: pair[1][1] != "after it returned")  # these first: one for each world
        for world, state in every[:most]:
            if time.monotonic() > deadline:
                break
            what, fault = try_state(world, olds[world], state)
            outcomes[what] += 1
            tried += 1
            if fault:
                wrong.append(fault)
    total = sum(size["states"] for size in sizes.values())
    return {
        "part": "lost-power",
        "worlds": sizes,
        "states": total,
        "tried": tried,
        "survived": tried - len(wrong),
        "not_reached": total - tried,
        "outcomes": dict(outcomes),
        "wrong": wrong,
    }
