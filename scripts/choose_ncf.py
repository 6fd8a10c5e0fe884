#!/usr/bin/env python3
"""Score recipes on a validation part of the NCF benchmark's train rows: presets are chosen by it, never by the test.

Each user's last training interaction is held out and ranked against 99 drawn candidates; the test part is not read.
Scores are about .02 above the published test's. One row per recipe, with the best epoch next to the last. A preset that
starts from others (ncf-neumf-64-pretrained) gets them trained on the same part of train; lr=0 scores the start itself.

    FASTREC_DATA=FOLDER python scripts/choose_ncf.py ncf-mf l2=.054,.063 lr=.03 --seeds 2 --threads 1

On a machine without the data or Polars, start from the same part as a file; device and precision are settings too:

    FASTREC_DATA=FOLDER python scripts/choose_ncf.py ncf-mlp-64 --save-split part.safetensors
    python scripts/choose_ncf.py ncf-mlp-64 lr=.001,.002 device=cuda precision=fp32 --split part.safetensors
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from reproduce_ncf import ROWS

from fastrec.config import Config, preset, presets
from fastrec.data.loading import load_split
from fastrec.data.split import Split, leave_one_out
from fastrec.errors import DataError, FastrecError
from fastrec.runs import fingerprints, open_split, save_split
from fastrec.training.fit import fit

SELECT = "candidates:NDCG@10"
"""The published protocol of this benchmark."""


def validation_split(name: str) -> Split:
    """Train rows of a given split, each user's last one as validation, and no test part."""
    last_out = leave_one_out(load_split(name).train, validation=0.0)
    return replace(last_out, validation=last_out.test, test=last_out.validation)


def saved_validation_split(path: str) -> Split:
    """What ``--save-split`` wrote; a file with a test part is refused, for no recipe may be chosen by one."""
    split = open_split(path)
    if split.test.n_interactions or not split.validation.n_interactions:
        raise DataError(
            f"{path}: has {split.validation.n_interactions:,} validation and {split.test.n_interactions:,} test "
            "positives, but recipes are chosen on a validation part without a test; make the file with --save-split"
        )
    return split


def recipes(settings: list[str]) -> list[dict[str, Any]]:
    """Every combination of ``key=value[,value...]``; a list such as layers is written [256;128;64]."""
    keys, values = [], []
    for setting in settings:
        key, _, text = setting.partition("=")
        keys.append(key.replace("-", "_"))
        values.append([_value(word) for word in text.split(",")])
    return [dict(zip(keys, chosen)) for chosen in itertools.product(*values)]


def _value(word: str) -> Any:
    try:
        return tomllib.loads(f"x = {word.replace(';', ',')}")["x"]
    except tomllib.TOMLDecodeError:
        return float(word) if word.startswith(".") else word


def score(split: Split, config: Config) -> tuple[list[dict[str, float]], float]:
    """Validation metrics after each epoch, and seconds of training, validation included."""
    with tempfile.TemporaryDirectory(prefix="fastrec-choose-") as folder:
        result = fit(split, config, out=Path(folder) / "run")
        lines = (result.run.path / "metrics.jsonl").read_text().splitlines()
    rows = [json.loads(line) for line in lines]
    return [row for row in rows if row["kind"] == "epoch"], result.seconds


def parts(split: Split, name: str, folder: Path, **options: Any) -> dict[str, str]:
    """Options that name the runs a preset starts from, trained here unless an earlier call left them."""
    found = {}
    for option, other in ROWS[name].needs if name in ROWS else ():
        out = folder / other
        if not out.exists():
            fit(split, preset(other).override(progress=False, tensorboard=False, **options), out=out)
        found[option.replace("-", "_")] = str(out)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("preset", choices=presets(), help="the recipe to start from")
    parser.add_argument("settings", nargs="*", metavar="key=value[,value]", help="options of fastrec train to vary")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each recipe")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--epochs-shown", action="store_true", help="print each epoch of each run")
    parser.add_argument(
        "--parts", default="runs/parts", metavar="FOLDER", help="where runs to start from are left, or found"
    )
    files = parser.add_mutually_exclusive_group()
    files.add_argument("--save-split", metavar="FILE", help="write the validation part and end")
    files.add_argument("--split", metavar="FILE", help="the validation part, from such a file")
    args = parser.parse_intermixed_args()  # settings may follow options too
    try:
        base = preset(args.preset).override(select=SELECT, progress=False, tensorboard=False, threads=args.threads)
        split = saved_validation_split(args.split) if args.split else validation_split(base.data.data)
        about = f"validation part of {base.data.data}, {fingerprints(split)['split'][:12]}"
        if args.save_split:
            save_split(args.save_split, split)
            print(f"{args.save_split}: {about}")
            return
        base = base.override(**parts(split, args.preset, Path(args.parts), threads=args.threads))
        print(f"# {args.preset}, {about}\n| recipe | HR@10 | NDCG@10 | best epoch | s |")
        print("|---|---|---|---|---|", flush=True)
        for recipe in recipes(args.settings):
            runs = []
            for seed in range(args.seeds):
                epochs, seconds = score(split, base.override(**recipe, seed=seed))
                best = max(epochs, key=lambda row: row[f"val {SELECT}"])
                runs.append((epochs[-1], best, seconds))
                if args.epochs_shown:
                    for row in epochs:
                        hr, ndcg = (row[f"val candidates:{name}@10"] for name in ("HR", "NDCG"))
                        print(
                            f"  seed {seed} epoch {row['epoch']}: {hr:.4f} / {ndcg:.4f}",
                            flush=True,
                        )
            hr, ndcg = (
                statistics.mean(last[name] for last, _, _ in runs)
                for name in ("val candidates:HR@10", "val candidates:NDCG@10")
            )
            best = max((best for _, best, _ in runs), key=lambda row: row[f"val {SELECT}"])
            text = " ".join(f"{k}={v}" for k, v in recipe.items()) or "as it is"
            at_best = f"{best['epoch']}: {best['val candidates:HR@10']:.4f} / {best['val candidates:NDCG@10']:.4f}"
            seconds = statistics.mean(s for _, _, s in runs)
            print(f"| {text} | {hr:.4f} | {ndcg:.4f} | {at_best} | {seconds:.0f} |", flush=True)
    except FastrecError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
