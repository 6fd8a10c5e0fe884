"""docs/stream.md: its test vectors are what this library draws, and what the plain-Python oracle draws."""

from __future__ import annotations

import json
import re
import runpy
from pathlib import Path

import pytest

from fastrec.sampling import STREAM_VERSION, philox
from tests.helpers import oracle

ROOT = Path(__file__).resolve().parents[2]
VECTORS = json.loads((ROOT / "docs" / "stream-vectors.json").read_text())


def test_the_library_draws_the_vectors() -> None:
    drawn = json.loads(json.dumps(runpy.run_path(str(ROOT / "scripts" / "stream_vectors.py"))["vectors"]()))
    normal = drawn["weights"].pop("normal")
    assert drawn == {**VECTORS, "weights": {k: v for k, v in VECTORS["weights"].items() if k != "normal"}}
    for found, expected in zip(normal, VECTORS["weights"]["normal"], strict=True):
        assert found == pytest.approx(expected, rel=1e-6)  # the last bit is that of the math library
    assert VECTORS["stream_version"] == STREAM_VERSION


def test_the_oracle_draws_the_words_and_negatives() -> None:
    for case in VECTORS["philox"]:
        assert list(oracle.philox(case["counter"], case["key"])) == case["words"]
    for case in VECTORS["identity"]:
        assert str(oracle.identity(case["user"], case["item"])) == case["position"]
    finishes = 0
    for case in VECTORS["uniform"] + VECTORS["candidates"]:
        address = {
            "seed": case["seed"],
            "epoch": case["epoch"],
            "position": oracle.identity(case["user"], case["item"]),
        }
        options = {"distinct": case.get("distinct", False), "tag": case.get("tag", oracle.TAG_NEGATIVES)}
        n = len(case["negatives"])
        assert oracle.uniform(case["row"], case["n_items"], n, **address, **options) == case["negatives"]
        finishes += len(case["row"]) > 0.8 * case["n_items"]
    assert finishes
    for case in VECTORS["weighted"]:
        address = {
            "seed": case["seed"],
            "epoch": case["epoch"],
            "position": oracle.identity(case["user"], case["item"]),
        }
        units, table = [int(u) for u in case["units"]], (case["cut"], case["alias"])
        assert sum(units) == case["n_items"] << 32
        n, distinct = len(case["negatives"]), case.get("distinct", False)
        assert oracle.weighted(case["row"], units, table, n, **address, distinct=distinct) == case["negatives"]


def test_the_oracle_draws_the_rest() -> None:
    for case in VECTORS["order"]:
        if case["n"] <= 5000:
            assert oracle.order(case["n"], case["seed"], case["epoch"])[: len(case["first"])] == case["first"]
    split = VECTORS["split"]
    keys = [oracle.validation_key(split["user"], i, seed=split["seed"], draw=split["draw"]) for i in split["items"]]
    assert [str(k) for k in keys] == split["keys"]
    weights = VECTORS["weights"]
    for r, (flat, bell) in enumerate(zip(weights["uniform"], weights["normal"], strict=True)):
        for c, (one, other) in enumerate(zip(flat, bell, strict=True)):
            assert one == pytest.approx(oracle.uniform_weight(weights["name"], r, c, seed=weights["seed"]), rel=1e-6)
            assert other == pytest.approx(oracle.normal_weight(weights["name"], r, c, seed=weights["seed"]), rel=1e-6)
    drop = VECTORS["dropout"]
    for k, row in enumerate(drop["kept"]):
        for d, kept in enumerate(row):
            where = {"n_columns": len(drop["kept"]), "rate": drop["rate"], "seed": drop["seed"], "epoch": drop["epoch"]}
            assert oracle.kept(oracle.identity(drop["user"], drop["item"]), drop["layer"], k, d, **where) == kept
    r = VECTORS["rounding"]
    for row, bits in zip((r["user"], 2**31 + r["item"]), r["bits"], strict=True):
        assert [oracle.rounding_bits(int(r["step"]), row, d, seed=r["seed"]) for d in range(4)] == bits


def test_the_page_has_a_row_for_every_tag() -> None:
    page = (ROOT / "docs" / "stream.md").read_text()
    tags = {value for name, value in vars(philox).items() if name.startswith("TAG_")}
    assert {int(tag) for tag in re.findall(r"^\| (\d+) \|", page, re.MULTILINE)} == tags
    assert f"# The stream, version {STREAM_VERSION}" in page
