"""HR of folded-in users next to trained ones, on users that the item table has never seen.

Two runs of one recipe: one on every user, one without every tenth. The tenth is folded into the second run from its own
train and validation items; both rank its test items against all items it has not interacted with, and against the
frozen candidates of the split. The same users are folded into the first run again as well. Prints a Markdown table.

    python scripts/fold_in_quality.py ml-100k --model mf --epochs 20
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

import fastrec
from fastrec.config import Config
from fastrec.data.split import Split
from fastrec.evaluation.candidates import candidates_for
from fastrec.evaluation.full_ranking import full_ranks
from fastrec.evaluation.metrics import grouped, single
from fastrec.inference.fold_in import Folder
from fastrec.runs import open_run

EVERY, OFFSET = 10, 3


class Given:
    """Vectors as a model that evaluation ranks by."""

    def __init__(self, users: np.ndarray, items: np.ndarray, bias: np.ndarray) -> None:
        self._made = users, items, bias

    def vectors(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Users, items and item bias."""
        return self._made


def keep(split: Split, chosen: np.ndarray, how: str) -> Split:
    """The split with the rows of the chosen users (bool[U]) only; ids stay."""
    parts = [part.keep(chosen[part.users]) for part in (split.train, split.validation, split.test)]
    return Split(*parts, how=how)


def figures(run: Any, split: Split, users: np.ndarray, folded: bool) -> tuple[list[float], list[float]]:
    """HR@10 and NDCG@10 of the test items of some users in both protocols, and the milliseconds of each fold-in."""
    folder = Folder(run)
    vectors, took = folder._weights.vectors, []
    table = vectors.users.copy()
    for user in users.tolist() if folded else []:
        own = split.train.row(user)
        began = time.perf_counter()
        table[user] = folder.solve(own, ids="contiguous").vector
        took.append(1e3 * (time.perf_counter() - began))
    chosen = np.isin(np.arange(split.n_users), users)
    rows = chosen[split.test.users]
    given, test = Given(table, vectors.items, vectors.bias), split.test.keep(rows)
    frozen = candidates_for(split, "test").only(rows)
    full = grouped(full_ranks(given, (split.train, split.validation), test), test.users, (10,))
    near = single(frozen.ranks(given), test.users, (10,))
    return [full["HR@10"], full["NDCG@10"], near["HR@10"], near["NDCG@10"]], took


def main() -> None:
    """Run it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data")
    parser.add_argument("--model", default="gmf")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--runs", type=Path, help="keep the two runs here, and use those that are there")
    args = parser.parse_args()
    split = fastrec.leave_one_out(fastrec.load(args.data), validation=0.1, seed=Config().split.split_seed)
    new = np.arange(split.n_users) % EVERY == OFFSET
    users = np.flatnonzero(new & (split.test.degrees > 0))
    with tempfile.TemporaryDirectory() as temporary:
        root, runs = args.runs or Path(temporary), {}
        for name, part in (("all", split), ("less", keep(split, ~new, "leave-one-out, users left out"))):
            path = root / f"{args.model}-{name}"
            if not path.exists():
                fastrec.train(part, model=args.model, epochs=args.epochs, out=str(path), progress=False)
            runs[name] = open_run(path)
        cases = (
            ("trained with everyone", "all", False),
            ("the same users folded into that run again", "all", True),
            ("folded into a run that never saw them", "less", True),
        )
        print(f"{args.data}, {args.model}: {users.size} users with a test item\n")
        print("| users | HR@10 full | NDCG@10 full | HR@10 of 99 | NDCG@10 of 99 | ms per user |")
        print("|---|---|---|---|---|---|")
        for what, name, folded in cases:
            found, took = figures(runs[name], split, users, folded)
            speed = f"{statistics.median(took):.1f}" if took else ""
            print(f"| {what} | {' | '.join(f'{value:.4f}' for value in found)} | {speed} |", flush=True)


if __name__ == "__main__":
    main()
