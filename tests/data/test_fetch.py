"""Fetching from servers that misbehave: it ends with the pinned bytes in place, or with a reason and nothing there."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import random
import socket
import subprocess
import sys
import threading
import zipfile
from pathlib import Path

import numpy as np
import pytest

from fastrec.data.datasets import fetch as fetching
from fastrec.data.datasets.fetch import SILENCE_S, download, exclusive, unpack
from fastrec.data.datasets.registry import DataSet, fetch, resolve
from fastrec.errors import DataError, DataNotFoundError
from tests.helpers.local_server import cut_after, drip, mute, serving, silent_after, status, whole

pytestmark = pytest.mark.timeout(60)  # whatever a server does, nothing here may hang
ROOT = Path(__file__).resolve().parents[2]
EXPIRED = Path(__file__).with_name("expired_localhost.pem")


def zipped(**members: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, content in members.items():
            z.writestr(zipfile.ZipInfo(name, (2003, 2, 1, 0, 0, 0)), content)  # the same bytes in every process
    return out.getvalue()


RATINGS = np.random.default_rng(1).bytes(60_000)
ARCHIVE = zipped(**{"tiny/ratings.dat": RATINGS, "tiny/README": b"read me", "tiny/unwanted.bin": b"x" * 99})


def a_set(body: bytes = ARCHIVE, licence: str = "none", **changes: object) -> DataSet:
    pins = {"n_bytes": len(body), "md5": hashlib.md5(body).hexdigest(), "sha256": hashlib.sha256(body).hexdigest()}
    fields = {"urls": ("http://unused.invalid/tiny.zip",), "members": ("ratings.dat", "README"), "inner": "tiny"}
    return DataSet("tiny", "a test", licence, "http://unused.invalid", ("ratings.dat",), **fields | pins | changes)  # type: ignore[arg-type]


def get(folder: Path, *servers, known: DataSet | None = None, silence_s: float = SILENCE_S) -> Path:
    urls = [s if isinstance(s, str) else s.url for s in servers]
    return fetch(known or a_set(), folder=folder, urls=urls, progress=False, silence_s=silence_s)


def visible(folder: Path) -> set[str]:
    return {p.name for p in folder.iterdir() if not p.name.endswith(".lock")}


def assert_in_place(folder: Path) -> None:
    assert {p.name for p in (folder / "tiny").iterdir()} == {"ratings.dat", "README"}, "only the named members"
    assert (folder / "tiny" / "ratings.dat").read_bytes() == RATINGS
    assert visible(folder) == {"tiny"}, "no temporary file is left"


def test_a_set_is_fetched_checked_and_unpacked(tmp_path: Path) -> None:
    with serving(whole(ARCHIVE)) as server:
        assert get(tmp_path, server) == tmp_path / "tiny"
        assert_in_place(tmp_path)
        get(tmp_path, server)
        assert len(server.ranges) == 1, "what is there is not fetched again"


def test_the_progress_bar_and_the_licence_go_to_stderr(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with serving(whole(ARCHIVE)) as server:
        fetch(a_set(licence="for research"), folder=tmp_path, urls=[server.url])
    captured = capsys.readouterr()
    assert "for research" in captured.err
    assert "100%" in captured.err
    assert captured.out == ""


def test_a_truncated_body_is_resumed_where_it_broke_off(tmp_path: Path) -> None:
    with serving(cut_after(ARCHIVE, 20_000), cut_after(ARCHIVE, 10_000), whole(ARCHIVE)) as server:
        get(tmp_path, server)
        assert server.ranges == [None, "bytes=20000-", "bytes=30000-"]
    assert_in_place(tmp_path)


def test_a_server_that_always_breaks_off_at_the_same_byte_is_given_up(tmp_path: Path) -> None:
    with serving(cut_after(ARCHIVE, 20_000, ranged=False)) as server:
        with pytest.raises(DataNotFoundError, match="broke off after 20,000 of"):
            get(tmp_path, server)
        assert len(server.ranges) == 2
    assert visible(tmp_path) == {"tiny.zip.part"}


def test_the_next_run_goes_on_from_what_the_last_one_kept(tmp_path: Path) -> None:
    with serving(cut_after(ARCHIVE, 25_000), status(500)) as server, pytest.raises(DataNotFoundError, match="25,000"):
        get(tmp_path, server)
    assert visible(tmp_path) == {"tiny.zip.part"}
    with serving(whole(ARCHIVE)) as server:
        get(tmp_path, server)
        assert server.ranges == ["bytes=25000-"]
    assert_in_place(tmp_path)


def test_a_server_without_ranges_is_asked_once_and_started_over(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip.part").write_bytes(ARCHIVE[:777])
    with serving(whole(ARCHIVE, ranged=False)) as server:
        get(tmp_path, server)
        assert server.ranges == ["bytes=777-"]
    assert_in_place(tmp_path)


def test_a_part_that_is_longer_than_the_archive_is_started_over(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip.part").write_bytes(ARCHIVE + b"more")
    with serving(whole(ARCHIVE)) as server:
        get(tmp_path, server)
    assert_in_place(tmp_path)


def test_a_server_that_refuses_the_range_is_asked_for_everything(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip.part").write_bytes(b"x" * 50)
    with serving(status(416), whole(ARCHIVE)) as server:
        get(tmp_path, server)
        assert server.ranges == ["bytes=50-", None]
    assert_in_place(tmp_path)


def test_a_spoilt_part_is_thrown_away_and_fetched_afresh(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip.part").write_bytes(b"?" * 1000)
    with serving(whole(ARCHIVE)) as server:
        get(tmp_path, server)
        assert server.ranges == ["bytes=1000-", None]
    assert_in_place(tmp_path)


def test_a_whole_part_is_not_asked_for_again(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip.part").write_bytes(ARCHIVE)
    with serving(status(500)) as server:
        get(tmp_path, server)
        assert server.ranges == []
    assert_in_place(tmp_path)


@pytest.mark.parametrize("digest", ["md5", "sha256"])
def test_a_wrong_hash_is_refused_and_not_kept(tmp_path: Path, digest: str) -> None:
    forged = bytearray(ARCHIVE)
    forged[500] ^= 1
    known = a_set(**{d: None for d in ("md5", "sha256") if d != digest})
    with serving(whole(bytes(forged))) as server:
        with pytest.raises(
            DataNotFoundError, match=f"wrong {digest} [0-9a-f]+, but {getattr(known, digest)} is pinned"
        ):
            get(tmp_path, server, known=known)
        assert len(server.ranges) == 1
    assert visible(tmp_path) == set()


def test_a_wrong_hash_at_the_publisher_sends_us_to_the_mirror(tmp_path: Path) -> None:
    with serving(whole(ARCHIVE[::-1])) as publisher, serving(whole(ARCHIVE)) as mirror:
        get(tmp_path, publisher, mirror)
        assert mirror.ranges == [None], "nothing of the forged bytes is built upon"
    assert_in_place(tmp_path)


def test_a_page_of_another_size_is_refused_before_it_is_read(tmp_path: Path) -> None:
    (tmp_path / "tiny.zip.part").write_bytes(ARCHIVE[:100])
    login = b"<html>please log in to this network</html>"
    with serving(whole(login, ranged=False)) as portal, pytest.raises(DataNotFoundError, match="offers 42 bytes"):
        get(tmp_path, portal)
    assert (tmp_path / "tiny.zip.part").read_bytes() == ARCHIVE[:100], "the good part is kept"


def test_404_then_the_mirror(tmp_path: Path) -> None:
    with serving(status(404)) as publisher, serving(whole(ARCHIVE)) as mirror:
        get(tmp_path, publisher, mirror)
        assert len(publisher.ranges) == len(mirror.ranges) == 1
    assert_in_place(tmp_path)


def test_an_expired_certificate_is_refused_by_name_then_the_mirror(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(EXPIRED))  # trusted, so that its date alone is at fault
    with serving(whole(ARCHIVE), tls=EXPIRED) as publisher, serving(whole(ARCHIVE)) as mirror:
        with pytest.raises(DataNotFoundError, match="TLS certificate was refused: certificate has expired"):
            get(tmp_path, publisher)
        assert publisher.ranges == [], "not one request was sent over it"
        get(tmp_path, publisher, mirror)
    assert_in_place(tmp_path)


def test_a_slow_but_steady_server_is_waited_for(tmp_path: Path) -> None:
    with serving(drip(ARCHIVE, 15, 0.15)) as server:
        get(tmp_path, server, silence_s=1.5)
    assert_in_place(tmp_path)


def test_a_server_that_falls_silent_is_left_for_the_mirror_which_goes_on(tmp_path: Path) -> None:
    with serving(silent_after(ARCHIVE, 40_000)) as publisher, serving(whole(ARCHIVE)) as mirror:
        get(tmp_path, publisher, mirror, silence_s=1.0)
        assert mirror.ranges == ["bytes=40000-"]
    assert_in_place(tmp_path)


def test_the_silence_of_one_source_is_taken_off_the_patience_with_the_next(tmp_path: Path) -> None:
    gives_up = pytest.raises(DataNotFoundError, match=r"no answer within 0\.[345] s")
    with serving(silent_after(ARCHIVE, 40_000)) as publisher, serving(mute) as mirror, gives_up:
        get(tmp_path, publisher, mirror, silence_s=1.0)


def test_mute_servers_are_given_up_and_named(tmp_path: Path) -> None:
    with serving(mute) as one, serving(silent_after(ARCHIVE, 0)) as other, pytest.raises(DataNotFoundError) as caught:
        get(tmp_path, one, other, silence_s=0.6)
    assert f"{one.url}: no answer" in str(caught.value)
    assert f"{other.url}: fell silent after 0 bytes" in str(caught.value)


def test_without_a_network_it_gives_up_even_if_the_name_look_up_hangs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ended = threading.Event()

    def hang(*_: object, **__: object) -> None:
        ended.wait(50)
        raise OSError("late")

    monkeypatch.setattr(socket, "getaddrinfo", hang)
    with pytest.raises(DataNotFoundError, match=r"no answer within 0\.[34]"):
        get(tmp_path, "http://a.invalid/x", "http://b.invalid/x", silence_s=0.8)
    ended.set()
    assert SILENCE_S < 10, "issue: gives up within 10 s"
    assert visible(tmp_path) == set()


def test_the_error_says_which_folder_to_fill_and_how(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("FASTREC_DATA", raising=False)
    with serving(status(404)) as server, pytest.raises(DataNotFoundError) as caught:
        get(tmp_path, server)
    for part in (server.url, "HTTP 404", str(tmp_path / "tiny" / "ratings.dat"), "FASTREC_DATA", "manually"):
        assert part in str(caught.value)


def test_a_set_without_a_pinned_hash_is_never_fetched(tmp_path: Path) -> None:
    with serving(whole(ARCHIVE)) as server:
        with pytest.raises(DataNotFoundError, match="no pinned hash"):
            get(tmp_path, server, known=a_set(md5=None, sha256=None))
        with pytest.raises(DataError, match="no pinned hash"):
            download([server.url], tmp_path / "x.part")
        assert server.ranges == []


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with serving(whole(ARCHIVE)) as server, pytest.raises(DataError, match=r"cannot be written.*XDG_CACHE_HOME"):
        get(tmp_path / "file" / "cache", server)


def test_a_full_disk_is_named_and_is_no_fault_of_the_server(tmp_path: Path) -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full on this system")
    (tmp_path / "tiny.zip.part").symlink_to("/dev/full")
    with serving(whole(ARCHIVE)) as server, pytest.raises(DataError, match="No space left on device") as caught:
        get(tmp_path, server)
    assert not isinstance(caught.value, DataNotFoundError)


def test_members_that_escape_are_not_unpacked(tmp_path: Path) -> None:
    inside = tmp_path / "a" / "b"
    inside.mkdir(parents=True)
    evil = zipped(**{
        "tiny/ratings.dat": RATINGS, "tiny/README": b"", "../evil.txt": b"!", "tiny/../../evil.txt": b"!",
        str(tmp_path / "evil.txt"): b"!",
    })  # fmt: skip
    with serving(whole(evil)) as server:
        get(inside, server, known=a_set(evil))
    assert_in_place(inside)
    assert [p.name for p in tmp_path.rglob("evil*")] == []
    (tmp_path / "archive.zip").write_bytes(evil)
    with pytest.raises(DataError, match="not a plain file name"):
        unpack(tmp_path / "archive.zip", inside / "other", {"../evil.txt": "../evil.txt"})
    assert [p.name for p in tmp_path.rglob("evil*")] == []


@pytest.mark.parametrize(
    ("body", "fault"),
    [(zipped(**{"tiny/README": b""}), "no item named 'tiny/ratings.dat'"), (b"no zip at all", "not a sound zip")],
)
def test_an_archive_that_lacks_a_member_or_is_damaged_leaves_nothing(tmp_path: Path, body: bytes, fault: str) -> None:
    with serving(whole(body)) as server, pytest.raises(DataError, match=fault):
        get(tmp_path, server, known=a_set(body))
    assert not (tmp_path / "tiny").exists()
    assert not [n for n in visible(tmp_path) if "unpacking" in n]


def test_a_crash_while_unpacking_leaves_no_half_folder_and_needs_no_second_download(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(whole(ARCHIVE)) as server:
        with monkeypatch.context() as m:
            m.setattr(fetching.shutil, "copyfileobj", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
            with pytest.raises(KeyboardInterrupt):
                get(tmp_path, server)
        assert visible(tmp_path) == {"tiny.zip.part"}
        get(tmp_path, server)
        assert len(server.ranges) == 1
    assert_in_place(tmp_path)


def test_the_folder_appears_by_one_rename(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(atomic_write: Path, folder: Path) -> None:
        assert {p.name for p in atomic_write.iterdir()} == {"ratings.dat", "README"}
        assert folder == tmp_path / "tiny"
        raise KeyboardInterrupt

    monkeypatch.setattr(fetching.os, "replace", interrupted)
    with serving(whole(ARCHIVE)) as server, pytest.raises(KeyboardInterrupt):
        get(tmp_path, server)
    assert visible(tmp_path) == {"tiny.zip.part"}


def test_what_a_killed_run_left_behind_is_swept_up(tmp_path: Path) -> None:
    (tmp_path / ".tiny.unpacking").mkdir()
    (tmp_path / ".tiny.unpacking" / "ratings.dat").write_bytes(b"half")
    (tmp_path / "tiny").mkdir()  # a folder in the cache that lost its files
    with serving(whole(ARCHIVE)) as server:
        get(tmp_path, server)
    assert_in_place(tmp_path)


def test_what_a_killed_run_left_behind_is_swept_up_at_the_next_open(tmp_path: Path) -> None:
    def leave(name: str) -> None:
        for what in ("unpacking", "old"):
            (tmp_path / f".{name}.{what}").mkdir()
            (tmp_path / f".{name}.{what}" / "ratings.dat").write_bytes(b"half")
        (tmp_path / f"{name}.zip.part").write_bytes(b"some")

    with serving(whole(ARCHIVE)) as server:
        get(tmp_path, server)
        leave("tiny")
        leave("ml-1m")
        get(tmp_path, server)
    # the part of a set that is not complete is kept: the next fetch resumes from it
    assert {p.name for p in tmp_path.iterdir()} - {".tiny.lock", ".ml-1m.lock"} == {"tiny", "ml-1m.zip.part"}


def test_the_next_load_sweeps_too_but_never_under_a_running_fetch(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FASTREC_DATA", raising=False)
    cache = tmp_path / "fastrec"
    (cache / "ml-1m").mkdir(parents=True)
    (cache / "ml-1m" / "ratings.dat").write_text("1::2::3::4\n")
    left = [cache / "ml-1m.zip.part", cache / ".ml-1m.old"]
    for path in left:
        path.write_bytes(b"left")
    with exclusive(cache / ".ml-1m.lock"):
        assert resolve("ml-1m") == cache / "ml-1m"
        assert all(path.exists() for path in left)
    assert resolve("ml-1m") == cache / "ml-1m"
    assert not any(path.exists() for path in left)


def bomb(method: int) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", method) as z:
        z.writestr("tiny/ratings.dat", bytes(80_000_000))
    return out.getvalue()


@pytest.mark.parametrize("method", [zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2])
def test_a_member_that_unpacks_beyond_the_limit_is_refused(tmp_path: Path, method: int) -> None:
    archive = tmp_path / "x.zip"
    archive.write_bytes(bomb(method))
    with pytest.raises(DataError, match=r"tiny/ratings\.dat: unpacks to more than 67,108,864 .*FASTREC_MAX_UNPACKED"):
        unpack(archive, tmp_path / "tiny", {"tiny/ratings.dat": "ratings.dat"})
    assert not (tmp_path / "tiny").exists()


def test_a_damaged_archive_is_a_data_error_whatever_was_damaged(tmp_path: Path) -> None:
    r = random.Random(7)
    archive, faults = tmp_path / "x.zip", set()
    for k in range(600):
        out = io.BytesIO()
        method = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_LZMA, zipfile.ZIP_BZIP2)[k % 4]
        with zipfile.ZipFile(out, "w", method) as z:
            z.writestr("tiny/ratings.dat", b"1::2::3::4\n" * 9)
        body = bytearray(out.getvalue())
        for _ in range(r.randint(1, 3)):
            body[r.randrange(len(body))] = r.randrange(256)
        archive.write_bytes(body[: r.choice((len(body), len(body), r.randrange(len(body))))])
        try:
            unpack(archive, tmp_path / "tiny", {"tiny/ratings.dat": "ratings.dat"})
        except DataError as error:
            faults.add(str(error).removeprefix(f"{archive}: ")[:50])
    assert len(faults) > 3
    assert not any(fault.startswith(str(tmp_path)) for fault in faults)  # all name the archive, and only it


CHILD = """
import sys
from tests.data.test_fetch import get
from pathlib import Path
print("ready", flush=True); sys.stdin.readline()
get(Path(sys.argv[1]), sys.argv[2])
"""


def child(folder: Path, url: str) -> subprocess.Popen[bytes]:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    process = subprocess.Popen([sys.executable, "-c", CHILD, str(folder), url], cwd=ROOT, **pipes)  # type: ignore[call-overload]
    assert process.stdout.readline() == b"ready\n"
    return process


def test_processes_that_fetch_one_set_at_once_download_it_once(tmp_path: Path) -> None:
    with serving(drip(ARCHIVE, 10, 0.1)) as server:
        children = [child(tmp_path, server.url) for _ in range(3)]
        for process in children:
            process.stdin.write(b"\n")
            process.stdin.flush()
        told = [process.communicate()[1] for process in children]
        assert [process.returncode for process in children] == [0, 0, 0], told
        assert len(server.ranges) == 1
    assert sum(b"waiting for another process" in t for t in told) == 2
    assert_in_place(tmp_path)


def test_a_killed_download_leaves_a_part_that_the_next_one_takes_up(tmp_path: Path) -> None:
    with serving(silent_after(ARCHIVE, 40_000), whole(ARCHIVE)) as server:
        process = child(tmp_path, server.url)
        process.stdin.write(b"\n")
        process.stdin.flush()
        part = tmp_path / "tiny.zip.part"
        while not (part.exists() and part.stat().st_size):
            assert process.poll() is None
        process.kill()
        process.communicate()
        kept = part.stat().st_size
        assert visible(tmp_path) == {"tiny.zip.part"}
        get(tmp_path, server)
        assert server.ranges == [None, f"bytes={kept}-"]
    assert_in_place(tmp_path)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES, errno.ENOSPC])
@pytest.mark.parametrize("what", ["open", "write", "read back"])
def test_a_fault_of_the_disk_is_named_and_is_no_fault_of_the_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, what: str
) -> None:
    inner = Path.open

    class Failing(io.FileIO):
        def write(self, _: object) -> int:
            raise OSError(number, os.strerror(number))

    def opened(path: Path, mode: str = "r", *args: object, **options: object) -> object:
        if path.name == "tiny.zip.part" and what == "write":
            return Failing(path, mode.replace("b", ""))
        if path.name == "tiny.zip.part" and (what == "open") == (mode != "rb"):
            raise OSError(number, os.strerror(number))
        return inner(path, mode, *args, **options)  # type: ignore[arg-type, call-overload]

    monkeypatch.setattr(Path, "open", opened)
    with serving(whole(ARCHIVE)) as server:
        with pytest.raises(DataError, match=f"part: cannot be written: {os.strerror(number)}") as caught:
            get(tmp_path, server)
        assert len(server.ranges) == 1
    assert not isinstance(caught.value, DataNotFoundError)


def test_a_download_that_cannot_be_removed_costs_space_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    inner = Path.unlink

    def unlink(path: Path, missing_ok: bool = False) -> None:
        if path.suffix == ".part":
            raise PermissionError(errno.EACCES, "Permission denied")
        inner(path, missing_ok=missing_ok)

    with serving(whole(ARCHIVE)) as server:
        with monkeypatch.context() as m:
            m.setattr(Path, "unlink", unlink)
            assert get(tmp_path, server) == tmp_path / "tiny"
        assert visible(tmp_path) == {"tiny", "tiny.zip.part"}
        get(tmp_path, server)
        assert len(server.ranges) == 1
    assert_in_place(tmp_path)


def test_a_lock_that_cannot_be_opened_is_one_line(tmp_path: Path) -> None:
    (tmp_path / ".tiny.lock").mkdir()
    said = r"\.tiny\.lock: cannot be written: Is a directory"
    with serving(whole(ARCHIVE)) as server, pytest.raises(DataError, match=said):
        get(tmp_path, server)


def test_what_is_unpacked_is_synced_before_it_gets_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []
    sync, replace = fetching.sync_folder, os.replace
    monkeypatch.setattr(fetching, "sync_folder", lambda p: (calls.append(Path(p).name), sync(p))[1])
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("rename"), replace(a, b))[1])
    with serving(whole(ARCHIVE)) as server:
        get(tmp_path, server)
    assert calls == [".tiny.unpacking", "rename", tmp_path.name]


def test_a_name_of_thousands_of_characters_in_an_archive_is_cut(tmp_path: Path) -> None:
    """A local header may claim a name of up to 64 kB, and zipfile prints it."""
    made = bytearray(zipped(**{"tiny/ratings.dat": b"1::2::3::4\n" * 2000}))
    made[26:28] = (9000).to_bytes(2, "little")
    (tmp_path / "x.zip").write_bytes(made)
    with pytest.raises(DataError, match="not a sound zip archive") as caught:
        fetching.unpack(tmp_path / "x.zip", tmp_path / "out", {"tiny/ratings.dat": "ratings.dat"})
    assert len(str(caught.value)) < 500
