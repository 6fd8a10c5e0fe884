"""What a checkout adds to the bench: more cases, and baselines and harder inputs for two cases of the package."""

from __future__ import annotations

from fastrec.bench.cases import Case

CASES = tuple(
    Case(name, title, f"benchmarks.cases.{function}", when)
    for name, title, function, when in (
        ("stream", "batches on the host in shuffled order, nothing overlapped", "stream:stream", "default"),
        ("fused", "the fused engine end to end, MF and GMF, both modes", "fused:fused", "default"),
        ("evaluation", "ranking the test items", "rank:evaluation", "default"),
        ("recommend_all", "lists of every user, to a file", "use:recommend_all", "default"),
        ("checkpoint", "a checkpoint written, synced, read and verified", "rank:checkpoint", "default"),
        ("memory", "peak memory of a training run in its own process", "rank:memory", "default"),
        ("time_to_quality", "training time to a target on validation", "quality:time_to_quality", "asked"),
        ("default_run", "`fastrec train` with its defaults, and its test accuracy", "quality:default_run", "asked"),
        ("gpu", "large batches on a CUDA device, GMF and NVIDIA's NeuMF", "gpu:gpu", "asked"),
        ("scaling", "cost against size, one axis at a time", "scale:scaling", "asked"),
        ("hundred_million", "100 M positives from file to trained model", "big:hundred_million", "asked"),
    )
)

EXTENSIONS = {"sampler": "benchmarks.cases.sampler:extend", "end_to_end": "benchmarks.cases.train:extend"}
"""Functions that add entries to a case of the package: ``extend(context, bench)``."""
