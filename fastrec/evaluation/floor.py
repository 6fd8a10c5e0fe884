"""What a model must beat: popularity, scored by the protocols of the closing table."""

from __future__ import annotations

from typing import Any

from fastrec.data.split import Split
from fastrec.evaluation import baselines
from fastrec.evaluation.score import UNTRAINED, score_split

Scores = dict[str, dict[str, Any]]
"""Metrics by protocol, as ``score_split`` returns them."""


def popularity_scores(split: Split, **options: Any) -> Scores:
    """Metrics of popularity on the test part; ``options`` are those of ``score_split``."""
    threads = options.get("threads")
    scores = score_split(baselines.get("popularity").fit(split.train, threads), split, **options)
    return {
        protocol: {name: value for name, value in values.items() if "@" in name}
        for protocol, values in scores.items()
        if UNTRAINED not in protocol
    }


def below(scores: Scores, floor: Scores) -> list[str]:
    """A note for each protocol in which a model is not above popularity in both HR and NDCG.

    Parameters
    ----------
    scores, floor : dict
        Metrics by protocol of the model, and of popularity.
    """
    notes = []
    for protocol, least in floor.items():
        cutoffs = sorted(int(name[3:]) for name in least if name.startswith("HR@"))
        if not cutoffs or protocol not in scores:  # no test user is in train
            continue
        k = 10 if 10 in cutoffs else cutoffs[-1]
        pairs = [(name, scores[protocol][name], least[name]) for name in (f"HR@{k}", f"NDCG@{k}")]
        if any(mine <= other for _, mine, other in pairs):
            texts = ", ".join(f"{name} {mine:.4f} against {other:.4f}" for name, mine, other in pairs)
            notes.append(f"not above popularity by {protocol}: {texts}; train longer, or tune lr and l2")
    return notes
