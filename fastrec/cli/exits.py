"""Exit codes of the commands, and how an error is shown."""

from __future__ import annotations

from fastrec.errors import DataNotFoundError
from fastrec.terminal import printable, say

EXIT_DATA, EXIT_USAGE, EXIT_INTERRUPTED = 1, 2, 130


def fail(error: Exception | str, code: int) -> int:
    """Show an error on stderr; returns the code."""
    lines = "\n" if isinstance(error, DataNotFoundError) else ""  # it lists its sources, one per line
    say(printable(f"fastrec: {error}", lines), err=True)
    return code
