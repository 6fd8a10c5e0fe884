"""Files of another kind than their name says: told by their first bytes; gzip and zstd are read whatever the name."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import pickle
import sqlite3
import tarfile
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import zstandard

from fastrec.data import load, load_split
from fastrec.errors import ConfigError, DataError

CSV = b"userId,movieId,rating,timestamp\n1,10,5,100\n2,11,4,101\n"
TEXTS = {
    "log.csv": CSV,
    "log.tsv": CSV.replace(b",", b"\t"),
    "ratings.dat": b"1::10::5::100\n2::11::4::101\n",
    "u.data": b"1\t10\t5\t100\n2\t11\t4\t101\n",
    "train.txt": b"1 10\n2 11\n",
}


def zipped() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        z.writestr("log.csv", CSV)
    return out.getvalue()


def tarred() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as t:
        t.addfile(tarfile.TarInfo("log.csv"), None)
    return out.getvalue()


def parquet() -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"user": [1], "item": [2]}).write_parquet(out)
    return out.getvalue()


def arrow() -> bytes:
    out = io.BytesIO()
    pl.DataFrame({"user": [1], "item": [2]}).write_ipc(out)
    return out.getvalue()


def numpy_array() -> bytes:
    out = io.BytesIO()
    np.save(out, np.arange(4))
    return out.getvalue()


def database(folder: Path) -> bytes:
    path = folder / "scratch.sqlite"
    with sqlite3.connect(path) as db:
        db.execute("create table log (user, item)")
    db.close()
    content = path.read_bytes()
    path.unlink()
    return content


KINDS = {
    "UTF-16 text": CSV.decode().encode("utf-16"),
    "UTF-16 text (BE)": b"\xfe\xff" + CSV.decode().encode("utf-16-be"),
    "UTF-16 text (LE, no BOM)": CSV.decode().encode("utf-16-le"),
    "UTF-16 text (BE, no BOM)": CSV.decode().encode("utf-16-be"),
    "UTF-32 text": CSV.decode().encode("utf-32"),
    "a zip archive": zipped(),
    "an xz file": lzma.compress(CSV),
    "a bzip2 file": bz2.compress(CSV),
    "a bzip2 file (empty)": bz2.compress(b""),
    "a 7z archive": b"7z\xbc\xaf\x27\x1c\x00\x04" + bytes(24),
    "a RAR archive": b"Rar!\x1a\x07\x01\x00" + bytes(24),
    "an lz4 file": b"\x04\x22\x4d\x18\x64\x40\xa7" + bytes(9),
    "a tar archive": tarred(),
    "an Arrow": arrow(),
    "a NumPy": numpy_array(),
    "a PDF": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n1 0 obj\n",
    "a PNG image": b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR",
    "a Python pickle": pickle.dumps({"user": [1]}),
    "a web page": b"<!DOCTYPE html>\n<html><body>404</body></html>\n",
    "JSON": b'{"user": 1, "item": 2}\n{"user": 1, "item": 3}\n',
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
    "binary": bytes(200),
}


def one_clear_line(error: pytest.ExceptionInfo[DataError], path: Path) -> str:
    said = str(error.value)
    assert said.startswith(str(path))
    assert said.isprintable()
    assert len(said) < len(str(path)) + 200
    return said


@pytest.mark.parametrize("name", [*TEXTS, "x.train.rating"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_file_of_another_kind_is_named(tmp_path: Path, kind: str, name: str) -> None:
    path = tmp_path / name
    for content, wrapped in ((KINDS[kind], ""), (gzip.compress(KINDS[kind]), "a gzip file that holds ")):
        path.write_bytes(content)
        with pytest.raises(DataError) as error:
            load(path)
        assert f"is {wrapped}{kind.split(' (')[0]}" in one_clear_line(error, path)


def test_parquet_and_a_database_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "log.csv"
    path.write_bytes(parquet())
    with pytest.raises(DataError, match=r"is a Parquet file, not a log in text; name it \.parquet"):
        load(path)
    path.write_bytes(database(tmp_path))
    with pytest.raises(DataError, match="is an SQLite database"):
        load(path)
    other = tmp_path / "log.parquet"
    other.write_bytes(zipped())
    with pytest.raises(DataError, match="is a zip archive"):
        load(other)


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
def test_gzip_and_zstd_are_read_whatever_the_name(tmp_path: Path, name: str, pack: object, suffix: str) -> None:
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / name).write_bytes(TEXTS[name])
    want = load(tmp_path / "plain" / name)
    path = tmp_path / f"{name}{suffix}"
    path.write_bytes(pack(TEXTS[name]))  # type: ignore[operator]
    got = load(path)
    assert got.fingerprint() == want.fingerprint()
    assert got.catalog.ratings.collect().equals(want.catalog.ratings.collect())


def test_quoted_tables_splits_and_catalogues_are_read_from_zstd(tmp_path: Path) -> None:
    (tmp_path / "ratings.csv.zst").write_bytes(zstandard.compress(CSV.replace(b",10,", b',"10",')))
    (tmp_path / "movies.csv").write_bytes(zstandard.compress(b'movieId,title,genres\n10,"A, B",Drama\n'))
    assert load(tmp_path).titles.tolist() == ["A, B", "11"]
    split = tmp_path / "split"
    split.mkdir()
    for part, row in (
        ("train.rating", b"0\t1\t5\t7\n"),
        ("test.rating", b"0\t2\t5\t8\n"),
        ("test.negative", b"(0,2)\t3\n"),
    ):
        (split / f"x.{part}.zst").write_bytes(zstandard.compress(row))
    assert load_split(split).candidates.tolist() == [[2]]
    for part, row in (("train.txt.zst", b"1 2 3\n"), ("test.txt.gz", b"1 4\n")):
        (tmp_path / part).write_bytes(zstandard.compress(row))
    assert load_split(tmp_path).test.item_ids.tolist() == [2, 3, 4]


def test_reserved_flags_of_gzip_are_refused(tmp_path: Path) -> None:
    content = bytearray(gzip.compress(CSV))
    content[3] |= 0x20
    (tmp_path / "log.csv").write_bytes(content)
    with pytest.raises(DataError, match="not a complete gzip file"):
        load(tmp_path / "log.csv").catalog.ratings.collect()


@pytest.mark.parametrize("flags", [2, 2 | 4, 2 | 8, 2 | 4 | 8 | 16])
def test_the_checksum_of_a_gzip_header_is_verified(tmp_path: Path, flags: int) -> None:
    """Python's gzip skips it, Polars' lazy scan of the tables fails on it."""
    made = gzip.compress(b"1::10::5::1\n2::11::4::2\n", mtime=0)
    extra = b"\x03\x00abc" * (flags & 4 > 0) + b"name\0" * (flags & 8 > 0) + b"remark\0" * (flags & 16 > 0)
    head = made[:3] + bytes([flags]) + made[4:10] + extra
    right = (zlib.crc32(head) & 0xFFFF).to_bytes(2, "little")
    path = tmp_path / "ratings.dat.gz"
    path.write_bytes(head + right + made[10:])
    assert load(path).catalog.ratings.collect().height == 2
    path.write_bytes(head + bytes([right[0] ^ 1, right[1]]) + made[10:])
    with pytest.raises(DataError, match=r"not a complete gzip file .a wrong checksum in its header"):
        load(path)


def test_damaged_zstd_is_named(tmp_path: Path) -> None:
    whole = zstandard.compress(CSV * 500 + bytes(range(256)).hex().encode())
    path = tmp_path / "log.csv.zst"
    for content in (whole[:-9], whole[: len(whole) // 2], whole[:5], whole + b"tail"):
        path.write_bytes(content)
        with pytest.raises(DataError, match="not a complete zstd file"):
            load(path)
    path.write_bytes(zstandard.compress(b""))
    with pytest.raises(DataError, match="nothing in the"):
        load(path)
    path.write_bytes(zstandard.compress(CSV[:30]) + zstandard.compress(CSV[30:]))  # frames add up
    assert load(path).n_interactions == 2


@pytest.mark.parametrize("name", TEXTS)
def test_a_byte_order_mark_of_utf8_is_no_part_of_the_first_field(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_bytes(b"\xef\xbb\xbf" + TEXTS[name])
    assert load(path).user_ids.tolist() == [1, 2]


HEADS = {"log.csv": b"user,item\n1,2\n", "ratings.dat": b"1::2\n", "u.data": b"1\t2\n", "train.txt": b"1 2\n"}


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
@pytest.mark.parametrize("row", [b"\x00", b"\n", b"1,2\n", b'"1","2"\n', b"1\t2\n"])
@pytest.mark.parametrize("name", HEADS)
def test_a_compression_bomb_meets_its_limit(
    tmp_path: Path, name: str, row: bytes, pack: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FASTREC_MAX_UNPACKED", "4000000")
    path = tmp_path / name
    path.write_bytes(pack(HEADS[name] * 1100 + row * (40_000_000 // len(row))))  # type: ignore[operator]
    tracemalloc.start()
    with pytest.raises(DataError) as error:
        load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "unpacks to more than 4,000,000 bytes" in str(error.value)
    assert "FASTREC_MAX_UNPACKED" in str(error.value)
    assert peak < 36e6


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_a_bomb_meets_a_limit_by_default(tmp_path: Path, pack: object) -> None:
    path = tmp_path / "ratings.dat"
    path.write_bytes(pack(b"1::2\n" * 14_000_000))  # type: ignore[operator]
    assert path.stat().st_size < 200_000
    with pytest.raises(
        DataError, match=r"unpacks to more than 67,108,864 bytes, the limit for .* packed bytes\. If it"
    ):
        load(path)


def test_the_limit_grows_with_the_file_and_can_be_raised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from fastrec.data.content import unpack_limit

    assert unpack_limit(1000) == 1 << 26
    assert unpack_limit(4_000_000) == 256_000_000
    path = tmp_path / "log.csv"
    path.write_bytes(gzip.compress(b"user,item\n" + b"1,2\n" * 1000))
    monkeypatch.setenv("FASTREC_MAX_UNPACKED", "4009")
    with pytest.raises(DataError, match="unpacks to more than 4,009 bytes"):
        load(path)
    monkeypatch.setenv("FASTREC_MAX_UNPACKED", "4010")
    assert load(path).n_interactions == 1
    for wrong in ("-1", "0", "8GB", "9" * 5000):
        monkeypatch.setenv("FASTREC_MAX_UNPACKED", wrong)
        with pytest.raises(ConfigError, match=r"FASTREC_MAX_UNPACKED=.*must be a number of bytes"):
            load(path)
