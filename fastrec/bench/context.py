"""The context of every case: the data, the threads, the device, and the time it may take."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from importlib.util import find_spec
from typing import Any

from fastrec.bench import machine
from fastrec.data.interactions import Interactions
from fastrec.data.split import leave_one_out
from fastrec.jit import resolve_threads

REAL = "ml-1m"
SYNTHETIC = "synthetic-1m"


@dataclass
class Context:
    """The circumstances of a run.

    Parameters
    ----------
    data : Interactions
        All interactions; ``split`` splits them.
    source : str
        Path of the file or folder that the data came from, or the name of the synthetic set.
    origin : str
        One line about which data these are and why, printed above the tables.
    threads : int
        Threads of the parallel cases.
    device : str
        ``"cpu"``, ``"cuda"``, ``"cuda:1"``.
    quick : bool
        Under a minute in all: fewer repeats and less work.
    dim, n_negatives, batch_size, seed : int
        D, N, positives per batch, and the seed of every address.
    """

    data: Interactions
    source: str
    origin: str
    threads: int
    device: str = "cpu"
    quick: bool = False
    dim: int = 64
    n_negatives: int = 4
    batch_size: int = 8192
    seed: int = 42

    @cached_property
    def split(self) -> Any:
        """Leave-one-out with a validation part: what the training cases train on. Made once."""
        return leave_one_out(self.data, validation=0.1, seed=self.seed)

    @property
    def train(self) -> Interactions:
        """The train part: the CSR that the training cases sample from."""
        part: Interactions = self.split.train
        return part

    @cached_property
    def bandwidth(self) -> dict[str, float]:
        """Copy bandwidth of this machine in bytes a second, by number of threads and by device. Measured once."""
        return machine.bandwidth(self.threads, self.device)

    @property
    def repeats(self) -> int:
        """Rounds of a measurement."""
        return 3 if self.quick else 5

    @property
    def min_s(self) -> float:
        """Shortest stretch between two readings of the clock, in seconds."""
        return 0.05 if self.quick else 0.2

    def describe(self) -> dict[str, Any]:
        """The data, for the record."""
        return {
            "name": self.data.name,
            "said": self.origin,
            "fingerprint": self.data.fingerprint(),
            "n_users": self.data.n_users,
            "n_items": self.data.n_items,
            "n_interactions": self.data.n_interactions,
        }


def find_data(wanted: str | None) -> tuple[Interactions, str, str]:
    """The data to measure on: interactions, source, and one line that says which they are.

    A saved ``.safetensors`` file opens without Polars. By default: MovieLens-1M where it is found, else the
    synthetic set of its shape, and the line says so.

    Raises
    ------
    DataError
        If a set that was named cannot be found.
    """
    from fastrec.data import load
    from fastrec.data.datasets import registry
    from fastrec.data.synthetic import generator as synthetic

    if wanted is not None and wanted in synthetic.SHAPES:
        return synthetic.make(wanted), wanted, f"{wanted}, as asked: generated, NOT real data"
    if wanted is not None:
        return load(wanted), wanted, f"{wanted}, as asked"
    found = registry.find(REAL)
    if found is not None:
        return load(found), str(found), f"{REAL}: the real data were found"
    origin = f"{SYNTHETIC}, NOT real data: {REAL} is neither under $FASTREC_DATA nor in the cache"
    return synthetic.make(SYNTHETIC), SYNTHETIC, origin


def make_context(
    *, data: str | None = None, threads: int | None = None, device: str | None = None, quick: bool = False
) -> Context:
    """A context from what the command line gives; ``device=None`` takes CUDA where torch finds it."""
    device = _device(device)  # before minutes of loading
    interactions, source, origin = find_data(data)
    return Context(interactions, source, origin, resolve_threads(threads), device, quick)


def _device(wanted: str | None) -> str:
    """The device, checked; the CPU where torch is not installed, which the sampler's case does not need."""
    if wanted in (None, "auto", "cpu") and find_spec("torch") is None:
        return "cpu"
    from fastrec.batches.device import check_device

    return check_device("auto" if wanted is None else wanted)
