"""MovieLens-1M cut by time: a run of the first 90 %, updated with the rest, next to training from scratch on all of it.

Every row is scored on the same split: that of the updated run, whose test part is each user's last interaction, less
what the first run trained on. Lengths and learning rates of the updates are chosen on the validation part; only the
chosen ones show their test part.

    python scripts/update_ml1m.py --preset ncf-mf-fast --out /tmp/update
"""

from __future__ import annotations

import argparse
import itertools
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

import fastrec
from fastrec.evaluation.score import score_split
from fastrec.evaluation.selection import Selection
from fastrec.runs import environment
from fastrec.terminal import table
from fastrec.training.build import make_model
from fastrec.training.fit import make_validator, recorded_config, resume
from fastrec.training.start import Start

QUIET: dict[str, Any] = {"progress": False, "tensorboard": False}
SELECTED: dict[str, Any] = {"validation": 0.1, "patience": 5}
"""What the recipe of a preset, which trains a fixed number of epochs, is given to be chosen on a validation part."""
COLUMNS = (
    ("full ranking", "HR@10"),
    ("full ranking", "NDCG@10"),
    ("99 candidates", "HR@10"),
    ("99 candidates", "NDCG@10"),
)


def cut_by_time(data: fastrec.Interactions, fraction: float) -> tuple[fastrec.Interactions, fastrec.Interactions]:
    """The first ``fraction`` of the interactions in time, and the rest; those of one instant stay together."""
    assert data.timestamps is not None
    at = np.sort(data.timestamps)[int(fraction * data.n_interactions)]
    early = data.timestamps < at
    return data.keep(early).reindex("time"), data.keep(~early).reindex("time")


def once(path: Path, work: Any) -> Any:
    """The result of a run folder: of ``work(out=path)`` where there is none yet, so that a cut comparison goes on."""
    if path.exists():
        return resume(path)
    return work(out=str(path), **QUIET)


def row(name: str, result: Any, *, shown: bool = True) -> tuple[str, ...]:
    """One line of the table."""
    scores = [f"{result.metrics[p][m]:.4f}" if shown else "" for p, m in COLUMNS]
    return (name, str(result.epochs_done), f"{result.seconds:.1f}", f"{result.best_validation:.4f}", *scores)


def untouched(parent: Any, split: fastrec.Split) -> tuple[str, ...]:
    """The first run as it is on the new split: newcomers have initial weights."""
    config = recorded_config(parent)
    model = make_model(split, config)
    Start(weights=parent.model().state_dict()).fill(model)
    validator = make_validator(split, config, model)
    assert validator is not None
    assert config.evaluation.select is not None
    metrics = score_split(model, split, cutoffs=(10,), n_candidates=99)
    value = validator(model)[str(Selection.parse(config.evaluation.select))]
    return ("first 90 %, not updated", "0", "", f"{value:.4f}", *(f"{metrics[p][m]:.4f}" for p, m in COLUMNS))


def main() -> None:
    """Train, update, train from scratch, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="ml-1m")
    parser.add_argument("--preset", default="ncf-mf-fast")
    parser.add_argument("--out", type=Path, required=True, help="folder of the runs; one that is there goes on")
    parser.add_argument("--epochs", type=int, nargs="+", default=[2, 5])
    parser.add_argument("--lr-factors", type=float, nargs="+", default=[1.0, 0.3], help="of the first run's lr")
    args = parser.parse_args()

    data = fastrec.load(args.data)
    old, late = cut_by_time(data, 0.9)
    size = f"{old.n_interactions:,} + {late.n_interactions:,} interactions"
    here = environment()
    where = f"{here['processor']}, {here['usable_processors']} threads, commit {str(here['commit'])[:12]}"
    print(f"{args.data} cut by time: {size}; preset {args.preset}; {where}")
    parent = once(args.out / "first", partial(fastrec.train, old, preset=args.preset, **SELECTED))
    print(f"first run: {parent.epochs_done} epochs in {parent.seconds:.1f} s\n", flush=True)
    lr = recorded_config(parent.run).optim.lr
    assert lr is not None

    rows, chosen = [], {}
    for positives, epochs, factor in itertools.product(("all", "new"), args.epochs, args.lr_factors):
        name = f"update, {positives} positives, {epochs} epochs, lr {factor * lr:g}"
        options: dict[str, Any] = {"epochs": epochs, "lr": factor * lr, "positives": positives}
        out = args.out / f"{positives}-{epochs}-{factor:g}"
        result = once(out, partial(fastrec.update, parent.run, late, **options))
        rows.append(row(name, result, shown=False))
        if positives not in chosen or result.best_validation > chosen[positives][1].best_validation:
            chosen[positives] = (name, result)
    header = ("run", "epochs", "training s", "validation", *(f"{m} {p}" for p, m in COLUMNS))
    print(table([header[:4], *(r[:4] for r in rows)]), "\n", sep="")

    split = chosen["all"][1].run.split()
    whole = partial(fastrec.train, split, preset=args.preset, patience=SELECTED["patience"])
    scratch = once(args.out / "scratch", whole)
    best = [row(*chosen[positives]) for positives in ("all", "new")]
    print(table([header, untouched(parent.run, split), *best, row("from scratch on 100 %", scratch)]))
    print(f"\nsplit: {'; '.join(split.train.notes)}")


if __name__ == "__main__":
    main()
