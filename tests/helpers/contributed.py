"""A program that uses what CONTRIBUTING.md adds, and prints what came of it as JSON.

python -m tests.helpers.contributed FOLDER LOG: FOLDER holds the added files at their paths in the repository. Their
folders are put at the end of the search paths of the packages: a copy of the package would compile every kernel again.
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

FOLDER, LOG = Path(sys.argv[1]), sys.argv[2]
FAST = ["--no-tensorboard", "--no-progress", "--dim", "20", "--device", "cpu", "--threads", "2", "--batch-size", "256"]


def add_files() -> None:
    """Let the packages find the files."""
    for folder in {path.parent for path in FOLDER.rglob("*.py")}:
        name = ".".join(folder.relative_to(FOLDER).parts)
        import_module(name).__path__.append(str(folder))


def command(*words: str) -> str:
    """What a command prints on stdout; it must succeed."""
    from fastrec.cli.main import main

    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(list(words))
    assert code == 0, (words, out.getvalue())
    return out.getvalue()


def used(run: str) -> dict[str, Any]:
    """A run evaluated, recommended from and exported: figures, and the largest error of the exported vectors."""
    import torch

    from fastrec.runs import open_run

    opened = open_run(run)
    train, model = opened.split().train, opened.model().eval()
    command("export", run, "--to", "word2vec", "--out", f"{run}.txt")
    command("export", run, "--to", "npz", "--out", f"{run}.npz")
    head, *lines = Path(f"{run}.txt").read_text().splitlines()
    vectors = dict(np.load(f"{run}.npz"))
    with torch.no_grad():
        scores = model(torch.arange(train.n_users), torch.arange(train.n_items).expand(train.n_users, -1)).numpy()
    error = scores - vectors["user_vectors"] @ vectors["item_vectors"].T  # up to a constant for each user
    return {
        "config": opened.config,
        "result": opened.manifest["result"],
        "losses": [r["loss"] for r in map(json.loads, (opened.path / "metrics.jsonl").open()) if r["kind"] == "epoch"],
        "evaluated": json.loads(command("evaluate", run, "--json")),
        "recommended": command("recommend", run, "--user", str(train.user_ids[0])),
        "words": [head, len(lines), lines[0].split()[0], str(train.item_ids[0])],
        "export_error": float(np.abs(error - error.mean(1, keepdims=True)).max()),
        "tests": opened.split().test.degrees.tolist(),
    }


def main() -> None:
    """Train, use and compare what was added."""
    add_files()
    own = ["--split", "leave-one-random", "--select", "full:F1@5", "--epochs", "4", "--lr", "0.01"]
    command("train", "--data", LOG, *FAST, *own, "--model", "euclidean", "--optimizer", "rmsprop", "--out", "euclidean")
    command("train", "--data", LOG, *FAST, *own, "--model", "lightgcn", "--loss", "hinge", "--out", "lightgcn")
    table = command("baselines", LOG, "--split", "leave-one-random", "--only", "popularity", "pure-svd", "--json")
    print(json.dumps({run: used(run) for run in ("euclidean", "lightgcn")} | {"baselines": json.loads(table)}))


if __name__ == "__main__":
    main()
