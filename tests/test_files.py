"""Atomic files: whole or absent, whatever happens on the way, and the same bytes for the same tensors."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from fastrec.errors import FastrecError
from fastrec.files import aside, map_safetensors, sha256_file, write_atomic, write_tensors


def test_a_write_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    write_atomic(path, b"old")
    digest = write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert digest == sha256_file(path)
    assert os.listdir(tmp_path) == ["config.toml"]


def test_an_error_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_atomic(path, b"old")

    def half() -> None:
        with aside(path) as part:
            part.write_bytes(b"half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        half()
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["weights"]


def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_atomic(path, b"old")
    code = (
        "import os, sys\nfrom fastrec.files import aside\n"
        f"with aside({str(path)!r}) as part:\n    part.write_bytes(b'half')\n    os.kill(os.getpid(), 9)\n"
    )
    root = Path(__file__).resolve().parent.parent
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == -9
    assert path.read_bytes() == b"old"


def test_a_full_disk_is_said_and_the_old_file_is_intact(tmp_path: Path) -> None:
    path = tmp_path / "weights"
    write_atomic(path, b"old")
    with pytest.raises(FastrecError, match=r"No space left on device.*the file before it is intact"), aside(path):
        Path("/dev/full").write_bytes(b"x")
    assert path.read_bytes() == b"old"


@pytest.mark.parametrize("data", ["bytes", "arrays", "tensors"])
def test_a_folder_that_is_not_there_is_said(tmp_path: Path, data: str) -> None:
    torch = pytest.importorskip("torch")
    path = tmp_path / "no" / "x"
    write = {
        "bytes": lambda: write_atomic(path, b"x"),
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
