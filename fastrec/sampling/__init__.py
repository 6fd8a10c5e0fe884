"""Exact, addressed negative sampling; embeddable: needs only NumPy and Numba."""

from fastrec.sampling.existing import ExistingSampler
from fastrec.sampling.identity import identity
from fastrec.sampling.philox import STREAM_VERSION
from fastrec.sampling.sampler import NegativeSampler

__all__ = ["STREAM_VERSION", "ExistingSampler", "NegativeSampler", "identity"]
