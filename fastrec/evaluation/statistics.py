"""Paired statistics: Student's t, the addressed bootstrap, effect size, and how many seeds settle a difference.

S seeds, U users, R resamples.
Sources: Student's t by the incomplete beta function, Press et al., "Numerical recipes", section 6.4; Efron and
Tibshirani, "An introduction to the bootstrap", 1993, chapter 13 (percentiles), with Poisson weights as in Chamandy et
al., "Estimating uncertainty for massive data streams", 2012; Lakens, Frontiers in Psychology 4, 2013 (d_z).
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from fastrec.jit import njit, resolve_threads, run_ranges
from fastrec.sampling.philox import TAG_BOOTSTRAP, philox4x32

Floats = NDArray[np.float64]
RESAMPLES = 2000
LEVEL = 0.95
MOST_SEEDS = 10_000
_POISSON = np.array([math.exp(-1.0) * sum(1.0 / math.factorial(k) for k in range(n + 1)) for n in range(12)])
"""Cumulative probabilities of a Poisson(1) count of 0 to 11."""


@njit
def _resample(differences, poisson, seed, tag, out, lo, hi):  # type: ignore[no-untyped-def]
    """out[r] = mean of the resampled seeds and users of resample r in [lo, hi)."""
    n_seeds, n_users = differences.shape
    zero, one = np.uint64(0), np.uint64(1)
    counts = np.empty(n_seeds)
    for r in range(lo, hi):
        counts[:] = 0.0
        for s in range(n_seeds):
            words = philox4x32(np.uint64(s // 4), one, np.uint64(r), zero, seed, tag)
            word = words[0] if s % 4 == 0 else words[1] if s % 4 == 1 else words[2] if s % 4 == 2 else words[3]
            counts[np.int64(word * np.uint64(n_seeds) >> np.uint64(32))] += 1.0
        total, weight = 0.0, 0.0
        for block in range(-(-n_users // 4)):
            words = philox4x32(np.uint64(block), zero, np.uint64(r), zero, seed, tag)
            for lane in range(min(4, n_users - 4 * block)):
                word = words[0] if lane == 0 else words[1] if lane == 1 else words[2] if lane == 2 else words[3]
                place, times = np.float64(word) * 2.0**-32, 0
                while times < poisson.shape[0] and place >= poisson[times]:
                    times += 1
                if times:
                    own = 0.0
                    for s in range(n_seeds):
                        own += counts[s] * differences[s, 4 * block + lane]
                    total += times * own
                    weight += times
        out[r] = total / (weight * n_seeds) if weight else 0.0


def bootstrap(differences: Floats, *, seed: int = 0, resamples: int = RESAMPLES, threads: int | None = None) -> Floats:
    """float64[R]: the mean difference in each resample of users, and of seeds where there are several.

    Parameters
    ----------
    differences : float64[S, U]
        Of each seed and user.
    seed : int
        0 to 2^32-1. A user's weight in a resample is a Poisson(1) count addressed by (seed, resample, user), a seed's
        one of S addressed draws: equal for any threads, and for comparisons of other runs of the same users.
    """
    out = np.empty(resamples)
    given = np.ascontiguousarray(differences, dtype=np.float64)
    address = np.uint64(seed), np.uint64(TAG_BOOTSTRAP)
    run_ranges(
        lambda lo, hi: _resample(given, _POISSON, *address, out, lo, hi), resamples, resolve_threads(threads), grain=16
    )
    return out


def interval(resampled: Floats, level: float = LEVEL) -> tuple[float, float]:
    """The middle ``level`` of the resampled means."""
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def paired_t(differences: Floats) -> tuple[float, float]:
    """(p, d_z) of the two-sided paired t test of float64[n]: d_z = mean / standard deviation; (1, 0) if all are 0."""
    n, mean = differences.size, float(differences.mean())
    deviation = float(differences.std(ddof=1)) if n > 1 else 0.0
    if not deviation:
        return (1.0, 0.0) if mean == 0 else (math.nan, math.nan)
    return student_p(mean / deviation * math.sqrt(n), n - 1), mean / deviation


def student_p(t: float, freedom: int) -> float:
    """Probability of a Student t at least as far from 0."""
    whole = freedom + t * t
    return _incomplete_beta(0.5 * freedom, 0.5, freedom / whole, t * t / whole)


def seeds_to_settle(mean: float, deviation: float, level: float = LEVEL) -> int | None:
    """Pairs of seeds at which a mean difference has p below 1 - level; None for no difference, or too many.

    Parameters
    ----------
    mean, deviation : float
        Of the differences of single seeds.
    """
    if mean == 0:
        return None

    def settled(n: int) -> bool:
        return not deviation or student_p(mean / deviation * math.sqrt(n), n - 1) < 1 - level

    low, high = 1, 2
    while not settled(high):
        low, high = high, 2 * high
        if low > MOST_SEEDS:
            return None
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if settled(middle) else (middle, high)
    return high


def _incomplete_beta(a: float, b: float, x: float, rest: float) -> float:
    """The regularised incomplete beta function at x, ``rest`` being 1 - x; by Lentz's continued fraction."""
    if x <= 0 or rest <= 0:
        return float(x > 0)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log(rest))
    if x < (a + 1) / (a + b + 2):
        return front * _fraction(a, b, x) / a
    return 1 - front * _fraction(b, a, rest) / b


def _fraction(a: float, b: float, x: float) -> float:
    tiny = 1e-300
    c, d = 1.0, 1.0 / max(1 - (a + b) * x / (a + 1), tiny)
    value = d
    for m in range(1, 500):
        for term in (
            m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m)),
            -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1)),
        ):
            d = 1 / (1 + term * d or tiny)
            c = 1 + term / c or tiny
            value *= d * c
        if abs(d * c - 1) < 1e-14:
            break
    return value
