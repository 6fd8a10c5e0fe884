"""Seconds and peak memory of the stages of a worker."""

from __future__ import annotations

import json
import time
from typing import Any

from fastrec.bench.machine import peak_bytes


class Stages:
    """Seconds and peak memory (since the process began) after each stage."""

    def __init__(self) -> None:
        self.done: list[dict[str, Any]] = []
        self._at = time.perf_counter()

    def end(self, name: str, **facts: Any) -> None:
        """Close a stage that began when the one before it ended."""
        now = time.perf_counter()
        self.done.append({"name": name, "seconds": now - self._at, "peak_bytes": peak_bytes(), **facts})
        self._at = time.perf_counter()

    def print(self) -> None:
        """Print what ``fresh_process`` reads."""
        print(json.dumps({"stages": self.done}))
