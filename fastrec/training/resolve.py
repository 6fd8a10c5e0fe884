"""What the options left at "auto" stand for on this machine, and what the fused engine takes."""

from __future__ import annotations

from typing import Any

from fastrec.config import Config

GMF_WEIGHTS = {"init_h": "one", "lr_h": 0.1, "l2": 3e-3, "l2_h": 2e-4}
"""What a GMF of the torch engine has where nothing else is asked: with L2 on h like on the rows, Adam brings h to zero
before rows that few samples touch have grown, and every score is tied (Gowalla at l2 = 5e-4)."""
OTHER_WEIGHTS = {"init_h": "lecun", "lr_h": 1.0, "l2": 3e-4}

FUSED_FITS = (("mf", "bce"), ("mf", "bpr"), ("gmf", "bce"))
"""(model, loss) pairs of the fused engine."""
FUSED_OPTIMIZERS = {"cpu": ("sgd", "row-adagrad", "lazy-adam"), "cuda": ("sgd", "row-adagrad")}
FUSED_NEEDS: dict[str, tuple[Any, ...]] = {"accumulate": (1,), "hard_negatives": (0,), "compile": (False,)}
FUSED_NEEDS_ON: dict[str, dict[str, tuple[Any, ...]]] = {
    "cpu": {"precision": ("fp32",)},
    "cuda": {"precision": ("fp32", "bf16"), "fused_mode": ("deterministic",)},
}


def resolve(config: Config) -> Config:
    """Replace every "auto" but the split's by what it stands for here; resolving twice changes nothing.

    Raises
    ------
    ConfigError
        If the device does not exist on this machine.
    """
    from fastrec.batches.device import check_device

    device = check_device(config.device)
    engine = config.engine
    if engine == "auto":
        kind = device.split(":")[0]
        fits = (config.model, config.loss) in FUSED_FITS and config.optimizer in FUSED_OPTIMIZERS.get(kind, ())
        engine = "fused" if fits else "torch"
    precision = config.precision
    if precision == "auto":  # bf16 keeps a float32 master in the torch engine, and none in the fused one
        precision = "bf16" if device.startswith("cuda") and engine == "torch" else "fp32"
    config = config.override(device=device, precision=precision, engine=engine)
    by_rows = config.model == "gmf" and engine == "torch" and config.init_h != "lecun"
    given: dict[str, Any] = {k: v for k in ("l2", "l2_h", "lr_h") if (v := getattr(config, k)) is not None}
    given |= {} if config.init_h == "auto" else {"init_h": config.init_h}
    weights = GMF_WEIGHTS if by_rows else OTHER_WEIGHTS
    unused = {"l2_h"} if config.optimizer == "adamw" else set()  # it decays every weight alike
    return config.override(**{k: v for k, v in weights.items() if k not in unused} | given)
