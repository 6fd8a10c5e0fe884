"""Saved files under mutation: any flipped bit and any other type is a FastrecError, or leaves the data as they were.

FASTREC_MUTATIONS sets how many mutations of each kind are tried (100 by default).
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from fastrec import runs
from fastrec.data import Interactions
from fastrec.data.split import Split
from fastrec.errors import CheckpointError, DataError, FastrecError
from fastrec.models import build
from fastrec.runs import manifest as manifest_module
from fastrec.runs.checkpoint import Checkpoints
from fastrec.training.trainer import State
from tests.helpers.fakes import random_parts
from tests.helpers.sealed import resealed

N = int(os.environ.get("FASTREC_MUTATIONS", "100"))
ODD = [
    None,
    True,
    0,
    -1,
    2**31,
    10**12,
    10**30,
    10**4000,
    1.5,
    -0.0,
    1e308,
    "",
    "x",
    "\0",
    [],
    [1],
    {},
    {"a": 1},
    [[]] * 3,
]


@pytest.fixture(scope="module")
def split() -> Split:
    parts = random_parts(np.random.default_rng(5), 7, 40)
    ids = {
        "user_ids": np.arange(100, 107),
        "item_ids": np.array([f"é{i}" for i in range(40)]),
        "titles": np.array([f"Amélie: part {i}" for i in range(40)]),
    }
    named = [replace(p, name=f"tiny {name}", **ids) for p, name in zip(parts, ("train", "validation", "test"))]
    candidates = np.full((named[2].n_interactions, 3), -1, np.int32)
    return Split(*named, how="leave-one-out", candidates=candidates, notes=("2 users stay in train",))


def log() -> Interactions:
    made = Interactions.from_arrays(["zoë", "", "abel", "zoë"], [9, 8, 7, 7], [4, 3, 2, 1], name="toy")
    return replace(made, titles=np.array(["a", "Les Misérables", "c"]), notes=("one",))


def contents(x: Interactions) -> tuple[Any, ...]:
    arrays = (x.indptr, x.items, x.user_ids, x.item_ids, x.timestamps, x.file_order, x.titles)
    return (*(None if a is None else (a.dtype.str, a.tolist()) for a in arrays), x.name, x.notes)


def parts_of(s: Split) -> tuple[Any, ...]:
    candidates = None if s.candidates is None else s.candidates.tolist()
    return (*map(contents, (s.train, s.validation, s.test)), s.how, candidates, s.comparable, s.notes)


def survivors(path: Path, mutants: Any, read: Callable[[], Any]) -> list[Any]:
    """What ``read`` gives for each mutant of the file that it does not refuse; only a FastrecError is a refusal."""
    before, given = path.read_bytes(), []
    try:
        for mutant in mutants:
            path.write_bytes(mutant)
            try:
                given.append(read())
            except FastrecError:
                continue
    finally:
        path.write_bytes(before)
    return given


def flips(data: bytes, seed: int = 0) -> Any:
    """Each of N bits flipped: all of them where there are fewer."""
    places = range(8 * len(data))
    for place in places if len(places) <= N else random.Random(seed).sample(places, N):
        mutant = bytearray(data)
        mutant[place // 8] ^= 1 << place % 8
        yield bytes(mutant)


def substitutions(value: Any, seed: int = 0) -> Any:
    """N copies of a JSON value, each with one entry of another type, gone, renamed or added."""
    chosen = random.Random(seed)
    for _ in range(N):
        copy = json.loads(json.dumps(value))
        holders = [copy]
        for holder in holders:
            holders += [
                v
                for v in (holder.values() if isinstance(holder, dict) else holder)
                if isinstance(v, (dict, list)) and v
            ]
        holder = chosen.choice(holders)
        key = chosen.choice(list(holder) if isinstance(holder, dict) else range(len(holder)))
        how = chosen.random()
        if how < 0.8:
            holder[key] = chosen.choice(ODD)
        elif how < 0.9:
            del holder[key]
        elif isinstance(holder, dict):
            holder[f"{key}?"] = holder.pop(key)
        else:
            holder.append(chosen.choice(ODD))
        yield copy


def header_of(data: bytes) -> dict[str, Any]:
    length = int.from_bytes(data[:8], "little")
    return json.loads(data[8 : 8 + length])


def with_header(data: bytes, header: Any, *, sealed: bool) -> bytes:
    """The file under another header; ``sealed`` with a checksum that fits, as a hostile writer would."""
    return resealed(header, data[8 + int.from_bytes(data[:8], "little") :], sealed=sealed)


@pytest.mark.parametrize("mmap", [True, False])
def test_a_flipped_bit_of_saved_interactions_is_found(tmp_path: Path, mmap: bool) -> None:
    path = log().save(tmp_path / "x.safetensors")
    assert not survivors(path, flips(path.read_bytes()), lambda: Interactions.open(path, mmap=mmap))
    assert contents(Interactions.open(path, mmap=mmap)) == contents(log())


def test_a_flipped_bit_of_a_saved_split_is_found(tmp_path: Path, split: Split) -> None:
    path = tmp_path / "x.safetensors"
    runs.save_split(path, split)
    assert not survivors(path, flips(path.read_bytes()), lambda: runs.open_split(path))
    assert parts_of(runs.open_split(path)) == parts_of(split)


@pytest.mark.parametrize("extra", [b"\0", b"more"])
def test_bytes_after_the_end_are_found(tmp_path: Path, extra: bytes) -> None:
    path = log().save(tmp_path / "x.safetensors")
    path.write_bytes(path.read_bytes() + extra)
    with pytest.raises(DataError, match="its tensors end at byte"):
        Interactions.open(path)


def test_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    files = {log().save(tmp_path / f"{k}.safetensors").read_bytes() for k in range(5)}
    assert len(files) == 1


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("version", [1, 2])
def test_hostile_headers_of_saved_interactions(tmp_path: Path, version: int, sealed: bool) -> None:
    path = log().save(tmp_path / "x.safetensors")
    data = path.read_bytes()
    header = header_of(data)
    if version == 1:
        header["__metadata__"].pop("checksum")
        header["__metadata__"]["fastrec"] = "interactions 1"
    path.write_bytes(with_header(data, header, sealed=True))
    assert contents(Interactions.open(path)) == contents(log()), "the untouched header must open"
    mutants = (with_header(data, h, sealed=sealed) for h in substitutions(header, version))
    for survivor in survivors(path, mutants, lambda: Interactions.open(path)):
        assert survivor.n_users == 3
    notes = (
        with_header(data, {**header, "__metadata__": {**header["__metadata__"], "notes": json.dumps(n)}}, sealed=True)
        for n in substitutions(["one", "two"], version)
    )
    for survivor in survivors(path, notes, lambda: Interactions.open(path)):
        assert all(isinstance(note, str) for note in survivor.notes)


@pytest.mark.parametrize("version", [1, 2])
def test_hostile_headers_of_a_saved_split(tmp_path: Path, split: Split, version: int) -> None:
    path = tmp_path / "x.safetensors"
    runs.save_split(path, split)
    data = path.read_bytes()
    header = header_of(data)
    meta = {**json.loads(header["__metadata__"]["fastrec"]), "version": version}
    if version == 1:
        header["__metadata__"].pop("checksum")
    header["__metadata__"]["fastrec"] = json.dumps(meta)
    path.write_bytes(with_header(data, header, sealed=True))
    assert parts_of(runs.open_split(path)) == parts_of(split), "the untouched header must open"
    mutants = [with_header(data, h, sealed=True) for h in substitutions(header, version)]
    for m in substitutions(meta, version):
        mutants.append(
            with_header(
                data, {**header, "__metadata__": {**header["__metadata__"], "fastrec": json.dumps(m)}}, sealed=True
            )
        )
    for survivor in survivors(path, mutants, lambda: runs.open_split(path)):
        assert np.array_equal(survivor.train.items, split.train.items)


@pytest.mark.parametrize(
    "head",
    [
        b"[" * 100_000,
        b'{"a":' * 50_000,
        b'{"indptr":{"dtype":"I64","shape":[' + b"9" * 5000 + b'],"data_offsets":[0,8]}}',
        b'{"indptr":{"dtype":"I64","shape":[-1,-1],"data_offsets":[0,8]}}',
        b'{"indptr":{"dtype":"I64","shape":[0,9223372036854775807,9223372036854775807],"data_offsets":[0,0]}}',
        b'{"a":1,"a":2}',
        b"[]",
        b"\xff\xfe{\0}\0",
        b"NaN",
    ],
)
def test_headers_that_no_writer_makes(tmp_path: Path, head: bytes) -> None:
    path = tmp_path / "x.safetensors"
    for tail in (b"", struct.pack("<q", 0)):
        path.write_bytes(len(head).to_bytes(8, "little") + head + tail)
        for read in (Interactions.open, runs.open_split):
            with pytest.raises(DataError, match=r"x\.safetensors: not a"):
                read(path)


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.safetensors")
    for name in ("pipe.safetensors", ".", "x" * 300 + ".safetensors", "a\0b.safetensors"):
        with pytest.raises(DataError):
            Interactions.open(tmp_path / name)
        with pytest.raises(DataError):
            runs.open_split(tmp_path / name)
        with pytest.raises(FastrecError):
            runs.open_run(tmp_path / name)
    with pytest.raises(FastrecError):
        log().save(tmp_path / ("x" * 300))
    with pytest.raises(FastrecError):
        log().save(tmp_path / "a\0b")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, split: Split) -> runs.Run:
    made = runs.create(tmp_path_factory.mktemp("runs") / "run", config={"model": "neumf", "lr": 0.1}, split=split)
    made.save_model(build("neumf", n_users=7, n_items=40, dim=4, seed=3, layers=(8, 4)))
    metrics = {"99 candidates": {"HR@10": 0.625, "NDCG@10": 1e-05, "n_users": 6, "notes": ["x"]}, "full ranking": {}}
    summary = {"stopped": "all epochs", "epochs_done": 3, "best_epoch": None, "best_validation": 0.5}
    summary |= {"seconds": 1.5, "samples_per_s": 1e6, "metrics": metrics, "notes": ["one"]}
    made.record(status="done", result=summary, engine={"engine": "torch"}, avoided="train")
    return made


def read_run(path: Path) -> dict[str, Any]:
    opened = runs.open_run(path)
    opened.split()
    opened.model()
    return opened.manifest


@pytest.mark.parametrize("name", ["manifest.json", "config.toml", "data.safetensors", "model.safetensors"])
def test_a_flipped_bit_of_a_run_is_found(run: runs.Run, name: str) -> None:
    path = run.path / name
    for survivor in survivors(path, flips(path.read_bytes()), lambda: read_run(run.path)):
        assert name == "manifest.json", "a flipped bit of a file is never overlooked"
        assert survivor == run.manifest, "the e of 1e-05 may become E, which is the same number"


def test_the_bits_of_the_reported_metrics_are_guarded(run: runs.Run) -> None:
    path = run.path / "manifest.json"
    data = path.read_bytes()
    begin, end = data.index(b'"result"'), data.index(b'"notes"', data.index(b'"full ranking"'))
    places, mutants = range(8 * begin, 8 * end), []
    for place in random.Random(1).sample(places, min(5 * N, len(places))):
        mutant = bytearray(data)
        mutant[place // 8] ^= 1 << place % 8
        mutants.append(bytes(mutant))
    for survivor in survivors(path, mutants, lambda: runs.open_run(run.path).manifest):
        assert survivor == run.manifest


@pytest.mark.parametrize("kind", ["unsigned", "signed", "version 1"])
def test_hostile_manifests(run: runs.Run, kind: str) -> None:
    """Of version 1, without a digest, or with one that fits: no type, size or nesting does harm."""
    path = run.path / "manifest.json"
    manifest = {**run.manifest, "fastrec": "run 1"} if kind == "version 1" else run.manifest

    def mutants() -> Any:
        for m in substitutions(manifest, len(kind)):
            if kind == "signed":
                m["sha256"] = manifest_module._digest(m)
            yield json.dumps(m).encode()

    given = survivors(path, mutants(), lambda: read_run(run.path))
    if kind == "unsigned":
        assert not given
    for survivor in given:
        runs.Run(run.path, {}, survivor)


def test_a_run_of_version_1_opens_and_is_guarded_once_recorded(tmp_path: Path, split: Split) -> None:
    made = runs.create(tmp_path / "run", config={"model": "gmf"}, split=split)
    path = made.path / "manifest.json"
    old = {k: v for k, v in json.loads(path.read_text()).items() if k != "sha256"}
    path.write_text(json.dumps({**old, "fastrec": "run 1"}, indent=2))
    opened = runs.open_run(made.path)
    assert parts_of(opened.split()) == parts_of(split)
    opened.record(status="interrupted")
    again = json.loads(path.read_text())
    assert (again["fastrec"], again["status"], len(again["sha256"])) == ("run 2", "interrupted", 64)
    path.write_text(json.dumps({k: v for k, v in again.items() if k != "sha256"}))
    with pytest.raises(CheckpointError, match="sha256, None, does not fit"):
        runs.open_run(made.path)


@pytest.mark.parametrize(
    "text", [b"[" * 100_000, b'{"a":' * 50_000, b'{"fastrec": ' + b"9" * 5000 + b"}", b"\xff", b'"x"']
)
def test_manifests_that_no_writer_makes(run: runs.Run, text: bytes) -> None:
    assert not survivors(run.path / "manifest.json", [text], lambda: read_run(run.path))


def test_a_manifest_that_is_a_folder(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").mkdir()
    with pytest.raises(CheckpointError, match=r"manifest\.json: cannot be read \(Is a directory\)"):
        runs.open_run(tmp_path)


STATE = {
    "epoch": 1, "position": 3, "step": 7, "loss_sum": 0.5, "n_samples": 9, "window": [0.5, 3, 0.1], "best": 0.5,
    "best_epoch": 1, "waited": 0, "best_file": {"file": "best-epoch-00001.safetensors", "sha256": "0" * 64},
    "train_s": 1.0, "wall_s": 2.0, "total_samples": 99, "metrics_bytes": 10, "ended": None,
}  # fmt: skip


@pytest.fixture
def checkpoints(tmp_path: Path) -> Checkpoints:
    made = Checkpoints(tmp_path / "checkpoints", keep=3)
    best = made.save_best(1, {"w": torch.ones(2, dtype=torch.bfloat16)})
    meta = {"trainer": STATE, "engine": {"step": 7, "scaler": None}, "best": best, "config": "a", "data": "b"}
    made.save(7, {"x": torch.arange(10), "y": torch.ones(3, 2)}, meta)
    return made


def read_checkpoint(made: Checkpoints) -> Any:
    tensors, meta = made.load()
    best = made.load_best(meta["best"]) if meta.get("best") else {}
    try:
        State.of(meta.get("trainer"), 100)
    except ValueError as error:  # what Trainer.resume makes of it
        raise CheckpointError(str(error)) from None
    return {k: (v.dtype, v.tolist()) for k, v in {**tensors, **best}.items()}, meta


@pytest.mark.parametrize("name", ["step-000000007.json", "step-000000007.safetensors", "best-epoch-00001.safetensors"])
def test_a_flipped_bit_of_a_checkpoint_is_found(checkpoints: Checkpoints, name: str) -> None:
    whole = read_checkpoint(checkpoints)
    path = checkpoints.folder / name
    for survivor in survivors(path, flips(path.read_bytes()), lambda: read_checkpoint(checkpoints)):
        assert name.endswith(".json")
        assert survivor == whole


def test_hostile_checkpoints(checkpoints: Checkpoints) -> None:
    path = checkpoints.folder / "step-000000007.json"
    body = json.loads(json.loads(path.read_bytes())["body"])

    def mutants() -> Any:
        for m in substitutions(body):
            text = json.dumps(m)
            yield json.dumps({"body": text, "sha256": hashlib.sha256(text.encode()).hexdigest()}).encode()
        yield from (json.dumps(m).encode() for m in substitutions(json.loads(path.read_bytes())))

    for _, meta in survivors(path, mutants(), lambda: read_checkpoint(checkpoints)):
        assert meta["step"] == 7


def test_many_damaged_checkpoints_are_refused_at_once(tmp_path: Path) -> None:
    """Each damaged one looked at those before it, and they at theirs: 2^n looks."""
    made = Checkpoints(tmp_path, keep=100)
    looks = []
    for step in range(30):
        made.save(step, {"x": torch.zeros(1)}, {})
    for path in tmp_path.glob("*.json"):
        path.write_bytes(b"{}")
    checked = made._checked
    made._checked = lambda step: (looks.append(step), checked(step))[1]  # type: ignore[method-assign]
    with pytest.raises(CheckpointError, match="no earlier one is complete"):
        made.load()
    assert len(looks) <= 30


def test_best_weights_outside_the_folder_are_never_read(tmp_path: Path) -> None:
    (tmp_path / "mine.safetensors").write_bytes(b"x")
    named = {"file": "../mine.safetensors", "sha256": hashlib.sha256(b"x").hexdigest()}
    with pytest.raises(CheckpointError, match="names no best weights"):
        Checkpoints(tmp_path / "checkpoints").load_best(named)
