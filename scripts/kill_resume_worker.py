"""Trains into a folder, or resumes what is there, and prints why it stopped; ``kill_resume.py`` starts and kills it.

python scripts/kill_resume_worker.py FOLDER MODEL ENGINE
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from fastrec.config import Config
from fastrec.data.interactions import Interactions
from fastrec.data.split import ratio_split
from fastrec.training.fit import fit, resume


def log() -> Interactions:
    """2,000 users with 5 to 59 of 1,500 items each."""
    rng = np.random.default_rng(0)
    rows = [np.sort(rng.choice(1500, int(rng.integers(5, 60)), replace=False)) for _ in range(2000)]
    indptr = np.concatenate(([0], np.cumsum([len(r) for r in rows]))).astype(np.int64)
    return Interactions(indptr, np.concatenate(rows).astype(np.int32), np.arange(2000), np.arange(1500), name="kill")


def config(model: str, engine: str) -> Config:
    """12 epochs with a checkpoint every 10 steps."""
    made = Config(
        model=model,
        dim=16,
        epochs=12,
        batch_size=512,
        checkpoint_every=10,
        patience=3,
        lr=0.01,
        tensorboard=True,
        progress=False,
        dropout=0.2 if model in ("mlp", "neumf") else 0.0,
    )
    return made.override(engine=engine, optimizer="row-adagrad", lr=0.1) if engine == "fused" else made


def main() -> None:
    """Train or resume."""
    folder, model, engine = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
    if (folder / "manifest.json").exists():
        result = resume(folder, progress=False)
    else:
        result = fit(ratio_split(log()), config(model, engine), out=folder)
    print(result.stopped)


if __name__ == "__main__":
    main()
