"""Record what ranx computes on random lists with ties: run it in an environment with ranx and commit the file.

    pip install ranx && python scripts/record_ranx.py tests/golden/ranx.json

ranx leaves the order of tied scores open, so a positive is put below the others that tie with it, as fastrec ranks.
"""

from __future__ import annotations

import json
import sys
from importlib.metadata import version

import numpy as np
from ranx import Qrels, Run, evaluate

N_USERS, N_ITEMS, CUTOFFS = 30, 25, (1, 3, 10, 20)
NAMES = {"HR": "hit_rate", "NDCG": "ndcg", "MRR": "mrr", "Recall": "recall", "Precision": "precision", "MAP": "map"}


def main(path: str) -> None:
    """Write scores, positives, and the figures of each user."""
    rng = np.random.default_rng(11)
    scores = rng.integers(0, 6, (N_USERS, N_ITEMS))
    positives = [sorted(rng.choice(N_ITEMS, int(rng.integers(1, 7)), replace=False).tolist()) for _ in range(N_USERS)]
    qrels = Qrels({f"u{u}": {f"i{i}": 1 for i in own} for u, own in enumerate(positives)})
    run = Run(
        {
            f"u{u}": {f"i{i}": float(2 * scores[u, i] + (i not in positives[u])) for i in range(N_ITEMS)}
            for u in range(N_USERS)
        }
    )
    wanted = [f"{name}@{k}" for name in NAMES.values() for k in CUTOFFS]
    evaluate(qrels, run, wanted)
    found = {
        f"{ours}@{k}": [float(run.scores[f"{theirs}@{k}"][f"u{u}"]) for u in range(N_USERS)]
        for ours, theirs in NAMES.items()
        for k in CUTOFFS
    }
    made = {"ranx": version("ranx"), "scores": scores.tolist(), "positives": positives, "figures": found}
    with open(path, "w") as file:
        json.dump(made, file)
        file.write("\n")


if __name__ == "__main__":
    main(sys.argv[1])
