"""What reads files that others made: a small valid tree of files for each reader, and the reader."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import random
import shutil
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.config.files import read_toml
from fastrec.data import load
from fastrec.data.datasets.fetch import unpack
from fastrec.data.interactions import Interactions
from fastrec.files import load_tensors, map_safetensors, write_tensors
from fastrec.inference.recommender import Recommender
from fastrec.runs import manifest as manifests
from fastrec.runs import open_run, open_split, save_split
from fastrec.runs.checkpoint import Checkpoints
from scripts.torture import worlds
from tests.data.test_data_fuzz import FORMATS, mutated
from tests.helpers.sealed import resealed

Tree = dict[str, bytes]
ODD = (
    None, True, 0, -1, 2**31, 2**63, 10**12, 10**30, 10**4000, 1.5, -0.0, 1e308, "", "x", "\0", "\x1b[31m", "../../x",
    [], [1], {}, {"a": 1}, [[]] * 3,
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader under mutation."""

    tree: Tree
    read: Callable[[Path], Any]
    mutate: Callable[[str, bytes, random.Random], bytes]
    victims: tuple[str, ...]


def plain(_: str, content: bytes, r: random.Random) -> bytes:
    """Bytes flipped, cut, doubled or put in."""
    return mutated(content, r)


def substituted(value: Any, r: random.Random) -> Any:
    """A copy of a JSON value with one entry of another type, gone, renamed or added."""
    copy = json.loads(json.dumps(value))
    holders = [copy]
    for holder in holders:
        inner = holder.values() if isinstance(holder, dict) else holder
        holders += [v for v in inner if isinstance(v, (dict, list)) and v]
    holder = r.choice(holders)
    key = r.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
    how = r.random()
    if how < 0.8:
        holder[key] = r.choice(ODD)
    elif how < 0.9:
        del holder[key]
    elif isinstance(holder, dict):
        holder[f"{key}?"] = holder.pop(key)
    else:
        holder.append(r.choice(ODD))
    return copy


def with_header(data: bytes, r: random.Random) -> bytes:
    """A safetensors file under a damaged header, with a checksum that fits: what a hostile writer would do."""
    length = int.from_bytes(data[:8], "little")
    return resealed(substituted(json.loads(data[8 : 8 + length]), r), data[8 + length :])


def signed(name: str, content: bytes, r: random.Random) -> bytes:
    """Bytes damaged, or values replaced under a digest that fits."""
    if r.random() < 0.3:
        return mutated(content, r)
    try:
        if name.endswith("manifest.json"):
            made = substituted({k: v for k, v in json.loads(content).items() if k != "sha256"}, r)
            return json.dumps({**made, "sha256": manifests._digest(made)}).encode()
        if name.endswith(".json"):
            text = json.dumps(substituted(json.loads(json.loads(content)["body"]), r))
            return json.dumps({"body": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()
        if name.endswith(".safetensors"):
            return with_header(content, r)
    except (AttributeError, TypeError, ValueError):
        pass  # the value is not an object any more, or has a number of too many digits to print
    return mutated(content, r)


def read_run(folder: Path) -> None:
    """Open a run, read everything in it, and list items for a user."""
    run = open_run(folder / "run")
    run.split(), run.model(), run.catalog()
    Recommender(run).recommend([3], k=3)


def read_checkpoint(folder: Path) -> None:
    """Load the last checkpoint and its best weights."""
    kept = Checkpoints(folder / "checkpoints")
    _, meta = kept.load()
    if meta.get("best"):
        kept.load_best(meta["best"])


def read_tensors(folder: Path) -> None:
    """Read a safetensors file both ways."""
    load_tensors(folder / "x.safetensors")
    map_safetensors(folder / "x.safetensors")


def read_log(name: str) -> Callable[[Path], None]:
    """Load a log, its fingerprint and its tables."""

    def read(folder: Path) -> None:
        made = load(folder / name)
        made.fingerprint()
        if made.catalog is not None:
            made.catalog.joined().collect()

    return read


def read_where(folder: Path) -> None:
    """Load a log by an expression from a file."""
    text = (folder / "where.txt").read_bytes().decode("utf-8", "replace")
    load(folder / "log.csv", where=text)


def read_zip(folder: Path) -> None:
    """Unpack an archive; nothing may be written outside its folder."""
    try:
        unpack(folder / "x.zip", folder / "out", {"tiny/a.dat": "a.dat", "tiny/b": "b"})
    finally:
        outside = {p.name for p in folder.iterdir()} - {"x.zip", "out"}
        assert not outside, f"written outside: {outside}"


def trees(base: Path) -> None:
    """Make the valid trees as ``base/TARGET/...``; call it in a child, since Polars starts threads."""
    import polars as pl

    frame = pl.DataFrame({"user": [1, 2, 3, 1], "item": ["a", "b", "a", "c"], "rating": [1.0, 4.5, 3.0, 2.0]})
    frame = frame.with_columns(timestamp=pl.Series([978300000, 978300001, 978300002, 978300003]))
    for name in ("parquet", "parquet plain", "arrow", "arrow stream", "jsonl", "jsonl.gz", "where"):
        (base / name).mkdir()
    frame.write_parquet(base / "parquet" / "log.parquet")
    frame.write_parquet(base / "parquet plain" / "log.parquet", compression="uncompressed", use_pyarrow=False)
    frame.write_ipc(base / "arrow" / "log.arrow")
    frame.write_ipc_stream(base / "arrow stream" / "log.arrow")
    frame.write_ndjson(base / "jsonl" / "log.jsonl")
    lines = (base / "jsonl" / "log.jsonl").read_bytes()
    (base / "jsonl.gz" / "log.jsonl.gz").write_bytes(gzip.compress(lines, mtime=0))
    frame.write_csv(base / "where" / "log.csv")
    (base / "where" / "where.txt").write_text("rating >= 2 AND user IN (1, 2) OR item LIKE 'a%'")
    for name in ("interactions", "split file", "tensors", "run", "checkpoint", "toml", "zip"):
        (base / name).mkdir()
    worlds.data().save(base / "interactions" / "x.safetensors")
    save_split(base / "split file" / "x.safetensors", worlds.split())
    write_tensors(base / "tensors" / "x.safetensors", {"a": np.arange(6.0).reshape(2, 3), "b": np.zeros(0, np.int32)})
    worlds.train_with_tables(base / "run")
    worlds.two_checkpoints(1)(base / "checkpoint")
    (base / "toml" / "x.toml").write_text(worlds.config().to_toml())
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z:
        for member in ("tiny/a.dat", "tiny/b", "../c"):
            z.writestr(zipfile.ZipInfo(member, (2003, 2, 1, 0, 0, 0)), b"1::2::3::4\n" * 20)
    (base / "zip" / "x.zip").write_bytes(packed.getvalue())
    run = base / "run" / "run"
    shutil.rmtree(run / "checkpoints")
    for extra in (*run.glob("events*"), *(run / name for name in ("metrics.jsonl", ".lock", "README.md"))):
        extra.unlink()


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[str, bytes, random.Random], bytes], str]] = {
    "parquet": (read_log("log.parquet"), plain, ""),
    "parquet plain": (read_log("log.parquet"), plain, ""),
    "arrow": (read_log("log.arrow"), plain, ""),
    "arrow stream": (read_log("log.arrow"), plain, ""),
    "jsonl": (read_log("log.jsonl"), plain, ""),
    "jsonl.gz": (read_log("log.jsonl.gz"), plain, ""),
    "where": (read_where, plain, "where.txt"),
    "interactions": (lambda folder: Interactions.open(folder / "x.safetensors").fingerprint(), signed, ""),
    "split file": (lambda folder: open_split(folder / "x.safetensors").train.fingerprint(), signed, ""),
    "tensors": (read_tensors, signed, ""),
    "run": (read_run, signed, ""),
    "checkpoint": (read_checkpoint, signed, ""),
    "toml": (lambda folder: read_toml(folder / "x.toml").to_toml(), plain, ""),
    "zip": (read_zip, plain, ""),
}
"""Name -> (reader, mutation, the only file that is mutated or "" for any)."""


def everything(base: Path) -> dict[str, Target | None]:
    """Every target: of ``READERS``, from the trees under ``base``, and (None) the text formats of the fuzz test."""
    found: dict[str, Target | None] = dict.fromkeys(FORMATS)
    for name, (read, mutate, only) in READERS.items():
        files = sorted(p for p in (base / name).rglob("*") if p.is_file())
        tree = {p.relative_to(base / name).as_posix(): p.read_bytes() for p in files}
        found[name] = Target(tree, read, mutate, (only,) if only else tuple(tree))
    return found
