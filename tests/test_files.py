"""Atomic files: complete or absent, whatever happens on the way, and the same bytes for the same tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fastrec.errors import FastrecError
from fastrec.files import (
    atomic,
    atomic_folder,
    atomic_write,
    make_folder,
    map_safetensors,
    remove,
    sha256_file,
    sweep,
    write_bytes,
    write_tensors,
)


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_bytes(path, b"old")
    digest = write_bytes(path, b"new")
    assert path.read_bytes() == b"new"
    assert digest == sha256_file(path)
    assert os.listdir(tmp_path) == ["config.toml"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_bytes(path, b"old")

    def half() -> None:
        with atomic_write(path) as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_bytes(path, b"old")
    code = (
        "import os, sys\nfrom fastrec.files import atomic_write\n"
        f"with atomic_write({str(path)!r}) as part:\n    part.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -9
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_said_and_the_old_file_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_bytes(path, b"old")
    with (
        pytest.raises(FastrecError, match=r"No space left on device.*the file before it is intact"),
        atomic_write(path),
    ):
        Path("/dev/full").write_bytes(b"x")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("data", ["bytes", "arrays", "tensors"])
def test_a_folder_that_is_not_there_is_said(tmp_path: Path, data: str) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "no" / "x"
    write = {
        "bytes": lambda: write_bytes(path, b"x"),
        "arrays": lambda: write_tensors(path, {"a": np.ones(2)}),
        "tensors": lambda: write_tensors(path, {"a": torch.ones(2)}),
    }[data]
    with pytest.raises(FastrecError, match=r"cannot be written.*No such file.*nothing was left behind"):
        write()


def test_equal_tensors_give_equal_bytes_of_any_kind_order_and_time(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    a, b = np.arange(12, dtype=np.float32).reshape(3, 4), np.arange(5, dtype=np.int64)
    one = write_tensors(tmp_path / "one", {"a": a, "b": b}, {"fastrec": "x"})
    two = write_tensors(tmp_path / "two", {"b": torch.from_numpy(b), "a": a}, {"fastrec": "x"})
    three = write_tensors(tmp_path / "three", {"b": b, "a": np.asfortranarray(a)}, {"fastrec": "x"})
    assert one == two == three == sha256_file(tmp_path / "one")
    assert write_tensors(tmp_path / "four", {"a": a + 1, "b": b}, {"fastrec": "x"}) != one


def test_metadata_in_any_order_give_equal_bytes(tmp_path: Path) -> None:
    one = write_tensors(tmp_path / "x", {"a": np.ones(1)}, {"a": "1", "b": "2"}, checksum=True)
    assert one == write_tensors(tmp_path / "y", {"a": np.ones(1)}, {"b": "2", "a": "1"}, checksum=True)
    assert map_safetensors(tmp_path / "x")[1].keys() == {"a", "b", "checksum"}


def test_files_get_the_permissions_that_the_umask_allows(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_tensors(tmp_path / "tensors", {"a": np.ones(1)})
    assert (tmp_path / "plain").stat().st_mode == (tmp_path / "tensors").stat().st_mode


@pytest.mark.parametrize("write", [lambda p: write_bytes(p, b"x"), lambda p: write_tensors(p, {"a": np.ones(2)})])
def test_the_file_is_synced_before_its_rename_and_the_folder_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any
) -> None:
    """Without the first a power cut leaves an empty file under the name, without the second no file."""
    path, calls = tmp_path / "weights", []
    fsync, rename = os.fsync, os.replace

    def synced(descriptor: int) -> None:
        calls.append(("fsync", os.fstat(descriptor).st_ino))
        fsync(descriptor)

    def renamed(source: Any, target: Any) -> None:
        calls.append(("rename", os.stat(source).st_ino))
        assert Path(target) == path
        rename(source, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(os, "replace", renamed)
    write(path)
    file, folder = path.stat().st_ino, tmp_path.stat().st_ino
    assert calls == [("fsync", file), ("rename", file), ("fsync", folder)]


def test_every_folder_that_is_made_is_synced_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced, fsync = set(), os.fsync
    monkeypatch.setattr(os, "fsync", lambda d: (synced.add(os.fstat(d).st_ino), fsync(d))[1])
    make_folder(tmp_path / "a" / "b" / "c")
    assert synced == {p.stat().st_ino for p in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")}
    synced.clear()
    make_folder(tmp_path / "a" / "b" / "c")
    assert not synced


def test_folders_and_removals_that_fail_say_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name in ("file", "file/x", "x" * 300, "a\0b"):
        with pytest.raises(FastrecError, match=r"the folder cannot be made .*free some space"):
            make_folder(tmp_path / name)
    with pytest.raises(FastrecError, match=r"cannot be removed .*manually"):
        remove(tmp_path)
    remove(tmp_path / "none")


@pytest.mark.parametrize("fault", ["rename", "folder"])
def test_a_failing_disk_is_said_with_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str) -> None:
    path = tmp_path / "weights"
    write_bytes(path, b"old")

    def fail(*_: Any) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(*{"rename": (os, "replace", fail), "folder": (atomic, "sync_folder", fail)}[fault])
    says = "the file before it is intact" if fault == "rename" else "the new file is in place, but a power cut may undo"
    with pytest.raises(FastrecError, match=f"Input/output error.; {says}"):
        write_bytes(path, b"new")
    assert path.read_bytes() == (b"old" if fault == "rename" else b"new")
    assert os.listdir(tmp_path) == ["weights"]


def killed(path: Path) -> None:
    """A process that is killed while it writes ``path``."""
    code = (
        "import os\nfrom fastrec.files import atomic_write\n"
        f"with atomic_write({str(path)!r}) as part:\n    part.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], cwd=Path(__file__).resolve().parent.parent).returncode == -9


def test_what_a_killed_writer_left_is_swept_and_a_live_one_is_not(tmp_path: Path) -> None:
    path = tmp_path / "manifest.json"
    killed(path)
    killed(tmp_path / "other")
    foreign = [".mine.part", ".manifest.json.part", "manifest.json.1-2.part", ".manifest.json.1-2.part.txt"]
    for name in foreign:
        (tmp_path / name).touch()
    (tmp_path / ".manifest.json.1-2.part").symlink_to(tmp_path / "other")
    with atomic_write(path) as live:  # sweeps before it writes
        assert len(os.listdir(tmp_path)) == len(foreign) + 3
        assert sweep(tmp_path, r"manifest\.json") == []
        assert live.exists()
        live.write_bytes(b"x")
    left = sorted(os.listdir(tmp_path))
    assert sweep(tmp_path, "other") == [name for name in left if name.startswith(".other.")]
    assert sorted(os.listdir(tmp_path)) == sorted([*foreign, ".manifest.json.1-2.part", "manifest.json"])
    assert sweep(tmp_path / "none", "other") == []


def test_the_next_open_sweeps(tmp_path: Path) -> None:
    from fastrec.data import Interactions
    from fastrec.runs import open_run

    made = Interactions.from_arrays([1, 2], [3, 4])
    path = made.save(tmp_path / "x.safetensors")
    (tmp_path / ".x.safetensors.123-456.part").write_bytes(b"half")
    Interactions.open(path)
    assert os.listdir(tmp_path) == ["x.safetensors"]
    (tmp_path / "checkpoints").mkdir()
    stray = [".manifest.json.1-2.part", "checkpoints/.step-000000007.json.1-2.part", ".mine.1-2.part"]
    for name in stray:
        (tmp_path / name).touch()
    with pytest.raises(FastrecError, match="not a run folder"):
        open_run(tmp_path)
    assert [name for name in stray if (tmp_path / name).exists()] == [".mine.1-2.part"]


def test_a_folder_appears_with_all_its_files_or_not_at_all(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "out") as part:
        (part / "a").write_bytes(b"a")
        assert not (tmp_path / "out").exists()
        assert not sweep(tmp_path, "out"), "the folder of a live writer is kept"
    assert os.listdir(tmp_path / "out") == ["a"]
    with pytest.raises(ZeroDivisionError), atomic_folder(tmp_path / "other") as part:
        (part / "a").write_bytes(b"half" * (1 // (part / "b").exists()))
    said = r"out: cannot be written .*the file before it is intact"
    with pytest.raises(FastrecError, match=said), atomic_folder(tmp_path / "out") as part:
        (part / "b").write_bytes(b"b")
    said = r"no/out: cannot be written \(No such file"
    with pytest.raises(FastrecError, match=said), atomic_folder(tmp_path / "no" / "out"):
        pass
    assert os.listdir(tmp_path) == ["out"]
    assert os.listdir(tmp_path / "out") == ["a"]


def test_a_folder_that_a_killed_writer_left_is_swept(tmp_path: Path) -> None:
    for name in (".out.123-abc.part", ".mine.123-abc.part", ".out.part"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a").write_bytes(b"half")
    with atomic_folder(tmp_path / "out"):
        pass
    assert sorted(os.listdir(tmp_path)) == [".mine.123-abc.part", ".out.part", "out"]


def test_the_files_and_the_names_of_a_folder_are_synced_before_its_rename(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append(os.readlink(f"/proc/self/fd/{fd}")), fsync(fd))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    if not os.path.isdir("/proc/self/fd"):
        pytest.skip("no /proc on this system")
    with atomic_folder(tmp_path / "out") as part:
        (part / "a").write_bytes(b"a")
    assert calls == [str(part / "a"), str(part), "rename", str(tmp_path)]
