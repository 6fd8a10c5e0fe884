"""Losses for many negatives, one file each: its torch form over scores [B, 1+N] and its compiled form over one row.

A compiled form takes a row's scores and leaves the gradients of the row's loss in their place. Losses add up over rows
and are divided by ``terms``: a row of softmax or CCL is one term, of gBCE or BCE one each sample, of BPR one each pair.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from fastrec.errors import ConfigError

BCE, BPR, SOFTMAX, CCL, GBCE = range(5)

CODES = {"bce": BCE, "bpr": BPR, "softmax": SOFTMAX, "ccl": CCL, "gbce": GBCE}

SIMILARITIES = {
    "bce": ("dot",),
    "bpr": ("dot",),
    "gbce": ("dot",),
    "softmax": ("dot", "cosine"),
    "ccl": ("cosine",),
}


def beta(calibration: float, n_negatives: int, n_items: int) -> float:
    """The power of the positive's probability; a sampling rate above 1 counts as 1."""
    rate = min(1.0, n_negatives / max(1, n_items - 1))
    return rate * (calibration * (1 - 1 / rate) + 1 / rate)


@dataclass(frozen=True)
class Loss:
    """A loss with its options, as kernels take it.

    Parameters
    ----------
    name : {"bce", "bpr", "softmax", "ccl", "gbce"}
    temperature : float
        Of softmax: scores are divided by it.
    margin : float
        Of CCL: negatives with a cosine above it are pushed away.
    negative_weight : float
        Of CCL: weight of the mean over the negatives against the positive.
    calibration : float
        t of gBCE, 0 to 1: 0 is BCE, 1 gives the scores of the full softmax's scale.

    Raises
    ------
    ConfigError
        An unknown name, or an option out of range.
    """

    name: str
    temperature: float = 0.1
    margin: float = 0.4
    negative_weight: float = 150.0
    calibration: float = 0.75

    def __post_init__(self) -> None:
        if self.name not in CODES:
            raise ConfigError(f"loss = {self.name!r}: must be one of {', '.join(CODES)}")
        for field in ("temperature", "negative_weight"):
            value = getattr(self, field)
            if not (math.isfinite(value) and value > 0):
                raise ConfigError(f"{field} = {value}: must be a finite number above 0")
        if not -1.0 <= self.margin < 1.0:
            raise ConfigError(f"margin = {self.margin}: is compared with cosines, so it must be in [-1, 1)")
        if not 0.0 <= self.calibration <= 1.0:
            raise ConfigError(f"calibration = {self.calibration}: must be in [0, 1]")

    @property
    def code(self) -> int:
        """Number of the loss in kernels."""
        return CODES[self.name]

    def terms(self, n_negatives: int) -> int:
        """Terms of one row's loss."""
        return {"bce": 1 + n_negatives, "gbce": 1 + n_negatives, "bpr": n_negatives}.get(self.name, 1)

    def numbers(self, n_negatives: int, n_items: int) -> tuple[float, float]:
        """The two numbers that the compiled form takes."""
        if self.name == "ccl":
            return self.margin, self.negative_weight / n_negatives
        if self.name == "gbce":
            return beta(self.calibration, n_negatives, n_items), 0.0
        return 1.0 / self.temperature, 0.0
