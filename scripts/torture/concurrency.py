"""Part "concurrency": feeds under delays, exceptions and cancellation, samplers in threads, forks, two resumes."""

from __future__ import annotations

import gc
import random
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

from fastrec.batches.feed import Feed
from fastrec.batches.stream import Stream
from fastrec.errors import FastrecError
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor
from scripts.torture import worlds
from scripts.torture.children import descriptors, in_child
from tests.helpers.training import make_stream

ROOT = Path(__file__).resolve().parents[2]


class _Fault(Exception):
    """What a disturbed stream raises."""


class Disturbed:
    """A stream that waits or raises at calls drawn by seed."""

    def __init__(self, stream: Stream, r: random.Random) -> None:
        self._stream, self._r = stream, r
        self.n_positives, self.n_negatives = stream.n_positives, stream.n_negatives
        self.fails_at = r.randint(1, 12) if r.random() < 0.3 else 0
        self._calls = 0

    def read(self, *args: Any, **options: Any) -> Any:
        """The stream's rows, late or not at all."""
        self._calls += 1
        if self._r.random() < 0.2:
            time.sleep(self._r.random() * 0.002)
        if self._calls == self.fails_at:
            raise _Fault
        return self._stream.read(*args, **options)


def feed_cycle(stream: Stream, r: random.Random) -> str:
    """Start a feed, take some batches, jump now and then, end it in one of four ways; its batches must be right."""
    disturbed = Disturbed(stream, r)
    feed = Feed(disturbed, batch_size=r.choice((4, 16, 40)), block=r.choice((1, 32, 4096)))  # type: ignore[arg-type]
    cursor, how = Cursor(0, 0), r.choice(("close", "collect", "close twice", "restart"))
    try:
        for _ in range(r.randint(0, 12)):
            epoch, start = cursor
            batch, after = feed.next(cursor)
            if r.random() < 0.3:
                rows = stream.read(epoch, start, after.position)
                assert np.array_equal(batch.items.numpy(), rows.items), "other rows than the stream's"
            cursor = after if after.position < stream.n_positives else Cursor(epoch + 1, 0)
            if r.random() < 0.1:
                cursor = Cursor(r.randrange(5), r.randrange(stream.n_positives))
        if how == "restart":
            feed.close()
            feed.next(Cursor(0, 0))
    except _Fault:
        how += " after an exception"
    except AssertionError as error:
        feed.close()
        return str(error)
    if "collect" not in how:
        feed.close()
    if "twice" in how:
        feed.close()
    del feed
    return ""


def feeds(seed: int, cycles: int, deadline: float) -> dict[str, Any]:
    """Feeds started and stopped; threads and descriptors afterwards are those before."""
    stream, wrong, done = make_stream(), [], 0
    feed_cycle(stream, random.Random(0))
    before = threading.active_count(), descriptors()
    for k in range(cycles):
        if time.monotonic() > deadline:
            break
        if fault := feed_cycle(stream, random.Random(f"feed {seed} {k}")):
            wrong.append(f"feed {k} of seed {seed}: {fault}")
        done += 1
    gc.collect()
    until = time.monotonic() + 60
    while threading.active_count() > before[0] and time.monotonic() < until:
        time.sleep(0.05)  # the threads of feeds nobody closed end within ticks
    after = threading.active_count(), descriptors()
    if after[0] > before[0] or after[1] > before[1]:
        wrong.append(f"(threads, descriptors) were {before} and are {after} after {done} cycles")
    return {"feed_cycles": done, "threads_and_descriptors": [before, after], "wrong": wrong}


def samplers(seed: int, n_threads: int, calls: int) -> dict[str, Any]:
    """One sampler and one of its own for every thread, all at once: the rows of a single thread."""
    indptr, items = worlds.data().indptr, worlds.data().items
    users = np.flatnonzero(np.diff(indptr)).astype(np.int32)

    def make() -> NegativeSampler:
        return NegativeSampler(indptr, items, n_items=30, n_negatives=4, seed=seed)

    shared, wrong, done = make(), [], [0] * n_threads
    expected = [shared.sample(users, epoch=e, start=0) for e in range(calls)]

    def work(k: int) -> None:
        own = make() if k % 2 else shared
        for e in np.random.default_rng([seed, k]).permutation(calls).tolist():
            found = own.sample(users, epoch=e, start=0, threads=1 + k % 3)
            done[k] += 1
            if not np.array_equal(found, expected[e]):
                wrong.append(f"thread {k}, epoch {e}: other negatives than a single thread draws")

    threads = [threading.Thread(target=work, args=(k,), daemon=True) for k in range(n_threads)]
    for thread in threads:
        thread.start()
    ends = []
    for _ in range(6):  # forks while the threads sample
        ends.append(in_child(lambda: np.array_equal(make().sample(users, epoch=0, start=0, threads=2), expected[0])))
        time.sleep(0.01)
    for thread in threads:
        thread.join(120)
        if thread.is_alive():
            wrong.append("a sampling thread hangs")
    for end in ends:
        if not (end.how == "returned" and end.value) and end.how != "refused":
            wrong.append(f"a fork while others sample: {end}")
    return {"sampler_threads": n_threads, "sampler_calls": sum(done), "forks": len(ends), "wrong": wrong}


LEAVING = """
import threading, sys, time
import numpy as np
from fastrec.sampling import NegativeSampler
sampler = NegativeSampler(np.arange(0, 4001, 2), np.tile([1, 3], 2000), n_items=1000, n_negatives=8)
users = np.tile(np.arange(2000, dtype=np.int32), 50)
started = threading.Event()
def work():
    while True:
        sampler.sample(users, epoch=0, start=0, threads=2)
        started.set()
threads = [threading.Thread(target=work, daemon=True) for _ in range(3)]
[t.start() for t in threads]
started.wait(120)
{end}
"""


def leaving(times: int) -> dict[str, Any]:
    """Interpreters that end while their threads sample: a clean exit status, no message."""
    wrong = []
    for k in range(times):
        end = ("sys.exit(7)", "raise SystemExit(7)", "import os; os._exit(7)")[k % 3]
        try:
            command = [sys.executable, "-c", LEAVING.replace("{end}", end)]
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            wrong.append(f"{end}: hangs")
            continue
        if done.returncode != 7 or "Traceback" in done.stderr or "Fatal" in done.stderr:
            wrong.append(f"{end}: status {done.returncode}, {done.stderr[-500:]}")
    return {"exits": times, "wrong": wrong}


def two_resumes(times: int) -> dict[str, Any]:
    """Two processes resume one run at once: one trains it, the other is refused in one line or finds it done."""
    wrong, refused = [], 0
    base = Path(tempfile.mkdtemp(prefix="fastrec-two-"))
    try:
        worlds.learn_reference(base)
        worlds.cut(base)
        for k in range(times):
            shutil.copytree(base / "run", base / str(k) / "run")
            ends: list[Any] = [None, None]

            def go(j: int, folder: Path = base / str(k), ends: list[Any] = ends) -> None:
                ends[j] = in_child(lambda: worlds.resumed(folder))

            pair = [threading.Thread(target=go, args=(j,)) for j in (0, 1)]
            for thread in pair:
                thread.start()
            for thread in pair:
                thread.join()
            said = [e.value for e in ends if e.how == "refused"]
            refused += len(said)
            if any(e.how not in ("returned", "refused") for e in ends) or len(said) > 1:
                wrong.append(f"two resumes: {ends}")
            if any("is being trained already" not in s or "\n" in s for s in said):
                wrong.append(f"two resumes: {said}")
            try:
                worlds.run_state(base / str(k), "cut")
            except (AssertionError, FastrecError) as error:
                wrong.append(f"after two resumes: {error}")
    finally:
        shutil.rmtree(base, ignore_errors=True)
    return {"pairs_of_resumes": times, "second_refused": refused, "wrong": wrong}


def main(seed: int, minutes: float, *, cycles: int = 1000, times: int = 6, n_threads: int = 16) -> dict[str, Any]:
    """Everything in turn: ``times`` pairs of resumes and exits; feeds until the cycles or the time are used up."""
    import torch

    torch.set_num_threads(1)
    parts = [
        two_resumes(times),
        samplers(seed, n_threads, 60),
        leaving(times),
        feeds(seed, cycles, time.monotonic() + 60 * minutes),
    ]
    found: dict[str, Any] = {"part": "concurrency"}
    for part in parts:
        found |= {k: v for k, v in part.items() if k != "wrong"}
    return {**found, "wrong": [fault for part in parts for fault in part["wrong"]]}
