"""Exit codes of the commands, and how an error is shown."""

from __future__ import annotations

import os

from fastrec.errors import DataNotFoundError
from fastrec.terminal import printable, say

EXIT_DATA, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def fail(error: Exception | str, code: int) -> int:
    """Show an error on stderr; returns the code. Of several processes all but rank 0 name their rank."""
    lines = "\n" if isinstance(error, DataNotFoundError) else ""  # it lists its sources, one per line
    rank = os.environ.get("RANK", "0") if os.environ.get("WORLD_SIZE", "1") != "1" else "0"
    who = "fastrec" if rank == "0" else f"fastrec, rank {rank}"
    say(printable(f"{who}: {error}", lines), err=True)
    return code
