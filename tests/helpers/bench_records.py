"""Records of the bench for tests: rows, cases and a complete record, without measuring anything."""

from __future__ import annotations

import json
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def schema() -> dict:
    """The JSON schema of a record."""
    return json.loads((ROOT / "benchmarks" / "schema.json").read_text())


def row(name: str, rates: list[float], *, role: str = "fastrec", unit: str = "samples/s", speed: float = 1.0, **more):
    middle = sorted(rates)[len(rates) // 2]
    return {
        "name": name,
        "what": f"what {name} is",
        "role": role,
        "unit": unit,
        "rate": middle,
        "low": min(rates),
        "high": max(rates),
        "spread": 0.02,
        "noisy": False,
        "rates": rates,
        "calibration": [100.0 * speed] * len(rates),
        "calibrated": middle / speed,
        "work": 10.0,
        "calls_per_repeat": 1,
        "threads": 2,
        "first_call_s": 0.5,
        "extrapolated": "",
        "details": {},
    } | more


def case(name: str, *rows) -> dict:
    head = rows[0]
    ratios = [
        {"of": head["name"], "to": r["name"], "ratio": head["rate"] / r["rate"], "low": 1.0, "high": 9.0}
        for r in rows[1:]
    ]
    top = {key: head[key] for key in ("unit", "rate", "low", "high", "calibrated", "noisy", "first_call_s")}
    facts = {"n_negatives": 4}
    return {"name": name, "title": f"title of {name}", "status": "ok", "seconds": 1.0, "facts": facts, "notes": []} | (
        {"rows": list(rows), "ratios": ratios} | top
    )


def record(**cases) -> dict:
    return {
        "format": 1,
        "date": "2026-11-23T12:00:00+00:00",
        "command": "python -m fastrec.bench --json x.json",
        "quick": False,
        "seconds": 3.0,
        "machine": {
            "cpu": "a processor",
            "cores": 2,
            "threads": 2,
            "memory_bytes": 8 << 30,
            "os": "Linux",
            "gpu": None,
            "device": "cpu",
            "versions": {"python": "3.11.7", "polars": None},
            "copy_bytes_per_s": {"1": 1e10, "2": 2e10},
            "calibration": {"rate": 100.0, "low": 99.0, "high": 101.0, "reference_rate": 100.0},
            "commit": "0123456789abcdef0123456789abcdef01234567",
            "dirty": False,
        },
        "data": {
            "name": "toy",
            "said": "toy, as asked",
            "fingerprint": "ab" * 32,
            "n_users": 10,
            "n_items": 20,
            "n_interactions": 50,
        },
        "cases": cases,
    }


def full_record() -> dict:
    return record(
        sampler=case(
            "sampler",
            row("fastrec", [3e8, 3.1e8, 2.9e8], unit="negatives/s"),
            row("numpy-dense", [1e8, 1.1e8, 0.9e8], unit="negatives/s", role="baseline"),
        ),
        feed=case("feed", row("feed", [2e8, 2.1e8, 1.9e8])),
        step=case("step", row("torch", [4e6, 4.1e6, 3.9e6])),
        end_to_end=case(
            "end_to_end",
            row("fused", [3e7, 3.1e7, 2.9e7], details={"bytes_per_sample": 620.0}),
            row("notebook", [2e5, 2.1e5, 1.9e5], role="baseline", extrapolated="from 2,000 positives"),
            row("ceiling", [9e7, 9e7, 9e7], role="ceiling"),
        ),
        split={"name": "split", "title": "", "status": "refused", "reason": "a positive was emitted", "seconds": 0.1},
    )
