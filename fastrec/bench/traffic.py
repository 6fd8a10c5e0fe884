"""Bytes that training must move, compared with what this machine can copy: how far a rate is from the limit.

B batch rows (positives), N negatives, U users, I items, D dim.
"""

from __future__ import annotations

from typing import Any


def row_bytes(dim: int, *, weight: int = 4, state: int = 0, row_state: int = 0) -> float:
    """Bytes moved by reading and writing one row: 2 D (weight + state) + 2 row_state."""
    return 2.0 * dim * (weight + state) + 2.0 * row_state


def bytes_per_sample(dim: int, n_negatives: int, *, weight: int = 4, state: int = 0, row_state: int = 0) -> float:
    """Bytes moved per sample by a pass that reads and writes each row once per use.

    Parameters
    ----------
    dim : int
        D, elements of a row.
    weight, state : int
        Bytes per element of the weights and of the optimiser's state, each read and written.
    row_state : int
        Bytes of optimiser state per row.

    Notes
    -----
    Per sample: an item row, a user row shared by N + 1 samples, and the ids (int32).
    """
    row = row_bytes(dim, weight=weight, state=state, row_state=row_state)
    user_row = 1.0 / (n_negatives + 1)
    return row + row * user_row + 4.0 * (1.0 + user_row)


def dense_bytes_per_sample(
    dim: int, n_negatives: int, n_rows: int, batch_size: int, *, weight: int = 4, state: int = 8, copy: int = 0
) -> float:
    """The same for dense Adam: rows gathered and their gradients scattered, then every row of every table is moved.

    Parameters
    ----------
    n_rows : int
        U + I.
    batch_size : int
        B, positives per step: the dense part is divided among B (N + 1) samples.
    copy : int
        Bytes per element of the 16-bit copy that rows are gathered from; 0: from the weights.

    Notes
    -----
    Per sample: item row read and its gradient read and written (3 D weight), the user's divided by N + 1, the ids. Per
    step: weights and state read and written, gradients zeroed and read, a copy written, over U + I rows.
    """
    user_row = 1.0 / (n_negatives + 1)
    gathered = dim * ((copy or weight) + 2.0 * weight) * (1.0 + user_row) + 4.0 * (1.0 + user_row)
    dense = n_rows * dim * (2.0 * (weight + state) + 2.0 * weight + copy)
    return gathered + dense / (batch_size * (n_negatives + 1))


def bandwidth_details(rate: float, per_sample: float, copy_bytes_per_s: float) -> dict[str, Any]:
    """For a row's details: bytes per sample, bytes per second, and their percentage of the measured copy bandwidth.

    It is above 100 % where the tables stay in a cache that is faster than memory; the table says so next to it.
    """
    moved = rate * per_sample
    return {
        "bytes_per_sample": per_sample,
        "moved_bytes_per_s": moved,
        "bandwidth_pct": 100.0 * moved / copy_bytes_per_s,
    }
