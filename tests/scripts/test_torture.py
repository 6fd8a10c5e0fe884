"""The short form of ``make torture``: some points of each part, and a writer that must be found wrong."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.conftest import ROOT


@pytest.fixture(scope="module")
def found() -> dict[str, dict]:
    """Counts by part. A process of its own: the shim is preloaded, and its children are forked before Polars starts."""
    command = [sys.executable, "-m", "scripts.torture", "--short"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout)


def test_nothing_is_lost_hung_or_missed(found: dict[str, dict]) -> None:
    wrong = {part: counts["wrong"] for part, counts in found.items() if part != "in place"}
    assert not any(wrong.values()), json.dumps(wrong, indent=1)[:5000]
    tried = {"inputs": "inputs", "pack": "cases", "csv": "tables", "concurrency": "feed_cycles", "integrity": "flipped"}
    assert all(found[part][count] > 0 for part, count in tried.items())
    assert found["csv"]["kinds"]["equal"] > 20
    assert found["integrity"]["found"] > 50


def test_faults_and_lost_power_leave_the_old_state_or_the_new(found: dict[str, dict]) -> None:
    if reason := found["faults"].get("skipped"):
        pytest.skip(reason)
    for part in ("faults", "files"):
        assert found[part]["injected"] > 0
        assert found[part]["survived"] == found[part]["injected"] + found[part]["chains"]
    assert found["lost-power"]["survived"] == found["lost-power"]["tried"] > 5
    how = "".join(found["files"]["outcomes"])
    assert "killed, old" in how
    assert "refused, old" in how


def test_a_writer_that_is_not_atomic_is_found(found: dict[str, dict]) -> None:
    if reason := found["faults"].get("skipped"):
        pytest.skip(reason)
    wrong = found["in place"]["wrong"]
    assert any("kill at call" in fault and "torn" in fault for fault in wrong), wrong
