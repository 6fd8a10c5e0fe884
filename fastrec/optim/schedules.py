"""Learning rates as pure functions of the step, so that a resumed run needs no scheduler state."""

from __future__ import annotations

import math

from fastrec.errors import ConfigError

SCHEDULES = ("constant", "cosine", "linear", "step")


def learning_rate(
    step: int,
    *,
    lr: float,
    schedule: str = "constant",
    total: int = 0,
    warmup: int = 0,
    every: int = 0,
    factor: float = 0.5,
) -> float:
    """Learning rate of a step, a pure function: a resumed run needs no scheduler state.

    Parameters
    ----------
    step : int
        From 0.
    lr : float
        The peak.
    schedule : {"constant", "cosine", "linear", "step"}
        After the warm-up: unchanged; half a cosine, or a line, down to 0 at ``total``; times ``factor`` each ``every``.
    total : int
        Steps of the entire run; cosine and linear need it.
    warmup : int
        Steps over which the rate rises in equal parts to ``lr``, counted in ``total``.
    every : int
        Steps between drops of "step", counted from the end of the warm-up.
    factor : float
        What each drop multiplies by.
    """
    if step < warmup:
        return lr * (step + 1) / warmup
    if schedule == "constant":
        return lr
    if schedule == "step":
        return lr * factor ** ((step - warmup) // max(1, every))
    if schedule not in SCHEDULES:
        raise ConfigError(f"schedule = {schedule!r}: must be one of {', '.join(SCHEDULES)}")
    fraction = min(1.0, (step - warmup) / max(1, total - warmup))
    return lr * (0.5 * (1.0 + math.cos(math.pi * fraction)) if schedule == "cosine" else 1.0 - fraction)
