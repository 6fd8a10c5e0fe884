"""Defaults of the options that depend on others: one table of rules, each a condition and what it sets.

Rules apply in order and later ones win; a value that was given is never replaced. Each combination of model, loss,
optimiser, engine and mode learns with them: ``benchmarks/learn.md`` records it, next to popularity.
"""

from __future__ import annotations

from typing import Any

When = dict[str, str | tuple[str, ...]]

RULES: list[tuple[When, dict[str, Any]]] = [
    ({}, {"lr": 2e-3, "init_std": 0.01, "init_h": "lecun", "lr_h": 1.0, "l2": 1.5e-3}),
    # With L2 on h as on the rows, Adam brings h to zero before rows that few samples use have grown (Gowalla at .0025).
    ({"model": "gmf", "engine": "torch"}, {"init_h": "one"}),
    ({"model": "gmf", "engine": "torch", "init_h": "one"}, {"lr_h": 0.1, "l2": 0.015, "l2_h": 1e-3}),
    ({"optimizer": "sgd"}, {"lr": 0.05, "init_std": 0.1, "init_h": "one"}),
    ({"optimizer": ("adagrad", "row-adagrad")}, {"lr": 0.05, "init_std": 0.1, "init_h": "one"}),
    ({"optimizer": "adamw"}, {"weight_decay": 0.1, "l2": None, "l2_h": None}),
]
UNSET = (None, "auto")


def fill(given: dict[str, Any]) -> dict[str, Any]:
    """The options that ``RULES`` set for a config, less those that it gives itself.

    Parameters
    ----------
    given : dict
        Options by name, device and engine resolved; None or "auto" is not given.
    """
    known = {name: value for name, value in given.items() if value not in UNSET}
    found: dict[str, Any] = {}
    for when, values in RULES:
        now = {**found, **known}
        if all(now.get(k) in (v if isinstance(v, tuple) else (v,)) for k, v in when.items()):
            found |= {name: value for name, value in values.items() if name not in known}
    if known.get("model") not in ("gmf", "neumf"):  # the others have no h
        found["init_h"] = "lecun"
    return found
