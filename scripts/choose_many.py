#!/usr/bin/env python3
"""Score recipes for many negatives by full ranking on a validation part of a given split; the test part is not read.

A tenth of each user's training interactions, drawn by address, is held out and ranked among all items without an
interaction of the user. Settings are lists, and every combination is trained:

    FASTREC_DATA=FOLDER python scripts/choose_many.py gowalla margin=.6,.7 negative_weight=100,150 negatives=256

With ``--test`` one recipe is trained on the complete train part and scored on the test part: once, at the end.

    FASTREC_DATA=FOLDER python scripts/choose_many.py gowalla --test --seeds 3
"""

from __future__ import annotations

import argparse
import itertools
import math
import statistics
import sys
import time
from typing import Any

from fastrec.batches.stream import Stream
from fastrec.data.loading import load_split
from fastrec.data.split import Split, add_validation
from fastrec.engines.fused.losses.spec import SIMILARITIES, Loss
from fastrec.engines.fused.many_engine import ManyEngine
from fastrec.errors import FastrecError
from fastrec.evaluation.full_ranking import evaluate_full
from fastrec.models import build
from fastrec.models.parts.cosine import CosineMF
from fastrec.optim.schedules import learning_rate
from fastrec.sampling import NegativeSampler
from fastrec.sampling.order import Cursor

RECIPE: dict[str, Any] = {
    "loss": "ccl",
    "margin": 0.8,
    "negative_weight": 150.0,
    "temperature": 0.1,
    "calibration": 0.75,
    "dim": 64,
    "negatives": 256,
    "epochs": 30,
    "batch_size": 32768,
    "lr": 0.3,
    "init_std": 0.1,
    "optimizer": "row-adagrad",
    "mode": "lock_free",
    "l2": 0.0,
    "history_weight": 3.0,
    "scored_history_weight": 7.0,
}
"""The recipe of preset gowalla, chosen by this script: benchmarks/many_negatives.md."""
_LOSS = ("margin", "negative_weight", "temperature", "calibration")


def settings_of(words: list[str]) -> list[dict[str, Any]]:
    """Every combination of ``key=value[,value...]`` over the recipe's keys."""
    choices = {key: [value] for key, value in RECIPE.items()}
    for word in words:
        key, _, text = word.partition("=")
        if key not in RECIPE:
            sys.exit(f"{word}: unknown setting; there are {', '.join(RECIPE)}")
        choices[key] = [type(RECIPE[key])(value) for value in text.split(",")]
    return [dict(zip(choices, chosen)) for chosen in itertools.product(*choices.values())]


def train(split: Split, recipe: dict[str, Any], seed: int, threads: int | None, shown: tuple[int, ...]) -> Any:
    """Train one recipe; returns its model and the seconds of training, and prints scores after the ``shown`` epochs."""
    loss = Loss(recipe["loss"], **{key: recipe[key] for key in _LOSS})
    train_part = split.train
    sampler = NegativeSampler(
        train_part.indptr, train_part.items, n_items=split.n_items, n_negatives=recipe["negatives"], seed=seed
    )
    stream = Stream(train_part.indptr, train_part.items, sampler, seed=seed)
    sizes: dict[str, Any] = {"n_users": split.n_users, "n_items": split.n_items, "dim": recipe["dim"], "seed": seed}
    cosine = "cosine" in SIMILARITIES[loss.name]
    if cosine:
        weights = {key: recipe[key] for key in ("history_weight", "scored_history_weight")}
        past = (train_part.indptr, train_part.items) if any(weights.values()) else None
        model: Any = CosineMF(**sizes, init_std=recipe["init_std"], history=past, **weights)
    else:
        model = build("mf", **sizes, init_std=recipe["init_std"])
    total = recipe["epochs"] * math.ceil(stream.n_positives / recipe["batch_size"])
    engine = ManyEngine(
        model,
        stream,
        batch_size=recipe["batch_size"],
        lr=lambda step: learning_rate(step, lr=recipe["lr"], schedule="linear", total=total),
        loss=loss,
        mode=recipe["mode"],
        optimizer=recipe["optimizer"],
        l2=recipe["l2"],
        threads=threads,
    )
    seconds = 0.0
    for epoch in range(recipe["epochs"]):
        began = time.perf_counter()
        done = engine.advance(Cursor(epoch, 0), total)
        seconds += time.perf_counter() - began
        if epoch + 1 in shown:
            recall, ndcg = scores(model, split, split.validation, threads)
            loss_now = done.loss_sum / done.n_samples
            print(f"  epoch {epoch + 1}: loss {loss_now:.4f}, {recall:.4f} / {ndcg:.4f}", flush=True)
    return model, seconds


def scores(model: Any, split: Split, part: Any, threads: int | None) -> tuple[float, float]:
    """Recall@20 and NDCG@20 by full ranking."""
    seen = [split.train] if part is split.validation else [split.train, split.validation]
    metrics = evaluate_full(model, seen, part, (20,), threads=threads)
    return metrics["Recall@20"], metrics["NDCG@20"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="a data set with a split of its own, such as gowalla")
    parser.add_argument("settings", nargs="*", metavar="key=value[,value]", help=f"over {', '.join(RECIPE)}")
    parser.add_argument("--seeds", type=int, default=1, help="seeds 0, 1, ... of each recipe")
    parser.add_argument("--threads", type=int, help="CPU threads")
    parser.add_argument("--shown", default="", metavar="EPOCHS", help="epochs after which to print scores, as 10,20")
    parser.add_argument("--test", action="store_true", help="train on all of train and score the test part")
    args = parser.parse_intermixed_args()
    try:
        split = load_split(args.data)
        recipes = settings_of(args.settings)
        if args.test and len(recipes) > 1:
            sys.exit("--test takes one recipe: choose among several on the validation part")
        if not args.test:
            split = add_validation(split)
        shown = tuple(int(word) for word in args.shown.split(",") if word)
        print("| recipe | Recall@20 | NDCG@20 | training s |\n|---|---|---|---|", flush=True)
        for recipe in recipes:
            found = []
            for seed in range(args.seeds):
                model, seconds = train(split, recipe, seed, args.threads, () if args.test else shown)
                part = split.test if args.test else split.validation
                found.append((*scores(model, split, part, args.threads), seconds))
            recall, ndcg, seconds = (statistics.mean(values) for values in zip(*found))
            changed = " ".join(f"{k}={v}" for k, v in recipe.items() if v != RECIPE[k]) or "as it is"
            each = "; ".join(f"{r:.4f} / {n:.4f}" for r, n, _ in found)
            print(f"| {changed} | {recall:.4f} | {ndcg:.4f} | {seconds:.0f} | {each}", flush=True)
    except FastrecError as error:
        sys.exit(f"{error}")


if __name__ == "__main__":
    main()
