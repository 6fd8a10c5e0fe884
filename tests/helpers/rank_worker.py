"""One rank of tests/training/test_torchrun.py: a run by the command line, then one whose rank 1 dies; or a resume."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from fastrec.cli.main import main
from fastrec.engines.minibatch.engine import TorchEngine


def arguments(folder: Path, out: str) -> list[str]:
    """A run of two epochs with a checkpoint after each."""
    options = (
        "--model mf --optimizer row-adagrad --epochs 2 --batch-size 32 --dim 4 --candidates 9 --lr 0.05 --threads 1"
    )
    flags = "--patience 1 --no-tensorboard --no-progress --no-baselines --device cpu"
    return ["train", "--data", str(folder / "log.csv"), "--out", str(folder / out), *options.split(), *flags.split()]


def dies_in_the_second_epoch() -> None:
    advance = TorchEngine.advance

    def killed(self: TorchEngine, cursor: Any, n_steps: int) -> Any:
        if cursor.epoch == 1:
            os.kill(os.getpid(), signal.SIGKILL)
        return advance(self, cursor, n_steps)

    TorchEngine.advance = killed  # type: ignore[method-assign]


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    if resumed := sys.argv[2:]:
        sys.exit(main(["train", "--resume", str(folder / resumed[0]), "--no-progress"]))
    assert main(arguments(folder, "complete")) == 0
    if os.environ["RANK"] == "1":
        dies_in_the_second_epoch()
    sys.exit(main(arguments(folder, "killed")))
