"""Exact, addressed negative sampling; embeddable: needs NumPy and Numba alone."""

from fastrec.sampling.identity import identity
from fastrec.sampling.philox import STREAM_VERSION
from fastrec.sampling.sampler import NegativeSampler

__all__ = ["STREAM_VERSION", "NegativeSampler", "identity"]
