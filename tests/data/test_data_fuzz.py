"""Small valid files of every text format, damaged at random: only a FastrecError comes out, in bounded time.

``python tests/test_data_fuzz.py N`` tries N mutations of each format and prints counts.
"""

from __future__ import annotations

import collections
import gzip
import random
import shutil
import signal
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard

from fastrec.data import has_split, load, load_split
from fastrec.errors import FastrecError
from tests.helpers.cases import sampled

MOVIES_100K = b"".join(
    b"%d|Film %d (1995)|01-Jan-1995||url|" % (k, k) + b"|".join([b"1"] * 19) + b"\n" for k in (1, 2, 3)
)
DAT = b"".join(b"%d::%d::%d::%d\n" % (k % 3 + 1, k % 5 + 10, k % 5 + 1, 978300000 + k) for k in range(12))
CSV = b"userId,movieId,rating,timestamp\n" + DAT.replace(b"::", b",")
TABS = DAT.replace(b"::", b"\t")
Tree = dict[str, bytes]
FORMATS: dict[str, tuple[Callable[[Path], Any], Tree]] = {
    "dat": (load, {"ratings.dat": DAT}),
    "dat text ids": (load, {"ratings.dat": DAT.replace(b"\n", b"\nu")[:-1].replace(b"1::", b"u1::", 1)}),
    "dat.gz": (load, {"ratings.dat.gz": gzip.compress(DAT, mtime=0)}),
    "movies.dat": (load, {"ratings.dat": DAT, "movies.dat": b"10::A: B (1995)::Drama|War\n11::C\xe9 (1996)::Drama\n"}),
    "users.dat": (
        load,
        {"ratings.dat": DAT, "users.dat": b"1::F::1::10::02460\n2::M::56::16::70072\n3::M::25::15::55\n"},
    ),
    "u.data": (load, {"u.data": TABS}),
    "u.item": (
        load,
        {"u.data": TABS, "u.item": MOVIES_100K, "u.user": b"1|24|M|technician|85711\n2|53|F|other|94043\n"},
    ),
    "csv": (load, {"ratings.csv": CSV}),
    "csv dates": (load, {"log.csv": b"user,item,time\na,x,2024-01-02\nb,y,2024-02-03T10:00:00\n"}),
    "csv quoted": (load, {"log.csv": b'user,item,rating\n"a","x, y",3\n"b","z ""q""",4.5\nc,w,1\n'}),
    "csv.gz": (load, {"log.csv.gz": gzip.compress(CSV, mtime=0)}),
    "csv.zst": (load, {"log.csv.zst": zstandard.compress(CSV)}),
    "movies.csv": (
        load,
        {"ratings.csv": CSV, "movies.csv": b'movieId,title,genres\n10,"A, B (1995)",Drama|War\n11,C,x\n'},
    ),
    "tsv": (load, {"log.tsv": CSV.replace(b",", b"\t")}),
    "inter": (load, {"log.inter": b"user_id:token\titem_id:token\ttimestamp:float\n1\t2\t9.5\n3\t4\t10.25\n"}),
    "ncf": (
        load_split,
        {
            "x.train.rating": TABS,
            "x.test.rating": b"1\t12\t5\t1\n2\t13\t5\t2\n3\t14\t1\t4\n",
            "x.test.negative": b"(1,12)\t14\n(2,13)\t15\n(3,14)\t11\t13\n",
        },
    ),
    "base": (lambda folder: load_split(folder / "u1"), {"u1.base": TABS, "u1.test": b"1\t12\t5\t1\n2\t13\t5\t2\n"}),
    "lists": (load_split, {"train.txt": b"1 10 11 12\n2 11\n3 10 14\n", "test.txt": b"1 14\n2 10 12\n"}),
    "tables": (load_split, {"train.csv": CSV, "test.csv": b"userId,movieId,rating,timestamp\n1,99,4,5\n"}),
}
SPICE = (
    *(b"\x00", b"\xff", b"\n", b"\r", b"\n\n", b'"', b",", b"::", b"\t", b" ", b"|", b"-", b"+", b".", b"e9", b"nan"),
    *(b"\xef\xbb\xbf", b"\xff\xfe", b"\x1b[31m", b"\xe2\x80\xa8", b"9" * 25, b"7" * 5000, b"\x01", b"_", b"(", b"#"),
)


def mutated(content: bytes, r: random.Random) -> bytes:
    """One to three of: a bit flipped, a piece cut, doubled, moved or put in, the end cut off."""
    for _ in range(r.randint(1, 3)):
        a, b = sorted(r.randrange(len(content) + 1) for _ in range(2))
        b = min(b, a + r.choice((1, 2, 8, 40)))
        kind = r.randrange(6)
        if kind == 0 and a < len(content):
            content = content[:a] + bytes((content[a] ^ (1 << r.randrange(8)),)) + content[a + 1 :]
        elif kind == 1:
            content = content[:a] + content[b:]
        elif kind == 2:
            content = content[:b] + content[a:b] * r.choice((1, 1, 30)) + content[b:]
        elif kind == 3:
            content = content[:a] + r.choice(SPICE) + content[a:]
        elif kind == 4:
            content = content[:a]
        else:
            content = content[:a] + bytes(r.randrange(256) for _ in range(b - a)) + content[b:]
    return content


def try_one(name: str, seed: int, folder: Path) -> str:
    """What the outcome of one mutation is: "read", "refused", or a raw error with its place."""
    read, tree = FORMATS[name]
    r = random.Random(f"{name} {seed}")
    victim = r.choice(sorted(tree))
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for file, content in tree.items():
        (folder / file).write_bytes(mutated(content, r) if file == victim else content)
    try:
        has_split(folder)
        made = read(folder)
        part = made if read is load else made.train
        part.fingerprint()
        if part.catalog is not None:
            part.catalog.joined().collect()
        return "read"
    except FastrecError as error:
        said = str(error)
        odd = [c for c in said if c != "\n" and not c.isprintable()]
        return "refused" if not odd and len(said) < 900 else f"unclear message: {said[:250]!r}"
    except BaseException as error:
        if isinstance(error, KeyboardInterrupt):
            raise
        last = traceback.extract_tb(error.__traceback__)[-1]
        return f"{type(error).__name__} at {Path(last.filename).name}:{last.lineno}: {str(error)[:100]}"


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.timeout(240)
def test_only_a_fastrec_error_comes_out_of_a_damaged_file(name: str, tmp_path: Path) -> None:
    count = collections.Counter(try_one(name, seed, tmp_path / "case") for seed in range(sampled(300)))
    raw = {what: n for what, n in count.items() if what not in ("read", "refused")}
    assert not raw
    assert count["refused"] > sampled(300) // 15


def test_the_valid_files_are_read(tmp_path: Path) -> None:
    for name, (read, tree) in FORMATS.items():
        folder = tmp_path / name
        folder.mkdir()
        for file, content in tree.items():
            (folder / file).write_bytes(content)
        assert read(folder) is not None, name


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as scratch:  # compiles and imports outside the clock
        for name in FORMATS:
            try_one(name, -1, Path(scratch) / "case")
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(TimeoutError("more than 10 s")))
    start = int(sys.argv[2]) if len(sys.argv) > 2 else 0
    for name in FORMATS:
        counts: collections.Counter[str] = collections.Counter()
        first: dict[str, int] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for seed in range(start, start + int(sys.argv[1])):
                signal.alarm(10)
                what = try_one(name, seed, Path(scratch) / "case")
                counts[what] += 1
                first.setdefault(what, seed)
                signal.alarm(0)
        print(name, dict(counts), {w: s for w, s in first.items() if w not in ("read", "refused")}, flush=True)
